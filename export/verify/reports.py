"""How far a graph's outputs are from the reference, in reports; what helps where one fails."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ...runtime.bundle.graph_key import GraphKey
from ...runtime.bundle.manifest import GraphReport, Metric
from ...training.learned import LEAST_SPREAD
from .batches import BATCH_SIZES, Decoded, Engine, encoder_input, probe_sizes, run_in_batches
from .limits import Limits
from .metrics import (
    IMAGE_METRIC,
    NEIGHBOURS,
    SPREAD_FLOOR,
    Floats,
    extreme_metric,
    floored_spread,
    largest,
    latent_metrics,
    metric,
    neighbour_agreement,
    non_finite_metric,
    psnr_metric,
    rms,
    rms_per_image,
)
from .reference import ORIGINAL, Reference

ACTIVATIONS = "activations"
"""The output of a report on what is inside of a graph."""
WORST_PROBE = "worst probe"
"""A note that begins so says which probe a graph failed on."""
_LEAST_LEVELS = 1.0
"""Held-out images that differ from their mean by less, as a root mean square, are nearly equal."""


def encoder_reports(
    engine: Engine, reference: Reference, key: GraphKey, *, sizes: Sequence[int] = BATCH_SIZES
) -> tuple[tuple[GraphReport, ...], npt.NDArray[np.float32]]:
    """Compare all outputs of an encoder with the reference; return its (N, D) mu as well.

    The engine may take luma or floats, and give `mu` only. A part of the images is encoded at each
    of the batch sizes, and all of the probes. The key's precision chooses the limits.
    """
    limits = reference.limits(key.precision)
    found = run_in_batches(engine, encoder_input(engine, reference.images), *sizes)
    metrics = {"mu": mu_metrics(found["mu"], reference, limits)}
    if "log_var" in found and reference.log_var is not None:
        metrics["log_var"] = log_var_metrics(found["log_var"], reference.log_var, reference, limits)
    probed = _probed(engine, reference, limits, probe_sizes(sizes))
    reports = []
    for output, of_output in metrics.items():
        of_probes, worst = probed.get(output, ([], ""))
        notes = reference.notes
        if not all(one.passed for one in of_probes):
            notes += (worst,)
        every = [*of_output, *of_probes]
        reports.append(report_of(output, every, key, reference, engine=engine.name, notes=notes))
    return tuple(reports), found["mu"]


def decoder_report(
    engine: Engine,
    reference: Reference,
    key: GraphKey,
    *,
    encoded: npt.NDArray[np.float32],
    sizes: Sequence[int] = BATCH_SIZES,
) -> GraphReport:
    """Compare a decoder's images with the reference's likewise, a few at a time.

    `encoded` is (N, D) mu of the encoder of the same precision, for the figure of both graphs. A
    reference without images is a ValueError.
    """
    limits, risk = reference.limits(key.precision), reference.risk
    images = reference.decoded
    true = Decoded.of(engine, reference.mu, images, sizes)
    through = Decoded.of(engine, encoded, images, sizes)
    metrics = [
        *image_metrics(true, limits, risk),
        psnr_metric("PSNR through both graphs", through.squared_errors, limits.psnr_db, risk),
    ]
    probes = reference.probes
    if probes is not None and probes.latents is not None and probes.reconstruction is not None:
        probed = [
            Decoded.of(engine, probes.latents, probes.reconstruction, (size,), within=True)
            for size in probe_sizes(sizes)
        ]
        errors = np.stack([of_size.squared_errors for of_size in probed])
        # Where a few pixels alone are wrong, the PSNR of an image hides it.
        pixel = float(np.max([of_size.largest for of_size in probed]))
        away = (probes.latents - reference.mu.mean(axis=0, dtype=np.float64)) / reference.scale
        near = rms_per_image(away) <= limits.probe_reach
        name = "PSNR, worst probe latent"
        metrics += [
            metric("max error, worst probe latent", pixel, limit=limits.probe_pixel),
            psnr_metric(name, errors[:, near], limits.probe_psnr_db, risk=None),
        ]
        if not near.all():
            name = f"{name} beyond {limits.probe_reach:g} spreads"
            metrics.append(psnr_metric(name, errors, None, risk=None))
    notes = reference.notes
    return report_of("reconstruction", metrics, key, reference, engine=engine.name, notes=notes)


def image_metrics(images: Decoded, limits: Limits, risk: float) -> list[Metric]:
    """Return how far images in [0, 1] are from the reference's."""
    return [
        non_finite_metric(images.not_finite),
        metric("max error", images.largest, limit=limits.max_pixel),
        metric("RMS error", float(np.sqrt(images.squared_errors.mean()))),
        metric("cosine, worst image", float(images.cosines.min()), higher=True),
        psnr_metric(IMAGE_METRIC, images.squared_errors, limits.psnr_db, risk),
    ]


