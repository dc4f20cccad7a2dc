"""Recordings of the test pictures, whole and damaged, and a FIFO that somebody writes to."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import av

from .pictures import HEIGHT, KINDS, WIDTH, damaged_jpeg, jpeg, picture

FPS = 20
FIFO_FPS = 50  # of heavy pictures, so that opening takes no second
GROUP = 8  # frames from one key frame to the next


def write_clip(
    path: Path,
    kinds: Sequence[int],
    *,
    codec: str = "mjpeg",
    fps: int = FPS,
    damaged: Sequence[int] = (),
    spoil: Callable[[bytes], bytes] = damaged_jpeg,
) -> Path:
    """Encode pictures for real; the packets numbered in `damaged` are spoilt on the way."""
    with av.open(str(path), "w") as output:
        options = {"x264-params": "scenecut=0:bframes=0"} if codec == "libx264" else {}
        stream = output.add_stream(codec, rate=fps, options=options)
        stream.width, stream.height = WIDTH, HEIGHT
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.gop_size, stream.bit_rate = GROUP, 4_000_000
        number = 0
        for kind in (*kinds, None):
            frame = None
            if kind is not None:
                frame = av.VideoFrame.from_ndarray(picture(kind), format="gray")
            for packet in stream.encode(frame):
                output.mux(_spoilt(packet, spoil) if number in damaged else packet)
                number += 1
    return path


def cut_in_half(data: bytes) -> bytes:
    """The first half of an encoded frame."""
    return data[: len(data) // 2]


def _spoilt(packet: av.Packet, spoil: Callable[[bytes], bytes]) -> av.Packet:
    """The same packet with other bytes."""
    spoilt = av.Packet(spoil(bytes(packet)))
    spoilt.pts, spoilt.dts, spoilt.duration = packet.pts, packet.dts, packet.duration
    spoilt.stream, spoilt.time_base = packet.stream, packet.time_base
    spoilt.is_keyframe = packet.is_keyframe
    return spoilt


def jpegs_of(kinds: Sequence[int], width: int = WIDTH, height: int = HEIGHT) -> bytes:
    """JPEGs one after another, which FFmpeg takes for a video."""
    return b"".join(jpeg(picture(kind, width, height)) for kind in kinds)


def _heavy(data: bytes) -> bytes:
    """The same JPEG with a long comment: FFmpeg wants a megabyte to tell what a pipe holds."""
    length = 60_000
    comment = b"\xff\xfe" + length.to_bytes(2, "big") + b"." * (length - 2)
    return data[:2] + comment + data[2:]


class FifoWriter:
    """Writes pictures into a FIFO at a camera's pace, until it is told to stop.

    Args:
        path: The FIFO; opening it waits for a reader, and where that one goes, as a stream that
            connects anew does, for the next one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._waits_for_reader = True
        self._pictures = [_heavy(jpeg(picture(kind))) for kind in range(KINDS)]
        self._stopping = threading.Event()
        self._flowing = threading.Event()
        self._flowing.set()
        self._thread = threading.Thread(target=self._write, daemon=True)
        self._thread.start()

    def stall(self) -> None:
        """Write nothing, but keep the FIFO open."""
        self._flowing.clear()

    def go(self) -> None:
        """Write on."""
        self._flowing.set()

    def stop(self) -> None:
        """Go away, as a writer that dies."""
        self._stopping.set()
        self._flowing.set()
        while self._thread.is_alive():
            if self._waits_for_reader:  # a reader lets it go on, and see that it is to stop
                os.close(os.open(self.path, os.O_RDONLY | os.O_NONBLOCK))
            self._thread.join(0.1)

    def _write(self) -> None:
        count = 0
        while not self._stopping.is_set():
            self._waits_for_reader = True
            with contextlib.suppress(BrokenPipeError), self.path.open("wb", buffering=0) as fifo:
                self._waits_for_reader = False
                while not self._stopping.wait(1 / FIFO_FPS):
                    fifo.write(self._pictures[count % len(self._pictures)])
                    count += 1
                    self._flowing.wait()


def fifo_at(path: Path) -> Path:
    """Make a FIFO."""
    os.mkfifo(path)
    return path
