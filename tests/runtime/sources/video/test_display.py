"""Turned, mirrored and anamorphic videos, judged by numpy on what was recorded and by ffmpeg."""

from __future__ import annotations

import io
import shutil
import subprocess
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from motorvae.runtime.core.frame import Frame, Gap
from motorvae.runtime.core.spec import ModelSpec
from motorvae.runtime.sources.base import CaptureRequest
from motorvae.runtime.sources.spec import SourceSpec
from motorvae.runtime.sources.video.source import VideoSource

Grey = npt.NDArray[np.uint8]
Drain = Callable[[VideoSource], list[Frame | Gap]]

SIDE = 32
HEIGHT, WIDTH = 96, 64  # of what is seen
needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="there is no ffmpeg here")

# How what is seen was laid on its side to be stored, by EXIF's number: TIFF 6.0, "Orientation".
STORED: dict[int, Callable[[Any], Any]] = {
    1: lambda seen: seen,
    2: np.fliplr,
    3: lambda seen: np.rot90(seen, 2),
    4: np.flipud,
    5: lambda seen: seen.transpose(1, 0, *range(2, seen.ndim)),
    6: lambda seen: np.rot90(seen, 1),
    7: lambda seen: np.rot90(seen, 2).transpose(1, 0, *range(2, seen.ndim)),
    8: lambda seen: np.rot90(seen, -1),
}
# The same by PyAV: degrees counter-clockwise, and whether it is mirrored after that.
TURNS = {
    1: (0, False),
    2: (0, True),
    3: (180, False),
    4: (180, True),
    5: (-90, True),
    6: (-90, False),
    7: (90, True),
    8: (90, False),
}


def scene(number: int = 0, height: int = HEIGHT, width: int = WIDTH) -> Grey:
    """A smooth picture that no turn leaves as it is."""
    down, across = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    shade = 60 + 100 * down + 40 * across + 30 * np.sin(9 * across + 4 * down**2 + number)
    shade[: height // 3, : width // 4] = 30 + 8 * number
    return np.rint(shade).clip(20, 230).astype(np.uint8)


def record(
    path: Path,
    pictures: Sequence[Grey],
    *,
    turn: tuple[float, bool] = (0, False),
    aspect: Fraction | None = None,
    codec: str = "libx264",
    matrix: Sequence[int] | None = None,
) -> Path:
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, 25)
        stream.height, stream.width = pictures[0].shape
        stream.pix_fmt = "gray" if codec == "ffv1" else "yuv420p"
        if codec == "mjpeg":
            stream.pix_fmt, stream.options = "yuvj420p", {"qmin": "1", "qmax": "1"}
        elif codec == "libx264":
            stream.options = {"qp": "1"}
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        stream.set_display_rotation(turn[0], hflip=turn[1])
        if matrix:
            stream.set_display_matrix(matrix)
        for picture in pictures:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="gray")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def spec(fit: Any = "stretch", side: int = SIDE) -> ModelSpec:
    return ModelSpec(image_size=side, channels=(8, 8), latent_size=4, fit=fit)


def source_of(path: Path, fit: str | None = "stretch") -> VideoSource:
    request = CaptureRequest() if fit is None else CaptureRequest(spec=spec(fit))
    return VideoSource(SourceSpec("video", str(path), path.name), request)


def fitted(seen: Grey, fit: str) -> npt.NDArray[np.float64]:
    """Fit by whole numbers, (96, 64) and its like to (32, 32), in float64."""
    levels = seen.astype(np.float64)
    rest = abs(levels.shape[0] - levels.shape[1]) // 2
    if fit == "crop":
        levels = levels[rest:-rest] if levels.shape[0] > levels.shape[1] else levels[:, rest:-rest]
    elif fit == "pad":
        bars = ((0, 0), (rest, rest))
        bars = bars if levels.shape[0] > levels.shape[1] else bars[::-1]
        levels = np.pad(levels, bars, constant_values=255)
    down, across = levels.shape[0] // SIDE, levels.shape[1] // SIDE
    return levels.reshape(SIDE, down, SIDE, across).mean(axis=(1, 3))


def assert_seen(items: Sequence[Frame | Gap], seen: Sequence[Grey], fit: str) -> None:
    for item, picture in zip(items, seen, strict=True):
        assert isinstance(item, Frame), item
        assert np.abs(item.image - fitted(picture, fit)).mean() <= 1.0


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv", "jpeg.mov"])
def test_a_video_is_seen_as_its_container_turns_it(
    tmp_path: Path, drain: Drain, name: str, orientation: int
) -> None:
    seen = [scene(number) for number in range(3)]
    codec = {"a.mkv": "ffv1", "jpeg.mov": "mjpeg"}.get(name, "libx264")
    stored = [STORED[orientation](picture) for picture in seen]
    path = record(tmp_path / name, stored, turn=TURNS[orientation], codec=codec)
    for fit in ("stretch", "crop", "pad"):
        assert_seen(drain(source_of(path, fit)), seen, fit)
    for item, picture in zip(drain(source_of(path, None)), seen, strict=True):
        assert isinstance(item, Frame)
        assert item.image.shape == (HEIGHT, WIDTH, 3)
        assert np.abs(item.image.astype(int).mean(axis=2) - picture).mean() <= 1.5


