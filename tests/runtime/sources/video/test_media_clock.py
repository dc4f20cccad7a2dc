"""Positions of frames, judged by the best-effort time stamps of the ffprobe program."""

from __future__ import annotations

import shutil
import subprocess
from fractions import Fraction
from pathlib import Path

import pytest

from motorvae.runtime.core.frame import Frame
from motorvae.runtime.sources.spec import SourceSpec
from motorvae.runtime.sources.video.media_clock import MediaClock
from motorvae.runtime.sources.video.source import VideoSource

MOVES = "testsrc2=size=64x48:rate=25"
# Frames of different lengths, the longest of which is 2 s.
VARIES = MOVES + ",select='eq(n\\,0)+eq(n\\,2)+between(n\\,5\\,7)+eq(n\\,57)+gt(n\\,60)'"
X264 = "-c:v libx264 -preset ultrafast -x264-params bframes=3:b-adapt=0:keyint=10 -threads 1"
needs_programs = pytest.mark.skipif(
    shutil.which("ffmpeg") is None or shutil.which("ffprobe") is None, reason="needs ffmpeg"
)


def make(path: Path, content: str, arguments: str, *, count: int = 14) -> Path:
    command = ["ffmpeg", "-v", "error", "-nostdin", "-f", "lavfi", "-i", content]
    command += ["-frames:v", str(count), "-vsync", "passthrough", *arguments.split(), str(path)]
    subprocess.run(command, check=True, timeout=60)
    return path


def positions(path: Path) -> list[float]:
    with VideoSource(SourceSpec("video", str(path), path.name)) as source:
        items = list(iter(source.read, None))
    assert all(isinstance(item, Frame) for item in items)
    return [item.media_s or 0.0 for item in items if isinstance(item, Frame)]


def times_by_ffprobe(path: Path) -> list[float | None]:
    command = ["ffprobe", "-v", "error", "-select_streams", "v", "-of", "csv=p=0"]
    command += ["-show_entries", "frame=best_effort_timestamp_time", str(path)]
    text = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    words = [line.strip(",") for line in text.split()]
    return [None if word == "N/A" else float(word) for word in words if word]


@needs_programs
@pytest.mark.parametrize(
    ("name", "content", "arguments"),
    [
        ("b.avi", MOVES, X264),
        ("b.mp4", MOVES, X264),
        ("b.ts", MOVES, X264),
        ("late.ts", MOVES, f"{X264} -output_ts_offset 36000"),
        ("wraps.ts", MOVES, f"{X264} -output_ts_offset 95442.3"),  # 33 bits end in its middle
        ("b.mkv", MOVES, X264),
        ("vfr.mp4", VARIES, X264),
        ("vfr.mkv", VARIES, X264),
        ("mpeg4.avi", MOVES, "-c:v mpeg4 -bf 2"),
        ("mpeg2.mpg", MOVES, "-c:v mpeg2video -bf 2"),
    ],
)
def test_positions_are_those_of_ffprobe_from_0(
    tmp_path: Path, name: str, content: str, arguments: str
) -> None:
    path = make(tmp_path / name, content, arguments)
    ours, times = positions(path), times_by_ffprobe(path)
    assert len(ours) == 14
    assert ours == sorted(ours)
    first = times[0] or 0.0
    for position, time in zip(ours, times, strict=True):
        if time is not None:  # of the last frames of an AVI, the program knows none
            assert position == pytest.approx(time - first, abs=0.002)
    assert ours[0] == 0
    if content == MOVES:
        assert ours == pytest.approx([index / 25 for index in range(14)], abs=0.002)


@needs_programs
def test_a_bare_stream_goes_by_its_rate(tmp_path: Path) -> None:
    path = make(tmp_path / "bare.h264", MOVES, X264)
    assert positions(path) == pytest.approx([index / 25 for index in range(14)])


@needs_programs
def test_recordings_one_behind_the_other_go_on(tmp_path: Path) -> None:
    path = make(tmp_path / "one.ts", MOVES, X264)
    path.write_bytes(path.read_bytes() * 2)
    assert positions(path) == pytest.approx([index / 25 for index in range(28)], abs=0.002)


def test_what_was_cut_out_of_a_programme_takes_no_time_and_a_pause_does() -> None:
    stamps = [0, 1, 2, 3000, 3001]
    for spliced, expected in ((True, [0, 0.1, 0.2, 0.3, 0.4]), (False, [0, 0.1, 0.2, 300, 300.1])):
        clock = MediaClock(Fraction(1, 10), Fraction(10), spliced=spliced)
        found = [clock.position_s(stamp, stamp, None) for stamp in stamps]
        assert found == pytest.approx(expected)


def test_a_first_frame_that_is_lost_counts() -> None:
    clock = MediaClock(Fraction(1, 10), Fraction(10), spliced=False)
    assert clock.position_s(8, 8, 5) == pytest.approx(0.3)
    assert clock.position_s(9, 9, 5) == pytest.approx(0.4)
