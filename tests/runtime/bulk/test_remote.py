"""Addresses, by a real web server on this machine and by fsspec's own store in memory."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from motorvae.runtime.bulk.encoded import Encoded
from motorvae.runtime.core.errors import MissingDependencyError, SourceError

fsspec = pytest.importorskip("fsspec")


class Quiet(SimpleHTTPRequestHandler):
    """A web server without its lines."""

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def web(image_folder: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(image_folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def store(image_folder: Path) -> Iterator[str]:
    files = fsspec.filesystem("memory")
    for number in range(12):
        content = (image_folder / f"frame{number}.png").read_bytes()
        files.pipe(f"/bucket/photos/frame{number:02d}.png", content)
    files.pipe("/bucket/photos/labels.json", b"{}")
    yield "memory://bucket/photos"
    files.rm("/bucket", recursive=True)


def test_pictures_of_a_web_server(
    web: str, image_folder: Path, encoded_of: Callable[..., Encoded]
) -> None:
    pytest.importorskip("aiohttp")
    encoded = encoded_of(
        [f"{web}/frame3.png", f"{web}/nowhere.png", f"{web}/frame5.png?key=secret"]
    )
    assert encoded.names == [f"{web}/frame3.png", f"{web}/frame5.png"]
    assert np.allclose(encoded.mu, encoded_of([image_folder]).mu[[3, 5]], atol=1e-6)
    (gap,) = encoded.gaps
    assert gap.reason == "cannot be read: there is no such file"


def test_a_folder_of_an_object_store(
    store: str, image_folder: Path, encoded_of: Callable[..., Encoded]
) -> None:
    encoded = encoded_of([store])
    assert encoded.names == [f"memory:///bucket/photos/frame{n:02d}.png" for n in range(12)]
    assert np.allclose(encoded.mu, encoded_of([image_folder]).mu, atol=1e-6)
    assert encoded.remarks == [f"{store}: 1 not taken: no picture (.json)"]


def test_a_shard_of_an_object_store(
    image_folder: Path, encoded_of: Callable[..., Encoded], tmp_path: Path
) -> None:
    import tarfile

    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(image_folder, "photos")
    files = fsspec.filesystem("memory")
    files.pipe("/bucket/a.tar", (tmp_path / "a.tar").read_bytes())
    encoded = encoded_of(["memory://bucket/a.tar"])
    files.rm("/bucket", recursive=True)
    assert len(encoded.names) == 12
    assert all(name.startswith("memory://bucket/a.tar/photos/frame") for name in encoded.names)


def test_an_empty_folder_and_an_unknown_scheme_are_refused(
    encoded_of: Callable[..., Encoded],
) -> None:
    with pytest.raises(SourceError, match="no image below memory://nowhere"):
        encoded_of(["memory://nowhere"])
    with pytest.raises(SourceError, match=r"warp://x/y\.png: .* name an address that fsspec knows"):
        encoded_of(["warp://x/y.png"])


def test_a_store_without_its_package_names_it(encoded_of: Callable[..., Encoded]) -> None:
    try:
        import s3fs  # noqa: F401
    except ImportError:
        with pytest.raises(MissingDependencyError, match=r"s3fs.*install that"):
            encoded_of(["s3://bucket/photos"])
    else:
        pytest.skip("s3fs is installed")
