from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import webdataset

from motorvae.runtime.core.errors import DataError
from motorvae.runtime.core.spec import ModelSpec
from motorvae.runtime.pixels.files.image_files import fitted_from_bytes
from motorvae.training.dataset import DataSet, split_by_content
from motorvae.training.shards.index import limit_of_split, set_in
from motorvae.training.shards.prepare import check_shards

from .conftest import Prepare
from .packing import mixed_windows, pack, packed, picture


def _named(data: DataSet, prefix: str = "") -> list[str]:
    return [name.removeprefix(prefix) for name in data.names]


def test_shards_hold_what_a_folder_of_the_same_files_does(
    prepare: Prepare, shards: Path, tmp_path: Path
) -> None:
    """The same pixels, and the same images held out, in the same order."""
    folder = tmp_path / "files"
    folder.mkdir()
    for row in range(48):
        (folder / f"{row:04d}.png").write_bytes(picture(row))
    files, _ = prepare(folder, cache="other")
    data, lines = prepare(shards)
    assert lines == [f"--data={shards}: 48 not taken: no picture (.cls)"]
    assert [name.partition("/")[2] for name in data.names] == list(files.names)
    assert data.names[7] == "train-001.tar/0007.png"
    np.testing.assert_array_equal(data.images[:], files.images[:])
    np.testing.assert_array_equal(data.train, files.train)
    np.testing.assert_array_equal(data.held_out, files.held_out)
    np.testing.assert_array_equal(data.mean_level(), files.mean_level())
    assert data.images.shape == files.images.shape
    kept = {path.name: path.stat().st_size for path in (tmp_path / "cache").iterdir()}
    assert sum(kept.values()) < 48 * 250 + 2000  # a picture has 1024 bytes


@pytest.mark.parametrize("color", ["grey", "rgb"])
@pytest.mark.parametrize("fit", ["pad", "crop"])
def test_larger_pictures_differ_by_the_rounding_of_the_faster_path(
    prepare: Prepare, spec: ModelSpec, tmp_path: Path, color: str, fit: str
) -> None:
    """Shards are fitted as a deployed encoder fits; see docs/pixels.md for how far that is."""
    folder = tmp_path / "files"
    folder.mkdir()
    for row in range(4):
        shown = cv2.imdecode(np.frombuffer(picture(row, side=128), np.uint8), cv2.IMREAD_COLOR)
        data = cv2.imencode(".jpg", shown[:96])[1].tobytes()
        (folder / f"{row}.jpg").write_bytes(data)
    path = tmp_path / "a.tar"
    pack(path, {one.name: one.read_bytes() for one in sorted(folder.iterdir())})
    other = spec.model_copy(update={"color": color, "fit": fit})
    (files, _), (data, _) = prepare(folder, other, "other"), prepare(path, other)
    away = np.abs(data.images[:].astype(int) - files.images[:])
    assert data.images.shape == files.images.shape
    assert data.color == color
    assert away.mean() < 0.1
    assert away.max() <= 3


def _samples(urls: list[str]) -> Iterator[tuple[str, bytes]]:
    """What WebDataset's own loader reads: names of shard and file, and bytes."""
    for sample in webdataset.WebDataset(urls, shardshuffle=False):
        name = f"{Path(sample['__url__']).name}/{sample['__key__']}"
        for key, value in sample.items():
            if key.split(".")[-1] in {"png", "jpg"}:
                yield f"{name}.{key}", value


# WebDataset leaves it to the collector to close its files.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_webdataset_reads_the_same_images_of_shards_that_it_wrote(
    prepare: Prepare, spec: ModelSpec, tmp_path: Path
) -> None:
    folder = tmp_path / "shards"
    folder.mkdir()
    pattern = str(folder / "set-%06d.tar")
    with webdataset.ShardWriter(pattern, maxcount=5, verbose=0) as writer:
        for row in range(17):
            more = {"seg.png": picture(100 + row)} if row % 3 == 0 else {}
            key = f"part-{row % 2}/a-{'very-long-' * (row % 4) * 4}{row:03d}"
            writer.write({"__key__": key, "png": picture(row), "json": {"row": row}, **more})
    urls = sorted(map(str, folder.iterdir()))
    read = dict(_samples(urls))
    data, lines = prepare(f"{folder}/set-{{000000..000003}}.tar")
    assert len(read) == 23
    assert not [line for line in lines if "skipped" in line]
    assert list(data.names) == list(read)
    for image, content in zip(data.images[:], read.values(), strict=True):
        np.testing.assert_array_equal(image, fitted_from_bytes(content, spec).pixels)


