"""Images to measure with: scenes as cameras deliver them, vehicles, anybody's pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame

from ...runtime.core.errors import ConfigError, SourceError
from ...runtime.core.frame import Gap
from ...runtime.core.spec import ModelSpec
from ...runtime.pixels.camera_formats import fitted_from_jpeg
from ...runtime.pixels.convert import batch_of, fitted, picture_from_image
from ...runtime.pixels.jpeg import pixels_of_jpeg
from ...runtime.pixels.one_pass import LIMITED_RANGE
from ...runtime.pixels.yuv import MATRIX_NUMBERS, fitted_from_video_frame
from ...runtime.sources.base import CaptureRequest, fitted_from_item
from ...runtime.sources.open import open_source
from ...runtime.sources.spec import SYNTHETIC_SIZE
from ...runtime.sources.synthetic.vehicles import RANGES, MovingVehicles, vehicle
from ...training.dataset import vehicle_for
from ..measure.case import FrameSource

Luma = npt.NDArray[np.uint8]
MOVING_FPS = 10

JPEG_QUALITY = 88
_TEXTURE = ((16, 14.0), (64, 10.0), (256, 8.0))
"""Cells across the frame, and how many levels they differ: ground and foliage, roughly."""
_NOISE_LEVELS = 4.0
"""Standard deviation. With it a pixel takes as many bytes of JPEG as in a surveillance video."""


@dataclass(frozen=True)
class Scene:
    """One scene in the forms in which a path can begin."""

    bgr: npt.NDArray[np.uint8]  # (H, W, 3) uint8
    jpeg: npt.NDArray[np.uint8]  # The same as JPEG bytes, (N,) uint8
    yuv: VideoFrame  # The same as a decoder hands it out: YUV 4:2:0 of limited range

    @property
    def sha256(self) -> str:
        """Identity of the pixels from which the other forms were made."""
        return array_sha256(self.bgr)

    def carried(self, source: FrameSource) -> npt.NDArray[np.uint8]:
        """Return the colours that a source still has: 4:2:0 keeps a quarter of the chroma."""
        if source == "mjpeg":
            return np.asarray(cv2.imdecode(self.jpeg, cv2.IMREAD_COLOR), np.uint8)
        if source == "yuv":
            return np.asarray(cv2.cvtColor(self.yuv.to_ndarray(), cv2.COLOR_YUV2BGR_I420), np.uint8)
        return self.bgr


def scene_of(width: int, height: int, seed: int) -> Scene:
    """Return a scene as a camera would deliver it."""
    bgr = frame_of(width, height, seed)
    # FFmpeg's own conversion is two levels too dark on bright pictures unless set to be exact.
    planes = np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2YUV_I420), np.uint8)
    yuv = VideoFrame.from_ndarray(planes, "yuv420p")
    # As OpenCV converts; of a large frame that says nothing, another matrix would be taken.
    yuv.colorspace, yuv.color_range = MATRIX_NUMBERS["bt601"], LIMITED_RANGE
    return Scene(bgr, jpeg_of(bgr), yuv)


def frame_of(width: int, height: int, seed: int) -> npt.NDArray[np.uint8]:
    """Return a vehicle under texture and sensor noise, (H, W, 3) BGR uint8."""
    random = np.random.default_rng(seed)
    luma, _ = vehicle(seed, 0)
    grey = cv2.resize(luma, (width, height), interpolation=cv2.INTER_CUBIC)
    image = np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR), np.float32)
    for cells, levels in _TEXTURE:
        coarse = random.normal(0, levels, (max(2, cells * height // width), cells, 3))
        image += cv2.resize(
            coarse.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC
        )
    image += random.normal(0, _NOISE_LEVELS, image.shape)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def jpeg_of(bgr: npt.NDArray[np.uint8], interval: int = 0) -> npt.NDArray[np.uint8]:
    """Return a frame as JPEG bytes, (N,) uint8, as cheap cameras encode: 4:2:0.

    `interval` is how many blocks of 16 x 16 pixels lie between two restart markers; 0 for none.
    """
    options = (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY, cv2.IMWRITE_JPEG_RST_INTERVAL, interval)
    _, encoded = cv2.imencode(".jpg", bgr, options)
    return np.asarray(encoded, np.uint8).reshape(-1)


def our_luma(scene: Scene, source: FrameSource, spec: ModelSpec) -> Callable[[], Luma]:
    """Return the runtime's own conversion for one kind of source; (S, S) uint8."""
    if source == "mjpeg":
        data = scene.jpeg.tobytes()
        return lambda: fitted_from_jpeg(data, spec)
    if source == "yuv":
        return lambda: fitted_from_video_frame(scene.yuv, spec)
    return lambda: fitted(picture_from_image(scene.bgr, spec.color), spec)


