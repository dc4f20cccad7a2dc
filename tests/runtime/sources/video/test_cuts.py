"""Cut clips: what the ffmpeg program decodes as recorded is delivered, and nothing else."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import av
import pytest

from motorvae.runtime.core.errors import SourceError
from motorvae.runtime.core.frame import Frame, Gap
from motorvae.runtime.sources.spec import SourceSpec
from motorvae.runtime.sources.video.containers.transport import TransportFile
from motorvae.runtime.sources.video.source import VideoSource

from ....attacks.processes import short_form

H264 = "-c:v libx264 -preset ultrafast -g 10 -threads 1"
TS_PACKET = 188
pytestmark = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")


def ffmpeg(*arguments: str) -> bytes:
    command = ["ffmpeg", "-v", "error", "-nostdin", "-y", *arguments]
    return subprocess.run(command, check=True, timeout=60, stdout=subprocess.PIPE).stdout


def make(path: Path, encode: str, *more: str, seconds: float = 1) -> Path:
    content = ("-f", "lavfi", "-i", f"testsrc2=size=64x48:rate=20:duration={seconds}")
    ffmpeg(*content, *more, *encode.split(), str(path))
    return path


def items_of(path: Path) -> list[Frame | Gap]:
    with VideoSource(SourceSpec("video", str(path), path.name)) as source:
        return list(iter(source.read, None))


def reasons_of(path: Path) -> list[str]:
    return [item.reason for item in items_of(path) if isinstance(item, Gap)]


@pytest.mark.parametrize(
    ("codec", "group", "containers"),
    [
        ("h264 open", 12, ["mp4", "ts"]),
        ("h264 open", 25, ["avi"]),
        ("mpeg2 open", 12, ["ts"]),
        ("mpeg4 b", 12, ["avi"]),
        ("hevc open", 25, ["hevc"]),
    ],
)
def test_the_short_form_of_the_table_holds_no_lie_and_no_false_loss(
    codec: str, group: int, containers: list[str]
) -> None:
    options = ["--codecs", codec, "--groups", str(group), "--containers", *containers]
    cuts = ["from any frame", "leading dropped", "group dropped", "joined", "appended", "truncated"]
    printed = short_form("cuts", *options, "--cuts", *cuts, limit_s=300)
    total = json.loads(printed.splitlines()[-1])
    assert total["clips"] >= 4
    assert total["exact"] > 100


def test_a_webm_whose_header_announces_more_than_it_ever_held_does_not_end_early(
    tmp_path: Path,
) -> None:
    path = make(tmp_path / "long.webm", "-c:v libvpx -deadline realtime")
    data = path.read_bytes()
    place = data.index(b"\x44\x89\x88")  # the duration, as a float of eight bytes
    data = data[: place + 3] + b"\x40\xc1\x94\0\0\0\0\0" + data[place + 11 :]  # 9000 ms
    data = data.replace(b"DURATION", b"DURATIO_")  # of the stream itself
    path.write_bytes(data)
    assert reasons_of(path) == []
    path.write_bytes(data[:-400])
    assert "the file announces 9.00 s" in reasons_of(path)[-1]


def test_the_placeholders_of_an_avi_that_was_piped_are_not_believed(tmp_path: Path) -> None:
    path = make(tmp_path / "whole.avi", "-c:v mjpeg")
    piped = tmp_path / "piped.avi"
    piped.write_bytes(ffmpeg("-i", str(path), "-c", "copy", "-f", "avi", "pipe:1"))
    assert reasons_of(piped) == []
    path.write_bytes(path.read_bytes()[:-3000])
    assert "the file announces 20 frames" in reasons_of(path)[-1]


def test_sound_that_goes_on_after_the_pictures_is_no_loss(tmp_path: Path) -> None:
    sound = ("-f", "lavfi", "-i", "sine=duration=3", "-c:a", "aac")
    for name in ("a.mp4", "a.mkv", "a.flv", "a.ts"):
        assert reasons_of(make(tmp_path / name, H264, *sound)) == []


def test_transport_streams_put_together_lose_nothing_and_a_missing_packet_is_told(
    tmp_path: Path,
) -> None:
    """FFmpeg calls a packet corrupt in both cases."""
    data = make(tmp_path / "one.ts", H264).read_bytes()
    path = tmp_path / "two.ts"
    path.write_bytes(data * 2)
    assert [type(item) for item in items_of(path)] == [Frame] * 40
    lost = len(data) // TS_PACKET // 2 * TS_PACKET
    path.write_bytes(data[:lost] + data[lost + TS_PACKET :])
    assert "frame is cut short" in reasons_of(path)


@pytest.mark.parametrize(("before", "behind"), [(4, 0), (0, 16)], ids=["AVCHD", "checksums"])
def test_packets_of_a_transport_stream_may_have_something_between(
    tmp_path: Path, before: int, behind: int
) -> None:
    """As camcorders write, and receivers of broadcasts."""
    data = make(tmp_path / "one.ts", H264).read_bytes()
    packets = [data[place : place + TS_PACKET] for place in range(0, len(data), TS_PACKET)]
    path = tmp_path / "a.m2ts"

    def write(kept: list[bytes]) -> None:
        path.write_bytes(b"".join(bytes(before) + packet + bytes(behind) for packet in kept))

    write(packets)
    assert [type(item) for item in items_of(path)] == [Frame] * 20
    write(packets * 2)
    assert [type(item) for item in items_of(path)] == [Frame] * 40
    for missing in range(len(packets) // 4, len(packets) - 1, len(packets) // 5):
        kept = packets[:missing] + packets[missing + 1 :]
        write(kept)
        (tmp_path / "plain.ts").write_bytes(b"".join(kept))
        assert reasons_of(path) == reasons_of(tmp_path / "plain.ts")


def test_room_that_a_recorder_reserved_is_no_part_of_a_recording(tmp_path: Path) -> None:
    """Power was lost, and the file has the size that its header says."""
    path = make(tmp_path / "a.avi", "-c:v mjpeg")
    data = path.read_bytes()
    written = len(data) * 6 // 10
    for size in (len(data), len(data) + 5000):
        path.write_bytes(data[:written] + bytes(size - written))
        assert "the file announces 20 frames and ends after" in reasons_of(path)[-1]


@pytest.mark.parametrize("sound", [0, 3])
def test_an_index_that_leaves_frames_out_is_told(tmp_path: Path, sound: int) -> None:
    path = make(tmp_path / "a.avi", "-c:v mjpeg -q:v 1")
    data = bytearray(path.read_bytes())
    entries = range(data.rindex(b"idx1") + 8, len(data) - 15, 16)
    assert len(entries) == 20
    for entry in entries[sound + 1 :]:
        data[entry : entry + 16] = data[entries[sound] : entries[sound] + 16]
    path.write_bytes(data)
    assert reasons_of(path) == [f"the file announces 20 frames and ends after {sound + 1}"]


def test_a_file_that_cannot_be_opened_says_why(tmp_path: Path) -> None:
    path = make(tmp_path / "a.mp4", H264)
    whole = path.read_bytes()
    for data, words in {
        b"": "it is empty; check the file",
        whole[: len(whole) // 2]: r"its index \(moov\) is missing, as of",
        b"no video": "Invalid data found",
    }.items():
        path.write_bytes(data)
        with pytest.raises(SourceError, match=f"cannot open {path.name}: {words}"):
            items_of(path)


@pytest.mark.parametrize("frames", [1, 20])
def test_a_flash_video_whose_packets_have_no_length_ends_where_it_says(
    tmp_path: Path, frames: int
) -> None:
    path = make(tmp_path / "a.flv", f"-c:v flv -g 10 -frames:v {frames}")
    assert [type(item) for item in items_of(path)] == [Frame] * frames
    if frames > 1:
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])
        assert "the file announces 1.00 s and ends after" in reasons_of(path)[-1]


def test_a_transport_stream_that_ends_amid_a_frame_says_so(tmp_path: Path) -> None:
    path = make(tmp_path / "cut.ts", H264)
    data = path.read_bytes()
    whole = TransportFile(str(path), 0x100)
    starts = [place for place in range(0, len(data), TS_PACKET) if data[place + 1] == 0x41]
    assert all(whole.is_complete(place) for place in starts)
    whole.close()
    path.write_bytes(data[: starts[12] + 2 * TS_PACKET + 50])
    assert reasons_of(path)[-1:] == ["frame is cut short"]


@pytest.mark.parametrize("encode", ["-c:v mpeg4 -g 10 -bf 2", "-c:v mpeg2video -g 10 -bf 2", H264])
def test_a_clip_that_begins_between_key_frames_begins_at_the_next_one(
    tmp_path: Path, encode: str
) -> None:
    """What cannot be decoded without what was cut off is neither delivered nor lost."""
    path = make(tmp_path / "whole.avi", encode)
    cut = tmp_path / "cut.avi"
    ffmpeg("-i", str(path), "-ss", "0.22", "-c", "copy", "-copyinkf", str(cut))
    items = items_of(cut)
    assert 8 <= len(items) <= 11
    assert all(isinstance(item, Frame) for item in items)


def test_a_clip_without_a_key_frame_says_that_nothing_can_be_decoded(tmp_path: Path) -> None:
    path = make(tmp_path / "whole.avi", "-c:v mpeg4 -g 50")
    cut = tmp_path / "cut.avi"
    ffmpeg("-i", str(path), "-ss", "0.22", "-c", "copy", "-copyinkf", str(cut))
    assert len(items_of(path)) == 20
    (item,) = items_of(cut)
    assert isinstance(item, Gap)
    assert "without what came before the recording" in item.reason


def test_damage_after_a_cut_is_found_as_without_the_cut(tmp_path: Path) -> None:
    """What a cut leaves behind lets the decoder be lenient; the next key frame ends the excuse."""
    whole = make(tmp_path / "whole.mkv", "-c:v libx264 -g 20 -bf 2 -threads 1", seconds=2)
    with av.open(str(whole)) as source:
        track = source.streams.video[0]
        packets = [packet for packet in source.demux(track) if packet.size]

        def told(first: int, hit: int, flipped: int) -> tuple[int, list[str]]:
            with av.open(str(tmp_path / "damaged.mkv"), "w") as output:
                copied = output.add_stream_from_template(track)
                for number, packet in enumerate(packets[first:], first):
                    data = bytearray(bytes(packet))
                    if number == hit:
                        data[-flipped] ^= 0x10
                    copy = av.Packet(bytes(data))
                    copy.pts, copy.dts, copy.time_base = packet.pts, packet.dts, packet.time_base
                    copy.is_keyframe, copy.stream = packet.is_keyframe, copied
                    output.mux(copy)
            items = items_of(tmp_path / "damaged.mkv")
            return len(items), [item.reason for item in items if isinstance(item, Gap)]

        found = 0
        for flipped in range(3, 43, 5):
            lost = told(0, 24, flipped)[1]
            assert told(5, 24, flipped)[1] == lost
            found += bool(lost)
        assert found


def without_vui(unit: bytes) -> bytes:
    """A sequence parameter set of a high profile, without what it says of display and order."""
    bits = "".join(f"{byte:08b}" for byte in unit.replace(b"\0\0\3", b"\0\0"))
    place = 32

    def golombs(count: int) -> int:
        nonlocal place
        value = 0
        for _ in range(count):
            zeros = bits.index("1", place) - place
            value = int(bits[place + zeros : place + 2 * zeros + 1], 2) - 1
            place += 2 * zeros + 1
        return value

    golombs(4)  # identity, chroma, depths
    place += 2
    golombs(1)
    if golombs(1) == 0:
        golombs(1)
    golombs(1)  # references
    place += 1
    golombs(2)
    place += 2 if bits[place] == "1" else 3
    place += 1
    if bits[place - 1] == "1":
        golombs(4)
    kept = bits[:place] + "01"
    kept += "0" * (-len(kept) % 8)
    plain = int(kept, 2).to_bytes(len(kept) // 8, "big")
    return re.sub(rb"\x00\x00(?=[\x00-\x03])", b"\0\0\3", plain)


@pytest.mark.parametrize("is_said", [True, False])
def test_what_is_put_together_loses_no_frame_where_nothing_says_how_many_are_reordered(
    tmp_path: Path, is_said: bool
) -> None:
    params = "open-gop=1:keyint=12:min-keyint=12:scenecut=0:bframes=3:b-adapt=0:repeat-headers=1"
    encode = f"-c:v libx264 -threads 1 -profile:v high -x264-params {params}"
    path = make(tmp_path / "a.h264", encode, seconds=4)
    stream = b"".join(
        b"\0\0\0\1" + (unit if is_said or unit[:1] != b"\x67" else without_vui(unit))
        for unit in re.split(rb"\x00\x00\x00?\x01", path.read_bytes())[1:]
    )
    path.write_bytes(stream)
    with av.open(str(path)) as container:
        packets = [bytes(packet) for packet in container.demux() if packet.size]
    assert [type(item) for item in items_of(path)] == [Frame] * 80
    second, third = [at for at, packet in enumerate(packets) if b"\0\0\1\x67" in packet][2:4]
    path.write_bytes(b"".join(packets[:second] + packets[third:]))
    found = items_of(path)
    leading = 3  # of what came after the cut, predicted from before it
    assert sum(isinstance(item, Frame) for item in found) == 80 - (third - second) - leading
    assert {item.reason for item in found if isinstance(item, Gap)} == {
        "frame is predicted from one that did not come"
    }


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.flv"])
def test_a_frame_is_no_younger_than_one_that_is_shown_later(tmp_path: Path, name: str) -> None:
    """B-frames come after the frame that they and what is shown later are predicted from."""
    encode = "-c:v libx264 -bf 3 -b_strategy 0 -g 20 -threads 1 -pix_fmt yuv420p"
    found = items_of(make(tmp_path / name, encode))
    frames = [item for item in found if isinstance(item, Frame)]
    assert len(frames) == len(found) == 20
    for times in ([one.captured_ns for one in frames], [one.grabbed_ns for one in frames]):
        assert times == sorted(times)
