"""How far a graph's outputs are from the reference, in units that mean something, and the gate."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ...runtime.bundle.graph_key import GraphKey
from ...runtime.bundle.manifest import GraphReport, Metric
from ...runtime.engines.base import Batch
from ...runtime.pixels.convert import input_from_luma
from .batches import BATCH_SIZES, Decoded, Engine, probe_sizes, run_in_batches
from .figures import (
    IMAGE_METRIC,
    NEIGHBOURS,
    SPREAD_FLOOR,
    Floats,
    floored_spread,
    largest,
    neighbour_agreement,
    psnr_db,
    rms,
    rms_per_image,
)
from .limits import LIMITS, Limits
from .metrics import (
    extreme_metric,
    latent_metrics,
    metric,
    non_finite_metric,
    psnr_metric,
)
from .reference import Reference

WORST_PROBE = "worst probe"
"""A note that begins so says which probe a graph failed on."""
FLOAT16_MAX = float(np.finfo(np.float16).max)


def encoder_reports(
    engine: Engine,
    reference: Reference,
    key: GraphKey,
    *,
    sizes: Sequence[int] = BATCH_SIZES,
    note: str = "",
) -> tuple[tuple[GraphReport, ...], npt.NDArray[np.float32]]:
    """Compare all outputs of an encoder with the reference; return its (N, D) mu as well.

    Args:
        engine: What runs the encoder; it may take luma or floats, and give `mu` only.
        reference: Its images are what is encoded, a part of them at each batch size, and its
            probes, all of them at each.
        key: Which encoder; its precision chooses the limits.
        sizes: Images per run, in turn.
        note: What is to be said after the engine's name.
    """
    limits = LIMITS[key.precision]
    found = run_in_batches(engine, encoder_input(engine, reference.images), *sizes)
    metrics = {"mu": _mu_metrics(found["mu"], reference, limits)}
    if "log_var" in found:
        metrics["log_var"] = _log_var_metrics(found["log_var"], reference, limits)
    notes = {output: list(reference.notes) for output in metrics}
    probes = _probed(engine, reference, limits, probe_sizes(sizes))
    for output, (probed, worst) in probes.items():
        metrics[output] += probed
        notes[output] += [] if all(one.passed for one in probed) else [worst]
    reports = tuple(
        _report(
            output,
            of_output,
            key,
            reference,
            engine=engine.name,
            note=note,
            notes=notes[output],
        )
        for output, of_output in metrics.items()
    )
    return reports, found["mu"]


def decoder_reports(
    engine: Engine,
    reference: Reference,
    key: GraphKey,
    *,
    encoded: npt.NDArray[np.float32],
    sizes: Sequence[int] = BATCH_SIZES,
    note: str = "",
) -> tuple[GraphReport, ...]:
    """Compare a decoder's images with the reference's, a few at a time.

    Args:
        engine: What runs the decoder.
        reference: Its `mu` is what is decoded, and its probes' latents at each batch size.
        key: Which decoder; its precision chooses the limits.
        encoded: (N, D) mu of the encoder of the same precision, for the way through both.
        sizes: Latents per run, in turn.
        note: What is to be said after the engine's name.
    """
    limits, risk = LIMITS[key.precision], reference.risk
    true = Decoded.of(engine, reference.mu, reference.reconstruction, sizes)
    through = Decoded.of(engine, encoded, reference.reconstruction, sizes)
    metrics = [
        non_finite_metric(true.not_finite),
        metric("max error", true.largest, limit=limits.max_pixel),
        metric("RMS error", float(np.sqrt(true.squared_errors.mean()))),
        metric("cosine, worst image", float(true.cosines.min()), higher=True),
        psnr_metric(IMAGE_METRIC, true.squared_errors, limits.psnr_db, risk),
        psnr_metric("PSNR through both graphs", through.squared_errors, limits.psnr_db, risk),
    ]
    if (probes := reference.probes) is not None:
        probed = [
            Decoded.of(engine, probes.latents, probes.reconstruction, (size,))
            for size in probe_sizes(sizes)
        ]
        errors = np.stack([of_size.squared_errors for of_size in probed])
        # Where a few pixels alone are wrong, the PSNR of an image hides it.
        largest_error = float(np.max([of_size.largest for of_size in probed]))
        metrics.append(
            metric("max error, worst probe latent", largest_error, limit=limits.probe_pixel)
        )
        away = (probes.latents - reference.mu.mean(axis=0, dtype=np.float64)) / reference.scale
        near = rms_per_image(away) <= limits.probe_reach
        further = psnr_db(float(errors.max()))
        metrics.append(
            metric(
                "PSNR, worst probe latent",
                psnr_db(float(errors[:, near].max(initial=0))),
                unit="dB",
                limit=limits.probe_psnr_db,
                higher=True,
            )
        )
        if not near.all():
            name = f"PSNR, worst probe latent beyond {limits.probe_reach:g} spreads"
            metrics.append(metric(name, further, unit="dB", higher=True))
    report = _report(
        "reconstruction",
        metrics,
        key,
        reference,
        engine=engine.name,
        note=note,
        notes=reference.notes,
    )
    return (report,)


def activation_report(
    key: GraphKey, largest: float, reference: Reference, *, engine: str
) -> GraphReport:
    """Report whether the values inside a graph would fit FP16.

    An engine that computes FP16 graphs in float32, as ONNX Runtime may on a CPU, gives finite
    outputs where a GPU's arithmetic would overflow.

    Args:
        key: Which FP16 graph.
        largest: Largest magnitude inside the float32 graph over the reference's images.
        reference: The images.
        engine: Who computed it.
    """
    return _report(
        "activations",
        [metric("largest value inside, float32", largest, limit=FLOAT16_MAX)],
        key,
        reference,
        engine=engine,
    )


def _mu_metrics(found: Floats, reference: Reference, limits: Limits) -> list[Metric]:
    scale, judged = reference.scale, reference.judged_units
    limit_of = (limits.max_spread, limits.rms_spread)
    metrics = latent_metrics(found, reference.mu, scale, judged, limit_of, risk=reference.risk)
    error = np.abs(np.asarray(found, np.float64) - reference.mu)
    if not judged.all():
        collapsed = (error / scale)[:, ~judged].max(axis=1)
        name = "collapsed units, max error / posterior deviation"
        metrics.append(extreme_metric(name, collapsed, limits.max_spread, reference.risk))
    deviation = np.exp(np.asarray(reference.log_var, np.float64) / 2)
    agreement = neighbour_agreement(found, reference.mu)
    return [
        *metrics,
        # Reported only, as that deviation can be next to nothing.
        metric("max error / posterior deviation", largest(error / deviation)),
        metric(
            f"agreement of the {NEIGHBOURS} nearest neighbours",
            agreement,
            limit=limits.neighbours,
            higher=True,
        ),
    ]


def _log_var_metrics(found: Floats, reference: Reference, limits: Limits) -> list[Metric]:
    """The errors of `log_var`, and how wrong the posterior deviation is that it stands for.

    A deviation below a hundredth of the unit's spread is as good as none, whatever its logarithm:
    errors are divided by that hundredth there.
    """
    given, true = (np.exp(np.asarray(v, np.float64) / 2) for v in (found, reference.log_var))
    relative = np.abs(given - true) / np.maximum(true, SPREAD_FLOOR * reference.scale)
    spread = floored_spread(reference.spread.log_var)
    everything = np.ones(len(spread), np.bool_)
    name, limit = "max error of deviation, RMS of an image", limits.max_deviation
    return [
        *latent_metrics(
            found, reference.log_var, spread, everything, (None, None), risk=reference.risk
        ),
        metric("max error of deviation", largest(relative)),
        extreme_metric(name, rms_per_image(relative), limit, reference.risk),
        metric("RMS error of deviation", rms(relative), limit=limits.rms_deviation),
    ]


def _probed(
    engine: Engine, reference: Reference, limits: Limits, sizes: Sequence[int]
) -> dict[str, tuple[list[Metric], str]]:
    """Return for each output the worst and the median probe's figure, and which is the worst.

    A probe may lie many spreads from all data, and rounding errors grow with the values that are
    rounded: an error counts by its share of that distance.
    """
    probes = reference.probes
    if probes is None:
        return {}
    # name: (reference, typical value, what an error is divided by, limit, figure)
    judged: dict[str, tuple[Floats, Floats, Floats, float, str]] = {
        "mu": (
            probes.mu,
            reference.mu,
            reference.scale,
            limits.probe_spread,
            "RMS error / distance from the mean",
        ),
        "log_var": (
            probes.log_var,
            reference.log_var,
            np.full(probes.mu.shape[1], 2.0),  # the logarithm of the deviation
            limits.probe_deviation,
            "RMS error of deviation / distance from the mean",
        ),
    }
    inputs = encoder_input(engine, probes.images)
    runs = [run_in_batches(engine, inputs, size) for size in sizes]
    found: dict[str, tuple[list[Metric], str]] = {}
    for output in runs[0]:
        true, usual, scale, limit, name = judged[output]
        distance = rms_per_image((true - usual.mean(axis=0, dtype=np.float64)) / scale)
        shares = np.stack([rms_per_image((run[output] - true) / scale) for run in runs])
        shares /= np.maximum(distance, 1)
        turn, image = map(int, np.unravel_index(np.argmax(shares), shares.shape))
        where = f"{WORST_PROBE} of {output}: {probes.names[image]}, in batches of {sizes[turn]}"
        found[output] = (
            [
                metric(f"worst probe image, {name}", float(shares[turn, image]), limit=limit),
                metric(
                    f"median probe image, {name}",
                    float(np.median(shares, axis=1).max()),
                    limit=limits.probe_median,
                ),
            ],
            where,
        )
    return found


def encoder_input(engine: Engine, images: npt.NDArray[np.uint8]) -> Batch:
    """Return (N, S, S) fitted luma as an encoder takes it."""
    luma = images[:, None]
    return luma if engine.input_dtype == np.uint8 else input_from_luma(luma)


def _report(
    output: str,
    metrics: Sequence[Metric],
    key: GraphKey,
    reference: Reference,
    *,
    engine: str,
    note: str = "",
    notes: Sequence[str] = (),
) -> GraphReport:
    if key.precision == "fp16" and "CPUExecutionProvider" in engine:
        engine += ", which may compute FP16 in float32"
    return GraphReport(
        **key.fields,
        output=output,
        engine=f"{engine}{note}",
        reference=reference.name,
        images=len(reference.images),
        notes=tuple(notes),
        metrics=tuple(metrics),
    )
