"""MJPEG as servers really divide it, against the bytes that were sent."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import pytest

from motorvae.runtime.core.errors import CameraError
from motorvae.runtime.core.frame import Frame, Gap
from motorvae.runtime.sources.base import CaptureRequest
from motorvae.runtime.sources.network import multipart
from motorvae.runtime.sources.network.multipart import MultipartReader
from motorvae.runtime.sources.spec import SourceSpec
from motorvae.runtime.sources.video.source import VideoSource

from .scripted import Scripted, response

RNG = np.random.default_rng(0)
PICTURES = [
    cv2.imencode(".jpg", RNG.integers(0, 255, (24, 32, 3), np.uint8))[1].tobytes() for _ in range(5)
]
THUMBNAIL = b"\xff\xe1" + (2 + len(PICTURES[0])).to_bytes(2, "big") + PICTURES[0]
WITH_THUMBNAIL = PICTURES[1][:2] + THUMBNAIL + PICTURES[1][2:]
MIXED = "multipart/x-mixed-replace; boundary="


class Body:
    """Bytes that come in pieces of one size."""

    received_ns = 1

    def __init__(self, data: bytes, piece: int) -> None:
        self._pieces = iter([data[at : at + piece] for at in range(0, len(data), piece)])

    def read(self, _size: int = 0) -> bytes:
        return next(self._pieces, b"")

    def close(self) -> None:
        """Nothing is open."""


def parts_of(data: bytes, content_type: str = f"{MIXED}frame", piece: int = 1000) -> list[bytes]:
    """Return the parts as a reader hands them on; one that was cut off ends with b"..."."""
    reader = MultipartReader(Body(data, piece), content_type)
    out = b"".join(iter(lambda: reader.read(977), b""))
    found = []
    while out:
        head, _, rest = out.partition(b"\r\n\r\n")
        size = int(re.search(rb"Content-Length: (\d+)", head)[1])  # type: ignore[index]
        found.append(rest[:size] if size <= len(rest) else rest + b"...")
        out = rest[size:]
    return found


def framed(
    *parts: bytes, mark: bytes = b"--frame", eol: bytes = b"\r\n", length: int | None = 0
) -> bytes:
    """Divide parts; `length` is added to each that is announced, and None announces none."""
    out = b""
    for part in parts:
        size = b"" if length is None else b"Content-Length: %d" % (len(part) + length) + eol
        out += mark + eol + b"Content-Type: image/jpeg" + eol + size + eol + part + eol
    return out


def bare(part: bytes) -> bytes:
    return b"\r\n--frame\r\n\r\n" + part


KINDS = {
    "as it should be": framed(*PICTURES),
    "no lengths": framed(*PICTURES, length=None),
    "lines end with LF": framed(*PICTURES, eol=b"\n"),
    "no lengths, LF": framed(*PICTURES, eol=b"\n", length=None),
    "no first boundary": framed(*PICTURES).removeprefix(b"--frame\r\n"),
    "no dashes": framed(*PICTURES, mark=b"frame"),
    "no dashes, no lengths": framed(*PICTURES, mark=b"frame", length=None),
    "another boundary": framed(*PICTURES, mark=b"--another"),
    "four dashes": framed(*PICTURES, mark=b"----frame"),
    "a boundary with a colon": framed(*PICTURES, mark=b"--a:b:c:d", length=None),
    "too short lengths": framed(*PICTURES, length=-40),
    "too long lengths": framed(*PICTURES, length=100),
    "lengths that reach far": framed(*PICTURES, length=900),
    "garbage between": b"".join(b"noise \0\1\2\n" * 50 + framed(one) for one in PICTURES),
    "text between": b"".join(b"HTTP/1.1 200 OK\r\nServer: x\r\n\r\n" + framed(p) for p in PICTURES),
    "a preamble": b"This is a multi-part message.\r\n\r\n" + framed(*PICTURES),
    "no headers": b"".join(map(bare, PICTURES)),
    "pictures only": b"".join(PICTURES),
    "padding after each picture": framed(*(picture + b"\0" * 40 for picture in PICTURES)),
    "an end": framed(*PICTURES) + b"--frame--\r\n",
}


@pytest.mark.parametrize("piece", [3, 1 << 20])
@pytest.mark.parametrize("kind", KINDS)
def test_every_picture_comes_out_as_it_was_sent(kind: str, piece: int) -> None:
    assert [part.rstrip(b"\0") for part in parts_of(KINDS[kind], piece=piece)] == PICTURES


@pytest.mark.parametrize(
    "declared",
    ["frame", '"frame"', "--frame", '"--frame"; x=y', "other", "", "-", "frame; charset=utf-8"],
)
@pytest.mark.parametrize("length", [0, None])
def test_whatever_boundary_is_declared(declared: str, length: int | None) -> None:
    assert parts_of(framed(*PICTURES, length=length), MIXED + declared) == PICTURES
    assert parts_of(framed(*PICTURES, length=length), "multipart/mixed") == PICTURES


@pytest.mark.parametrize("length", [0, None])
def test_a_thumbnail_is_no_picture(length: int | None) -> None:
    sent = [WITH_THUMBNAIL, PICTURES[2]]
    assert parts_of(framed(*sent, length=length)) == sent


def test_what_is_no_picture_is_handed_on() -> None:
    sent = [PICTURES[0], b"this is no picture", PICTURES[1]]
    assert parts_of(framed(*sent)) == sent
    assert parts_of(framed(*sent, length=None)) == sent


@pytest.mark.parametrize("eol", [b"\r\n", b"\n"])
@pytest.mark.parametrize("length", [0, None])
def test_an_empty_part_does_not_take_the_next_one(length: int | None, eol: bytes) -> None:
    sent = framed(b"", PICTURES[0], b"", PICTURES[1], length=length, eol=eol)
    assert parts_of(sent) == parts_of(sent, piece=3) == [b"\0", PICTURES[0], b"\0", PICTURES[1]]
    sent = sent.replace(2 * eol + eol + b"--", 2 * eol + b"--")  # no line of its own
    assert parts_of(sent) == [b"\0", PICTURES[0], b"\0", PICTURES[1]]


@pytest.mark.parametrize("length", [0, None])
def test_a_picture_without_its_end_does_not_take_the_next_one(length: int | None) -> None:
    sent = [PICTURES[0], PICTURES[1][:-90], PICTURES[2]]
    assert parts_of(framed(*sent, length=length)) == sent


def test_what_the_end_of_the_stream_cuts_off_is_announced_as_longer() -> None:
    assert parts_of(framed(*PICTURES[:2])[:-90])[1].endswith(b"...")


def test_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OSError, match="a part of 2147483648 bytes is announced, and 64 MiB are"):
        parts_of(framed(b"\xff\xd8\xff\xe0", length=2**31 - 4))
    monkeypatch.setattr(multipart, "MOST_PART_BYTES", 1 << 20)
    with pytest.raises(OSError, match="a picture has no end within 1 MiB"):
        parts_of(framed(PICTURES[0][:-2] + bytes(2 << 20), length=None), piece=1 << 16)
    with pytest.raises(OSError, match="no picture came in 1 MiB"):
        parts_of(b"Content-Type: x\n" * 100_000, piece=1 << 16)


@pytest.mark.parametrize("kind", ["no first boundary", "no dashes, no lengths", "pictures only"])
def test_a_camera_of_each_kind_is_live_and_decodes(kind: str) -> None:
    media_type = "image/jpeg" if kind == "pictures only" else f"{MIXED}frame"
    camera = response(KINDS[kind], content_type=media_type)
    with Scripted(lambda _: [camera]) as server:
        frames, gaps, ended = watched(server.url())
    assert len(frames) == len(PICTURES)
    assert not gaps
    assert "the stream ended" in ended
    for frame, picture in zip(frames, PICTURES, strict=True):
        expected = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)
        assert np.abs(frame.image.astype(int) - expected).mean() < 4  # FFmpeg against libjpeg


def test_a_camera_that_announces_a_length_is_live() -> None:
    body = framed(*PICTURES)
    camera = response(body, content_type=f"{MIXED}frame", content_length=len(body))
    with Scripted(lambda _: [camera]) as server:
        frames, _, ended = watched(server.url())
    assert len(frames) == len(PICTURES)
    assert "the stream ended" in ended


@pytest.mark.parametrize("way", ["url", "pipe", "video"])
@pytest.mark.parametrize("length", [0, None])
def test_what_begins_with_an_empty_line_is_divided_too(
    tmp_path: Path, way: Literal["url", "pipe", "video"], length: int | None
) -> None:
    """As what VLC sends, also where curl writes it into a pipe or a file."""
    sent, path = b"\r\n" + framed(*PICTURES, length=length), tmp_path / "saved"

    def script(_: bytes) -> Iterator[bytes]:
        yield response(content_type="text/plain")
        yield from (sent[:2], sent[2:])

    with Scripted(script) as server:
        name = server.url() if way == "url" else str(path)
        if way == "pipe":
            os.mkfifo(path)
            threading.Thread(target=path.write_bytes, args=(sent,), daemon=True).start()
        elif way == "video":
            path.write_bytes(sent)
        spec = SourceSpec(way, name, "a", is_live=False)
        with VideoSource(spec, CaptureRequest(timeout_s=5.0)) as source:
            assert [type(item) for item in iter(source.read, None)] == [Frame] * 5


def test_an_endless_picture_is_a_loss_with_its_reason() -> None:
    def script(_: bytes) -> Iterator[bytes]:
        yield response(framed(*PICTURES), content_type=f"{MIXED}frame")
        yield b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: 9000000000\r\n\r\n"
        yield PICTURES[0]
        server.closing.wait(60)

    with Scripted(script) as server:
        frames, _, ended = watched(server.url())
    assert len(frames) == len(PICTURES)
    assert "a part of 9000000000 bytes is announced" in ended


def watched(url: str) -> tuple[list[Frame], list[Gap], str]:
    """Read a live source to its end; return what came and why it ended."""
    frames: list[Frame] = []
    gaps: list[Gap] = []
    with VideoSource(SourceSpec.parse(url), CaptureRequest(timeout_s=60)) as source:
        assert source.live
        try:
            while (item := source.read()) is not None:
                if isinstance(item, Frame):
                    frames.append(item)
                else:
                    gaps.append(item)
        except CameraError as error:
            return frames, gaps, str(error)
    raise AssertionError("a live source ended like a recording")