@needs_ffmpeg
@pytest.mark.parametrize("orientation", range(1, 9))
def test_ffmpeg_turns_it_alike(tmp_path: Path, drain: Drain, orientation: int) -> None:
    seen = [scene(number) for number in range(3)]
    stored = [STORED[orientation](picture) for picture in seen]
    path = record(tmp_path / "a.mp4", stored, turn=TURNS[orientation])
    command = ["ffmpeg", "-v", "error", "-i", path, "-f", "rawvideo", "-pix_fmt", "gray", "-"]
    raw = subprocess.run(command, capture_output=True, check=True).stdout
    shown = np.frombuffer(raw, np.uint8).reshape(3, HEIGHT, WIDTH)
    assert_seen(drain(source_of(path)), list(shown), "stretch")


@needs_ffmpeg
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
@pytest.mark.parametrize(
    ("said", "orientation"), [("rotate=90", 8), ("rotate=180", 3), ("flip=horizontal", 2)]
)
def test_what_h264_says_of_itself_holds_until_the_next_key_frame(
    tmp_path: Path, drain: Drain, name: str, said: str, orientation: int
) -> None:
    seen = [scene(number) for number in range(4)]
    plain = record(tmp_path / "plain.mp4", [STORED[orientation](picture) for picture in seen])
    says = f"h264_metadata=display_orientation=insert:{said}"
    command = ["ffmpeg", "-v", "error", "-i", plain, "-c", "copy", "-bsf:v", says]
    subprocess.run([*command, tmp_path / name], check=True)
    assert_seen(drain(source_of(tmp_path / name)), seen, "stretch")


def test_a_turn_that_is_no_multiple_of_90_degrees_is_a_gap_with_its_name(
    tmp_path: Path, drain: Drain
) -> None:
    path = record(tmp_path / "a.mp4", [scene(), scene(1)], turn=(30, False))
    for fit in ("stretch", None):
        items = drain(source_of(path, fit))
        assert [type(item) for item in items] == [Gap, Gap]
        assert all("to be turned by" in item.reason for item in items if isinstance(item, Gap))


def test_a_matrix_that_leaves_nothing_of_the_picture_is_none(tmp_path: Path, drain: Drain) -> None:
    zero = [0] * 8 + [1 << 30]
    path = record(tmp_path / "a.mp4", [scene()], matrix=zero)
    assert_seen(drain(source_of(path)), [scene()], "stretch")


def jpeg(picture: Grey, orientation: int, density: tuple[int, int] = (1, 1)) -> bytes:
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    file = io.BytesIO()
    image = Image.fromarray(np.ascontiguousarray(picture)).convert("RGB")
    image.save(file, "JPEG", quality=98, exif=exif, dpi=density)
    return file.getvalue()


@pytest.mark.parametrize("doubtful", [False, True])
@pytest.mark.parametrize("name", ["a.mjpeg", "a.avi", "a.mov", "a.mkv"])
def test_each_jpeg_of_a_stream_is_seen_as_its_exif_segment_says(
    tmp_path: Path, drain: Drain, name: str, doubtful: bool
) -> None:
    turns = [6, 3, 1, 2, 7, 4, 0, 6]
    seen = [scene(number, 64, 64) for number in range(len(turns))]
    files = [
        jpeg(STORED[max(turn, 1)](picture), turn, density=(300, 72 if name == "a.mjpeg" else 300))
        for turn, picture in zip(turns, seen, strict=True)
    ]
    if doubtful:  # bytes too many before the end: the quick decoder leaves it to FFmpeg
        files = [data[:-2] + bytes(3) + data[-2:] for data in files]
    path = tmp_path / name
    if name == "a.mjpeg":
        path.write_bytes(b"".join(files))
    else:
        with av.open(str(path), "w") as container:
            stream: Any = container.add_stream("mjpeg", 25)
            stream.height = stream.width = 64
            stream.pix_fmt = "yuvj420p"
            for number, data in enumerate(files):
                packet = av.Packet(data)
                packet.pts = packet.dts = number
                packet.time_base, packet.stream = Fraction(1, 25), stream
                packet.is_keyframe = True
                container.mux(packet)
    assert_seen(drain(source_of(path)), seen, "stretch")
    for item, picture in zip(drain(source_of(path, None)), seen, strict=True):
        assert isinstance(item, Frame)
        assert np.abs(item.image.astype(int).mean(axis=2) - picture).mean() <= 1.5


