"""Bytes that are made to keep a parser busy, or to trip it; the long form is tests/attacks."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from motorvae.runtime.core.errors import SourceError
from motorvae.runtime.pixels.jpeg import jpeg_scan
from motorvae.runtime.sources.device_names import cameras
from motorvae.runtime.sources.opencv import mode_of
from motorvae.runtime.sources.spec import SourceSpec
from motorvae.runtime.sources.video.codecs.bitstream import BitstreamValidator
from motorvae.runtime.sources.video.source import VideoSource

from ....attacks.processes import short_form

START = b"\0\0\1"
SPS = START + b"\x67\x64\0\x0a"
MEGABYTE = 1 << 20
UNITS = st.lists(
    st.sampled_from([START, b"\0", b"\x67", b"\x65", b"\x41", b"\xff", b"\0\0\3", SPS])
)
ANY = st.one_of(st.binary(max_size=200), UNITS.map(b"".join))


@given(st.lists(ANY, max_size=5), st.one_of(st.none(), ANY))
def test_no_h264_trips_the_validator(packets: list[bytes], extradata: bytes | None) -> None:
    flaws = BitstreamValidator("h264", extradata)
    for packet in packets:
        assert flaws.facts(packet, key=False).flaw is None or isinstance(
            flaws.facts(packet, key=False).flaw, str
        )


@given(st.binary(max_size=12), st.binary(max_size=60))
def test_no_length_of_a_unit_trips_it(rest: bytes, packet: bytes) -> None:
    BitstreamValidator("h264", b"\1" + rest).facts(packet, key=False)


@given(st.lists(st.sampled_from([b"\xff", b"\xd8", b"\xda", b"\xe0", b"\0", b"\0\0", b"\0\2"])))
def test_no_jpeg_trips_the_walk_over_its_segments(parts: list[bytes]) -> None:
    data = b"\xff\xd8" + b"".join(parts)
    scan = jpeg_scan(data)
    assert scan is None or data[scan : scan + 2] == b"\xff\xda"


def h264(packet: bytes) -> Callable[[], object]:
    return lambda: BitstreamValidator("h264", None).facts(packet, key=False)


def in_lengths(packet: bytes) -> Callable[[], object]:
    return lambda: (
        BitstreamValidator("h264", b"\1\0\0\0\xff\xe0\0\0\0\0").facts(packet, key=False).flaw
    )


# An SPS of picture order type 1 that announces 2^40 offsets.
ENDLESS = START + b"\x67\x42\0\x0a" + bytes([0b11010000]) + bytes(5) + b"\x80" + bytes(5) + b"\1"
BUSY: dict[str, Callable[[], object]] = {
    "empty units": h264(START * MEGABYTE),
    "units of a byte": h264((START + b"\x09") * MEGABYTE),
    "an endless list": h264(ENDLESS),
    "a long parameter set": h264(SPS + b"\x2a" * MEGABYTE),
    "a long parameter set of zeros": h264(SPS + bytes(MEGABYTE)),
    "many parameter sets": h264(b"".join(SPS + bytes([n % 251, 0x2A]) * 60 for n in range(20_000))),
    "many long parameter sets": h264(b"".join(SPS + bytes([n]) * 4000 for n in range(1, 250))),
    "empty units in lengths": in_lengths(bytes(4 * MEGABYTE)),
    "a lie about a length": in_lengths(b"\xff" * MEGABYTE),
    "fill bytes": lambda: jpeg_scan(b"\xff" * (8 * MEGABYTE)),
    "empty segments": lambda: jpeg_scan(b"\xff\xd8" + b"\xff\xe0\0\2" * MEGABYTE),
}


@pytest.mark.parametrize("what", BUSY)
def test_what_takes_long_to_read_is_bounded(what: str) -> None:
    """A second of processor time is a hundred times what each of these takes."""
    started_s = time.thread_time()
    BUSY[what]()
    assert time.thread_time() - started_s < 5


def clip(**metadata: str) -> bytes:
    target = io.BytesIO()
    with av.open(target, "w", format="avi") as out:
        out.metadata.update(metadata)
        stream = out.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        for level in (10, 200):
            image = np.full((48, 64, 3), level, np.uint8)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        out.mux(stream.encode(None))
    return target.getvalue()


def test_a_title_that_is_no_utf8_does_not_close_a_video(tmp_path: Path) -> None:
    path = tmp_path / "clip.avi"
    path.write_bytes(clip(title="Strasse").replace(b"Strasse", b"Stra\xdfe."))
    with VideoSource(SourceSpec("video", str(path), "clip")) as source:
        assert source.read() is not None


def test_a_video_of_a_codec_that_nobody_knows_is_refused_in_one_line(tmp_path: Path) -> None:
    data = clip()
    place = data.index(b"strf") + 8 + 16
    assert data[place : place + 4] == b"MJPG"
    path = tmp_path / "clip.avi"
    path.write_bytes(data[:place] + b"\xffJPG" + data[place + 4 :])
    with pytest.raises(SourceError, match="clip"):
        VideoSource(SourceSpec("video", str(path), "clip"))


@given(st.lists(st.floats(), min_size=4, max_size=4))
def test_no_answer_of_a_driver_trips_the_reading_of_its_mode(answers: list[float]) -> None:
    class Capture:
        def get(self, key: int) -> float:
            return answers[key % 4]

    str(mode_of(Capture()))  # type: ignore[arg-type]


def test_a_label_that_its_driver_cut_in_a_letter_is_shown(tmp_path: Path) -> None:
    node = tmp_path / "sys/class/video4linux/video0"
    node.mkdir(parents=True)
    (node / "name").write_bytes("\x1b[2Jcam\u00e9".encode()[:-1] + b"\n")
    (camera,) = cameras(tmp_path)
    assert camera.label == "\\x1b[2Jcam\ufffd"


def test_the_short_form_of_the_attack_finds_nothing() -> None:
    short_form("parsers", "--count", "20000", "--seed", "1", limit_s=100)
