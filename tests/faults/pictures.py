"""Test pictures that a latent tells apart, from each other and from what a decoder patches up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from motorvae.runtime.bundle.graph_key import GraphKey
from motorvae.runtime.bundle.load import load_bundle
from motorvae.runtime.engines.open import open_engine
from motorvae.runtime.pixels.convert import fitted, input_from_pixels, luma_from_image

Image = npt.NDArray[np.uint8]

KINDS = 16
WIDTH, HEIGHT = 96, 64
BLOCKS = 4  # to a side, each black or white
SEED = 58  # of those tried, the one whose pictures have the most different latents
DARK, BRIGHT, GREY = 32, 224, 128
FILLED_FROM = (0.25, 0.5, 0.75)  # of the height: from there a decoder has filled in
NEAR = 0.25  # of the way to whatever else the latent could be of
SCAN = b"\xff\xda"  # the marker before the entropy-coded bytes
QUALITY = (cv2.IMWRITE_JPEG_QUALITY, 95)


def picture(kind: int, width: int = WIDTH, height: int = HEIGHT) -> Image:
    """Picture `kind`, (height, width) luma; a camera shows them one after another, again and again.

    Other sizes show the same.
    """
    bits = np.random.default_rng((SEED, kind % KINDS)).integers(0, 2, (BLOCKS, BLOCKS), np.uint8)
    blocks = np.where(bits, BRIGHT, DARK).astype(np.uint8)
    return cv2.resize(blocks, (width, height), interpolation=cv2.INTER_NEAREST).astype(np.uint8)


def jpeg(image: Image) -> bytes:
    """A picture as a camera's JPEG: three components, as most cameras write."""
    colour = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    return cv2.imencode(".jpg", colour, QUALITY)[1].tobytes()


def damaged_jpeg(data: bytes) -> bytes:
    """The same JPEG with half of its scan overwritten by a code that no table holds."""
    scan = data.index(SCAN)
    start = scan + (len(data) - scan) // 3
    pairs = (len(data) - scan) // 4
    return data[:start] + b"\xff\x00" * pairs + data[start + 2 * pairs :]


def headless_jpeg(data: bytes) -> bytes:
    """The same JPEG without its scan's start: tables and size are there, and no picture."""
    return data.replace(SCAN, b"\xff\xfe")  # what follows is now a comment


def video_luma(image: Image) -> Image:
    """A picture in the range of levels that video has, 16 to 235; a decoder widens it again."""
    return np.rint(16 + image * (219 / 255)).astype(np.uint8)


def patched(image: Image) -> list[Image]:
    """What a decoder shows of a picture whose lower part did not come."""
    found = []
    for share in FILLED_FROM:
        copy = image.copy()
        copy[round(share * len(copy)) :] = GREY
        found.append(copy)
    return found


@dataclass
class Album:
    """The latents of all pictures that a source sends, and of those that it must never become.

    Attributes:
        sent: (K, D), one for each picture.
        wrong: (M, D): even pictures, and the sent ones with their lower part filled in.
    """

    sent: npt.NDArray[np.float32]
    wrong: npt.NDArray[np.float32]

    def kind_of(self, mu: Sequence[float]) -> int:
        """Which picture a latent is of.

        Fails where it is not clearly nearer to one that was sent than to any other.
        """
        latent = np.asarray(mu, np.float32)
        distances = np.linalg.norm(self.sent - latent, axis=1)
        kind = int(distances.argmin())
        others = np.concatenate([np.delete(self.sent, kind, axis=0), self.wrong])
        room = float(np.linalg.norm(others - self.sent[kind], axis=1).min())
        assert distances[kind] < NEAR * room, (
            f"a latent of no picture that was sent: {distances[kind]:.3f} from picture {kind}, "
            f"{np.linalg.norm(others - latent, axis=1).min():.3f} from the next"
        )
        return kind


def album_of(
    bundle: Path, pictures: Sequence[Image], blanks: Sequence[int] = (0, 16, GREY, 235, 255)
) -> Album:
    """Encode every picture that will be sent, and every one that must not come of it.

    Args:
        bundle: The model.
        pictures: What is sent.
        blanks: Levels of the even pictures that are not.
    """
    loaded = load_bundle(bundle)
    height, width = pictures[0].shape
    even = [np.full((height, width), level, np.uint8) for level in blanks]
    wrong = even + [filled for image in pictures for filled in patched(image)]
    with open_engine(loaded, GraphKey("encoder")) as encoder:
        inputs = [
            input_from_pixels(fitted(luma_from_image(image), loaded.spec))
            for image in (*pictures, *wrong)
        ]
        latents = np.concatenate([encoder.run(one[None, None])["mu"] for one in inputs])
    return Album(latents[: len(pictures)], latents[len(pictures) :])
