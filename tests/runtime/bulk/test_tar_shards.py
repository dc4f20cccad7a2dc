"""Shards that hold anything: everything before the damage, and a failure that names it.

How `tarfile` ends: https://github.com/python/cpython/blob/3.11/Lib/tarfile.py
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest

from motorvae.runtime.bulk.tar_shards import Shard
from motorvae.runtime.core.errors import SourceError
from motorvae.runtime.pixels.picture import USUAL_LIMIT
from motorvae.runtime.sources.image_list import LazyImageList

COUNT, BEFORE = 8, 5


def _header(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


def _member(name: str, data: bytes, kind: bytes = tarfile.REGTYPE) -> bytes:
    return _header(name, len(data), kind) + data + bytes(-len(data) % 512)


def _read(path: Path, *, is_stream: bool) -> tuple[list[str], list[str], list[str]]:
    """Names of what can be read, reasons of what cannot, and remarks."""
    source: Path | Callable[[], IO[bytes]] = (lambda: path.open("rb")) if is_stream else path
    shard = Shard("s", source, USUAL_LIMIT)
    names, reasons = list[str](), list[str]()
    for item in shard.items():
        assert item.content is not None
        try:
            item.content()
            names.append(item.name)
        except SourceError as error:
            reasons.append(error.clause())
    return names, reasons, shard.remarks


FIRST = b"".join(_member(f"{n}.jpg", b"x" * 700) for n in range(BEFORE))
REST = b"".join(_member(f"{n}.jpg", b"x" * 700) for n in range(BEFORE, COUNT))
LONG_NAME = _member("././@LongLink", b"abcd\0", tarfile.GNUTYPE_LONGNAME)


def _attributes(text: bytes) -> bytes:
    return _member("pax", b"%d %s\n" % (len(text) + 4, text), tarfile.XHDTYPE)


DAMAGES = {
    "bad checksum": b"\xff" * 512,
    "truncated header": None,
    "size of -1536": _header("a.jpg", -1536),
    "size of -1024": _attributes(b"size=-1024") + _header("a.jpg"),
    f"size of {1 << 70}": _header("a.jpg", 1 << 70),
    f"size of {1 << 63}": _attributes(b"size=%d" % (1 << 63)) + _header("a.jpg"),
    f"size of {1 << 40}": _header("././@LongLink", 1 << 40, tarfile.GNUTYPE_LONGNAME),
    "unexpected end of data": _header("a.txt", 1 << 41),
    "recursion": LONG_NAME * 4000,
}


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("words", DAMAGES)
def test_a_damaged_shard_gives_what_is_before_the_damage_and_says_so(
    words: str, is_stream: bool, tmp_path: Path
) -> None:
    path, damage = tmp_path / "s.tar", DAMAGES[words]
    path.write_bytes(FIRST + (REST[:100] if damage is None else damage + REST + bytes(1024)))
    names, reasons, remarks = _read(path, is_stream=is_stream)
    assert names == [f"s/{n}.jpg" for n in range(BEFORE)]
    assert len(reasons) == 1
    assert reasons[0].startswith(f"the shard cannot be read after {BEFORE} pictures: ")
    assert words in reasons[0]
    assert remarks == [] or "1 not taken" in remarks[0]


@pytest.mark.parametrize("is_stream", [False, True])
def test_what_is_no_picture_of_its_own_is_counted(is_stream: bool, tmp_path: Path) -> None:
    path = tmp_path / "s.tar"
    links = _header("b.jpg", 0, tarfile.LNKTYPE) + _header("c.jpg", 0, tarfile.SYMTYPE)
    fifo = _header("d.jpg", 0, tarfile.FIFOTYPE) + _header("folder.jpg", 0, tarfile.DIRTYPE)
    path.write_bytes(_member("a.jpg", b"x") + links + fifo + bytes(1024))
    names, reasons, remarks = _read(path, is_stream=is_stream)
    assert (names, reasons) == (["s/a.jpg"], [])
    assert remarks == ["s: 3 not taken: no picture (link, sparse or special file)"]


LITTER = "known litter (._*, Thumbs.db and the like)"


@pytest.mark.parametrize("is_stream", [False, True])
def test_what_a_folder_leaves_out_because_of_its_name_a_shard_does(
    is_stream: bool, tmp_path: Path
) -> None:
    path, folder = tmp_path / "s.tar", tmp_path / "files"
    names = ["1.jpg", "._1.jpg", ".2.jpg", ".thumbs/3.jpg", "__MACOSX/a/4.jpg", "a.b/5.jpg", "6.t"]
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x" * 700)
    subprocess.run(["tar", "-cf", path, "-C", folder, "."], check=True)
    taken, reasons, remarks = _read(path, is_stream=is_stream)
    files = LazyImageList(folder)
    assert {one.removeprefix("s/./") for one in taken} == {
        one.relative_to(folder).as_posix() for one in files
    }
    assert len(taken) == 2
    assert reasons == []
    (remark,) = remarks
    assert remark.startswith("s: 5 not taken: ")
    assert set(remark.partition("taken: ")[2].split(", ")) == set(
        f"2 hidden, 2 {LITTER}, 1 no picture (.t)".split(", ")
    )
    assert files.remark.startswith("5 not taken: ")


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_shard_without_a_mark_of_its_end_is_said_to_be(is_stream: bool, tmp_path: Path) -> None:
    path = tmp_path / "s.tar"
    path.write_bytes(FIRST)
    names, reasons, remarks = _read(path, is_stream=is_stream)
    assert (len(names), reasons) == (BEFORE, [])
    assert remarks == ["s has no mark of its end: it may be cut short"]


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "tar": bytes,
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
}
MORE = "there is more after its end: another archive (cat), or a damaged header"


def _both_ways(path: Path) -> Iterator[tuple[list[str], list[str], list[str]]]:
    """What is read of a stream, and of a file of this machine where that is not the same."""
    yield _read(path, is_stream=True)
    yield _read(path, is_stream=False)


@pytest.mark.parametrize("kind", PACKERS)
def test_a_header_of_zeros_hides_no_picture(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"s.tar{'' if kind == 'tar' else f'.{kind}'}"
    for number in (0, 1, 6, 11):
        parts = [_member(f"{n}.jpg", b"x" * 700) for n in range(12)]
        parts[number] = bytes(512) + parts[number][512:]
        path.write_bytes(PACKERS[kind](b"".join(parts) + bytes(1024)))
        after = f" after {number} pictures" if number else ""
        for names, reasons, remarks in _both_ways(path):
            assert names == [f"s/{n}.jpg" for n in range(number)]
            assert reasons == [f"the shard cannot be read{after}: {MORE}"]
            assert remarks == []


@pytest.mark.parametrize("kind", PACKERS)
def test_archives_one_after_another_are_no_shard(kind: str, tmp_path: Path) -> None:
    path, pack = tmp_path / f"s.tar{'' if kind == 'tar' else f'.{kind}'}", PACKERS[kind]
    noise = random.Random(1).randbytes(1 << 19)  # so that the second one is of many reads
    first = FIRST + bytes(1 << 21)
    second = _member("b.jpg", noise) + bytes(1024)
    for content in (pack(first) + pack(second), pack(first + second)):
        path.write_bytes(content)
        for names, reasons, _ in _both_ways(path):
            assert len(names) == BEFORE
            assert reasons == [f"the shard cannot be read after {BEFORE} pictures: {MORE}"]


@pytest.mark.parametrize("option", ["-c", "-cz", "-cj", "-cJ"])
@pytest.mark.parametrize("blocks", [1, 20, 2048])
def test_what_tar_fills_its_last_record_with_is_no_damage(
    option: str, blocks: int, tmp_path: Path
) -> None:
    (tmp_path / "files").mkdir()
    for n in range(3):
        (tmp_path / "files" / f"{n}.jpg").write_bytes(b"x" * 700)
    suffix = {"-c": "", "-cz": ".gz", "-cj": ".bz2", "-cJ": ".xz"}[option]
    path = tmp_path / f"s.tar{suffix}"
    command = ["tar", option, f"--blocking-factor={blocks}", "-f", path, "-C", tmp_path, "files"]
    subprocess.run(command, check=True)
    for names, reasons, remarks in _both_ways(path):
        assert (len(names), reasons, remarks) == (3, [], [])
    path.write_bytes(path.read_bytes() + bytes(10240))  # as tapes and stores fill up
    for names, reasons, remarks in _both_ways(path):
        assert (len(names), reasons, remarks) == (3, [], [])


def test_a_store_that_breaks_off_is_no_traceback() -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() > len(FIRST):
                raise RuntimeError("Response payload is not completed")
            return super().read(512 if size is None else min(512, size))

    *items, last = Shard("s", lambda: Broken(FIRST + REST + bytes(1024)), USUAL_LIMIT).items()
    assert len(items) == BEFORE
    assert last.content is not None
    with pytest.raises(SourceError, match="Response payload is not completed"):
        last.content()


def test_stamps_of_a_packed_shard_change_with_its_file(tmp_path: Path) -> None:
    path = tmp_path / "s.tar.gz"

    def stamps(byte: bytes) -> set[str]:
        path.write_bytes(gzip.compress(_member("a.jpg", byte * 700) + bytes(1024)))
        return {item.stamp for item in Shard("s", path, USUAL_LIMIT).items()}

    assert stamps(b"x").isdisjoint(stamps(b"y"))
