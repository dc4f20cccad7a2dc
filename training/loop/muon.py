"""Muon: steps of equal size in every direction for weight matrices, Adam for the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

ADAM_SHARE = 0.04
"""Adam's learning rate over Muon's: a step of Muon is measured by the whole matrix, one of Adam by
each number."""
_MOMENTUM = 0.95
_ROUNDS = 5
_A, _B, _C = 3.4445, -4.7750, 2.0315
"""Of Jordan 2024, chosen for speed: singular values end between about 0.7 and 1.2."""
_TINY = 1e-7
_COLORS = 3  # most channels of an image


class Muon(torch.optim.Adam):
    """Momentum whose every direction is made equally strong, for matrices; Adam for the rest.

    Source: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks", and
    Bernstein & Newhouse 2024, "Old optimizer, new norm". A convolution counts as the matrix of its
    output channels by all the rest. `torch.optim.Muon` takes matrices alone, and iterates on the
    whole of them: here it is done on the small square of a matrix and its transpose, which for the
    heads of this model (128 x 32768) is some hundred times less work.

    Adam takes vectors, and convolutions from or to an image (`is_matrix` says which), with
    `ADAM_SHARE` of the learning rate.

    Each step first multiplies matrices by 1 - lr * `weight_decay` (decoupled: Loshchilov & Hutter
    2019, "Decoupled weight decay regularization"), and nothing of what Adam takes.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float = 0.02,
        weight_decay: float = 0.0,
        **adam: Any,
    ) -> None:
        every = list(parameters)
        groups: list[dict[str, Any]] = [
            {"params": [one for one in every if is_matrix(one)], "weight_decay": weight_decay},
            {"params": [one for one in every if not is_matrix(one)]},
        ]
        super().__init__(groups, lr=lr, **adam)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Make one step; `closure`, where it is given, computes the gradients and the loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        matrices, others = self.param_groups
        kept = [(one, one.grad) for one in matrices["params"] if one.grad is not None]
        for one, _ in kept:
            one.grad = None  # Adam passes it over
        rate = others["lr"]
        others["lr"] = rate * ADAM_SHARE
        super().step()
        others["lr"] = rate
        for one, gradient in kept:
            one.grad = gradient
            state = self.state[one]
            if not state:  # `step` is what Adam looks for when a state is loaded
                state["step"], state["momentum"] = torch.tensor(0.0), torch.zeros_like(gradient)
            state["step"] += 1
            state["momentum"].mul_(_MOMENTUM).add_(gradient)
            ahead = gradient.add(state["momentum"], alpha=_MOMENTUM)  # Nesterov's
            direction = orthogonalised(ahead.reshape(len(ahead), -1))
            rows, columns = direction.shape
            size = matrices["lr"] * max(1.0, rows / columns) ** 0.5
            one.mul_(1 - matrices["lr"] * matrices["weight_decay"])
            one.sub_(direction.reshape(one.shape), alpha=size)
        return loss


def is_matrix(parameter: Tensor) -> bool:
    """Return whether Muon steps this: a matrix, or a convolution that no end of is an image."""
    return parameter.ndim == 2 or (parameter.ndim > 2 and min(parameter.shape[:2]) > _COLORS)


def orthogonalised(matrix: Tensor) -> Tensor:
    """Return a matrix (R, C) float32 with its singular vectors, and values of about 1.

    It is the Newton-Schulz iteration of Jordan 2024, X <- (a + b XX' + c (XX')^2) X, with all its
    factors multiplied up before they meet X: they are polynomials of XX', which commute.
    """
    if len(matrix) > matrix.shape[1]:
        return orthogonalised(matrix.T).T
    square = matrix @ matrix.T
    norm = square.diagonal().sum().sqrt() + _TINY
    square = square / norm.square()
    one = torch.eye(len(square), device=square.device)
    factor = one / norm
    for _ in range(_ROUNDS):
        polynomial = _A * one + _B * square + _C * square @ square
        factor = polynomial @ factor
        square = polynomial @ square @ polynomial
    return factor @ matrix
