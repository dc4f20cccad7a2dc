from __future__ import annotations

import io
import time
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from motorvae.runtime.sources.video.codecs.bitstream import BitstreamValidator

FRAMES, GROUP = 60, 20
SETTINGS = {
    "zero latency": {"tune": "zerolatency"},
    "pyramid": {"x264-params": "bframes=3:b-adapt=0:b-pyramid=normal:ref=4"},
    "baseline": {"profile": "baseline"},
    "scaling": {"x264-params": "cqm=jvt:slices=4"},
    "interlaced": {"x264-params": "tff=1"},
}


def packets_of(container: str, options: dict[str, str]) -> tuple[list[av.Packet], bytes | None]:
    """Encode pictures that move, and take the packets apart again."""
    file = io.BytesIO()
    texture = np.random.default_rng(0).integers(0, 256, (96, 256, 1), np.uint8).repeat(3, axis=2)
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream("libx264", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 128, 96, "yuv420p", GROUP
        for index in range(FRAMES):
            image = np.ascontiguousarray(texture[:, 2 * index : 2 * index + 128])
            output.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        output.mux(stream.encode())
    file.seek(0)
    with av.open(file) as read:
        stream = read.streams.video[0]
        return [packet for packet in read.demux(stream) if packet.size], (
            stream.codec_context.extradata
        )


def is_reference(packet: bytes) -> bool:
    """Whether others may be predicted from it, as x264 marks it."""
    start = max(packet.find(b"\0\0\1\x41"), packet.find(b"\0\0\1\x61"))
    return start >= 0


@pytest.mark.parametrize("options", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("container", ["mpegts", "matroska"])
def test_whole_streams_have_no_flaw(container: str, options: dict[str, str]) -> None:
    packets, extradata = packets_of(container, dict(options))
    finder = BitstreamValidator("h264", extradata)
    assert len(packets) == FRAMES
    assert [finder.facts(bytes(packet), key=False).flaw for packet in packets] == [None] * FRAMES


@pytest.mark.parametrize("options", SETTINGS.values(), ids=SETTINGS)
def test_a_missing_frame_is_noticed_by_those_predicted_from_it(options: dict[str, str]) -> None:
    packets, extradata = packets_of("mpegts", dict(options))
    data = [bytes(packet) for packet in packets]
    noticed = 0
    for gone in range(1, FRAMES - 1):
        if not is_reference(data[gone]) or packets[gone].is_keyframe:
            continue
        finder = BitstreamValidator("h264", extradata)
        flaws = [finder.facts(packet, key=False).flaw for packet in data[:gone] + data[gone + 1 :]]
        found = [place for place, flaw in enumerate(flaws) if flaw]
        next_key = next((n for n in range(gone + 1, FRAMES) if packets[n].is_keyframe), FRAMES)
        if any(is_reference(packet) for packet in data[gone + 1 : next_key]):
            assert found[0] == gone
        else:  # the last of its group is a loss to nobody but itself
            assert found in ([], [gone])
        noticed += bool(found)
    assert noticed > 10


def test_a_stream_joined_half_way_has_nothing_to_miss() -> None:
    packets, extradata = packets_of("mpegts", {"tune": "zerolatency"})
    finder = BitstreamValidator("h264", extradata)
    assert [finder.facts(bytes(packet), key=False).flaw for packet in packets[7:]] == [None] * (
        FRAMES - 7
    )


@pytest.mark.parametrize("container", ["mpegts", "matroska"])
def test_a_slice_that_holds_what_none_may_hold_is_damaged(container: str) -> None:
    packets, extradata = packets_of(container, {"tune": "zerolatency"})
    finder = BitstreamValidator("h264", extradata)
    data = [bytes(packet) for packet in packets[:5]]
    data[3] = data[3][:-40] + bytes(9) + data[3][-31:]
    facts = [finder.facts(packet, key=False) for packet in data]
    assert [each.undecodable for each in facts] == [False, False, False, True, False]
    assert facts[3].flaw == "frame holds bytes of no picture"


def test_a_jpeg_without_its_scan_holds_no_picture(image_folder: Path) -> None:
    import cv2

    image = cv2.imread(str(image_folder / "frame1.png"))
    data = cv2.imencode(".jpg", image)[1].tobytes()
    finder = BitstreamValidator("mjpeg", None)
    assert finder.facts(data, key=False).flaw is None
    assert finder.facts(data[:-2], key=False).flaw is None  # some cameras leave the end marker out
    assert (
        finder.facts(data.replace(b"\xff\xda", b"\xff\xfe"), key=False).flaw
        == "frame holds no picture"
    )
    assert finder.facts(b"", key=False).flaw == "frame holds no picture"


def test_parameters_with_an_absurd_count_end() -> None:
    """The cycle of picture orders has 255 frames at most; this one has more than can be read."""
    absurd = b"\x67\x42\0\0\xd3" + bytes(9) + b"\x80"
    packet = b"\0\0\1\x61\x80"
    assert BitstreamValidator("h264", b"\0\0\1" + absurd).facts(packet, key=False).flaw is None


@pytest.mark.parametrize("tail", [bytes(320_000), b"\xff" * 320_000, b"\xaa" * 320_000])
@pytest.mark.parametrize("profile", [b"\x42", b"\x64"])
def test_long_parameters_take_no_longer_than_short_ones(profile: bytes, tail: bytes) -> None:
    """What is read is bounded, and so are the numbers in it: of 4096 bytes, whatever follows."""
    begun_s = time.thread_time()
    finder = BitstreamValidator("h264", b"\0\0\1\x67" + profile + b"\0\x1f" + tail)
    assert finder.facts(b"\0\0\1\x61\x80", key=False).flaw is None
    assert time.thread_time() - begun_s < 10  # processor time, which grew with the square


def test_a_unit_without_a_byte_is_passed_over() -> None:
    finder = BitstreamValidator("h264", b"\0\0\1\0\0\1\x67")
    assert finder.facts(b"\0\0\1\0\0\1\x61\x80", key=False).flaw is None


@given(st.sampled_from(["h264", "mjpeg", "hevc"]), st.binary(max_size=60), st.binary(max_size=200))
def test_any_bytes_are_looked_at_without_a_fault(codec: str, extra: bytes, packet: bytes) -> None:
    for prefix in (b"", b"\0\0\1\x67", b"\0\0\0\1\x65", b"\0\0\1\x67\x64\0\x1f"):
        finder = BitstreamValidator(codec, prefix + extra)
        finder.facts(prefix + packet, key=False)
        finder.facts(b"\0\0\1\x61" + packet, key=False)
