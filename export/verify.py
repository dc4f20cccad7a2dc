"""How far a graph's outputs are from the reference, in units that mean something, and the gate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..runtime.backend import Backend
from ..runtime.bundle import GraphName, GraphReport, Metric, Precision
from ..runtime.frames import input_from_luma

Floats = npt.NDArray[np.floating[Any]]

BATCH_SIZE = 16
FLOAT16_MAX = float(np.finfo(np.float16).max)
NEIGHBOURS = 10
SPREAD_FLOOR = 0.01
"""A latent that hardly varies over the data is held to this share of the typical spread."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a precision is held to.

    Attributes:
        max_spread: Largest error of a latent over its standard deviation over the data.
        rms_spread: The same, root mean square over images and latents.
        psnr_db: Least PSNR of a reconstruction against the float32 one.
    """

    max_spread: float
    rms_spread: float
    psnr_db: float


LIMITS: dict[Precision, Limits] = {
    "fp32": Limits(max_spread=1e-3, rms_spread=1e-4, psnr_db=80.0),
    "fp16": Limits(max_spread=5e-2, rms_spread=1e-2, psnr_db=45.0),
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


def run_in_batches(
    backend: Backend, inputs: npt.NDArray[np.float32], size: int = BATCH_SIZE
) -> dict[str, Floats]:
    """Run a graph on (N, ...) float32 a few images at a time; output name to (N, ...) array."""
    parts = [
        backend.run(np.ascontiguousarray(inputs[start : start + size]))
        for start in range(0, len(inputs), size)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def encoder_reports(
    backend: Backend, reference: Reference, precision: Precision, *, size: int = BATCH_SIZE
) -> tuple[tuple[GraphReport, ...], npt.NDArray[np.float32]]:
    """Compare both outputs of an encoder with the reference; return its (N, D) mu as well."""
    found = run_in_batches(backend, input_from_luma(reference.images[:, None]), size)
    limits = LIMITS[precision]
    mu = [
        *_error_metrics(found["mu"], reference.mu, reference.spread.mu, limits),
        _posterior_metric(found["mu"], reference),
        Metric(
            name=f"agreement of the {NEIGHBOURS} nearest neighbours",
            value=neighbour_agreement(found["mu"], reference.mu),
            higher_is_better=True,
        ),
    ]
    log_var = _error_metrics(found["log_var"], reference.log_var, reference.spread.log_var, limits)
    reports = tuple(
        _report(
            output,
            metrics,
            graph="encoder",
            precision=precision,
            engine=backend.name,
            reference=reference,
        )
        for output, metrics in (("mu", mu), ("log_var", log_var))
    )
    return reports, np.asarray(found["mu"], np.float32)


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
        _metric("max error", _largest(error)),
        _metric("RMS error", _rms(error)),
        _metric("cosine, worst image", worst_cosine(found, reference.reconstruction), higher=True),
    ]
    for name, images in (("PSNR, worst image", found), ("PSNR through both graphs", through)):
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


def neighbour_agreement(found: Floats, reference: Floats, count: int = NEIGHBOURS) -> float:
    """Return the mean share of each image's nearest neighbours that both sets of latents name.

    Args:
        found: (N, D) latents.
        reference: (N, D) latents of the same images.
        count: How many neighbours by Euclidean distance; fewer where N is small.
    """
    count = min(count, len(reference) - 1)
    if count < 1 or not np.isfinite(found).all():
        return 1.0 if count < 1 else 0.0
    ours, theirs = (_nearest(latents, count) for latents in (found, reference))
    shared = [
        len(np.intersect1d(one, other)) / count for one, other in zip(ours, theirs, strict=True)
    ]
    return float(np.mean(shared))


def worst_cosine(found: Floats, reference: Floats) -> float:
    """Return the smallest cosine between an image's output and its reference."""
    one = np.asarray(found, np.float64).reshape(len(found), -1)
    other = np.asarray(reference, np.float64).reshape(len(reference), -1)
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return float(((one * other).sum(axis=1) / np.maximum(norms, np.finfo(np.float64).tiny)).min())


def worst_psnr_db(found: Floats, reference: Floats) -> float:
    """Return the smallest PSNR of an image in [0, 1] in dB; infinite where all are equal."""
    squares = (np.asarray(found, np.float64) - reference).reshape(len(found), -1) ** 2
    worst = float(squares.mean(axis=1).max())
    return -10 * float(np.log10(worst)) if worst > 0 else float("inf")


def floored_spread(spread: Floats) -> npt.NDArray[np.float64]:
    """Return each latent's spread, at least `SPREAD_FLOOR` of their root mean square.

    A collapsed latent carries no information and its spread is near zero; without a floor an
    error that nobody could notice would look infinite.
    """
    typical = float(np.sqrt(np.mean(np.square(spread, dtype=np.float64))))
    return np.maximum(spread, max(SPREAD_FLOOR * typical, float(np.finfo(np.float32).tiny)))


def _error_metrics(
    found: Floats, reference: Floats, spread: Floats, limits: Limits
) -> list[Metric]:
    error = np.asarray(found, np.float64) - reference
    relative = error / floored_spread(spread)
    return [
        _non_finite_metric(found),
        _metric("max error", _largest(error)),
        _metric("RMS error", _rms(error)),
        _metric("cosine, worst image", worst_cosine(found, reference), higher=True),
        _metric("max error / spread over data", _largest(relative), limit=limits.max_spread),
        _metric("RMS error / spread over data", _rms(relative), limit=limits.rms_spread),
    ]


def _posterior_metric(found: Floats, reference: Reference) -> Metric:
    """Error in posterior standard deviations: reported only, as that deviation can collapse."""
    deviation = np.exp(np.asarray(reference.log_var, np.float64) / 2)
    error = np.asarray(found, np.float64) - reference.mu
    return _metric("max error / posterior deviation", _largest(error / deviation))


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


def _largest(error: Floats) -> float:
    return float(np.abs(error).max())


def _rms(error: Floats) -> float:
    return float(np.sqrt(np.mean(np.square(error))))


def _nearest(latents: Floats, count: int) -> npt.NDArray[np.intp]:
    points = np.asarray(latents, np.float64)
    squares = (points**2).sum(axis=1)
    distance = squares[:, None] + squares[None] - 2 * points @ points.T
    np.fill_diagonal(distance, np.inf)
    return np.argpartition(distance, count - 1, axis=1)[:, :count]
