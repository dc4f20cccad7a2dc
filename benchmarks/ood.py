"""How well out-of-distribution detection does, for any bundle and anybody's images.

`python -m motorvae.benchmarks.ood`
"""

from __future__ import annotations

import contextlib
import datetime as dt
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field
from rich.console import Console

from ..export.ood import altered_images, auroc, made_images, scored_images
from ..runtime.bundle.graph_key import GraphKey
from ..runtime.bundle.load import Bundle, load_bundle
from ..runtime.bundle.manifest import VERIFICATION_IMAGES
from ..runtime.core.command import Command, stderr_console
from ..runtime.core.documents import Form, arrays_from_npz, save_new_document
from ..runtime.core.errors import BundleError
from ..runtime.core.spec import ModelSpec, StrictModel
from ..runtime.core.system.locks import output_locked
from ..runtime.engines.base import Backend
from ..runtime.engines.open import EngineRequest, open_engine
from ..runtime.ood.detector import (
    OOD_ABOVE,
    OODDetector,
    OODScores,
    Statistic,
    ood_detector_from_bundle,
)
from ..runtime.pixels.convert import input_from_pixels
from .measure.result import Environment, environment_now, load_now
from .options import check_least, check_output
from .report.tables import screen_table
from .under_test.scenes import images_from_source, moving_vehicles, vehicles

VEHICLES = "vehicles"
HEADINGS: dict[Statistic, str] = {  # the KL, which separates least, is in the JSON alone
    "appearance": "look",
    "mahalanobis": "Mahal.",
    "log_var_distance": "log_var",
    "reconstruction_error": "error",
}
_BATCH = 16
_KNOWN_PER_IMAGE = 10
"""Fresh known images for each image of another kind: their false alarms are rare."""

Luma = npt.NDArray[np.uint8]
Float64s = npt.NDArray[np.float64]
Judged = dict[str, tuple[Float64s, npt.NDArray[np.bool_]]]
"""What the runtime makes of N images: by statistic (N,) values, and which are past its limit. By
"is_ood" it is `ood_score`, and which images are out of distribution."""


@dataclass(frozen=True)
class OODOptions:
    """Options of the out-of-distribution benchmark."""

    model: Path = Path("bundle")
    """The bundle that motorvae-export wrote."""
    ood: tuple[str, ...] = ()
    """Videos, images or folders of images that the model has not learned, each a path or
    NAME=PATH. Noise, covered lenses and so on are made in any case."""
    known: str | None = None
    """Images of the kind that the model has learned and was not trained on: a path or NAME=PATH,
    or `vehicles` for the built-in ones, by default the bundle's own held-out images alone."""
    images: int = 300
    """At most so many images of each kind, evenly apart; ten times as many fresh known ones."""
    ood_above: float = OOD_ABOVE
    """As in motorvae-stream."""
    seed: int = 2026
    """Of what is made or drawn; take another than the training's."""
    threads: int | None = None
    """Threads of ONNX Runtime; by default its own choice."""
    output: Path = Path("ood.json")
    """Where the result goes, a .json file."""

    def __post_init__(self) -> None:
        check_least(self, images=1, threads=1, seed=0)


class Separation(StrictModel):
    """One statistic over the images of one kind."""

    # The share of pairs of a known image and one of these in which this one's value is the larger;
    # a tie counts half. 1 separates perfectly, 0.5 not at all, and below 0.5 these images look more
    # known than known ones. None for the known images themselves.
    auroc: float | None = Field(ge=0, le=1)
    # The same of how far a value is from the known images' median, in ranks: of a test that
    # suspects the least values, too
    two_sided: float | None = Field(ge=0, le=1)
    flagged: float = Field(ge=0, le=1)  # The share of these images past the limit


class Kind(StrictModel):
    """Images of one kind."""

    name: str  # What they are
    known: bool  # Whether the model is to know them
    images: int = Field(ge=1)  # How many there were
    statistics: dict[Statistic, Separation]  # By name of a statistic
    is_ood: Separation  # Of `ood_score`, and the share with `is_ood`


