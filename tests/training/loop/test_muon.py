from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from motorvae.runtime.core.spec import ModelSpec
from motorvae.training.loop.averaging import set_rate
from motorvae.training.loop.muon import ADAM_SHARE, Muon, is_matrix, orthogonalised
from motorvae.training.model import MotorVAE

RATE = 0.02


@pytest.mark.parametrize("shape", [(8, 40), (40, 8), (32, 32), (2, 300)])
def test_singular_vectors_stay_and_their_values_become_about_one(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    found = orthogonalised(matrix).double().numpy()

    left, values, right = np.linalg.svd(matrix.double().numpy(), full_matrices=False)
    # In the frame of the matrix's own singular vectors the result is diagonal.
    inside = left.T @ found @ right.T
    off = inside - np.diag(np.diag(inside))
    assert np.abs(off).max() < 1e-3
    kept = values > 0.05 * values.max()
    assert ((np.diag(inside)[kept] > 0.5) & (np.diag(inside)[kept] < 1.3)).all()


def test_it_is_what_iterating_on_the_whole_matrix_gives() -> None:
    matrix = torch.randn((6, 50), generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    x = matrix / matrix.norm()
    for _ in range(5):
        square = x @ x.T
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    assert torch.allclose(orthogonalised(matrix.float()).double(), x, atol=1e-4)


def test_heads_and_inner_convolutions_are_matrices_and_the_ends_are_not() -> None:
    model = MotorVAE(ModelSpec(image_size=32, channels=(4, 8), latent_size=2, color="rgb"))
    matrices = {name for name, one in model.named_parameters() if is_matrix(one)}
    assert matrices == {
        "encoder.features.3.weight",
        "encoder.mu.weight",
        "encoder.log_var.weight",
        "decoder.linear.weight",
        "decoder.features.0.weight",
        "decoder.features.3.weight",
    }


def network() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.Flatten(), nn.Linear(8 * 36, 4))


def steps(net: nn.Module, optimizer: torch.optim.Optimizer, count: int) -> list[float]:
    images = torch.randn((4, 1, 8, 8), generator=torch.Generator().manual_seed(4))
    losses = []
    for _ in range(count):
        optimizer.zero_grad()
        loss = net(images).square().sum()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_vectors_and_ends_take_the_steps_of_adam() -> None:
    ours, plain = network(), network()
    Adam = torch.optim.Adam  # noqa: N806  # a class
    steps(ours, Muon(ours.parameters(), lr=RATE), 1)
    steps(plain, Adam(plain.parameters(), lr=RATE * ADAM_SHARE), 1)
    for name in ("0.weight", "0.bias", "2.bias"):
        assert torch.equal(ours.state_dict()[name], plain.state_dict()[name]), name
    assert not torch.equal(ours.state_dict()["2.weight"], plain.state_dict()["2.weight"])


def test_the_first_step_of_a_matrix_has_the_rate_as_its_spectral_norm() -> None:
    net = network()
    before = net[2].weight.detach().clone()
    steps(net, Muon(net.parameters(), lr=RATE), 1)
    values = torch.linalg.svdvals(before - net[2].weight.detach())
    assert 0.6 * RATE < values.max() < 1.3 * RATE


def test_decay_and_steps_are_the_recursion_in_float64() -> None:
    """By the formulas alone, with a rate that moves: no part of ours is used."""
    decay, rates = 3.0, (0.02, 0.1, 0.0, 0.05)
    shapes = {"wide": (6, 4, 3, 3), "tall": (40, 5), "vector": (7,), "end": (8, 1, 3, 3)}
    random = np.random.default_rng(5)
    begin = {name: random.normal(size=shape) for name, shape in shapes.items()}
    weights = {
        name: nn.Parameter(torch.tensor(value, dtype=torch.float32))
        for name, value in begin.items()
    }
    optimizer = Muon(weights.values(), weight_decay=decay)
    wanted = {name: value.copy() for name, value in begin.items()}
    first, second = ({name: np.zeros(shape) for name, shape in shapes.items()} for _ in range(2))
    for step, rate in enumerate(rates, 1):
        set_rate(optimizer, rate)
        for name, one in weights.items():
            gradient = random.normal(size=shapes[name])
            one.grad = torch.tensor(gradient, dtype=torch.float32)
            if name in {"vector", "end"}:
                first[name] = 0.9 * first[name] + 0.1 * gradient
                second[name] = 0.999 * second[name] + 0.001 * gradient**2
                spread = np.sqrt(second[name] / (1 - 0.999**step)) + 1e-8
                wanted[name] -= 0.04 * rate * first[name] / (1 - 0.9**step) / spread
                continue
            first[name] = 0.95 * first[name] + gradient
            x = (gradient + 0.95 * first[name]).reshape(len(gradient), -1)
            rows, columns = x.shape
            x /= np.linalg.norm(x)
            for _ in range(5):
                square = x @ x.T
                x = (3.4445 * np.eye(rows) - 4.7750 * square + 2.0315 * square @ square) @ x
            size = rate * max(1, rows / columns) ** 0.5
            wanted[name] = (1 - rate * decay) * wanted[name] - size * x.reshape(shapes[name])
        optimizer.step()
    for name, one in weights.items():
        np.testing.assert_allclose(one.detach().numpy(), wanted[name], rtol=0, atol=2e-5)


def test_a_restored_state_goes_on_as_if_nothing_had_happened() -> None:
    whole, parted = network(), network()
    losses = steps(whole, Muon(whole.parameters(), lr=RATE), 6)

    first = Muon(parted.parameters(), lr=RATE)
    before = steps(parted, first, 3)
    again = Muon(parted.parameters(), lr=RATE)
    again.load_state_dict(first.state_dict())
    assert before + steps(parted, again, 3) == losses
    assert losses[-1] < losses[0]


def test_a_closure_is_called_once_and_its_loss_returned() -> None:
    net = network()
    optimizer, calls = Muon(net.parameters(), lr=RATE), []

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = net(torch.ones(1, 1, 8, 8)).square().sum()
        loss.backward()
        calls.append(loss.item())
        return loss

    assert optimizer.step(closure).item() == calls[0]
    assert len(calls) == 1
