"""How fast this machine multiplies and copies: the roofline that every engine lives under."""

from __future__ import annotations

import torch

from .measure import Samples, Schedule, interleaved, stopwatch
from .results import Rate, series_of
from .stability import warnings_of

MATRIX_SIDE = 1024
COPY_BYTES = 1 << 27  # 128 MiB: well past the last cache of most machines
_MATRIX, _COPY = "float32 matrix rate", "copy bandwidth"


def measure_machine(samples: int) -> dict[str, Samples]:
    """Time matrix products and copies, in turns, with the threads that torch is set to."""
    left = torch.rand(MATRIX_SIDE, MATRIX_SIDE)
    right, product = torch.rand_like(left), torch.empty_like(left)
    source = torch.ones(COPY_BYTES // 4)
    target = torch.zeros_like(source)
    return interleaved(
        {
            _MATRIX: stopwatch(lambda: torch.mm(left, right, out=product), "run"),
            _COPY: stopwatch(lambda: target.copy_(source), "run"),
        },
        Schedule(samples=samples, warmup=2, settle=1, turn=5),
    )


def rates_of(before: dict[str, Samples], after: dict[str, Samples]) -> tuple[Rate, Rate]:
    """Join what was measured before and after the cases.

    Returns:
        The float32 matrix rate (2 n^3 FLOPs a product), and the copy bandwidth (bytes read
        plus bytes written). Their warnings say where the machine changed on the way.
    """
    rates = []
    for name, work in ((_MATRIX, 2 * MATRIX_SIDE**3), (_COPY, 2 * COPY_BYTES)):
        samples_ns = before[name]["run"] + after[name]["run"]
        rates.append(
            Rate(work=work, series=series_of(samples_ns), warnings=warnings_of("run", samples_ns))
        )
    return rates[0], rates[1]