class SeparationResult(StrictModel):
    """Everything that the benchmark's JSON holds."""

    schema_version: Literal[2] = 2
    created: str
    environment: Environment
    model: ModelSpec
    weights_sha256: str
    backend: str
    seed: int
    ood_above: float
    known_images: int  # Held-out images behind the bundle's percentiles
    effective_images: float  # How many independent ones they are worth
    false_alarms: float  # The share of known images that the bundle announces as flagged, at most
    reference: str  # The kind of known images that the AUROC of the others is against
    kinds: tuple[Kind, ...]


def _measure(options: OODOptions, *_: object) -> None:
    check_output(options.output, ".json")
    with output_locked(options.output):
        _measure_into(options)


def _measure_into(options: OODOptions) -> None:
    load_start = load_now()
    console = stderr_console()
    bundle = load_bundle(options.model)
    detector = ood_detector_from_bundle(bundle, ood_above=options.ood_above)
    if isinstance(detector, str):
        raise BundleError(detector)
    reference: Judged | None = None
    kinds: list[Kind] = []
    request = EngineRequest(backend="onnx", threads=options.threads)
    with contextlib.ExitStack() as opened:
        encoder = opened.enter_context(open_engine(bundle, GraphKey("encoder"), request))
        decoder = None
        if bundle.spec.has_decoder:
            decoder = opened.enter_context(open_engine(bundle, GraphKey("decoder"), request))
        for name, known, luma in _kinds(options, bundle):
            console.print(f"measuring: {name}, {len(luma)} images")
            judged = judged_images(luma, encoder, decoder, detector)
            kinds.append(kind_of_images(name, judged, reference=reference, known=known))
            reference = reference or judged
    result = SeparationResult(
        created=dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds"),
        environment=environment_now(
            threads={"ONNX Runtime": options.threads} if options.threads else {},
            load_start=load_start,
        ),
        model=bundle.spec,
        weights_sha256=bundle.manifest.weights_sha256,
        backend=encoder.name,
        seed=options.seed,
        ood_above=options.ood_above,
        known_images=detector.images,
        effective_images=detector.effective_images,
        false_alarms=detector.false_alarms,
        reference=kinds[0].name,
        kinds=tuple(kinds),
    )
    kept = save_new_document(options.output, result, indent=1)
    print_separation(console, result)
    console.print(f"every value in {options.output}; the earlier result: {kept or 'none'}")


def judged_images(
    luma: Luma, encoder: Backend, decoder: Backend | None, detector: OODDetector
) -> Judged:
    """Take pictures (N, ...) uint8 through encoder, decoder if there is one, and statistics."""
    scores: list[OODScores] = []
    errors: list[float] = []
    for start in range(0, len(luma), _BATCH):
        part = luma[start : start + _BATCH]
        found, mu = scored_images(encoder, part, detector)
        if decoder is not None:
            away = decoder.run(mu)["reconstruction"] - input_from_pixels(part)
            errors += [float(np.mean(one * one, dtype=np.float64)) for one in away]
        scores += found
    judged: Judged = {}
    for name in detector.statistics:
        is_error = name == "reconstruction_error"
        values = errors if is_error else [getattr(one, name) for one in scores]
        beyond = [detector.is_beyond(name, value) for value in values]
        judged[name] = np.array(values), np.array(beyond)
    flags = np.array([one.is_ood for one in scores])
    return {**judged, "is_ood": (np.array([one.ood_score for one in scores]), flags)}


def kind_of_images(name: str, judged: Judged, *, reference: Judged | None, known: bool) -> Kind:
    """Return what was found of the images of one kind; None is the reference's own reference."""
    found: dict[str, Separation] = {}
    for statistic, (values, flagged) in judged.items():
        area = both = None
        if reference is not None:
            known_values, _ = reference[statistic]
            area = auroc(known_values, values)
            both = auroc(*(_from_median(known_values, some) for some in (known_values, values)))
        share = float(flagged.mean())
        found[statistic] = Separation(auroc=area, two_sided=both, flagged=share)
    facts = {"is_ood": found.pop("is_ood"), "statistics": found}
    images = len(judged["is_ood"][1])
    return Kind.model_validate({"name": name, "known": known, "images": images, **facts})


