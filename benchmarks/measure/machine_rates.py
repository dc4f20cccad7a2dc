"""How fast this machine multiplies, reads and copies: the roofline of every engine."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from ...runtime.bundle.graph_key import Precision
from ...training.hardware import cpu_has_bf16
from .result import Rate
from .rounds import Laps, RoundPlan, Timings, interleaved, stopwatch
from .samples import samples_of, warnings_of

MATRIX_SIDE = 2048
MEMORY_BYTES = 1 << 27  # 128 MiB: well past the last cache of most machines
_CPU_INT8 = re.compile(r"\b(avx512_vnni|avx_vnni|amx_int8)\b")
_COPY, _READ = "copy", "read"


@dataclass(frozen=True)
class Rates:
    """What the machine does in a second at best.

    Attributes:
        matrix: Matrix products (2 n^3 operations each) in each precision that it can do.
        copy_memory: Bytes read plus bytes written.
        read_memory: Bytes read.
    """

    matrix: dict[Precision, Rate]
    copy_memory: Rate
    read_memory: Rate


def measure_machine(samples: int, *, settle_ms: float = 0) -> dict[str, Timings]:
    """Time matrix products, reads and copies, in turns, with the threads that torch is set to.

    Products are torch's: `mm` in float32 and in bf16 where the processor has it, and in int8
    `_int_mm`, 8-bit numbers summed in 32 bits, where it has instructions for that; elsewhere torch
    would take minutes.
    """
    subjects: dict[str, Laps] = {"fp32": _product(torch.float32)}
    if cpu_has_bf16():
        subjects["bf16"] = _product(torch.bfloat16)
    if cpu_has_int8():
        subjects["int8"] = _int8_product()
    source = torch.ones(MEMORY_BYTES // 4)
    target = torch.zeros_like(source)
    subjects[_COPY] = stopwatch(lambda: target.copy_(source), "run")
    subjects[_READ] = stopwatch(lambda: torch.max(source), "run")
    schedule = RoundPlan(samples=samples, warmup=2, settle=1, settle_ms=settle_ms, turn=5)
    return interleaved(subjects, schedule)


def rates_of(before: Mapping[str, Timings], after: Mapping[str, Timings]) -> Rates:
    """Join what was measured before and after the cases.

    The warnings of a rate say where the machine changed on the way.
    """

    def rate(name: str, work: int) -> Rate:
        samples_ns = before[name]["run"] + after[name]["run"]
        return Rate(
            work=work, series=samples_of(samples_ns), warnings=warnings_of("run", samples_ns)
        )

    precisions: tuple[Precision, ...] = ("fp32", "bf16", "int8")
    return Rates(
        matrix={name: rate(name, 2 * MATRIX_SIDE**3) for name in precisions if name in before},
        copy_memory=rate(_COPY, 2 * MEMORY_BYTES),
        read_memory=rate(_READ, MEMORY_BYTES),
    )


def cpu_has_int8(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Return whether an x86 processor sums 8-bit products by itself (VNNI or AMX)."""
    try:
        return _CPU_INT8.search(cpuinfo.read_text(encoding="utf-8")) is not None
    except OSError:
        return False


def _product(dtype: torch.dtype) -> Laps:
    left, right = (torch.rand(MATRIX_SIDE, MATRIX_SIDE).to(dtype) for _ in range(2))
    product = torch.empty_like(left)
    return stopwatch(lambda: torch.mm(left, right, out=product), "run")


def _int8_product() -> Laps:
    shape = (MATRIX_SIDE, MATRIX_SIDE)
    left, right = (torch.randint(-127, 128, shape, dtype=torch.int8) for _ in range(2))
    multiply = torch._int_mm  # noqa: SLF001  # torch has no other name for it
    return stopwatch(lambda: multiply(left, right), "run")
