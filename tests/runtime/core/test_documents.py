from __future__ import annotations

import io
import os
import struct
import time
import tracemalloc
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest

from motorvae.runtime.core.documents import (
    Form,
    arrays_from_npz,
    bytes_of_file,
    document_from_json,
    json_from_file,
)
from motorvae.runtime.core.errors import BundleError
from motorvae.runtime.core.spec import StrictModel

MEAN = {"mean": Form("f", ("latents",))}


class Note(StrictModel):
    schema_version: Literal[1]
    text: str = ""
    number: float = 0


def one_line(caught: pytest.ExceptionInfo[BundleError], path: Path) -> str:
    message = str(caught.value)
    assert str(path) in message
    assert "export again" in message
    assert "\n" not in message
    assert len(message) < 600
    return message


def refused(path: Path, forms: Mapping[str, Form] = MEAN, **limits: int) -> str:
    with pytest.raises(BundleError) as caught:
        arrays_from_npz(path, forms, error=BundleError, again="export again", **limits)
    return one_line(caught, path)


def read(path: Path, forms: Mapping[str, Form]) -> dict[str, npt.NDArray[Any]]:
    return arrays_from_npz(path, forms, error=BundleError, again="export again")


def refused_json(path: Path, content: bytes | None = None) -> str:
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BundleError) as caught:
        document_from_json(path, Note, error=BundleError, again="export again")
    return one_line(caught, path)


def header(text: str) -> bytes:
    body = text.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(body)) + body


