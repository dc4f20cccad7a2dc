"""The GPU's roofline: its rates from a process of their own, and the least time that follows."""

from __future__ import annotations

import importlib.util
import subprocess
import tempfile
from pathlib import Path

from ...runtime.bundle.graph_key import GraphKey
from ...runtime.core.documents import document_from_json
from ...runtime.core.errors import MeasurementError, missing_dependency
from ...runtime.core.spec import ModelSpec
from ...runtime.core.system.children import python_module
from .case import Case
from .result import ENCODER_FP16_BYTES, GpuRates

_LIMIT_S = 120
_MOST_BYTES = 1 << 20
_OWN_STAGES = ("compute", "device")
"""What is compared with the least time beside the whole: kernels, or all of a recorded graph."""


def rates_of_gpu(spec: ModelSpec) -> GpuRates:
    """Measure how fast this GPU multiplies, copies and reads; takes torch for CUDA.

    Raises:
        MissingDependencyError: torch is not installed.
        MeasurementError: torch finds no GPU, or the process failed; its last line says why.
    """
    _require_torch("measuring the GPU's rates")
    from .roofline import cost_of  # noqa: PLC0415  # torch is optional

    if spec.channels is None:
        again = ENCODER_FP16_BYTES  # whose cost is not known
    else:
        again = cost_of(spec, GraphKey("encoder", "fp16")).moved_bytes
    with tempfile.TemporaryDirectory(prefix="motorvae-rates-") as folder:
        file = Path(folder) / "rates.json"
        command = python_module("motorvae.benchmarks.measure.gpu_rates", str(file), f"{again}")
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=_LIMIT_S, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise MeasurementError(f"torch did not measure the GPU in {_LIMIT_S} s") from error
        if done.returncode or not file.is_file():
            said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
            last = said[-1] if said else f"exit code {done.returncode}"
            raise MeasurementError(f"the GPU's rates were not measured: {last}")
        return GpuRates.model_validate_json(file.read_bytes())


def load_rates(path: Path) -> GpuRates:
    """Read what the process of `rates_of_gpu` wrote; a MeasurementError where it is not that."""
    again = "leave out --rates, or measure the rates again"
    return document_from_json(
        path, GpuRates, error=MeasurementError, again=again, most_bytes=_MOST_BYTES
    )


def check_rates(rates: GpuRates, gpu: str) -> None:
    """Check that rates which were measured before make a roofline of the GPU of this name, here.

    Raises:
        MissingDependencyError: torch, with which what an encoder costs is counted, is not there.
        MeasurementError: They are of another GPU.
    """
    _require_torch("the roofline of rates that were measured before")
    if rates.device != gpu:
        raise MeasurementError(f"the rates are of {rates.device}, and this is {gpu}")


def _require_torch(feature: str) -> None:
    if importlib.util.find_spec("torch") is None:
        raise missing_dependency(feature, "torch", extra="train")


def case_under_roofline(case: Case, rates: GpuRates, spec: ModelSpec, key: GraphKey) -> Case:
    """Add the least time to a case that was measured, where its precision has a rate.

    Its `times` is of the whole, from host memory to host memory; how far the kernels alone are
    from it is a note. Whichever is faster than the least time makes the case doubtful.
    """
    from .roofline import cost_of, roofline_of  # noqa: PLC0415  # torch is optional

    rate = rates.matrix.get(key.precision)
    if rate is None or case.whole is None:
        return case
    roofline = roofline_of(
        cost_of(spec, key),
        flops_per_s=rate.best_per_s,
        bytes_per_s=rates.best_read_per_s,
        p50_ms=case.whole.p50,
    )
    notes, warnings, fastest = case.notes, case.warnings, case.whole.p50
    stage = next((name for name in _OWN_STAGES if name in case.stages), None)
    if stage is not None:
        fastest = case.stages[stage].p50
        notes += (f"{stage}: {fastest / roofline.least_ms:.1f} times the roofline's least time",)
    if fastest < roofline.least_ms:
        warnings += (
            "faster than its roofline, so the GPU's rates were measured too low, or the weights "
            "stayed in a cache that the reading does not fit",
        )
    return case.with_facts(roofline=roofline, notes=notes, warnings=warnings)
