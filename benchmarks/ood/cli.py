"""How well out-of-distribution detection does, for any bundle and anybody's images."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...export.ood.images import altered_images, made_images
from ...runtime.bundle.arrays import arrays_from_npz
from ...runtime.bundle.graph_key import GraphKey
from ...runtime.bundle.load import Bundle, load_bundle
from ...runtime.bundle.manifest import VERIFICATION_IMAGES
from ...runtime.core.atomic_files import check_replaceable_file, check_writable, set_aside
from ...runtime.core.command import run_command, stderr_console
from ...runtime.core.errors import BundleError, ConfigError
from ...runtime.engines.base import Backend
from ...runtime.engines.open import open_engine
from ...runtime.engines.request import EngineRequest
from ...runtime.ood.detector import (
    OOD_ABOVE,
    STATISTIC_NAMES,
    OODDetector,
    OODScores,
    Statistic,
    ood_detector_from_bundle,
)
from ...runtime.pixels.convert import input_from_luma
from ..measure.environment import environment_now, load_now
from .images import Luma, images_from_source, moving_vehicles, vehicles
from .separation import (
    Judged,
    Kind,
    SeparationResult,
    kind_of_images,
    print_separation,
    save_separation,
)

VEHICLES = "vehicles"
_BATCH = 16
_KNOWN_PER_IMAGE = 10
"""Fresh known images for each image of another kind: their false alarms are rare."""


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


def main(args: Sequence[str] | None = None) -> int:
    """Run the benchmark; return its exit code."""
    return run_command(
        OODOptions,
        _measure,
        prog="python -m motorvae.benchmarks.ood",
        description="Measure how well the statistics of a bundle tell known images from others.",
        args=args,
    )


def _measure(options: OODOptions) -> None:
    _check(options)
    load_start = load_now()
    console = stderr_console()
    bundle = load_bundle(options.model)
    detector = ood_detector_from_bundle(bundle, ood_above=options.ood_above)
    if not isinstance(detector, OODDetector):
        raise BundleError(detector.reason)
    reference: tuple[str, Judged] | None = None
    kinds: list[Kind] = []
    request = EngineRequest(backend="onnx", threads=options.threads)
    with (
        open_engine(bundle, GraphKey("encoder"), request) as encoder,
        open_engine(bundle, GraphKey("decoder"), request) as decoder,
    ):
        backend = encoder.name
        for name, known, luma in _kinds(options, bundle):
            console.print(f"measuring: {name}, {len(luma)} images")
            judged = judged_images(luma, encoder, decoder, detector)
            kinds.append(
                kind_of_images(
                    name,
                    judged,
                    reference=reference[1] if reference else None,
                    known=known,
                    detector=detector,
                )
            )
            reference = reference or (name, judged)
    assert reference is not None  # noqa: S101  # for the type checker: there is always one kind
    result = SeparationResult(
        created=dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds"),
        environment=environment_now(
            threads={"ONNX Runtime": options.threads} if options.threads else {},
            load_start=load_start,
        ),
        model=bundle.spec,
        weights_sha256=bundle.manifest.weights_sha256,
        backend=backend,
        seed=options.seed,
        ood_above=options.ood_above,
        yardstick_images=detector.images,
        effective_images=detector.effective_images,
        false_alarms=detector.false_alarms,
        reference=reference[0],
        kinds=tuple(kinds),
    )
    kept = set_aside(options.output)
    save_separation(options.output, result)
    print_separation(console, result)
    console.print(f"every value in {options.output}")
    if kept is not None:
        console.print(f"the earlier one is kept as {kept}")


def judged_images(luma: Luma, encoder: Backend, decoder: Backend, detector: OODDetector) -> Judged:
    """Take images (N, S, S) uint8 through encoder, decoder and statistics."""
    values: dict[Statistic, list[float]] = {name: [] for name in STATISTIC_NAMES}
    scored: list[OODScores] = []
    for start in range(0, len(luma), _BATCH):
        batch = input_from_luma(luma[start : start + _BATCH, None])
        latents = encoder.run(batch)
        away = decoder.run(latents["mu"])["reconstruction"] - batch
        errors: npt.NDArray[np.float64] = np.mean(away * away, axis=(1, 2, 3), dtype=np.float64)
        values["reconstruction_error"] += errors.tolist()
        for mu, log_var, image in zip(
            latents["mu"], latents["log_var"], luma[start : start + _BATCH], strict=True
        ):
            found = detector.scored(mu, log_var, detector.appearance(image))
            values["kl"].append(detector.kl(mu, log_var))
            values["mahalanobis"].append(found.mahalanobis)
            values["appearance"].append(found.appearance)
            values["log_var_distance"].append(detector.log_var_distance(log_var))
            scored.append(found)
    return Judged(
        values={name: np.array(found) for name, found in values.items()},
        scores=np.array([found.ood_score for found in scored]),
        is_ood=np.array([found.is_ood for found in scored]),
    )


def _kinds(options: OODOptions, bundle: Bundle) -> Iterator[tuple[str, bool, Luma]]:
    """Yield each kind's name, whether it is known, and its images; the reference comes first."""
    count, spec, seed = options.images, bundle.spec, options.seed
    path = bundle.folder / VERIFICATION_IMAGES
    again = "export the bundle again"
    held_out = arrays_from_npz(path, ("images",), error=BundleError, again=again)["images"]
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
    for name, luma in made_images(seed, count, spec.image_size).items():
        yield name, False, luma
    for text in options.ood:
        name, source = _named(text)
        yield name, False, images_from_source(source, count, spec)


def _named(text: str) -> tuple[str, str]:
    """Return the name and the path of NAME=PATH, or of a path alone."""
    name, equals, path = text.partition("=")
    return (name, path) if equals and not Path(text).exists() else (Path(text).name, text)


def _check(options: OODOptions) -> None:
    if options.output.suffix != ".json":
        raise ConfigError(f"--output {options.output}: name a file that ends in .json")
    check_replaceable_file(options.output)
    check_writable(options.output)
    problems = {
        "--images": options.images < 1 and "1 or more",
        "--threads": options.threads is not None and options.threads < 1 and "1 or more",
        "--seed": options.seed < 0 and "0 or more",
    }
    for flag, wanted in problems.items():
        if wanted:
            raise ConfigError(f"{flag} {getattr(options, flag[2:])}: take {wanted}")
