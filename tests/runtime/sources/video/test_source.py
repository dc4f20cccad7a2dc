from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame

from motorvae.runtime.core.errors import CameraError, SourceError
from motorvae.runtime.core.frame import Frame, Gap
from motorvae.runtime.core.spec import ModelSpec
from motorvae.runtime.pixels.reference import reference_picture
from motorvae.runtime.sources.base import CaptureRequest
from motorvae.runtime.sources.spec import SourceSpec
from motorvae.runtime.sources.video.source import VideoSource

NAMES = ["mjpeg.avi", "mpeg4.avi", "h264.mp4", "faststart.mp4", "h264.mkv", "ffv1.mkv"]
Drain = Callable[[VideoSource], list[Frame | Gap]]


def opened(path: Path) -> VideoSource:
    return VideoSource(SourceSpec("video", str(path), path.name))


def frames_of(items: list[Frame | Gap]) -> list[Frame]:
    return [item for item in items if isinstance(item, Frame)]


def gaps_of(items: list[Frame | Gap]) -> list[Gap]:
    return [item for item in items if isinstance(item, Gap)]


@pytest.fixture(scope="session")
def whole(clips: dict[str, Path]) -> dict[str, list[Frame]]:
    """Every clip as it decodes undamaged."""
    found = {}
    for name, path in clips.items():
        with opened(path) as source:
            found[name] = [item for item in iter(source.read, None) if isinstance(item, Frame)]
    return found


@pytest.mark.parametrize("name", NAMES)
def test_every_frame_comes_once_and_in_order(
    clips: dict[str, Path], drain: Drain, clip_tools: Any, name: str
) -> None:
    source = opened(clips[name])
    assert not source.live
    assert source.fps == clip_tools.fps
    items = drain(source)
    assert gaps_of(items) == []
    frames = frames_of(items)
    assert [frame.index for frame in frames] == list(range(clip_tools.frames))
    assert [clip_tools.index(frame.image) for frame in frames] == list(range(clip_tools.frames))
    for frame in frames:
        assert frame.image.shape == (64, 96, 3)
        assert frame.image.dtype == np.uint8
        assert frame.media_s == pytest.approx(frame.index / clip_tools.fps, abs=0.002)
        assert frame.capture_ns > 0
        assert frame.clock == "packet"


@pytest.mark.parametrize("name", NAMES)
def test_for_a_model_the_same_frames_come_as_luma(
    clips: dict[str, Path], drain: Drain, whole: dict[str, list[Frame]], name: str
) -> None:
    spec = ModelSpec(image_size=32, channels=(8, 8), latent_size=4)
    source = VideoSource(SourceSpec("video", str(clips[name]), name), CaptureRequest(spec=spec))
    items = drain(source)
    assert gaps_of(items) == []
    for frame, image in zip(frames_of(items), whole[name], strict=True):
        assert frame.image.shape == (32, 32)
        error = frame.image.astype(float) - reference_picture(image.image, spec)
        assert np.abs(error).mean() <= 1.0
        assert (frame.index, frame.media_s) == (image.index, image.media_s)
        assert frame.capture_ns > 0
        assert frame.convert_ns > 0
        assert image.convert_ns == 0


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("share", [0.3, 0.55, 0.8])
def test_for_a_model_damage_is_lost_as_it_is_without(
    clips: dict[str, Path], drain: Drain, tmp_path: Path, name: str, share: float
) -> None:
    data = bytearray(clips[name].read_bytes())
    start = int(share * len(data))
    data[start : start + 300] = b"\xff\x00" * 150
    path = tmp_path / name
    path.write_bytes(data)
    spec = ModelSpec(image_size=32, channels=(8, 8), latent_size=4)
    found = []
    for request in (CaptureRequest(), CaptureRequest(spec=spec)):
        source = VideoSource(SourceSpec("video", str(path), name), request)
        found.append([(type(item), item.index) for item in drain(source)])
    assert found[0] == found[1]


def test_decoding_twice_gives_the_same_pixels(
    clips: dict[str, Path], whole: dict[str, list[Frame]], drain: Drain
) -> None:
    for name in NAMES:
        again = frames_of(drain(opened(clips[name])))
        for one, other in zip(whole[name], again, strict=True):
            assert np.array_equal(one.image, other.image)


