"""How far a graph's outputs are from the reference, in units that mean something, and the gate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ..runtime.backend import Backend, Batch
from ..runtime.bundle import GraphName, GraphReport, Metric, Precision
from ..runtime.frames import input_from_luma
from .figures import (
    IMAGE_METRIC,
    LATENT_METRIC,
    NEIGHBOURS,
    Floats,
    floored_spread,
    largest,
    neighbour_agreement,
    rms,
    worst_cosine,
    worst_psnr_db,
)

BATCH_SIZE = 16
FLOAT16_MAX = float(np.finfo(np.float16).max)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a precision is held to.

    Attributes:
        max_spread: Largest error of a latent over its standard deviation over the data.
        rms_spread: The same, root mean square over images and latents.
        psnr_db: Least PSNR of a reconstruction against the float32 one.
        neighbours: Least agreement of nearest neighbours among `mu`; None is no limit.
        max_deviation: Largest relative error of a posterior standard deviation, exp(log_var / 2),
            which `log_var` is held to, where given, in place of its spread.
        rms_deviation: The same, root mean square.
    """

    max_spread: float
    rms_spread: float
    psnr_db: float
    neighbours: float | None = None
    max_deviation: float | None = None
    rms_deviation: float | None = None


LIMITS: dict[Precision, Limits] = {  # docs/int8.md has the reasons for bf16 and int8
    "fp32": Limits(max_spread=1e-3, rms_spread=1e-4, psnr_db=80.0),
    "fp16": Limits(max_spread=5e-2, rms_spread=1e-2, psnr_db=45.0),
    "bf16": Limits(0.2, 5e-2, 45.0, max_deviation=0.2, rms_deviation=5e-2),
    "int8": Limits(0.25, 5e-2, 40.0, neighbours=0.85, max_deviation=0.2, rms_deviation=5e-2),
}


@dataclass(frozen=True, slots=True)
class Spread:
    """How much each latent varies over the training data: (D,) standard deviations."""

    mu: npt.NDArray[np.float64]
    log_var: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Reference:
    """What torch float32 says of the held-out images.

    Attributes:
        name: Who computed it.
        images: (N, S, S) uint8, fitted luma.
        mu: (N, D) float32.
        log_var: (N, D) float32.
        reconstruction: (N, 1, S, S) float32, decoded from `mu`.
        spread: How much each latent varies over the training data.
    """

    name: str
    images: npt.NDArray[np.uint8]
    mu: npt.NDArray[np.float32]
    log_var: npt.NDArray[np.float32]
    reconstruction: npt.NDArray[np.float32]
    spread: Spread

    def rows(self, rows: slice) -> Reference:
        """Return the same of some of the images."""
        return replace(
            self,
            images=self.images[rows],
            mu=self.mu[rows],
            log_var=self.log_var[rows],
            reconstruction=self.reconstruction[rows],
        )