def archive_of(path: Path, *members: tuple[str, bytes]) -> bytes:
    """Write members as they are into an archive, and return its bytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return path.read_bytes()


def test_arrays_are_those_that_numpy_wrote(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    rng = np.random.default_rng(0)
    arrays = {
        "mean": np.arange(3.0),
        "images": rng.integers(0, 256, (2, 4, 4), np.uint8),
        "covariance": np.asfortranarray(rng.random((3, 3), np.float32)),
        "big_endian": rng.random(5).astype(">f8"),
        "scalar": np.array(0.25),
        "names": np.array(["noise, white", "é"]),
        "none": np.empty((0, 4), np.float16),
    }
    forms = {
        "mean": Form("f", (3,)),
        "images": Form("u1", ("images", 4, 4)),
        "covariance": Form("f", ("latents", "latents")),
        "big_endian": Form("f", ("n",)),
        "scalar": Form("f", ()),
        "names": Form("U", ("images",)),
        "none": Form("f", ("z", 4)),
        "absent": Form("f", (), needed=False),
    }
    for save in (np.savez, np.savez_compressed):
        save(path, unread=np.array({"a": 1}, dtype=object), **arrays)  # type: ignore[arg-type]
        found = read(path, forms)
        assert sorted(found) == sorted(arrays)
        for name, array in arrays.items():
            assert found[name].dtype == array.dtype.newbyteorder("=")
            np.testing.assert_array_equal(found[name], array)
            assert found[name].flags.writeable


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros(3, np.uint8), "'mean' is uint8 (3,), expected finite floats (3)"),
        (np.zeros((3, 1)), "expected finite floats (latents)"),
        (np.zeros(70000), "'mean' is float64 (70000,)"),
        (np.array([0, np.nan]), "'mean' holds NaN or Inf"),
        (np.array([np.inf, 1], np.float32), "'mean' holds NaN or Inf"),
        (np.zeros(3, complex), "of a type that is not read"),
        (np.array([{}], object), "pickle"),
        (np.zeros(3, [("x", "f4")]), "of a type that is not read"),
        (np.zeros(3, "M8[s]"), "of a type that is not read"),
    ],
)
def test_an_array_of_another_form_is_refused(
    tmp_path: Path, array: npt.NDArray[Any], words: str
) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, mean=array)
    assert words in refused(path)


def test_floats_that_are_to_be_float32_are_given_as_such(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    forms = {"mu": Form("float32", ("images", 2))}
    for dtype in (np.float16, np.float32, ">f8"):
        np.savez(path, mu=np.array([[1, 2.5]], dtype))
        found = read(path, forms)["mu"]
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, [[1, 2.5]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.savez(path, mu=np.array([[0, 1e39]]))
        assert "'mu' holds numbers beyond float32" in refused(path, forms)
    np.savez(path, mu=np.array([[0, np.inf]]))
    assert "'mu' holds NaN or Inf" in refused(path, forms)
    np.savez(path, mu=np.zeros((1, 2), np.uint8))
    assert "'mu' is uint8 (1, 2), expected finite floats (1, 2)" in refused(path, forms)


def test_axes_of_one_name_are_as_long_as_each_other(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, images=np.zeros((2, 4), np.uint8), mu=np.zeros((3, 8)))
    forms = {"images": Form("u1", ("images", 4)), "mu": Form("f", ("images", 8))}
    assert "'mu' is float64 (3, 8), expected finite floats (2, 8)" in refused(path, forms)
    assert "it lacks 'sigma'" in refused(path, {"sigma": Form("f", ())})


def test_what_is_no_archive_of_arrays_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    assert "No such file" in refused(path)
    for data in (b"", b"not an archive", b"PK\5\6", bytes(5000)):
        path.write_bytes(data)
        assert "no archive of arrays" in refused(path)
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    assert "no archive of arrays" in refused(path)
    np.savez_compressed(path, mean=np.random.default_rng(0).random(1000))
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:300] + bytes(40) + whole[340:], whole + b"x"):
        path.write_bytes(damaged)
        refused(path)


@pytest.mark.parametrize(
    "member",
    [
        header("{'descr': '<f8', 'fortran_order': False, 'shape': (-3,), }"),
        header("{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999999999999,), }"),
        header("{'descr': '<f8', 'fortran_order': False, 'shape': (3,), }") + bytes(23),
        header("{'descr': '<f8', 'fortran_order': False, 'shape': (3,), }") + bytes(25),
        header("{'descr': '<f99', 'fortran_order': False, 'shape': (3,), }") + bytes(24),
        header("{'descr': '<f8', 'fortran_order': False, 'shape': " + "(" * 9000),
        header("__import__('os').abort()"),
        header("{'descr': '<f8', 'fortran_order': False, 'shape': (3,), 'x': 0, }") + bytes(24),
        b"\x93NUMPY\x03\x00\xff\xff\xff\xff" + bytes(100),
        b"\x93NUMPY",
        b"",
    ],
)
def test_a_member_that_lies_about_itself_is_refused(tmp_path: Path, member: bytes) -> None:
    path = tmp_path / "a.npz"
    archive_of(path, ("mean.npy", member))
    refused(path)


def test_bombs_are_refused_before_memory_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    forms = {"mean": Form("f", ("n", "n"))}
    long = header("{'descr': '<f8', 'fortran_order': False, 'shape': (23170, 23170), }")
    block = bytes(1 << 24)
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("mean.npy", "w", force_zip64=True) as file,
    ):
        file.write(long)
        for _ in range(8):
            file.write(block)
    whole = path.read_bytes()
    assert "has not the bytes" in refused(path, forms)
    np.savez_compressed(path, mean=np.zeros((2048, 2048)))
    assert "unfolds to 33554560 bytes, and may to 1000000" in refused(path, forms, most_bytes=10**6)
    # A declared size that is not the real one.
    at = whole.rindex(b"PK\1\2") + 24
    path.write_bytes(whole[:at] + struct.pack("<L", 4_000_000_000) + whole[at + 4 :])
    assert "unfolds to 4000000000 bytes" in refused(path, forms)
    archive_of(path, *((f"{n}.npy", b"") for n in range(2000)))
    assert "it lists 2000 members" in refused(path)


def test_tricks_of_the_archive_format_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    good = io.BytesIO()
    np.save(good, np.arange(3.0))
    whole = archive_of(path, ("mean.npy", good.getvalue()))
    read(path, MEAN)
    entry, end = whole.rindex(b"PK\1\2"), whole.rindex(b"PK\5\6")
    for words, at, change in (
        ("is encrypted", entry + 8, b"\1"),
        ("in another way than deflate", entry + 10, struct.pack("<H", 14)),
        ("in another way than deflate", entry + 10, struct.pack("<H", 93)),
        ("", entry + 16, b"\0\0\0\0"),  # the checksum
        ("", entry + 42, struct.pack("<L", 1 << 31)),  # where its bytes lie
        ("", end + 16, struct.pack("<L", 1 << 31)),  # where the directory lies
        ("cut short", end + 20, b"\1"),
    ):
        path.write_bytes(whole[:at] + change + whole[at + len(change) :])
        assert words in refused(path)
    with pytest.warns(UserWarning, match="Duplicate name"):
        archive_of(path, ("mean.npy", good.getvalue()), ("mean.npy", good.getvalue()))
    assert "two members of one name" in refused(path)
    # Two entries of the directory for the same bytes: what a "quine" or an overlap bomb is.
    twice = whole[entry:end].replace(b"mean", b"more")
    count, size = struct.pack("<2H", 2, 2), struct.pack("<L", 2 * (end - entry))
    path.write_bytes(whole[:end] + twice + whole[end : end + 8] + count + size + whole[end + 16 :])
    assert "overlaps another member" in refused(path)
    locator = b"PK\6\7" + bytes(16)
    path.write_bytes(whole[:end] + locator + whole[end:])
    assert "for 4 GB and more" in refused(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"schema_version": 1, "schema_version": 1}', "'schema_version' stands twice"),
        (b'{"schema_version": 1, "text": {"a": 1, "a": 2}}', "'a' stands twice"),
        (b'{"schema_version": 1, "number": ' + b"9" * 100 + b"}", "a number of 100 digits"),
        (b'{"schema_version": 1, "number": 1e999}', "is not JSON"),
        (b'{"schema_version": 1, "number": NaN}', "is not JSON"),
        (b'{"schema_version": 1, "text": "\xff"}', "is not JSON"),
        (b'{"schema_version": 1, "text": "\\ud800"}', "is not JSON"),
        (b'{"schema_version": 1, "text": ' + b"[" * 1000 + b"]" * 1000 + b"}", ""),
        (b"[" * 100_000, "is not JSON"),
        (b'{"a":' * 100_000, "is not JSON"),
        (b'{"schema_version": 1' + b" " * (4 << 20) + b"}", "such a file has 4194304 at most"),
        (b"\xef\xbb\xbf{}", "is not JSON"),
        ('{"schema_version": 1}'.encode("utf-16"), "is not JSON"),
    ],
)
def test_json_of_more_than_one_meaning_is_refused(
    tmp_path: Path, content: bytes, words: str
) -> None:
    assert words in refused_json(tmp_path / "a.json", content)


def test_a_document_without_a_schema_is_plain_json(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b'{"a": [1, 2.5, null]}')
    assert json_from_file(path, error=BundleError, again="") == {"a": [1, 2.5, None]}


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    began = time.monotonic()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "tty").symlink_to("/dev/tty")
    (tmp_path / "self").symlink_to("self")
    (tmp_path / "to_pipe").symlink_to("pipe")
    for path in tmp_path.iterdir():
        for message in (refused(path), refused_json(path)):
            assert message.startswith(f"cannot read {path}: ")
    assert "it is no regular file" in refused_json(tmp_path / "pipe")
    assert "Is a directory" in refused_json(tmp_path / "folder")
    assert time.monotonic() - began < 10
    with pytest.raises(BundleError, match="more than 4194304 bytes"):
        json_from_file(Path("/proc/kallsyms"), error=BundleError, again="")
    with pytest.raises(BundleError, match="null"):
        json_from_file(Path("a\0b"), error=BundleError, again="")


def test_a_file_takes_the_memory_that_it_has_bytes(tmp_path: Path) -> None:
    path = tmp_path / "index.json"
    path.write_bytes(b"[]")
    tracemalloc.start()
    try:
        assert bytes_of_file(path, most_bytes=1 << 30, error=BundleError, again="") == b"[]"
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    unsized = Path("/proc/self/status")  # a size of 0, and more to read
    assert b"VmPeak" in bytes_of_file(unsized, most_bytes=1 << 20, error=BundleError, again="")
