"""What the model costs on paper, how fast this machine is, and the least time that follows."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

import numpy as np
import torch

from ...runtime.bundle.graph_key import GraphKey, Precision
from ...runtime.core.spec import ModelSpec
from ...runtime.core.system.small_files import text_of_small_file
from ...training.hardware import cpu_has_bf16
from ...training.model import channels_of
from .case import Cost, Roofline, samples_of, warnings_of
from .result import MachineRates, Rate
from .rounds import Laps, RoundPlan, Timings, interleaved, stopwatch

MATRIX_SIDE = 2048
MEMORY_BYTES = 1 << 27  # 128 MiB: well past the last cache of most machines
_KERNEL = 9  # every convolution is 3x3
_WEIGHT_BYTES: dict[Precision, int] = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1}
_CPU_INT8 = re.compile(r"\b(avx512_vnni|avx_vnni|amx_int8)\b")
_COPY, _READ = "copy", "read"


def cost_of(spec: ModelSpec, key: GraphKey, batch: int = 1) -> Cost:
    """Count what one run of a graph costs; see `Cost` for what counts.

    A decoder that was rewritten into phases is held to the arithmetic that the contract needs.
    """
    outputs = key.outputs(spec)
    is_encoder = key.part == "encoder"
    macs, weights = _encoder(spec, heads=len(outputs)) if is_encoder else _decoder(spec)
    weight_bytes = weights * _WEIGHT_BYTES[key.precision]
    tensor_bytes = sum(
        np.dtype(tensor.dtype).itemsize * math.prod(map(int, tensor.shape[1:]))
        for tensor in (*key.inputs(spec), *outputs)
    )
    return Cost(
        flops=2 * macs * batch,
        weight_bytes=weight_bytes,
        moved_bytes=weight_bytes + tensor_bytes * batch,
    )


def roofline_of(cost: Cost, *, flops_per_s: float, bytes_per_s: float, p50_ms: float) -> Roofline:
    """Return the least time for `cost`, and how far a measured median is above it.

    Of a machine's best matrix rate in the same precision, and best read bandwidth: weights are
    only read.
    """
    compute_ms = cost.flops / flops_per_s * 1e3
    memory_ms = cost.moved_bytes / bytes_per_s * 1e3
    times = p50_ms / max(compute_ms, memory_ms)
    return Roofline(cost=cost, compute_ms=compute_ms, memory_ms=memory_ms, times=times)


def measure_machine(samples: int, *, settle_ms: float = 0) -> dict[str, Timings]:
    """Time matrix products, reads and copies, in turns, with the threads that torch is set to.

    Products are torch's: `mm` in float32 and in bf16 where the processor has it, and in int8
    `_int_mm`, 8-bit numbers summed in 32 bits, where it has instructions for that; elsewhere torch
    would take minutes.
    """
    timed: dict[str, Laps] = {"fp32": _product(torch.float32)}
    if cpu_has_bf16():
        timed["bf16"] = _product(torch.bfloat16)
    if cpu_has_int8():
        timed["int8"] = _int8_product()
    source = torch.ones(MEMORY_BYTES // 4)
    target = torch.zeros_like(source)
    timed[_COPY] = stopwatch(lambda: target.copy_(source), "run")
    timed[_READ] = stopwatch(lambda: torch.max(source), "run")
    schedule = RoundPlan(samples=samples, warmup=2, settle=1, settle_ms=settle_ms, turn=5)
    return interleaved(timed, schedule)


def rates_of(before: Mapping[str, Timings], after: Mapping[str, Timings]) -> MachineRates:
    """Join what was measured before and after the cases.

    The warnings of a rate are about what changed in between.
    """

    def rate(name: str, work: int) -> Rate:
        samples_ns = before[name]["run"] + after[name]["run"]
        warnings = warnings_of("run", samples_ns)
        return Rate(work=work, series=samples_of(samples_ns), warnings=warnings)

    return {
        "matrix": {
            name: rate(name, 2 * MATRIX_SIDE**3) for name in get_args(Precision) if name in before
        },
        "copy_memory": rate(_COPY, 2 * MEMORY_BYTES),
        "read_memory": rate(_READ, MEMORY_BYTES),
    }


def cpu_has_int8(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Return whether an x86 processor sums 8-bit products by itself (VNNI or AMX)."""
    return _CPU_INT8.search(text_of_small_file(cpuinfo)) is not None


def _encoder(spec: ModelSpec, *, heads: int) -> tuple[int, int]:
    """Return (multiply-accumulates of one image, weights and biases)."""
    macs = weights = 0
    width_in = spec.image_channels
    for width, (high, wide) in zip(channels_of(spec), spec.map_shapes[1:], strict=True):
        macs += high * wide * width_in * width * _KERNEL
        weights += (width_in * _KERNEL + 1) * width
        width_in = width
    head = spec.flat_size * spec.latent_size
    return macs + heads * head, weights + heads * (head + spec.latent_size)


def _decoder(spec: ModelSpec) -> tuple[int, int]:
    """Return (multiply-accumulates of one image, weights and biases)."""
    macs = spec.latent_size * spec.flat_size
    weights = macs + spec.flat_size
    channels, shapes = channels_of(spec), spec.map_shapes
    width_in, colours = channels[-1], spec.image_channels
    widths = (*reversed(channels[:-1]), channels[0])
    for width, (high, wide) in zip(widths, shapes[:0:-1], strict=True):
        # A transposed convolution spreads every input value over one kernel.
        macs += high * wide * width_in * width * _KERNEL
        weights += (width_in * _KERNEL + 1) * width
        width_in = width
    macs += spec.height * spec.width * width_in * colours * _KERNEL
    return macs, weights + (width_in * _KERNEL + 1) * colours


def _product(dtype: torch.dtype) -> Laps:
    left, right = (torch.rand(MATRIX_SIDE, MATRIX_SIDE).to(dtype) for _ in range(2))
    product = torch.empty_like(left)
    return stopwatch(lambda: torch.mm(left, right, out=product), "run")


def _int8_product() -> Laps:
    shape = (MATRIX_SIDE, MATRIX_SIDE)
    left, right = (torch.randint(-127, 128, shape, dtype=torch.int8) for _ in range(2))
    multiply = torch._int_mm  # noqa: SLF001  # torch has no other name for it
    return stopwatch(lambda: multiply(left, right), "run")
