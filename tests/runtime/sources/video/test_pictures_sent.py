"""Pictures that a server or a pipe sends are what they are as files."""

from __future__ import annotations

import io
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pillow_heif
import pytest
from PIL import Image

from motorvae.runtime.core.errors import SourceError
from motorvae.runtime.core.frame import Frame
from motorvae.runtime.core.spec import ModelSpec
from motorvae.runtime.pixels.convert import fitted
from motorvae.runtime.pixels.files.image_files import luma_from_file, picture_from_file
from motorvae.runtime.sources.base import CaptureRequest
from motorvae.runtime.sources.spec import SourceSpec
from motorvae.runtime.sources.video.source import VideoSource

from ..network.scripted import Scripted, response

SPEC = ModelSpec(image_size=32, channels=(4, 8), latent_size=4)
SEVERAL = "holds several frames or pages, and only the first is taken; make it a video to take all"


def noise(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (90, 120), np.uint8))


def written(kind: str, *others: Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    if others:
        options |= {"save_all": True, "append_images": others}
    noise(1).save(file, kind, **options)
    return file.getvalue()


def heic() -> bytes:
    file = io.BytesIO()
    pillow_heif.from_pillow(noise(1).convert("RGB")).save(file, quality=95)
    return file.getvalue()


PICTURES = {
    "GIF": (written("GIF", noise(2), duration=200), [SEVERAL]),
    "APNG": (written("PNG", noise(2), duration=200), [SEVERAL]),
    "TIFF": (written("TIFF", noise(2)), [SEVERAL]),
    "HEIC": (heic(), []),
    "AVIF": (written("AVIF", quality=95), []),
    "JPEG 2000": (written("JPEG2000"), []),
}


@pytest.mark.parametrize(
    ("kind", "way"), [(kind, "url") for kind in PICTURES] + [("HEIC", "pipe"), ("AVIF", "pipe")]
)
def test_what_ffmpeg_reads_otherwise_is_decoded_as_its_file(
    server: Any, tmp_path: Path, kind: str, way: Any
) -> None:
    data, remarks = PICTURES[kind]
    path, name = tmp_path / "file", str(tmp_path / "pipe")
    path.write_bytes(data)
    if way == "url":
        name = server.put("/a", data)
    else:
        os.mkfifo(name)
        threading.Thread(target=Path(name).write_bytes, args=(data,), daemon=True).start()
    with VideoSource(
        SourceSpec(way, name, "a", is_live=False), CaptureRequest(spec=SPEC)
    ) as source:
        (item,) = iter(source.read, None)
        assert source.remarks == [f"a: {remark}" for remark in remarks]
    assert isinstance(item, Frame)
    assert np.array_equal(item.image, fitted(picture_from_file(path).pixels, SPEC))


@pytest.mark.parametrize("kind", PICTURES)
def test_the_first_bytes_may_come_one_by_one(tmp_path: Path, kind: str) -> None:
    data, _ = PICTURES[kind]
    (tmp_path / "file").write_bytes(data)

    def script(_: bytes) -> Iterator[bytes]:
        yield response(transfer_encoding="chunked")
        for at in range(40):
            yield b"1\r\n%b\r\n" % data[at : at + 1]
        yield b"%x\r\n%b\r\n0\r\n\r\n" % (len(data) - 40, data[40:])

    with (
        Scripted(script) as server,
        VideoSource(SourceSpec("url", server.url(), "a"), CaptureRequest(spec=SPEC)) as source,
    ):
        (item,) = iter(source.read, None)
    assert isinstance(item, Frame)
    expected = fitted(picture_from_file(tmp_path / "file").pixels, SPEC)
    assert np.array_equal(item.image, expected)


@pytest.mark.parametrize("name", ["/snapshot.jpg", "/snapshot.png", "/snapshot"])
@pytest.mark.parametrize("kind", [".jpg", ".png", ".ppm", ".bmp", ".webp"])
def test_a_picture_of_a_server_may_have_any_name_and_length(
    server: Any, tmp_path: Path, name: str, kind: str
) -> None:
    image = np.random.default_rng(0).integers(0, 255, (300, 400, 3), np.uint8)
    path = tmp_path / f"a{kind}"
    path.write_bytes(cv2.imencode(kind, image)[1].tobytes())
    url = server.put(name, path.read_bytes())
    with VideoSource(SourceSpec("url", url, "a"), CaptureRequest(spec=SPEC)) as source:
        (item,) = iter(source.read, None)
    assert isinstance(item, Frame)
    luma = fitted(luma_from_file(path), SPEC)
    assert np.abs(item.image.astype(int) - luma).mean() <= 1.0


@pytest.mark.parametrize("data", [heic()[:-30], b"II*\0" + bytes(100)], ids=["HEIC", "TIFF"])
def test_what_does_not_decode_is_one_line(server: Any, data: bytes) -> None:
    url = server.put("/a", data)
    with pytest.raises(SourceError, match=r"cannot open a: .*; check the address"):
        VideoSource(SourceSpec("url", url, "a", is_live=False), CaptureRequest(spec=SPEC))


def test_a_picture_beyond_the_limit_is_refused(server: Any) -> None:
    url = server.put("/a", PICTURES["TIFF"][0])
    with pytest.raises(SourceError, match="cannot open a: it has 120 x 90 pixels"):
        VideoSource(SourceSpec("url", url, "a"), CaptureRequest(spec=SPEC, max_picture=0.01))


@pytest.mark.parametrize("before", [0, 3])
def test_what_a_photograph_of_a_server_has_beside_it_is_no_frame(
    server: Any, tmp_path: Path, before: int
) -> None:
    """As the gain maps of phones are."""
    data = written("MPO", noise(2))
    filler = b"\xff\xfe\xff\xff" + bytes(65533)
    (tmp_path / "a.jpg").write_bytes(data := data[:2] + before * filler + data[2:])
    expected = fitted(picture_from_file(tmp_path / "a.jpg").pixels, SPEC)
    spec = SourceSpec("url", server.put("/a.jpg", data), "a")
    with VideoSource(spec, CaptureRequest(spec=SPEC)) as source:
        (item,) = iter(source.read, None)
    assert isinstance(item, Frame)
    assert np.array_equal(item.image, expected)


@pytest.mark.parametrize("kind", ["PNG", "JPEG2000"])
def test_pictures_one_after_another_in_a_pipe_are_a_film(tmp_path: Path, kind: str) -> None:
    film = b"".join(written(kind, **({"no_jp2": True} if kind != "PNG" else {})) for _ in range(3))
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(film,), daemon=True)
    writer.start()
    spec = SourceSpec("pipe", str(tmp_path / "pipe"), "a", is_live=False)
    with VideoSource(spec, CaptureRequest(spec=SPEC)) as source:
        assert [type(item) for item in iter(source.read, None)] == [Frame] * 3


def test_a_jpeg_in_a_pipe_is_read_before_the_next_one_comes(tmp_path: Path) -> None:
    """FFmpeg alone waits for the next one, and for seconds before the first."""
    os.mkfifo(tmp_path / "pipe")
    read = threading.Semaphore()

    def write() -> None:
        with (tmp_path / "pipe").open("wb", buffering=0) as pipe:
            for _ in range(3):
                read.acquire()
                pipe.write(written("JPEG"))
            read.acquire()

    threading.Thread(target=write, daemon=True).start()
    spec = SourceSpec("pipe", str(tmp_path / "pipe"), "a")
    with VideoSource(spec, CaptureRequest(spec=SPEC, timeout_s=2.0)) as source:
        for _ in range(3):
            before_ns = time.monotonic_ns()
            item = source.read()
            assert isinstance(item, Frame)
            assert item.grabbed_ns <= time.monotonic_ns()
            assert time.monotonic_ns() - before_ns < 1e9
            read.release()
