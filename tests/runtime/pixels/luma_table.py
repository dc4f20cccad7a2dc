"""Print how exact and how fast every path from a frame to luma is, as a table in Markdown.

OPENCV_SAMPLES_DATA_PATH=folder-of-vtest.avi python tests/runtime/pixels/luma_table.py
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import av
import cv2
import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from real_pictures import street

from motorvae.runtime.core.frame import Mode
from motorvae.runtime.core.spec import Fit, ModelSpec
from motorvae.runtime.pixels.camera_formats import fitted_from_jpeg, fitted_from_raw
from motorvae.runtime.pixels.convert import fitted, luma_from_image
from motorvae.runtime.pixels.reference import reference_picture
from motorvae.runtime.pixels.yuv import bgr_from_video_frame, fitted_from_video_frame

Image = npt.NDArray[np.uint8]

SIZES = [(1920, 1080), (1280, 720), (640, 480)]
FITS: tuple[Fit, ...] = ("stretch", "crop", "pad")
ROUNDS = 40
BT709, LIMITED, FULL = 1, 1, 2


class Path(NamedTuple):
    """One way to luma: ours, the plain one, and what it shows in colours."""

    name: str
    ours: Callable[[ModelSpec], Image | None]
    plain: Callable[[], Image]
    shown: Image


def plain_from_bgr(image: Image) -> Image:
    """What people write: grey, then an area filter."""
    return cv2.resize(
        cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), (256, 256), interpolation=cv2.INTER_AREA
    ).astype(np.uint8)


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
        return plain_from_bgr(reformatter.reformat(frame, format="bgr24").to_ndarray())

    return Path(name, lambda spec: fitted_from_video_frame(frame, spec), plain, bgr_of(frame))


def bgr_of(frame: VideoFrame) -> Image:
    """The exact colours of a frame."""
    return bgr_from_video_frame(frame)


def jpeg_path(image: Image) -> Path:
    """A JPEG's bytes; the plain way decodes all of its colours."""
    data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 90])[1]
    content = data.tobytes()
    codec = av.VideoCodecContext.create("mjpeg", "r")
    (frame,) = codec.decode(av.Packet(content))

    def plain() -> Image:
        return plain_from_bgr(cv2.imdecode(data, cv2.IMREAD_COLOR).astype(np.uint8))

    return Path("JPEG bytes", lambda spec: fitted_from_jpeg(content, spec), plain, bgr_of(frame))


def raw_path(image: Image, fourcc: str, pixels: str, code: int) -> Path:
    """A V4L2 camera's buffer; the plain way is OpenCV's conversion."""
    frame = VideoFrame.from_ndarray(image, format="bgr24").reformat(format=pixels)
    raw: Any = frame.to_ndarray()
    mode = Mode(frame.width, frame.height, 30.0, fourcc)

    def plain() -> Image:
        return plain_from_bgr(cv2.cvtColor(raw, code).astype(np.uint8))

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
            lambda spec: fitted(luma_from_image(image), spec),
            lambda: plain_from_bgr(image),
            image,
        ),
    ]


def error_of(luma: Image, reference: Image) -> tuple[float, float]:
    """Mean absolute difference in levels, and correlation."""
    found, expected = luma.astype(np.float64), reference.astype(np.float64)
    correlation = np.corrcoef(found.ravel(), expected.ravel())[0, 1]
    return float(np.abs(found - expected).mean()), float(correlation)


def main() -> int:
    """Print the table; times are of one thread, in rounds that take turns."""
    cv2.setNumThreads(1)
    write = sys.stdout.write
    write("| size | path | error, levels | correlation | ours, ms | plain, ms | plain's error |\n")
    write("| --- | --- | --- | --- | --- | --- | --- |\n")
    stretch = ModelSpec()
    for size in SIZES:
        paths = paths_of(*size)
        times: dict[str, tuple[list[float], list[float]]] = {one.name: ([], []) for one in paths}
        for _ in range(ROUNDS):
            for path in paths:
                start_s = time.perf_counter()
                path.ours(stretch)
                middle_s = time.perf_counter()
                path.plain()
                times[path.name][0].append(1e3 * (middle_s - start_s))
                times[path.name][1].append(1e3 * (time.perf_counter() - middle_s))
        for path in paths:
            worst, least = 0.0, 1.0
            for fit in FITS:
                spec = ModelSpec(fit=fit)
                luma = path.ours(spec)
                assert luma is not None
                error, correlation = error_of(luma, reference_picture(path.shown, spec))
                worst, least = max(worst, error), min(least, correlation)
            plain_error, _ = error_of(path.plain(), reference_picture(path.shown, stretch))
            ours, plain = ((float(np.median(ms)), min(ms)) for ms in times[path.name])
            write(
                f"| {size[0]}x{size[1]} | {path.name} | {worst:.2f} | {least:.5f} | {ours[0]:.2f} "
                f"({ours[1]:.2f}) | {plain[0]:.2f} ({plain[1]:.2f}) | {plain_error:.2f} |\n"
            )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