def plain_luma(scene: Scene, source: FrameSource, spec: ModelSpec) -> Callable[[], Luma]:
    """Return the plain recipe: a colour image of full size, cvtColor, resize by INTER_AREA.

    For a model of colours it is resized and its planes are put in order.

    A decoded YUV frame is first converted by FFmpeg, as PyAV's users do it.
    """

    def colour() -> npt.NDArray[np.uint8]:
        if source == "mjpeg":
            return np.asarray(cv2.imdecode(scene.jpeg, cv2.IMREAD_COLOR), np.uint8)
        if source == "yuv":
            return np.asarray(scene.yuv.to_ndarray(format="bgr24"), np.uint8)
        return scene.bgr

    def luma() -> Luma:
        image = colour()
        if spec.color == "grey":
            image = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), np.uint8)
        size = (spec.width, spec.height)
        small = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
        if spec.color == "grey":
            return small
        planes = small[:, :, ::-1] if spec.color == "rgb" else small
        return np.ascontiguousarray(planes.transpose(2, 0, 1))

    return luma


def huffman_alone(jpeg: bytes, width: int, height: int) -> Callable[[], object]:
    """Return what walks through all Huffman codes of a JPEG, and does next to nothing else.

    It decodes grey at 1/8. libjpeg-turbo then reads every code, also those of colours, and keeps a
    coefficient of each block of luma (`decode_mcu_fast` in its jdhuff.c). To ask for all of the
    coefficients, with `jpeg_read_coefficients`, takes longer, as they are stored (docs/speed.md).
    """
    return lambda: pixels_of_jpeg(jpeg, "grey", height // 8, width // 8)


def vehicles(seed: int, count: int, spec: ModelSpec) -> Luma:
    """Draw vehicles as training draws them: (N, S, S) uint8."""
    return np.stack([vehicle_for(spec, seed, index) for index in range(count)])


def luma_for(spec: ModelSpec, count: int, seed: int) -> Luma:
    """Return vehicles as what a graph takes, (count, C, H, W) uint8."""
    return batch_of(vehicles(seed, count, spec))


def moving_vehicles(seed: int, count: int, spec: ModelSpec) -> tuple[Luma, Luma]:
    """See vehicles drive by for `count` frames, as `--camera synthetic` does.

    Of the two (N, S, S) uint8, the first has the frames whose vehicle stands where training had
    vehicles, the second those whose vehicle is further out, down to none at all.
    """
    world = MovingVehicles(seed, SYNTHETIC_SIZE, spec.color)
    times_s = [index / MOVING_FPS for index in range(count)]
    frames = np.stack([fitted(world.image(time_s), spec) for time_s in times_s])
    inside = np.zeros(count, np.bool_)
    for index, factors in enumerate(map(world.factors, times_s)):
        low, high = RANGES[factors.body]["x"]
        inside[index] = low <= factors.x <= high
    return frames[inside], frames[~inside]


def images_from_source(text: str, count: int, spec: ModelSpec) -> Luma:
    """Read a video or a folder of images through the path that a camera's frames take.

    At most `count` frames are kept, evenly apart: (N, S, S) uint8. A live source is a ConfigError.
    """
    kept: list[Luma] = []
    apart, frames = 1, 0
    with open_source(text, CaptureRequest(spec=spec)) as source:
        if source.live:
            raise ConfigError(f"{source.name} is live and has no end: record it and name the file")
        while (item := source.read()) is not None:
            if isinstance(item, Gap):
                continue
            if frames % apart == 0:
                pixels = fitted_from_item(item, spec)
                if isinstance(pixels, Gap):
                    continue
                kept.append(pixels.copy())
            frames += 1
            if len(kept) == 2 * count:  # how many will come is not always known
                kept, apart = kept[::2], 2 * apart
        if not kept:
            raise SourceError(f"nothing in {source.name} decodes: name other images or video")
    evenly = np.linspace(0, len(kept) - 1, min(count, len(kept))).round().astype(np.int64)
    return np.stack([kept[place] for place in evenly])


def array_sha256(values: npt.NDArray[np.generic]) -> str:
    """Return the SHA-256 of an array's bytes as 64 hexadecimal digits."""
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()