@pytest.mark.parametrize(
    "name", ["mjpeg.avi", "mpeg4.avi", "faststart.mp4", "h264.mkv", "ffv1.mkv"]
)
@pytest.mark.parametrize("share", [0.6, 0.8, 0.9])
def test_a_cut_tail_is_a_gap_after_the_frames_before_it(
    clips: dict[str, Path],
    whole: dict[str, list[Frame]],
    drain: Drain,
    tmp_path: Path,
    name: str,
    share: float,
) -> None:
    data = clips[name].read_bytes()
    path = tmp_path / name
    path.write_bytes(data[: int(len(data) * share)])
    items = drain(opened(path))
    frames = frames_of(items)
    assert 0 < len(frames) < len(whole[name])
    assert isinstance(items[-1], Gap)
    assert [item.index for item in items] == list(range(len(items)))
    for frame in frames:
        twin = next(w for w in whole[name] if w.media_s == frame.media_s)
        assert np.array_equal(frame.image, twin.image)


def test_an_mp4_that_lost_its_index_cannot_be_opened(
    clips: dict[str, Path], tmp_path: Path
) -> None:
    path = tmp_path / "cut.mp4"
    path.write_bytes(clips["h264.mp4"].read_bytes()[:-200])
    with pytest.raises(SourceError, match=r"cannot open cut\.mp4: Invalid data.*check the file"):
        opened(path)


