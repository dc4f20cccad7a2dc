"""Which track is read: each shows one grey, so that its frames tell; ffmpeg made the containers."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from PIL import Image

from motorvae.runtime.core.errors import SourceError
from motorvae.runtime.core.frame import Frame, Gap
from motorvae.runtime.sources.base import CaptureRequest
from motorvae.runtime.sources.spec import SourceSpec
from motorvae.runtime.sources.video.source import VideoSource

pytestmark = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="there is no ffmpeg here")
Drain = Callable[[VideoSource], list[Frame | Gap]]

SIZES = ["64x48", "128x96", "96x64"]


def ffmpeg(*words: str | Path) -> None:
    subprocess.run(["ffmpeg", "-v", "error", "-y", *words], check=True)


def tracks(path: Path, sizes: list[str], *options: str) -> Path:
    """A video of so many tracks of 4 frames: the first is of level 40, the next of 80, ..."""
    inputs: list[str] = []
    maps: list[str] = []
    for number, size in enumerate(sizes):
        colour = "0x" + 3 * f"{40 * (number + 1):02x}"
        inputs += ["-f", "lavfi", "-i", f"color={colour}:size={size}:rate=25:duration=0.16"]
        maps += ["-map", str(number)]
    ffmpeg(*inputs, *maps, "-pix_fmt", "yuv420p", "-c:v", "mpeg4", *options, path)
    return path


def level_of(path: Path, drain: Drain) -> tuple[int, list[str]]:
    source = VideoSource(SourceSpec("video", str(path), path.name))
    remarks = source.remarks
    items = drain(source)
    levels = {round(float(np.mean(item.image)) / 40) for item in items if isinstance(item, Frame)}
    assert len(levels) == 1
    return levels.pop(), remarks


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "a.mov"])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_the_default_track_is_read(tmp_path: Path, drain: Drain, name: str, number: int) -> None:
    flags = [f"-disposition:v:{n}={'default' if n == number - 1 else '0'}" for n in range(3)]
    words = [word for flag in flags for word in flag.split("=")]
    level, remarks = level_of(tracks(tmp_path / name, SIZES, *words), drain)
    assert level == number
    assert remarks == [
        f"{name}: of 3 video tracks number {number} is read "
        f"({SIZES[number - 1]}, mpeg4; the default one): --track takes another"
    ]


def test_another_track_may_be_named(tmp_path: Path, drain: Drain) -> None:
    path = tracks(tmp_path / "a.mkv", SIZES)
    for number in (1, 2, 3):
        source = VideoSource(SourceSpec("video", str(path), "a"), CaptureRequest(track=number))
        assert source.remarks == []
        item = drain(source)[0]
        assert isinstance(item, Frame)
        assert round(float(item.image.mean()) / 40) == number
    with pytest.raises(SourceError, match=r"a has no video track 4 to read: take 1, 2, 3$"):
        VideoSource(SourceSpec("video", str(path), "a"), CaptureRequest(track=4))


@pytest.mark.parametrize("every", ["default", "0"])
def test_where_all_or_none_are_it_the_largest_picture_is(
    tmp_path: Path, drain: Drain, every: str
) -> None:
    words = [word for n in range(3) for word in (f"-disposition:v:{n}", every)]
    assert level_of(tracks(tmp_path / "a.mkv", SIZES, *words), drain)[0] == 2


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4"])
def test_a_cover_is_no_track_though_it_is_larger_and_first(
    tmp_path: Path, drain: Drain, name: str
) -> None:
    ffmpeg("-f", "lavfi", "-i", "color=white:size=640x480", "-frames:v", "1", tmp_path / "c.png")
    tracks(tmp_path / "v.mkv", SIZES[:1])
    cover = ["-map", "0", "-map", "1", "-c", "copy", "-disposition:v:0", "attached_pic"]
    ffmpeg("-i", tmp_path / "c.png", "-i", tmp_path / "v.mkv", *cover, tmp_path / name)
    assert level_of(tmp_path / name, drain) == (1, [])


def test_of_a_transport_stream_the_first_programme_is_read(tmp_path: Path, drain: Drain) -> None:
    programmes = ["-program", "title=one:st=0", "-program", "title=two:st=1"]
    path = tracks(tmp_path / "a.ts", SIZES[:2], *programmes, "-c:v", "mpeg2video")
    level, remarks = level_of(path, drain)
    assert level == 1
    assert "number 1 is read (64x48, mpeg2video; the first, of the first programme)" in remarks[0]


def test_a_video_without_a_decoder_is_refused_by_name(tmp_path: Path) -> None:
    path = tracks(tmp_path / "a.avi", SIZES[:1])
    path.write_bytes(path.read_bytes().replace(b"FMP4", b"QQQQ"))
    with pytest.raises(SourceError, match=r"a\.avi: this FFmpeg has no decoder for its video"):
        VideoSource(SourceSpec("video", str(path), path.name))


@pytest.mark.parametrize("thumbnails", [[], [32]])
def test_a_picture_in_tiles_is_no_video(tmp_path: Path, thumbnails: list[int]) -> None:
    shades = np.random.default_rng(0).integers(0, 256, (160, 200, 3), np.uint8)
    picture = pillow_heif.from_pillow(Image.fromarray(shades))
    picture.save(tmp_path / "a.heic", tile_size=64, thumbnails=thumbnails)
    with pytest.raises(SourceError, match=r"a\.heic is a picture of \d+ tiles, which is no video"):
        VideoSource(SourceSpec("video", str(tmp_path / "a.heic"), "a.heic"))
