"""Encoders of whole frames held to the float64 reference: their pictures, and their latents."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ...runtime.bundle.frame_format import FrameFormat
from ...runtime.bundle.graph_key import BATCH, GraphKey
from ...runtime.bundle.load import Bundle
from ...runtime.bundle.manifest import GraphReport
from ...runtime.core.errors import ConfigError, ImageError
from ...runtime.core.spec import ModelSpec
from ...runtime.engines.base import Backend
from ...runtime.engines.open import open_engine, open_file
from ...runtime.pixels.convert import batch_of, input_from_pixels
from ..verify.batches import run_in_batches
from ..verify.metrics import LATENT_METRIC, RMS_METRIC, largest, metric, rms
from ..verify.reference import Reference
from ..verify.reports import report_of
from .encoder import PICTURE
from .judging_frames import Pixels, frame_from_image, image_from_pictures, picture_from_frame

MOST_LEVELS = 1.0
"""Mean difference of a frame's picture from the reference's, as of every path of pixels."""
FRAMES, FREE_FRAMES = 8, 2
FREE_SIZES = ((1080, 1920), (720, 1280), (480, 640), (478, 854), (90, 160), (1280, 720))
"""Heights and widths that judge a graph for any size, each with `FREE_FRAMES`."""
PICTURE_METRIC, PIXEL_METRIC = "mean difference, worst frame", "max difference"
REFERENCE = "float64 pixels, float32 encoder"
OWN_LATENT_METRIC = "max error / spread, of its own pictures"


@dataclass(frozen=True, slots=True)
class JudgingFrames:
    """Frames made of held-out pictures, and what the float64 reference makes of them."""

    frames: list[Pixels]
    pictures: Pixels  # (frames, *picture_shape)

    @classmethod
    def of(cls, frame: FrameFormat, spec: ModelSpec, pictures: Pixels) -> JudgingFrames:
        """Return those for a format; a ConfigError where the crop box takes nothing of a frame."""
        sizes, count = ((frame.size,), FRAMES) if not frame.is_free else (FREE_SIZES, FREE_FRAMES)
        numbers = np.linspace(0, len(pictures) - 1, min(count, len(pictures))).astype(int)
        frames = [
            frame_from_image(image_from_pictures(pictures, number, size), frame)
            for size in sizes
            for number in numbers
        ]
        try:
            expected = [picture_from_frame(taken, frame, spec) for taken in frames]
        except ImageError as error:
            raise ConfigError(f"--whole-frame {frame}: {error}: name another size") from error
        return cls(frames, np.array(expected))


def frame_reports(
    key: GraphKey,
    path: Path,
    judging: JudgingFrames,
    bundle: Bundle,
    reference: Reference,
) -> tuple[GraphReport, GraphReport]:
    """Run an encoder of whole frames and report on two outputs.

    Its picture is compared with the float64 reference's. Its `mu` is compared with what the
    bundle's float32 encoder gives for that very picture, within the limits of its precision, and
    for the reference's picture: there it may also differ by what a level more or less moves `mu`
    by, at random in every pixel. That is the mean difference a picture may have, and an error that
    is not random moves it further.
    """
    found, mu, name = [], [], ""
    for shape, group in itertools.groupby(judging.frames, key=lambda taken: taken.shape):
        with _opened_with_picture(path, shape) as engine:
            name = engine.name
            for taken in group:
                given = engine.run(taken[None])
                found.append(np.asarray(given[PICTURE][0], np.uint8))
                mu.append(given["mu"][0])
    own, wanted = np.array(found), batch_of(judging.pictures)
    with open_engine(bundle, GraphKey("encoder")) as encoder:
        noise = np.random.default_rng(0).choice(np.array([-1, 1]), wanted.shape)
        noisy = np.clip(wanted + noise, 0, 255).astype(np.uint8)
        of_own, of_wanted, of_noisy = (_mu(encoder, each) for each in (own, wanted, noisy))
    difference = np.abs(own.astype(np.float64) - wanted)
    per_frame = difference.mean(axis=(1, 2, 3))
    units = reference.judged_units

    def relative(of: npt.ArrayLike, to: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        error = (np.asarray(of, np.float64) - to) / reference.scale
        return np.asarray(error[:, units], np.float64)

    limits, by_noise = reference.limits(key.precision), relative(of_noisy, of_wanted)
    whole, part = relative(mu, of_wanted), relative(mu, of_own)
    pictures = [
        metric(PICTURE_METRIC, largest(per_frame), unit="levels", limit=MOST_LEVELS),
        metric(PIXEL_METRIC, largest(difference), unit="levels"),
    ]
    latents = [
        metric(LATENT_METRIC, largest(whole), limit=limits.max_spread + largest(by_noise)),
        metric(RMS_METRIC, rms(whole), limit=limits.rms_spread + rms(by_noise)),
        metric(OWN_LATENT_METRIC, largest(part), limit=limits.max_spread),
    ]
    picture, latent = (
        report_of(output, metrics, key, reference, engine=name).model_copy(
            update={"images": len(mu), "reference": REFERENCE}
        )
        for output, metrics in (("picture", pictures), ("mu", latents))
    )
    return picture, latent


def _mu(encoder: Backend, pictures: Pixels) -> npt.NDArray[np.float32]:
    return run_in_batches(encoder, input_from_pixels(pictures))["mu"]


@contextlib.contextmanager
def _opened_with_picture(path: Path, shape: tuple[int, ...]) -> Iterator[Backend]:
    """Open a graph for frames of one shape, so that it gives its picture too; keep no file."""
    model = ir.load(path)
    (picture,) = (value for node in model.graph for value in node.outputs if value.name == PICTURE)
    model.graph.outputs.append(picture)
    (taken,) = model.graph.inputs
    taken.shape = ir.Shape([BATCH, *shape])
    exposed = path.with_name(f"exposed-{path.name}")
    ir.save(model, exposed)
    try:
        with open_file(exposed) as backend:
            yield backend
    finally:
        exposed.unlink()