@pytest.mark.parametrize("name", ["/a.jpg", "/a", "/a.mjpeg"])
@pytest.mark.parametrize("orientation", [6, 7])
def test_a_jpeg_of_a_server_is_seen_as_its_exif_segment_says(
    server: Any, name: str, orientation: int
) -> None:
    data = jpeg(STORED[orientation](scene(0, 64, 64)), orientation)
    url = server.put(name, data * (3 if name.endswith("mjpeg") else 1))
    request = CaptureRequest(spec=spec())
    with VideoSource(SourceSpec("url", url, url), request) as source:
        item = source.read()
    assert isinstance(item, Frame)
    assert_seen([item], [scene(0, 64, 64)], "stretch")


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "AVIF"])
@pytest.mark.parametrize("orientation", [1, 6, 7])
def test_a_picture_of_a_server_is_what_it_is_as_a_file(
    server: Any, kind: str, orientation: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](scene()))).convert("RGB")
    lossless = {"PNG": {}, "WEBP": {"lossless": True}, "AVIF": {"quality": 98}}[kind]
    stored.save(file, kind, exif=exif, **lossless)
    url = server.put(f"/a.{kind.lower()}", file.getvalue())
    with VideoSource(SourceSpec("url", url, url), CaptureRequest(spec=spec())) as source:
        item = source.read()
    assert isinstance(item, Frame)
    assert_seen([item], [scene()], "stretch")


@pytest.mark.parametrize("fit", ["crop", "pad"])
@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.ts", "libx264"), ("a.mov", "mjpeg")],
)
@pytest.mark.parametrize("aspect", [Fraction(3, 2), Fraction(2, 3)])
def test_pixels_that_are_not_square_count(
    tmp_path: Path, drain: Drain, name: str, codec: str, fit: str, aspect: Fraction
) -> None:
    """64 x 64 pixels, of which each is half as wide again, are 96 x 64 square ones."""
    path = record(tmp_path / name, [scene(0, 64, 64)] * 3, aspect=aspect, codec=codec)
    square = scene(0, 64, 96) if aspect > 1 else scene(0, 96, 64)
    assert_seen(drain(source_of(path, fit)), [square] * 3, fit)


@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_the_shape_of_pixels_counts_before_the_turn(tmp_path: Path, drain: Drain, fit: str) -> None:
    stored = scene(0, 64, 64)
    path = record(
        tmp_path / "a.mp4", [stored] * 2, aspect=Fraction(3, 2), turn=TURNS[6], codec="libx264"
    )
    seen = np.rot90(scene(0, 64, 96), -1)
    assert_seen(drain(source_of(path, fit)), [seen] * 2, fit)


@needs_ffmpeg
@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "a.avi"])
def test_the_container_has_the_last_word_on_the_shape_of_pixels(
    tmp_path: Path, drain: Drain, name: str
) -> None:
    coded = record(tmp_path / f"coded-{name}", [scene(0, 64, 64)] * 3, codec="mpeg4")
    command = ["ffmpeg", "-v", "error", "-i", coded, "-c", "copy", "-aspect", "96:64"]
    subprocess.run([*command, tmp_path / name], check=True)
    assert_seen(drain(source_of(tmp_path / name, "pad")), [scene(0, 64, 96)] * 3, "pad")


def test_an_absurd_shape_of_pixels_is_none(tmp_path: Path, drain: Drain) -> None:
    path = record(tmp_path / "a.mp4", [scene(0, 64, 64)], aspect=Fraction(1, 4000))
    assert_seen(drain(source_of(path, "pad")), [scene(0, 64, 64)], "stretch")


def test_the_shape_of_pixels_may_change_half_way(tmp_path: Path, drain: Drain) -> None:
    """As television does between a film and the news."""
    parts = [
        record(tmp_path / f"{number}.ts", [scene(number, 64, 64)] * 4, aspect=aspect)
        for number, aspect in enumerate([Fraction(3, 2), Fraction(1)])
    ]
    both = tmp_path / "both.ts"
    with av.open(str(both), "w") as container:
        stream: Any = None
        for number, part in enumerate(parts):
            with av.open(str(part)) as recorded:
                stream = stream or container.add_stream_from_template(recorded.streams.video[0])
                for packet in recorded.demux(video=0):
                    if packet.pts is not None and packet.dts is not None:
                        packet.pts += number * 4 * 3600
                        packet.dts += number * 4 * 3600
                        packet.stream = stream
                        container.mux(packet)
    items = drain(source_of(both, "pad"))
    assert_seen(items[:4], [scene(0, 64, 96)] * 4, "pad")
    assert_seen(items[4:], [scene(1, 64, 64)] * 4, "stretch")