def run_in_batches(
    backend: Backend, inputs: Batch, size: int = BATCH_SIZE
) -> dict[str, npt.NDArray[np.float32]]:
    """Run a graph on (N, ...) inputs a few at a time; output name to (N, ...) float32."""
    whole: Batch = np.require(inputs, requirements="C")
    parts = [backend.run(whole[start : start + size]) for start in range(0, len(whole), size)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def encoder_reports(
    backend: Backend, reference: Reference, precision: Precision, *, size: int = BATCH_SIZE
) -> tuple[tuple[GraphReport, ...], npt.NDArray[np.float32]]:
    """Compare all outputs of an encoder with the reference; return its (N, D) mu as well.

    Args:
        backend: The encoder; it may take luma or floats, and give `mu` only.
        reference: Its images are what is encoded.
        precision: Chooses the limits.
        size: Images per run.
    """
    luma = reference.images[:, None]
    inputs = luma if backend.input_dtype == np.uint8 else input_from_luma(luma)
    found = run_in_batches(backend, inputs, size)
    limits = LIMITS[precision]
    agreement = _metric(
        f"agreement of the {NEIGHBOURS} nearest neighbours",
        neighbour_agreement(found["mu"], reference.mu),
        limit=limits.neighbours,
        higher=True,
    )
    metrics = {
        "mu": [
            *_error_metrics(
                found["mu"],
                reference.mu,
                reference.spread.mu,
                limits=(limits.max_spread, limits.rms_spread),
            ),
            _posterior_metric(found["mu"], reference),
            agreement,
        ]
    }
    if "log_var" in found:
        metrics["log_var"] = _log_var_metrics(found["log_var"], reference, limits)
    reports = tuple(
        _report(
            output,
            of_output,
            graph="encoder",
            precision=precision,
            engine=backend.name,
            reference=reference,
        )
        for output, of_output in metrics.items()
    )
    return reports, found["mu"]


def decoder_reports(
    backend: Backend,
    reference: Reference,
    precision: Precision,
    *,
    encoded: npt.NDArray[np.float32],
    size: int = BATCH_SIZE,
) -> tuple[GraphReport, ...]:
    """Compare a decoder's images with the reference's.

    Args:
        backend: The decoder.
        reference: Its `mu` is what is decoded.
        precision: Chooses the limits.
        encoded: (N, D) mu of the encoder of the same precision, for the way through both.
        size: Latents per run.
    """
    found = run_in_batches(backend, reference.mu, size)["reconstruction"]
    through = run_in_batches(backend, encoded, size)["reconstruction"]
    error = np.asarray(found, np.float64) - reference.reconstruction
    limit = LIMITS[precision].psnr_db
    metrics = [
        _non_finite_metric(found),
        _metric("max error", largest(error)),
        _metric("RMS error", rms(error)),
        _metric("cosine, worst image", worst_cosine(found, reference.reconstruction), higher=True),
    ]
    for name, images in ((IMAGE_METRIC, found), ("PSNR through both graphs", through)):
        value = worst_psnr_db(images, reference.reconstruction)
        metrics.append(_metric(name, value, unit="dB", limit=limit, higher=True))
    report = _report(
        "reconstruction",
        metrics,
        graph="decoder",
        precision=precision,
        engine=backend.name,
        reference=reference,
    )
    return (report,)


def activation_report(
    graph: GraphName, largest: float, *, engine: str, reference: Reference
) -> GraphReport:
    """Report whether the values inside a graph would fit FP16.

    An engine that computes FP16 graphs in float32, as ONNX Runtime may on a CPU, gives finite
    outputs where a GPU's arithmetic would overflow.

    Args:
        graph: Which half.
        largest: Largest magnitude inside the float32 graph over the reference's images.
        engine: Who computed it.
        reference: The images.
    """
    metric = _metric("largest value inside, float32", largest, limit=FLOAT16_MAX)
    return _report(
        "activations",
        [metric],
        graph=graph,
        precision="fp16",
        engine=engine,
        reference=reference,
    )


def _error_metrics(
    found: Floats,
    reference: Floats,
    spread: Floats,
    *,
    limits: tuple[float | None, float | None],
) -> list[Metric]:
    """Error as it is, and over the spread, whose largest and RMS value the limits are for."""
    error = np.asarray(found, np.float64) - reference
    relative = error / floored_spread(spread)
    return [
        _non_finite_metric(found),
        _metric("max error", largest(error)),
        _metric("RMS error", rms(error)),
        _metric("cosine, worst image", worst_cosine(found, reference), higher=True),
        _metric(LATENT_METRIC, largest(relative), limit=limits[0]),
        _metric("RMS error / spread over data", rms(relative), limit=limits[1]),
    ]


def _log_var_metrics(found: Floats, reference: Reference, limits: Limits) -> list[Metric]:
    """The errors of `log_var`, and how wrong the posterior deviation is that it stands for."""
    by_deviation = limits.max_deviation is not None
    relative = np.expm1((np.asarray(found, np.float64) - reference.log_var) / 2)
    return [
        *_error_metrics(
            found,
            reference.log_var,
            reference.spread.log_var,
            limits=(None, None) if by_deviation else (limits.max_spread, limits.rms_spread),
        ),
        _metric("max error of deviation", largest(relative), limit=limits.max_deviation),
        _metric("RMS error of deviation", rms(relative), limit=limits.rms_deviation),
    ]


def _posterior_metric(found: Floats, reference: Reference) -> Metric:
    """Error in posterior standard deviations: reported only, as that deviation can collapse."""
    deviation = np.exp(np.asarray(reference.log_var, np.float64) / 2)
    error = np.asarray(found, np.float64) - reference.mu
    return _metric("max error / posterior deviation", largest(error / deviation))


def _non_finite_metric(found: Floats) -> Metric:
    return _metric("NaN or Inf values", float(np.count_nonzero(~np.isfinite(found))), limit=0.0)


def _metric(
    name: str, value: float, *, unit: str = "", limit: float | None = None, higher: bool = False
) -> Metric:
    # A NaN compares false with everything, so it never passes a limit.
    passed = limit is None or (value >= limit if higher else value <= limit)
    return Metric(
        name=name, value=value, unit=unit, limit=limit, passed=passed, higher_is_better=higher
    )


def _report(
    output: str,
    metrics: Sequence[Metric],
    *,
    graph: GraphName,
    precision: Precision,
    engine: str,
    reference: Reference,
) -> GraphReport:
    if precision == "fp16" and "CPUExecutionProvider" in engine:
        engine += ", which may compute FP16 in float32"
    return GraphReport(
        graph=graph,
        precision=precision,
        output=output,
        engine=engine,
        reference=reference.name,
        images=len(reference.images),
        metrics=tuple(metrics),
    )