def test_hidden_members_are_left_out_as_in_a_folder(prepare: Prepare, tmp_path: Path) -> None:
    names = ["0.png", "._0.png", ".thumbs/1.png", "__MACOSX/2.png", "3.png", "3.cls"]
    path = tmp_path / "a.tar"
    pack(path, {name: picture(row) for row, name in enumerate(names)})
    data, (line,) = prepare(path)
    assert list(data.names) == ["a.tar/0.png", "a.tar/3.png"]
    litter = "known litter (._*, Thumbs.db and the like)"
    assert line == f"--data={path}: 4 not taken: 2 {litter}, 1 hidden, 1 no picture (.cls)"


def test_gnu_tar_of_a_folder_is_a_shard(prepare: Prepare, tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    for row in range(6):
        (tmp_path / "files" / f"{row}.png").write_bytes(picture(row))
    command = ["tar", "-cf", tmp_path / "a.tar", "--sort=name", "-C", tmp_path, "files"]
    subprocess.run(command, check=True)
    data, lines = prepare(tmp_path / "a.tar")
    assert list(data.names) == [f"a.tar/files/{row}.png" for row in range(6)]
    assert lines == []


def _cut(path: Path) -> None:
    os.truncate(path, 512 * 9 + 100)


def _break_header(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(len(path.read_bytes()[: path.read_bytes().index(b"0008.png")]))
        file.write(b"\xff" * 300)


def _blank_header(path: Path) -> None:
    content = path.read_bytes()
    at = content.index(b"0008.png")
    path.write_bytes(content[:at] + bytes(512) + content[at + 512 :])


def _break_picture(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content.replace(picture(8), b"\x89PNG\r\n\x1a\n" + bytes(len(picture(8)) - 8)))


DAMAGES: dict[str, tuple[Callable[[Path], Any], str, int]] = {
    "cut short": (_cut, "train-001.tar: the shard cannot be read after 2", 2),
    "damaged header": (_break_header, "train-001.tar: the shard cannot be read after 2 pic", 2),
    "zeros for a header": (_blank_header, "after 2 pictures: there is more after its end", 2),
    "two archives": (
        lambda path: path.write_bytes(path.read_bytes() * 2),
        "train-001.tar: the shard cannot be read after 6 pictures: there is more after its end",
        6,
    ),
    "not a tar": (lambda path: path.write_bytes(b"hello" * 999), "cannot be read: invalid head", 0),
    "empty": (lambda path: path.write_bytes(b""), "the shard cannot be read: empty file", 0),
    "a picture": (_break_picture, "train-001.tar/0008.png: ", 5),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), "the shard is no regular file", 0),
    "a pipe": (lambda path: (path.unlink(), os.mkfifo(path)), "the shard is no regular file", 0),
    "not there": (lambda path: path.unlink(), "train-001.tar: the shard does not exist", 0),
    "a link to nothing": (
        lambda path: (path.unlink(), path.symlink_to("nothing")),
        "train-001.tar: the shard is a link to nothing",
        0,
    ),
    # As a folder that may not be searched, which stops no test that runs as root.
    "a name too long": (
        lambda path: (path.unlink(), path.symlink_to("x" * 300)),
        "train-001.tar: the shard cannot be read (File name too long)",
        0,
    ),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_what_is_damaged_is_skipped_named_and_counted(
    prepare: Prepare, shards: Path, kind: str
) -> None:
    damage, words, left = DAMAGES[kind]
    damage(shards / "train-001.tar")
    data, lines = prepare(f"{shards}/train-{{000..007}}.tar")
    skipped = [line for line in lines if line.startswith("skipped ")]
    assert any(words in line for line in skipped), lines
    assert data.skipped == len(skipped) in {1, 2}
    numbers = [int(Path(name).stem) for name in data.names]
    assert [number for number in numbers if not 6 <= number < 12] == [*range(6), *range(12, 48)]
    assert len(numbers) == 42 + left
    assert len(data.images[:]) == len(numbers)


def test_nothing_left_or_nothing_to_hold_out_is_refused(prepare: Prepare, tmp_path: Path) -> None:
    pack(tmp_path / "a.tar", {"a.png": b"no picture", "b.txt": b""})
    with pytest.raises(DataError, match=r"nothing in --data=.*a\.tar could be decoded \(1 skipped"):
        prepare(tmp_path / "a.tar")
    pack(tmp_path / "b.tar", {f"{name}.png": picture(0) for name in "abc"})
    with pytest.raises(DataError, match="all 3 images are the same"):
        prepare(tmp_path / "b.tar")
    pack(tmp_path / "c.tar", {"a.png": picture(0)})
    with pytest.raises(DataError, match="there is one image only: give at least two different"):
        prepare(tmp_path / "c.tar")


@pytest.mark.parametrize("fraction", [0.001, 0.1, 0.5, 0.999, 1 - 1e-16])
@pytest.mark.parametrize("count", [2, 3, 40, 3000])
def test_the_split_is_that_of_other_images(fraction: float, count: int) -> None:
    keys = np.random.default_rng(count).integers(0, 2**64, count, np.uint64)
    keys = np.concatenate([keys, keys[: count // 3]])
    train, _ = split_by_content([f"{key:016x}" for key in keys.tolist()], fraction)
    limit = np.uint64(limit_of_split(keys, fraction))
    assert np.flatnonzero(keys >= limit).tolist() == train


def test_equal_images_stay_on_one_side(prepare: Prepare, tmp_path: Path) -> None:
    packed(tmp_path / "one", range(24))
    for path in (tmp_path / "one").iterdir():
        shutil.copy(path, path.with_name(f"copy-of-{path.name}"))
    # The same pixels in another file, too.
    shown = cv2.imdecode(np.frombuffer(picture(3), np.uint8), cv2.IMREAD_COLOR)
    pack(tmp_path / "one" / "z.tar", {"0003.bmp": cv2.imencode(".bmp", shown)[1].tobytes()})
    data, _ = prepare(tmp_path / "one")
    sides = [
        {Path(data.names[row]).stem for row in rows.tolist()}
        for rows in (data.train, data.held_out)
    ]
    assert not sides[0] & sides[1]
    assert len(data.train) + len(data.held_out) == 49


def test_a_run_goes_on_only_with_the_shards_that_it_began_with(
    prepare: Prepare, shards: Path, tmp_path: Path
) -> None:
    prepare(shards)
    cache, lines = tmp_path / "cache", list[str]()
    check_shards(cache, lines.append)
    assert lines == []
    before = set_in(cache)
    # Another time of change alone, as a copy has it.
    first = shards / "train-000.tar"
    os.utime(first, ns=(1, 1))
    check_shards(cache, lines.append)
    assert lines == []
    assert set_in(cache).shards[0].mtime_ns == 1
    assert set_in(cache).shards[1:] == before.shards[1:]
    # One that is gone can be done without.
    shutil.move(shards / "train-002.tar", tmp_path / "kept.tar")
    check_shards(cache, lines.append)
    assert lines == [f"{shards}/train-002.tar is gone: other images take the place of its 6"]
    # So can one that is a link to what is not there now.
    for target in (tmp_path / "nothing", "x" * 300):
        (shards / "train-002.tar").symlink_to(target)
        check_shards(cache, lines.append)
        assert lines.pop() == lines[0]
        (shards / "train-002.tar").unlink()
    shutil.move(tmp_path / "kept.tar", shards / "train-002.tar")
    # Of the same size and members, but for one picture.
    content = first.read_bytes()
    first.write_bytes(content.replace(picture(2), picture(2)[:-1] + b"\x00"))
    with pytest.raises(DataError, match=r"train-000\.tar has changed since the run began .*: put"):
        check_shards(cache, lines.append)
    first.write_bytes(content[:-512])
    with pytest.raises(DataError, match="it had 20480 bytes and has 19968"):
        check_shards(cache, lines.append)
    for path in list(shards.iterdir()):
        path.unlink()
        path.symlink_to(tmp_path / "nothing")
    with pytest.raises(DataError, match="all shards of the run are gone"):
        check_shards(cache, lines.append)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may search every folder")
def test_a_folder_that_may_not_be_searched_ends_no_run(prepare: Prepare, shards: Path) -> None:
    closed = shards.parent / "closed"
    closed.mkdir()
    shutil.move(shards / "train-001.tar", closed)
    (shards / "train-001.tar").symlink_to(closed / "train-001.tar")
    closed.chmod(0)
    try:
        data, lines = prepare(shards)
    finally:
        closed.chmod(0o700)
    words = "skipped train-001.tar: the shard cannot be read (Permission denied)"
    assert (len(data.names), data.skipped, words in lines) == (42, 1, True)


def test_a_damaged_index_is_refused_in_one_line(
    prepare: Prepare, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixed_windows(monkeypatch)
    data, _ = prepare(shards)
    assert set_in(tmp_path / "cache").runs_in_window == 2
    del data
    for path in sorted((tmp_path / "cache").iterdir()):
        content = path.read_bytes()
        for damaged in (content[:-3], b"", content[: len(content) // 2 // 8 * 8]):
            path.write_bytes(damaged)
            with pytest.raises(DataError, match="start a new run"):
                _opened(tmp_path / "cache")
        path.unlink()
        if path.name != "shards.json":
            with pytest.raises(DataError, match="start a new run"):
                _opened(tmp_path / "cache")
        path.write_bytes(content)
    _opened(tmp_path / "cache")


def _opened(cache: Path) -> None:
    from motorvae.training.dataset import data_from_cache

    data_from_cache(cache)
