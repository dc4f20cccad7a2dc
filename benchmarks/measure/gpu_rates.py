"""How fast the GPU multiplies and reads, by torch: a process that gives all its memory back."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from ...runtime.core.documents import save_document
from .case import samples_of, warnings_of
from .result import GpuRates, Rate

SAMPLES, CALLS, WARMUP = 20, 5, 5
"""Timed samples of each rate, calls in one sample, and calls before."""
AGAIN_CALLS = 20
"""Of the small read in one sample: a graph starts them, so that no launch by the host is in it."""
MATRIX_SIDE = 4096
LARGE_BYTES = 1 << 29
_HEADROOM = 8
"""One of so many parts of the free memory is taken at most: a Jetson shares it."""
_FLOAT_BYTES = 4


class Stopwatch(Protocol):
    """Times calls on a device."""

    def __call__(self, work: Callable[[], object], calls: int) -> list[int]:
        """Return nanoseconds of one call, in each of `SAMPLES` samples of `calls` calls."""


@dataclass(frozen=True)
class Sizes:
    """How much is multiplied and moved."""

    side: int  # Of the square matrices
    large_bytes: int  # More than a cache holds
    again_bytes: int  # As one run of the encoder moves


def gpu_stopwatch(work: Callable[[], object], calls: int) -> list[int]:
    """Time by the GPU's own events, between which the host only starts work."""
    for _ in range(WARMUP):
        work()
    torch.cuda.synchronize()
    events: list[tuple[Any, Any]] = []
    for _ in range(SAMPLES):
        start, end = (
            torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            for _ in range(2)
        )
        start.record()
        for _ in range(calls):
            work()
        end.record()
        events.append((start, end))
    torch.cuda.synchronize()
    return [max(1, round(start.elapsed_time(end) * 1e6 / calls)) for start, end in events]


def graph_of(work: Callable[[], object], calls: int) -> Callable[[], object]:
    """Return what starts `work` so often as one recorded CUDA graph."""
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARMUP):
            work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(calls):
            work()
    return graph.replay


def rates_on(
    device: str,
    sizes: Sizes,
    stopwatch: Stopwatch,
    repeated: Callable[[Callable[[], object], int], Callable[[], object]],
) -> dict[str, Any]:
    """Measure on a device of torch's; return the rates among the fields of `GpuRates`."""
    side, count = sizes.side, sizes.large_bytes // _FLOAT_BYTES
    matrix = {
        "fp32": _rate(2 * side**3, stopwatch(_product(device, side, torch.float32), CALLS)),
        "fp16": _rate(2 * side**3, stopwatch(_product(device, side, torch.float16), CALLS)),
    }
    source = torch.ones(count, device=device)
    target, total = torch.empty_like(source), torch.empty((), device=device)
    copy = stopwatch(lambda: target.copy_(source), CALLS)
    read = stopwatch(lambda: torch.sum(source, 0, out=total), CALLS)
    small = source[: max(1, sizes.again_bytes // _FLOAT_BYTES)]
    again = repeated(lambda: torch.sum(small, 0, out=total), AGAIN_CALLS)
    again_ns = [max(1, round(taken / AGAIN_CALLS)) for taken in stopwatch(again, 1)]
    moved = source.numel() * _FLOAT_BYTES
    return {
        "matrix": matrix,
        "copy_memory": _rate(2 * moved, copy),
        "read_memory": _rate(moved, read),
        "read_again": _rate(small.numel() * _FLOAT_BYTES, again_ns),
    }


def _rate(work: int, samples_ns: Sequence[int]) -> Rate:
    return Rate(work=work, series=samples_of(samples_ns), warnings=warnings_of("run", samples_ns))


def _product(device: str, side: int, dtype: torch.dtype) -> Callable[[], object]:
    left, right = (torch.rand(side, side, device=device).to(dtype) for _ in range(2))
    product = torch.empty_like(left)
    return lambda: torch.mm(left, right, out=product)


def words_of(rates: GpuRates) -> Mapping[str, float]:
    """Return the rates as figures, with the unit at the end of their names."""
    return {
        **{f"{name}_tflop_per_s": one.best_per_s / 1e12 for name, one in rates.matrix.items()},
        "copy_gb_per_s": rates.copy_memory.best_per_s / 1e9,
        "read_gb_per_s": rates.read_memory.best_per_s / 1e9,
        "read_again_gb_per_s": rates.read_again.best_per_s / 1e9,
    }


def main(args: Sequence[str]) -> int:
    """Measure; `args` name the file to write and the bytes that one run of the encoder moves."""
    file, again_bytes = Path(args[0]), int(args[1])
    if not torch.cuda.is_available():
        sys.stderr.write(
            f"torch {torch.__version__} finds no GPU: install a build of torch for CUDA "
            f"{torch.version.cuda or 'of this driver'}\n"
        )
        return 1
    torch.set_float32_matmul_precision("highest")  # without TF32
    free_bytes = int(torch.cuda.mem_get_info()[0])
    large = min(LARGE_BYTES, free_bytes // _HEADROOM)
    sizes = Sizes(MATRIX_SIDE, large, min(again_bytes, large))
    found = rates_on("cuda", sizes, gpu_stopwatch, graph_of)
    rates = GpuRates(device=torch.cuda.get_device_name(0), torch=torch.__version__, **found)
    save_document(file, rates)
    print("; ".join(f"{name} {value:.4g}" for name, value in words_of(rates).items()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
