"""Print how exact and how fast every path from a frame to a fitted picture is, in Markdown.

OPENCV_SAMPLES_DATA_PATH=folder-of-vtest.avi python tests/runtime/pixels/pixel_table.py [rgb|bgr]
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import av
import cv2
import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from real_pictures import street

from motorvae.runtime.core.frame import Mode
from motorvae.runtime.core.spec import Color, Fit, ModelSpec
from motorvae.runtime.pixels.camera_formats import fitted_from_jpeg, fitted_from_raw
from motorvae.runtime.pixels.convert import fitted, picture_from_image
from motorvae.runtime.pixels.reference import reference_picture
from motorvae.runtime.pixels.yuv import bgr_from_video_frame, fitted_from_video_frame

Image = npt.NDArray[np.uint8]

SIZES = [(1920, 1080), (1280, 720), (640, 480)]
FITS: tuple[Fit, ...] = ("stretch", "crop", "pad", "letterbox")
ROUNDS = 40
BT709, LIMITED, FULL = 1, 1, 2


class Path(NamedTuple):
    """One way to a picture: ours, the plain one to BGR, and what it shows in colours."""

    name: str
    ours: Callable[[ModelSpec], Image | None]
    plain: Callable[[], Image]
    shown: Image


def plain_from_bgr(image: Image, color: Color) -> Image:
    """What people write: grey where that is meant, then an area filter."""
    if color == "grey":
        image = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).astype(np.uint8)
    small = cv2.resize(image, (256, 256), interpolation=cv2.INTER_AREA).astype(np.uint8)
    if color == "grey":
        return small
    planes = small[:, :, ::-1] if color == "rgb" else small
    return np.ascontiguousarray(planes.transpose(2, 0, 1))


def yuv_path(name: str, image: Image, pixels: str, *, matrix: int = 2, levels: int = 1) -> Path:
    """A decoded frame; the plain way goes through colours."""
    frame = VideoFrame.from_ndarray(image, format="bgr24").reformat(
        format=pixels,
        dst_color_range=levels,
        dst_colorspace=1 if matrix == BT709 else 5,
        interpolation="AREA",
    )
    frame.colorspace, frame.color_range = matrix, levels
    reformatter = VideoReformatter()

    def plain() -> Image:
        return reformatter.reformat(frame, format="bgr24").to_ndarray().astype(np.uint8, copy=False)

    return Path(name, lambda spec: fitted_from_video_frame(frame, spec), plain, bgr_of(frame))


def bgr_of(frame: VideoFrame) -> Image:
    """The exact colours of a frame; one that names no matrix was made by that of BT.601."""
    return bgr_from_video_frame(frame, matrix="bt601")


def jpeg_path(image: Image) -> Path:
    """A JPEG's bytes; the plain way decodes all of its colours."""
    data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 90])[1]
    content = data.tobytes()
    codec = av.VideoCodecContext.create("mjpeg", "r")
    (frame,) = codec.decode(av.Packet(content))

    def plain() -> Image:
        return cv2.imdecode(data, cv2.IMREAD_COLOR).astype(np.uint8, copy=False)

    return Path("JPEG bytes", lambda spec: fitted_from_jpeg(content, spec), plain, bgr_of(frame))


def raw_path(image: Image, fourcc: str, pixels: str, code: int) -> Path:
    """A V4L2 camera's buffer; the plain way is OpenCV's conversion."""
    frame = VideoFrame.from_ndarray(image, format="bgr24").reformat(format=pixels)
    raw: Any = frame.to_ndarray()
    mode = Mode(frame.width, frame.height, 30.0, fourcc)

    def plain() -> Image:
        return cv2.cvtColor(raw, code).astype(np.uint8, copy=False)

    shown = cv2.cvtColor(raw, code).astype(np.uint8)
    return Path(f"raw {fourcc}", lambda spec: fitted_from_raw(raw, mode, spec), plain, shown)


def paths_of(width: int, height: int) -> list[Path]:
    """All of them for one size."""
    image = np.ascontiguousarray(street(width, height))
    return [
        jpeg_path(image),
        yuv_path("YUV 4:2:0 limited", image, "yuv420p"),
        yuv_path("YUV 4:2:0 full", image, "yuvj420p", levels=FULL),
        yuv_path("YUV 4:2:0 BT.709", image, "yuv420p", matrix=BT709),
        yuv_path("NV12", image, "nv12"),
        yuv_path("YUV 4:2:0 10-bit", image, "yuv420p10le"),
        raw_path(image, "YUYV", "yuyv422", cv2.COLOR_YUV2BGR_YUYV),
        raw_path(image, "NV12", "nv12", cv2.COLOR_YUV2BGR_NV12),
        Path(
            "BGR",
            lambda spec: fitted(picture_from_image(image, spec.color), spec),
            lambda: image,
            image,
        ),
    ]


def error_of(picture: Image, reference: Image) -> tuple[float, float]:
    """Mean absolute difference in levels, and correlation."""
    found, expected = picture.astype(np.float64), reference.astype(np.float64)
    correlation = np.corrcoef(found.ravel(), expected.ravel())[0, 1]
    return float(np.abs(found - expected).mean()), float(correlation)


def timed(path: Path, color: Color) -> list[float]:
    """Take ours, ours in grey and the plain way, one behind the other; milliseconds."""
    times_ms = []
    for make in (
        lambda: path.ours(ModelSpec(color=color)),
        lambda: path.ours(ModelSpec()),
        lambda: plain_from_bgr(path.plain(), color),
    ):
        start_s = time.perf_counter()
        make()
        times_ms.append(1e3 * (time.perf_counter() - start_s))
    return times_ms


def main(color: Color = "grey") -> int:
    """Print the table; times are of one thread, in rounds that take turns."""
    cv2.setNumThreads(1)
    write = sys.stdout.write
    titles = ["size", "path", "error, levels", "correlation", "ours, ms", "ours in grey, ms"]
    write(f"| {' | '.join([*titles, 'plain, ms', 'its error'])} |\n{'| --- ' * 8}|\n")
    stretch = ModelSpec(color=color)
    for size in SIZES:
        paths = paths_of(*size)
        times: dict[str, list[list[float]]] = {}
        for _ in range(ROUNDS):
            for path in paths:
                times.setdefault(path.name, []).append(timed(path, color))
        for path in paths:
            worst, least = 0.0, 1.0
            for fit in FITS:
                spec = ModelSpec(fit=fit, color=color)
                picture = path.ours(spec)
                assert picture is not None
                error, correlation = error_of(picture, reference_picture(path.shown, spec))
                worst, least = max(worst, error), min(least, correlation)
            plain = plain_from_bgr(path.plain(), color)
            plain_error, _ = error_of(plain, reference_picture(path.shown, stretch))
            columns = np.array(times[path.name]).T
            cells = [f"{np.median(ms):.2f} ({ms.min():.2f})" for ms in columns]
            write(
                f"| {size[0]}x{size[1]} | {path.name} | {worst:.2f} | {least:.5f} | "
                f"{' | '.join(cells)} | {plain_error:.2f} |\n"
            )
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*cast("list[Color]", sys.argv[1:2])))