def advice_on(failed: Sequence[GraphReport], reference: Reference) -> str:
    """Return what to do, the last clause of a refusal.

    Float32 graphs that fail do not compute what the model does, whatever it has learned, unless
    its latents are alike for all images: then an error has nothing to be compared with.
    """
    if any(report.output == ACTIVATIONS for report in failed):
        return "keep that part in float32 with --keep-float32 auto, or leave out --fp16"
    flags = sorted({f"--{report.precision}" for report in failed})
    without = "" if "--fp32" in flags else f", or leave out {' and '.join(flags)}"
    if reference.name.startswith(ORIGINAL):
        what = "give --images that differ more, as errors are judged by how much latents differ"
        return f"{what}{without}" if without else f"{what}; if it stays, report it with the file"
    pixels = reference.images.astype(np.float32)
    differing = float(np.sqrt(np.mean((pixels - pixels.mean(axis=0)) ** 2)))
    if differing < _LEAST_LEVELS:
        what = f"all {len(pixels)} held-out images are equal or nearly so"
        if len(pixels) == 1:
            what = "there is one held-out image"
        return f"{what}: train on more images that are unlike each other{without}"
    if not reference.informative.any():
        return (
            f"none of the {reference.mu.shape[1]} latent units carries information: train with a "
            f"smaller beta in --betas, or more steps{without}"
        )
    typical = float(np.sqrt(np.mean(np.square(reference.spread.mu))))
    alike = typical <= LEAST_SPREAD * float(np.abs(reference.mu, dtype=np.float64).mean())
    if "--fp32" in flags and not alike:
        return (
            "the exported graph does not compute what the model does: export again, with the "
            "versions in constraints.txt"
        )
    return f"train for more steps{without}"


def mu_metrics(found: Floats, reference: Reference, limits: Limits) -> list[Metric]:
    """Return how far (N, D) `mu` is from the reference's, in spreads over the data."""
    scale, judged, risk = reference.scale, reference.judged_units, reference.risk
    gated = (limits.max_spread, limits.rms_spread)
    metrics = latent_metrics(found, reference.mu, scale, judged=judged, limits=gated, risk=risk)
    error = np.abs(np.asarray(found, np.float64) - reference.mu)
    if not judged.all():
        collapsed = (error / scale)[:, ~judged].max(axis=1)
        name = "collapsed units, max error / posterior deviation"
        metrics.append(extreme_metric(name, collapsed, limits.max_spread, risk))
    if reference.log_var is not None:
        # Reported only, as that deviation can be next to nothing.
        over_deviation = largest(error / np.exp(np.asarray(reference.log_var, np.float64) / 2))
        metrics.append(metric("max error / posterior deviation", over_deviation))
    name = f"agreement of the {NEIGHBOURS} nearest neighbours"
    agreement = neighbour_agreement(found, reference.mu)
    return [*metrics, metric(name, agreement, limit=limits.neighbours, higher=True)]


