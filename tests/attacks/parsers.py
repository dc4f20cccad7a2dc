"""Feed every parser of strangers' bytes with mutated ones, each within a time limit.

    python -m tests.attacks.parsers                        # 1,000,000 inputs, some minutes
    python -m tests.attacks.parsers --seconds 20 --seed 7  # as many as fit

The corpus is real: packets, pictures, playlists, graphs and error texts, cut from what FFmpeg,
Pillow, OpenCV and onnx write. A parser may refuse what it gets with the error that its docstring
names; any other error, an input that takes more than a second of processor time, or a peak above
1 GB fails the run. The counts are one line of JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import io
import json
import os
import random
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import av
import cv2
import numpy as np

from motorvae.runtime.core.errors import ConfigError, ImageError, SourceError, reason_of
from motorvae.runtime.core.redaction import without_credentials, without_private
from motorvae.runtime.core.spec import ModelSpec
from motorvae.runtime.core.text import printable
from motorvae.runtime.engines.onnx_runtime import cause_from_error
from motorvae.runtime.pixels.camera_formats import fitted_from_jpeg
from motorvae.runtime.pixels.files.image_files import picture_from_bytes
from motorvae.runtime.pixels.files.image_kinds import is_film, kind_of_bytes
from motorvae.runtime.pixels.jpeg import jpeg_scan
from motorvae.runtime.pixels.orientation import orientation_of_exif, orientation_of_jpeg
from motorvae.runtime.pixels.picture import PictureLimit
from motorvae.runtime.sources.device_names import cameras
from motorvae.runtime.sources.network import hls
from motorvae.runtime.sources.network.multipart import MultipartReader
from motorvae.runtime.sources.network.reach import Reach, place_of, playlist_kind, split_credentials
from motorvae.runtime.sources.opencv import driver_stamp_ns, mode_of
from motorvae.runtime.sources.spec import SourceSpec, plan_from_query
from motorvae.runtime.sources.video.codecs.bitstream import BitstreamValidator

from .limits import LIMIT_S, MOST_BYTES, peak_bytes
from .small_graphs import GRAPHS, graph_of_another_network

INPUT_S = 1.0  # of processor time
LONGEST = 1 << 16
_MOST_SHOWN = 10
INTERESTING = (b"\0\0\1", b"\0\0\0\1", b"\xff\xd8\xff", b"\xff\xda", b"\xff\xd9", b"\xff\xff")
SPEC = ModelSpec(image_size=32, channels=(4, 8, 8, 16, 16), latent_size=8)


class TooSlow(BaseException):
    """Not an Exception, so that no parser takes it for one of its own."""


class Target(NamedTuple):
    """A parser, what it is fed with, what it may raise, and its share of all inputs."""

    run: Callable[[bytes], Any]
    corpus: list[bytes]
    refuses: tuple[type[Exception], ...] = ()
    share: float = 1.0


class Body:
    """What a server sends, in pieces."""

    received_ns = 0

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)

    def read(self, size: int = -1) -> bytes:
        return self._file.read(min(size, 4096) if size > 0 else -1)

    def close(self) -> None:
        """Nothing is open."""


def mjpeg(data: bytes) -> None:
    BitstreamValidator("mjpeg", None).facts(data, key=True)


CODECS = ("h264", "h264", "hevc", "mpeg2video", "mpeg4")


def h264(data: bytes) -> None:
    """The first bytes say how the rest is cut into extradata and packets."""
    sizes, rest = data[:3], data[3:]
    cut = (sizes[0] if sizes else 0) % 64
    codec = CODECS[sizes[1] % len(CODECS)] if len(sizes) > 1 else "h264"
    flaws = BitstreamValidator(codec, rest[:cut] or None)
    for packet in (rest[cut : len(rest) // 2], rest[len(rest) // 2 :], rest[cut:]):
        flaws.facts(packet, key=False)


def multipart(data: bytes) -> None:
    kind, _, rest = data.partition(b"\n")
    reader = MultipartReader(Body(rest), kind.decode("latin-1"))
    while reader.read(1 << 16):
        pass


def texts(data: bytes) -> None:
    text = data.decode("latin-1")
    for clean in (without_credentials, without_private, printable):
        clean(text)
    reason_of(ValueError(text))
    cause_from_error(RuntimeError(text))
    place_of(text)
    with contextlib.suppress(PermissionError):
        Reach("http://camera:80/live", ("other",)).check(text)
    split_credentials(f"http://{text}")


def numbers(data: bytes) -> None:
    """What a driver answers, as OpenCV hands it on: any float."""
    values = np.frombuffer(data.ljust(40, b"\0")[:40], np.float64).tolist()

    class Capture:
        def get(self, key: int) -> float:
            return values[key % len(values)]

    mode_of(Capture())  # type: ignore[arg-type]
    driver_stamp_ns(values[0], 10**15, 0)


def sources(data: bytes) -> None:
    text = data.decode("latin-1")
    for parse in (plan_from_query, lambda query: SourceSpec.parse(f"csi://0?{query}")):
        with contextlib.suppress(ConfigError, SourceError):
            parse(text)


def labels(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        node = Path(folder, "sys/class/video4linux/video0")
        node.mkdir(parents=True)
        (node / "name").write_bytes(data)
        str(cameras(Path(folder))[0]).encode()


def encoded(codec: str, kind: str, **options: str) -> bytes:
    """A second of moving noise, as FFmpeg writes it."""
    target, rng = io.BytesIO(), np.random.default_rng(0)
    with av.open(target, "w", format=kind, options={"movflags": "frag_keyframe+empty_moov"}) as out:
        stream = out.add_stream(codec, rate=25, options=options)
        stream.width, stream.height = 64, 48
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        blocks = rng.integers(0, 256, (6, 8, 3), np.uint8)
        picture = cv2.resize(blocks, (64, 48))
        for shift in range(25):
            image = np.ascontiguousarray(np.roll(picture, shift, 1).astype(np.uint8))
            out.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        out.mux(stream.encode(None))
    return target.getvalue()


def packets_of(data: bytes, kind: str) -> list[bytes]:
    with av.open(io.BytesIO(data), format=kind) as container:
        stream = container.streams.video[0]
        extra = stream.codec_context.extradata or b""
        head = bytes((len(extra) % 64, 0, 0)) + extra
        return [head + bytes(packet) for packet in container.demux(stream) if packet.size][:12]


def pictures() -> dict[str, list[bytes]]:
    image = cv2.resize(np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8), (32, 24))
    image = image.astype(np.uint8)
    found = {
        suffix: [cv2.imencode(f".{suffix}", image)[1].tobytes()]
        for suffix in ("jpg", "png", "webp", "bmp", "tiff", "ppm")
    }
    restarts = [cv2.IMWRITE_JPEG_RST_INTERVAL, 2]
    found["jpg"].append(cv2.imencode(".jpg", image, restarts)[1].tobytes())
    found["jpg"].append(packets_of(encoded("mjpeg", "avi"), "avi")[0][3:])
    frame = found["jpg"][0].index(b"\xff\xc0")
    huge = b"\xff\xff\xff\xff"
    found["jpg"].append(found["jpg"][0][: frame + 5] + huge + found["jpg"][0][frame + 9 :])
    exif = b"Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\6\0\0\0\0\0\0\0"
    block = b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif
    found["jpg"].append(found["jpg"][0][:2] + block + found["jpg"][0][2:])
    found["exif"] = [exif, exif[6:], b"MM\0*" + exif[10:]]
    return found


PLAYLIST = b"""#EXTM3U
#EXT-X-TARGETDURATION:2.5
#EXT-X-MEDIA-SEQUENCE:7
#EXT-X-MAP:URI="init.mp4",BYTERANGE="100@0"
#EXT-X-BYTERANGE:500@100
#EXTINF:2,
a.ts
#EXTINF:2,
http://other/b.ts
#EXT-X-STREAM-INF:BANDWIDTH=1,CODECS="avc1"
#EXT-X-ENDLIST
"""
TEXTS = [
    b"rtsp://user:secret@host:554/live?token=1&user=me&password=x",
    b"http://[::1]:80/user=admin_password=tlJwpbo6_channel=1_stream=0.sdp?real_stream",
    b"CUDA failure 35: CUDA driver version is old ; GPU=0 ; hostname=box7 ; file=/home/a/b",
    b"libcublas.so.12: cannot open shared object file: No such file or directory",
]
QUERIES = [
    b"fps=30&seed=0&size=512&loop=240&frames=1000&drop=30..45,90&freeze=60..70&damage=80",
    b"width=1920&height=1080&fps=30",
]


def targets() -> dict[str, Target]:
    annexb = packets_of(encoded("libx264", "mpegts", g="5", bf="2"), "mpegts")
    avcc = packets_of(encoded("libx264", "mp4", g="5", profile="high"), "mp4")
    images = pictures()
    jpegs = images["jpg"]
    parts = b"\r\n".join(
        b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%b" % (len(one), one)
        for one in jpegs
    )
    replace = b"multipart/x-mixed-replace;boundary=frame\n"
    every = [one for kind in images.values() for one in kind]
    limit = PictureLimit()
    return {
        "h264": Target(h264, annexb + avcc, share=4),
        "jpeg scan": Target(jpeg_scan, jpegs, share=3),
        "mjpeg packet": Target(mjpeg, jpegs, share=2),
        "jpeg luma": Target(lambda data: fitted_from_jpeg(data, SPEC), jpegs, (ImageError,), 0.5),
        "orientation": Target(orientation_of_jpeg, jpegs, share=2),
        "exif": Target(orientation_of_exif, images["exif"], share=3),
        "kind": Target(lambda data: (kind_of_bytes(data), is_film(data)), every, share=2),
        "picture": Target(lambda data: picture_from_bytes(data, limit), every, (ImageError,), 0.3),
        "multipart": Target(multipart, [replace + parts, b"image/jpeg\n" + parts], (OSError,), 1),
        "playlist": Target(
            lambda data: hls._parsed("http://c/x", data.decode("utf-8", "replace").splitlines()),
            [PLAYLIST],
            (OSError, ValueError),
            2,
        ),
        "playlist kind": Target(playlist_kind, [PLAYLIST, b"<?xml version='1'?><MPD>"], share=2),
        "texts": Target(texts, TEXTS, share=1),
        "driver": Target(numbers, [np.array([640, 480, 30, 1196444237, 1]).tobytes()], share=2),
        "sources": Target(sources, QUERIES, share=1),
        "graph": Target(graph_of_another_network, GRAPHS, (ValueError,), 2),
        "labels": Target(labels, ["HD Webcam \u00e9".encode()], share=0.1),
    }


def mutated(data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 3, 8))):
        place = rng.randrange(len(out) + 1)
        size = rng.choice((1, 1, 2, 4, 16, 64))
        kind = rng.randrange(9)
        if kind == 0:
            del out[place:]
        elif kind == 1:
            del out[place : place + size]
        elif kind == 2:
            out[place : place + size] = rng.randbytes(size)
        elif kind == 3:
            out[place:place] = rng.choice(INTERESTING)
        elif kind == 4:  # one piece again and again
            out[place:place] = bytes(out[place : place + size]) * rng.choice((1, 3, 30, 300))
        elif kind == 5:
            other = rng.choice(others)
            start = rng.randrange(len(other) + 1)
            out[place:] = other[start:]
        elif kind == 6 and place < len(out):
            out[place] ^= 1 << rng.randrange(8)
        elif kind == 7:
            out[place : place + size] = bytes((rng.choice((0, 255, 127, 128)),)) * size
        elif kind == 8:  # a number that says how long something is
            width = rng.choice((2, 4))
            value = rng.choice((0, 1, 2, 3, 255, 65535, 2**31, 2**32 - 1)) % (1 << 8 * width)
            out[place : place + width] = value.to_bytes(width, rng.choice(("big", "little")))
    return bytes(out[:LONGEST])


def attack(target: Target, count: int, until_s: float, rng: random.Random) -> Counter[str]:
    found: Counter[str] = Counter()
    for _ in range(count):
        if time.monotonic() > until_s:
            break
        data = mutated(rng.choice(target.corpus), target.corpus, rng)
        found["inputs"] += 1
        if found["inputs"] % 100 == 1:  # where no signal reaches Python code
            faulthandler.dump_traceback_later(LIMIT_S + 100 * INPUT_S, exit=True, file=sys.stderr)
        signal.setitimer(signal.ITIMER_PROF, INPUT_S)
        try:
            target.run(data)
        except target.refuses:
            found["refused"] += 1
        except (Exception, TooSlow) as error:  # noqa: BLE001  # this is what is looked for
            found["failed"] += 1
            if found["failed"] > _MOST_SHOWN:
                continue
            name = type(error).__name__
            kept = Path(tempfile.gettempdir(), f"parser-{name}-{found['failed']}.bin")
            kept.write_bytes(data)
            print(f"{name}: {str(error)[:200]}; its input is {kept}", file=sys.stderr)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
    faulthandler.cancel_dump_traceback_later()
    return found


def too_slow(*_: object) -> None:
    raise TooSlow(f"more than {INPUT_S} s")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="the name of one parser")
    given = parser.parse_args()
    chosen = targets()
    if given.only is not None and given.only not in chosen:
        parser.error(f"--only {given.only}: take one of {', '.join(chosen)}")
    signal.signal(signal.SIGPROF, too_slow)
    warnings.simplefilter("ignore")
    screen = os.fdopen(os.dup(sys.stderr.fileno()), "w", buffering=1)
    sys.stderr = screen
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # decoders say much there
    av.logging.set_level(av.logging.PANIC)
    rng = random.Random(given.seed)
    if given.only is not None:
        chosen = {given.only: chosen[given.only]}
    shares = sum(target.share for target in chosen.values())
    counts: dict[str, dict[str, Any]] = {}
    for name, target in chosen.items():
        part = target.share / shares
        started_s = time.process_time()
        until_s = time.monotonic() + given.seconds / len(chosen)
        found = attack(target, int(given.count * part), until_s, rng)
        seconds = round(time.process_time() - started_s, 1)
        counts[name] = {**found, "processor_s": seconds}
        print(name, json.dumps(counts[name]), file=sys.stderr, flush=True)
    peak = peak_bytes()
    failed = sum(one.get("failed", 0) for one in counts.values())
    total = sum(one.get("inputs", 0) for one in counts.values())
    print(json.dumps({"inputs": total, "failed": failed, "peak_mb": peak >> 20, "parsers": counts}))
    return int(failed > 0 or peak > MOST_BYTES)


if __name__ == "__main__":
    sys.exit(main())