def _from_median(known: Float64s, values: Float64s) -> Float64s:
    """Return how far values (N,) are from the middle of the known ones, in shares of these."""
    ordered = np.sort(known)
    ranks = np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")
    away: Float64s = np.abs(ranks / (2 * len(known)) - 0.5)
    return away


def print_separation(console: Console, result: SeparationResult) -> None:
    """Print for each kind AUROC and flagged share by each statistic, and by `is_ood`."""
    console.print(
        f"weights {result.weights_sha256[:8]}, {result.backend}; AUROC against "
        f"{result.reference}; flagged past {result.ood_above:g} %, by "
        f"{result.known_images} held-out images worth {result.effective_images:.0f}; "
        f"announced: at most {_share(result.false_alarms)} of known images"
    )
    # What a model without log_var or decoder, or with large latents, does not have is left out.
    shown = [name for name in HEADINGS if name in result.kinds[0].statistics]
    figures = ("n", *(HEADINGS[name] for name in shown), "is_ood")
    table = screen_table(("images", *figures), figures, no_wrap=True, padding=0)
    table.columns[0].min_width = 15
    for kind, after in zip(result.kinds, (*result.kinds[1:], None), strict=True):
        cells = [_cell(one) for one in (*(kind.statistics[name] for name in shown), kind.is_ood)]
        is_last_known = kind.known and after is not None and not after.known
        table.add_row(kind.name, str(kind.images), *cells, end_section=is_last_known)
    console.print(table)


def _cell(found: Separation) -> str:
    area = "" if found.auroc is None else f"{found.auroc:.3f} "
    return f"{area}{_share(found.flagged):>5}"


def _share(share: float) -> str:
    percent = 100 * share
    return f"{percent:.2g}%" if percent < 99.5 else "100%" if share == 1 else f"{percent:.1f}%"


def _kinds(options: OODOptions, bundle: Bundle) -> Iterator[tuple[str, bool, Luma]]:
    """Yield each kind's name, whether it is known, and its images; the reference comes first."""
    count, spec, seed = options.images, bundle.spec, options.seed
    path = bundle.folder / VERIFICATION_IMAGES
    again = "export the bundle again"
    form = Form("u1", ("images", *spec.picture_shape))
    held_out = arrays_from_npz(path, {"images": form}, error=BundleError, again=again)["images"]
    known: Luma = held_out
    if options.known == VEHICLES:
        known = vehicles(seed, _KNOWN_PER_IMAGE * count, spec)
        yield "fresh vehicles", True, known
    elif options.known is not None:
        name, source = _named(options.known)
        known = images_from_source(source, _KNOWN_PER_IMAGE * count, spec)
        yield name, True, known
        known = known[np.linspace(0, len(known) - 1, min(count, len(known))).astype(np.int64)]
    yield "held-out", True, held_out[:count]
    if options.known == VEHICLES:
        inside, outside = moving_vehicles(seed, 2 * count, spec)
        if len(inside):
            yield "driving by, inside", True, inside
        yield "driving by, outside", False, outside
    for name, luma in altered_images(known[:count], seed).items():
        yield name, False, luma
    for name, luma in made_images(seed, count, spec.picture_shape).items():
        yield name, False, luma
    for text in options.ood:
        name, source = _named(text)
        yield name, False, images_from_source(source, count, spec)


def _named(text: str) -> tuple[str, str]:
    """Return the name and the path of NAME=PATH, or of a path alone."""
    name, equals, path = text.partition("=")
    return (name, path) if equals and not Path(text).exists() else (Path(text).name, text)


main = Command(
    OODOptions,
    _measure,
    "Measure how well the statistics of a bundle separate known images.",
    prog="python -m motorvae.benchmarks.ood",
)

if __name__ == "__main__":
    sys.exit(main())