def damaged(path: Path, packet_number: int) -> bytes:
    """The bytes of a clip, one packet of which is overwritten so that its decoder can notice."""
    data = path.read_bytes()
    with av.open(str(path)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    packet = packets[packet_number]
    start = data.index(packet)
    if path.stem == "h264":  # a slice that is longer than its packet
        return data[:start] + b"\x7f" + data[start + 1 :]
    garbage = np.random.default_rng(packet_number).bytes(len(packet) - 16)
    return data[: start + 16] + garbage + data[start + len(packet) :]


@pytest.mark.parametrize("name", ["mjpeg.avi", "mpeg4.avi", "h264.mp4", "h264.mkv"])
@pytest.mark.parametrize("at", [3, 9, 10, 17])
def test_damage_becomes_gaps_and_never_a_frame(
    clips: dict[str, Path],
    whole: dict[str, list[Frame]],
    drain: Drain,
    tmp_path: Path,
    name: str,
    at: int,
) -> None:
    """A packet is overwritten: no frame comes that differs from what was recorded."""
    path = tmp_path / name
    path.write_bytes(damaged(clips[name], at))
    items = drain(opened(path))
    gaps, frames = gaps_of(items), frames_of(items)
    assert gaps
    assert frames
    assert [item.index for item in items] == list(range(len(whole[name])))
    for frame in frames:
        assert np.array_equal(frame.image, whole[name][frame.index].image)


@pytest.mark.parametrize("name", ["mpeg4.avi", "h264.mp4"])
def test_frames_after_damage_are_whole_again_from_the_next_key_frame(
    clips: dict[str, Path], drain: Drain, tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    path.write_bytes(damaged(clips[name], 1))
    items = drain(opened(path))
    assert all(isinstance(item, Frame) for item in items[8:])
    reasons = {gap.reason for gap in gaps_of(items)}
    assert "frame is predicted from a damaged one" in reasons


def test_damage_to_a_jpeg_costs_that_frame_only(
    clips: dict[str, Path], drain: Drain, tmp_path: Path
) -> None:
    path = tmp_path / "mjpeg.avi"
    path.write_bytes(damaged(clips["mjpeg.avi"], 5))
    assert [gap.index for gap in gaps_of(drain(opened(path)))] == [5]


@pytest.mark.parametrize(
    ("name", "content"),
    [("empty.mp4", b""), ("noise.mp4", bytes(range(256)) * 40), ("notes.mp4", b"words\n" * 99)],
)
def test_what_is_no_video_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(SourceError, match=rf"cannot open {name}: .*; check the file"):
        opened(path)


@pytest.mark.parametrize("name", ["notes.txt", "readme.nfo", "art.ans", "art.bin"])
def test_text_is_not_taken_for_a_video(tmp_path: Path, name: str) -> None:
    """FFmpeg would render it."""
    path = tmp_path / name
    path.write_bytes(b"some words\n" * 50)
    with pytest.raises(SourceError, match=name):
        opened(path)


def write_sound(path: Path, *, cover: bool = False) -> None:
    from av.stream import Disposition

    with av.open(str(path), "w") as output:
        sound = output.add_stream("aac" if path.suffix == ".mp4" else "pcm_s16le", rate=16000)
        if cover:
            picture = output.add_stream("mjpeg", rate=1)
            picture.width, picture.height, picture.pix_fmt = 64, 64, "yuvj420p"
            picture.disposition = Disposition.attached_pic.value
            image = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="bgr24")
            output.mux(picture.encode(image))
            output.mux(picture.encode())
        samples = av.AudioFrame.from_ndarray(
            np.zeros((1, 1024), np.int16), format="s16", layout="mono"
        )
        samples.rate = 16000
        output.mux(sound.encode(samples))
        output.mux(sound.encode())


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    write_sound(tmp_path / "sound.wav")
    with pytest.raises(SourceError, match=r"sound\.wav holds no video stream"):
        opened(tmp_path / "sound.wav")


def test_the_cover_of_a_song_is_no_video(tmp_path: Path) -> None:
    write_sound(tmp_path / "song.mp4", cover=True)
    with av.open(str(tmp_path / "song.mp4")) as container:
        assert container.streams.video  # FFmpeg does call it one
    with pytest.raises(SourceError, match=r"song\.mp4 holds no video stream"):
        opened(tmp_path / "song.mp4")


def test_a_colon_in_a_file_name_is_no_protocol(
    clips: dict[str, Path], drain: Drain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "12:30.avi").write_bytes(clips["mjpeg.avi"].read_bytes())
    monkeypatch.chdir(tmp_path)
    assert len(drain(VideoSource(SourceSpec("video", "12:30.avi", "12:30.avi")))) == 24


def test_closing_early_and_twice_does_nothing_bad(clips: dict[str, Path]) -> None:
    source = opened(clips["h264.mp4"])
    assert isinstance(source.read(), Frame)
    source.close()
    source.close()


def test_a_served_recording_is_read_like_a_file(
    clips: dict[str, Path], server: Any, drain: Drain, clip_tools: Any
) -> None:
    for name in ("faststart.mp4", "mjpeg.avi"):
        url = server.put(f"/{name}", clips[name].read_bytes())
        source = VideoSource(SourceSpec("url", url, url))
        assert not source.live
        items = drain(source)
        assert [clip_tools.index(frame.image) for frame in frames_of(items)] == list(range(24))
        assert gaps_of(items) == []


def test_a_served_recording_that_breaks_off_ends_in_a_gap(
    clips: dict[str, Path], whole: dict[str, list[Frame]], server: Any, drain: Drain
) -> None:
    data = clips["mjpeg.avi"].read_bytes()
    url = server.put("/cut.avi", data, sent=len(data) * 3 // 4)
    items = drain(VideoSource(SourceSpec("url", url, url)))
    assert isinstance(items[-1], Gap)
    frames = frames_of(items)
    assert 5 < len(frames) < 24
    for frame in frames:
        assert np.array_equal(frame.image, whole["mjpeg.avi"][frame.index].image)


@pytest.mark.parametrize("path", ["/mjpeg", "/mjpeg-cut"])
def test_a_camera_on_the_network_that_ends_is_lost(
    server: Any, clip_tools: Any, drain: Callable, path: str
) -> None:
    url = server.url + path
    read: list[Frame | Gap] = []
    source = VideoSource(SourceSpec("url", url, url))
    assert source.live
    with pytest.raises(CameraError, match=rf"lost {url} after \d+ frames: .") as caught:
        drain(source, read)
    assert str(caught.value).endswith(caught.value.clause())
    assert [clip_tools.index(frame.image) for frame in frames_of(read)] == list(range(24))
    assert [item.index for item in read] == list(range(len(read)))


def test_a_camera_on_the_network_that_falls_silent_is_lost(server: Any, drain: Drain) -> None:
    url, request = server.url + "/mjpeg-stall", CaptureRequest(timeout_s=0.5)
    source = VideoSource(SourceSpec("url", url, "the camera"), request)
    with pytest.raises(CameraError, match=r"lost the camera after .*: no frame came for 0\.5 s"):
        drain(source)
    assert server.stalled.is_set()


@pytest.mark.parametrize(
    ("path", "words"), [("/none.mp4", "404 Not Found"), ("/private", "401 Unauthorized")]
)
def test_what_a_server_refuses_is_said_without_credentials(
    server: Any, path: str, words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    url = server.url.replace("//", "//user:secret@") + path + "?token=secret"
    with pytest.raises(SourceError) as caught:
        VideoSource(SourceSpec("url", url, server.url + path))
    text = str(caught.value)
    assert words in text
    assert "check the address and that the server runs" in text
    assert "secret" not in text
    assert "secret" not in "".join(capfd.readouterr())


def test_no_server_and_no_such_protocol() -> None:
    with pytest.raises(SourceError, match="Connection refused; check the address"):
        VideoSource(SourceSpec("url", "http://127.0.0.1:9/x", "nobody"))
    with pytest.raises(SourceError, match="Protocol not found"):
        VideoSource(SourceSpec("url", "gopher-x://127.0.0.1/x", "nobody"))


def test_a_file_that_lost_its_last_frame_whole_says_so(
    clips: dict[str, Path], drain: Drain, tmp_path: Path
) -> None:
    """Cut between two frames, nothing is damaged; only the header knows."""
    data = clips["mjpeg.avi"].read_bytes()
    path = tmp_path / "cut.avi"
    path.write_bytes(data[: data.rindex(b"00dc", 0, data.rindex(b"idx1"))])
    items = drain(opened(path))
    assert [gap.reason for gap in gaps_of(items)] == [
        "the file announces 24 frames and ends after 23"
    ]
    assert len(items) == 24


def test_a_trimmed_mp4_is_not_cut_short(
    clips: dict[str, Path], drain: Drain, tmp_path: Path
) -> None:
    """Telephones trim by an edit list: the frames are still counted, and not to be shown."""
    data = bytearray(clips["h264.mp4"].read_bytes())
    start = data.index(b"elst") + 12  # behind the version and the number of entries
    duration = int.from_bytes(data[start : start + 4], "big")
    data[start : start + 4] = (duration // 2).to_bytes(4, "big")
    path = tmp_path / "trimmed.mp4"
    path.write_bytes(data)
    items = drain(opened(path))
    assert gaps_of(items) == []
    assert 10 <= len(items) <= 16


def test_an_avi_in_which_a_picture_stands_still_is_not_cut_short(
    drain: Drain, tmp_path: Path, clip_tools: Any
) -> None:
    """Such frames are counted in the header, and FFmpeg passes over them."""
    path = tmp_path / "still.avi"
    with av.open(str(path), "w", format="avi") as output:
        stream = output.add_stream("mjpeg", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuvj420p"
        for index in (0, 1, 2, 7, 8, 9):
            frame = av.VideoFrame.from_ndarray(clip_tools.image(index), format="bgr24")
            frame.pts = index
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    source = opened(path)
    assert source.expected == 10
    items = drain(source)
    assert [clip_tools.index(frame.image) for frame in frames_of(items)] == [0, 1, 2, 7, 8, 9]
    assert gaps_of(items) == []


def test_a_camera_that_was_lost_is_opened_again_and_its_frames_are_counted_on(
    server: Any, clip_tools: Any, drain: Callable
) -> None:
    url = server.url + "/mjpeg"
    with VideoSource(SourceSpec("url", url, url)) as source:
        assert source.can_reconnect
        read: list[Frame | Gap] = []
        for _ in range(2):
            with pytest.raises(CameraError):
                drain(source, read)
            assert source.read() is None
            source.close()
            source.reopen()
    frames = [item for item in read if isinstance(item, Frame)]
    assert [clip_tools.index(frame.image) for frame in frames] == [*range(24), *range(24)]
    indices = [frame.index for frame in frames]
    assert indices == sorted(set(indices))


def test_a_camera_that_is_not_back_yet_is_not_opened(server: Any) -> None:
    url = server.url + "/mjpeg"
    source = VideoSource(SourceSpec("url", url, "the camera"))
    source.close()
    source._spec = SourceSpec("url", server.url + "/none", "the camera", has_end=False)
    for _ in range(2):
        with pytest.raises(SourceError, match=r"cannot open the camera: .*404") as caught:
            source.reopen()
        assert "404" in caught.value.clause()
        assert "check" not in caught.value.clause()
    source._spec = SourceSpec("url", url, "the camera", has_end=False)
    source.reopen()
    assert isinstance(source.read(), Frame)
    source.close()


def test_a_recording_does_not_return(clips: dict[str, Path]) -> None:
    with opened(clips["h264.mp4"]) as source:
        assert not source.can_reconnect


def test_the_time_of_a_frame_covers_all_until_its_image_is_there(clips: dict[str, Path]) -> None:
    """A decoder that reorders holds it back until frames that are shown later have come."""
    with opened(clips["h264.mp4"]) as source:
        for frame in frames_of(list(iter(source.read, None))):
            assert time.monotonic_ns() - frame.grabbed_ns >= frame.capture_ns
    first_ns = time.monotonic_ns()
    with opened(clips["h264.mp4"]) as source:
        frame = source.read()
    assert isinstance(frame, Frame)
    assert frame.grabbed_ns > first_ns
    assert frame.grabbed_ns + frame.capture_ns <= time.monotonic_ns()


def test_a_server_that_sends_all_at_once_gives_frames_no_younger_than_its_connection(
    server: Any, drain: Drain
) -> None:
    before_ns = time.monotonic_ns()
    read: list[Frame | Gap] = []
    source = VideoSource(SourceSpec("url", server.url + "/mjpeg", "the camera"))
    ready_ns = time.monotonic_ns()
    with pytest.raises(CameraError):
        drain(source, read)
    first = frames_of(read)[0]
    assert before_ns <= first.grabbed_ns <= ready_ns
    assert (
        abs((time.time_ns() - first.captured_ns) - (time.monotonic_ns() - first.grabbed_ns)) < 1e9
    )


def test_a_named_pipe_is_read_until_its_writer_goes_and_then_again(
    clips: dict[str, Path], tmp_path: Path, clip_tools: Any, drain: Callable
) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    read: list[Frame | Gap] = []
    source = None
    for _ in range(2):
        writer = threading.Thread(
            target=path.write_bytes, args=(clips["h264.mkv"].read_bytes(),), daemon=True
        )
        writer.start()
        if source is None:
            source = VideoSource(
                SourceSpec("pipe", str(path), "pipe"), CaptureRequest(timeout_s=60)
            )
            assert source.live
            assert source.can_reconnect
        else:
            source.reopen()
        with pytest.raises(CameraError, match=r"lost pipe after \d+ frames: the stream ended"):
            drain(source, read)
        writer.join()
        source.close()
    frames = [item for item in read if isinstance(item, Frame)]
    assert [clip_tools.index(frame.image) for frame in frames] == [*range(24), *range(24)]
    assert [frame.index for frame in frames] == list(range(48))


def test_a_jpeg_without_its_picture_is_a_gap(clips: dict[str, Path], tmp_path: Path) -> None:
    """FFmpeg would show what its memory last held."""
    data = clips["mjpeg.avi"].read_bytes()
    start = [place for place in range(len(data)) if data.startswith(b"\xff\xda", place)][9]
    path = tmp_path / "headless.avi"
    path.write_bytes(data[:start] + b"\xff\xfe" + data[start + 2 :])
    with opened(path) as source:
        items = list(iter(source.read, None))
    assert [(gap.index, gap.reason) for gap in gaps_of(items)] == [(9, "frame holds no picture")]
    assert len(items) == 24


def test_what_is_predicted_from_a_frame_that_did_not_come_is_a_gap(
    clips: dict[str, Path], whole: dict[str, list[Frame]], tmp_path: Path
) -> None:
    """FFmpeg would predict it from another one, and say nothing."""
    path = tmp_path / "lost.mkv"
    with av.open(str(clips["h264.mkv"])) as read, av.open(str(path), "w") as output:
        stream = output.add_stream_from_template(read.streams.video[0])
        packets = [packet for packet in read.demux(video=0) if packet.size]
        for number, packet in enumerate(packets):
            if number != 4:  # a P frame, early in its group of 8
                packet.stream = stream
                output.mux(packet)
    with opened(path) as source:
        items = list(iter(source.read, None))
    assert "frame is predicted from one that did not come" in {gap.reason for gap in gaps_of(items)}
    by_time = {frame.media_s: frame for frame in whole["h264.mkv"]}
    assert len(frames_of(items)) >= 16
    for frame in frames_of(items):
        assert np.array_equal(frame.image, by_time[frame.media_s].image)


def test_an_interrupted_camera_returns_none(server: Any) -> None:
    url = server.url + "/mjpeg"
    with VideoSource(SourceSpec("url", url, "the camera")) as source:
        assert isinstance(source.read(), Frame)
        source.interrupt()
        assert source.read() is None
        source.close()
        source.reopen()
        assert isinstance(source.read(), Frame)


def test_closing_under_a_reader_that_waits_leaves_it_to_its_time_out(server: Any) -> None:
    """To pull the connection from under FFmpeg would end the process."""
    ended: list[Frame | Gap | Exception | None] = []
    url, request = server.url + "/mjpeg-stall", CaptureRequest(timeout_s=2)
    source = VideoSource(SourceSpec("url", url, "the camera"), request)

    def read() -> None:
        try:
            while isinstance(item := source.read(), Frame):
                pass
            ended.append(item)
        except CameraError as error:
            ended.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    assert server.stalled.wait(60)
    source.interrupt()
    source.close()
    reader.join(60)
    assert not reader.is_alive()
    assert len(ended) == 1
    source.close()


def test_a_frame_is_freed_at_once_and_its_memory_used_again(clips: dict[str, Path]) -> None:
    def alive() -> int:
        return sum(type(one) is VideoFrame for one in gc.get_objects())

    before = alive()
    gc.disable()
    try:
        with opened(clips["h264.mp4"]) as source:
            list(iter(source.read, None))
        assert alive() <= before + 1  # the decoder keeps an empty one
    finally:
        gc.enable()