def log_var_metrics(
    found: Floats, true_log_var: Floats, reference: Reference, limits: Limits
) -> list[Metric]:
    """The errors of `log_var`, and how wrong the posterior deviation is that it stands for.

    A deviation below a hundredth of the unit's spread is as good as none, whatever its logarithm:
    errors are divided by that hundredth there.
    """
    given, true = (np.exp(np.asarray(v, np.float64) / 2) for v in (found, true_log_var))
    relative = np.abs(given - true) / np.maximum(true, SPREAD_FLOOR * reference.scale)
    deviation = reference.spread.log_var
    deviation = true_log_var.std(axis=0, dtype=np.float64) if deviation is None else deviation
    spread, risk = floored_spread(deviation), reference.risk
    everything = np.ones(len(spread), np.bool_)
    name, limit = "max error of deviation, RMS of an image", limits.max_deviation
    return [
        *latent_metrics(found, true_log_var, spread, judged=everything, risk=risk),
        metric("max error of deviation", largest(relative)),
        extreme_metric(name, rms_per_image(relative), limit, risk),
        metric("RMS error of deviation", rms(relative), limit=limits.rms_deviation),
    ]


def _probed(
    engine: Engine, reference: Reference, limits: Limits, sizes: Sequence[int]
) -> dict[str, tuple[list[Metric], str]]:
    """Return for each output the worst and the median probe's figure, and which is the worst."""
    probes = reference.probes
    if probes is None:
        return {}
    inputs = encoder_input(engine, probes.images)
    runs = [run_in_batches(engine, inputs, size) for size in sizes]
    found = {}
    for output in runs[0]:
        if output == "mu":
            true, usual, scale = probes.mu, reference.mu, reference.scale
            limit, name = limits.probe_spread, "RMS error"
        elif probes.log_var is None or reference.log_var is None:
            continue
        else:
            true, usual = probes.log_var, reference.log_var
            scale = np.full(true.shape[1], 2.0)  # the logarithm of the deviation
            limit, name = limits.probe_deviation, "RMS error of deviation"
        values = [run[output] for run in runs]
        limited = (limit, limits.probe_median)
        metrics, (turn, image) = probe_metrics(values, true, usual, scale, name, limits=limited)
        where = f"{probes.names[image]}, in batches of {sizes[turn]}"
        found[output] = (metrics, f"{WORST_PROBE} of {output}: {where}")
    return found


def probe_metrics(
    runs: Sequence[Floats],
    true: Floats,
    usual: Floats,
    scale: Floats,
    name: str,
    *,
    limits: tuple[float | None, float | None],
) -> tuple[list[Metric], tuple[int, int]]:
    """Return the worst and the median probe's figure, and which run and probe is the worst.

    Each run is (P, D), as is what is true; `usual` are (N, D) of held-out images. A probe may lie
    many spreads from all data, and rounding errors grow with the values that are rounded: an error
    counts by its share of that distance.
    """
    distance = rms_per_image((true - usual.mean(axis=0, dtype=np.float64)) / scale)
    shares = np.stack([rms_per_image((run - true) / scale) for run in runs])
    shares /= np.maximum(distance, 1)
    turn, image = map(int, np.unravel_index(np.argmax(shares), shares.shape))
    worst, median = float(shares[turn, image]), float(np.median(shares, axis=1).max())
    name = f"probe image, {name} / distance from the mean"
    metrics = [
        metric(f"worst {name}", worst, limit=limits[0]),
        metric(f"median {name}", median, limit=limits[1]),
    ]
    return metrics, (turn, image)


def report_of(
    output: str,
    metrics: Sequence[Metric],
    key: GraphKey,
    reference: Reference,
    *,
    engine: str,
    notes: Sequence[str] = (),
) -> GraphReport:
    """Return the report of one output."""
    if key.precision == "fp16" and "CPUExecutionProvider" in engine:
        engine += ", which may compute FP16 in float32"
    return GraphReport(
        **key.fields,
        output=output,
        engine=engine,
        reference=reference.name,
        images=len(reference.images),
        notes=tuple(notes),
        metrics=tuple(metrics),
    )
