from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from motorvae.runtime.bulk.encoded import save_npz
from motorvae.runtime.bulk.encoder_pool import EncoderPool
from motorvae.runtime.bulk.inputs import Inputs
from motorvae.runtime.bulk.item import Item
from motorvae.runtime.bulk.parts import Job, NpzParts, Parts
from motorvae.runtime.bulk.rows import joined
from motorvae.runtime.bulk.run import Progress, encode_to_parts, parts_of
from motorvae.runtime.bundle.load import Bundle
from motorvae.runtime.core.errors import BackendError, ConfigError, OutputError

PART = 3


@pytest.fixture
def parts(tmp_path: Path, job: Job) -> NpzParts:
    made = NpzParts(tmp_path / "latents.npz")
    made.begin(job)
    return made


def _arrays(parts: NpzParts, count: int, path: Path) -> dict[str, Any]:
    save_npz(path, partial(parts.rows, count), (8,), "")
    with np.load(path, allow_pickle=False) as held:
        return dict(held)


def _names(parts: NpzParts, count: int) -> list[str]:
    return [name for rows in parts.rows(count) for name in rows.texts["names"]]


def test_parts_hold_every_item_once_and_in_order(
    image_folder: Path,
    inputs_of: Callable[..., Inputs],
    pool: EncoderPool,
    parts: NpzParts,
    job: Job,
) -> None:
    progress = Progress()
    found = encode_to_parts(inputs_of(image_folder), pool, parts, job, progress)
    assert [part.count for part in found] == [PART] * 4
    assert _names(parts, 4) == [f"frame{n}.png" for n in range(12)]
    assert (progress.count, progress.failed, progress.resumed) == (12, 0, 0)
    assert parts.finished() == found


@pytest.mark.parametrize("broken_after", [0, 1, 4, 7, 11])
def test_what_is_done_is_not_done_again(
    image_folder: Path,
    inputs_of: Callable[..., Inputs],
    pool: EncoderPool,
    parts: NpzParts,
    job: Job,
    tmp_path: Path,
    broken_after: int,
) -> None:
    def breaking() -> Iterator[Item]:
        for number, item in enumerate(inputs_of(image_folder)):
            if number == broken_after:
                raise BackendError("the power went")
            yield item

    with pytest.raises(BackendError, match="the power went"):
        encode_to_parts(breaking(), pool, parts, job, Progress())
    done = len(parts.finished())
    assert done <= broken_after // PART
    before = {path: path.stat().st_mtime_ns for path in parts.folder.glob("part-*")}
    progress = Progress()
    found = encode_to_parts(inputs_of(image_folder), pool, parts, job, progress)
    assert progress.resumed == done * PART
    assert all(path.stat().st_mtime_ns == then for path, then in before.items())
    resumed = _arrays(parts, len(found), tmp_path / "resumed.npz")
    parts.drop_from(0)
    found = encode_to_parts(inputs_of(image_folder), pool, parts, job, Progress())
    anew = _arrays(parts, len(found), tmp_path / "anew.npz")
    assert resumed.keys() == anew.keys()
    for name, values in anew.items():
        assert np.array_equal(resumed[name], values, equal_nan=values.dtype.kind == "f"), name


def _items(names: str, data: bytes, stamp: str = "") -> list[Item]:
    return [Item(name, lambda: data, stamp=stamp) for name in names]


@pytest.mark.parametrize(
    ("then", "kept", "said"),
    [
        ("abcdefgh", 6, 0),
        ("abcdefghi", 6, 1),  # the last part was not full
        ("abcdefg", 6, 1),
        ("abcdef", 6, 0),
        ("abcdexgh", 5, 1),  # those that follow are the same
        ("ab", 0, 1),  # and the others are deleted
        ("abcxdefgh", 3, 2),
        ("xabcdefgh", 0, 3),
    ],
)
def test_data_that_changed_is_encoded_anew_from_there(
    image_folder: Path,
    pool: EncoderPool,
    parts: NpzParts,
    job: Job,
    then: str,
    kept: int,
    said: int,
) -> None:
    data = (image_folder / "frame0.png").read_bytes()
    encode_to_parts(_items("abcdefgh", data), pool, parts, job, Progress())
    progress = Progress()
    found = encode_to_parts(_items(then, data), pool, parts, job, progress)
    assert "".join(_names(parts, len(found))) == then
    assert progress.count == len(then)
    assert progress.resumed >= kept
    assert len(parts.finished()) == len(found)
    count = f"{said} parts are" if said > 1 else "1 part is"
    remarks = [f"the data changed since the last run: {count} made again"]
    assert progress.remarks == (remarks if said else [])


def test_of_items_that_are_not_kept_all_that_follow_are_made_again(
    image_folder: Path, pool: EncoderPool, parts: NpzParts, job: Job
) -> None:
    """As those of a compressed shard, which hold their bytes."""
    data = (image_folder / "frame0.png").read_bytes()

    def streamed(names: str) -> list[Item]:
        return [replace(one, held_bytes=len(data)) for one in _items(names, data)]

    encode_to_parts(streamed("abcdefgh"), pool, parts, job, Progress())
    progress = Progress()
    found = encode_to_parts(streamed("abcdexgh"), pool, parts, job, progress)
    assert "".join(_names(parts, len(found))) == "abcdexgh"
    assert progress.resumed == 3
    assert progress.remarks == ["the data changed since the last run: 2 parts are made again"]


class Flaky:
    """Items a to k: of b, c and h no bytes come while the server is away, and e is no picture."""

    def __init__(self, data: bytes) -> None:
        self.is_away, self.asked, self._data = True, "", data

    def __iter__(self) -> Iterator[Item]:
        return (Item(name, partial(self._content, name), stamp="1") for name in "abcdefghijk")

    def _content(self, name: str) -> bytes:
        self.asked += name
        if self.is_away and name in "bch":
            raise ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")
        return b"no picture" if name == "e" else self._data


@pytest.fixture(params=["npz", "parquet"])
def any_parts(
    request: pytest.FixtureRequest, tmp_path: Path, job: Job, bundle: Bundle
) -> Iterator[Parts]:
    if request.param == "parquet":
        pytest.importorskip("pyarrow")
    made = parts_of(tmp_path / f"latents.{request.param}", bundle)
    made.begin(job)
    return made


def _columns(parts: Parts, count: int) -> dict[str, Any]:
    whole = joined([parts.rows_of(number) for number in range(count)])
    arrays = {**whole.numbers, **whole.latents}
    return whole.texts | {name: values.tolist() for name, values in arrays.items()}


def test_what_was_not_read_is_tried_again_and_nothing_else(
    image_folder: Path, pool: EncoderPool, any_parts: Parts, job: Job
) -> None:
    flaky, data = Flaky((image_folder / "frame0.png").read_bytes()), _columns
    found = encode_to_parts(flaky, pool, any_parts, job, Progress())
    assert [part.unread for part in found] == [2, 0, 1, 0]
    away = data(any_parts, 4)
    flaky.asked = ""
    same = encode_to_parts(flaky, pool, any_parts, job, Progress())
    assert (same, flaky.asked) == (found, "")
    flaky.is_away = False
    progress = Progress()
    found = encode_to_parts(flaky, pool, any_parts, job, progress, retries=True)
    assert "".join(sorted(flaky.asked)) == "bch"
    assert (progress.count, progress.failed, progress.resumed) == (11, 1, 8)
    assert progress.resumed_latents == 7
    assert [(part.count, part.failed, part.unread) for part in found] == [
        *((3, 0, 0), (3, 1, 0), (3, 0, 0), (2, 0, 0))
    ]
    assert any_parts.finished() == found
    mended = data(any_parts, 4)
    assert mended["names"] == list("abcdefghijk")
    assert [name for name, why in zip(mended["names"], mended["reasons"], strict=True) if why] == [
        "e"
    ]
    for name, column in away.items():
        kept = [row for row in range(11) if row not in {1, 2, 7}]
        pairs = [(repr(column[row]), repr(mended[name][row])) for row in kept]
        assert all(before == after for before, after in pairs), name
    any_parts.drop_from(0)
    anew = encode_to_parts(flaky, pool, any_parts, job, Progress())
    for name, column in data(any_parts, len(anew)).items():
        if name in {"mu", "log_var"}:  # another batch size is another rounding
            assert np.allclose(column, mended[name], atol=1e-5, equal_nan=True)
        else:
            assert repr(column) == repr(mended[name])


def _gone() -> bytes:
    raise FileNotFoundError(errno.ENOENT, "No such file or directory")


@pytest.mark.parametrize("then", ["abx", "abcd", "xbc", "ab", ""])
def test_a_finished_result_of_other_data_stays_as_it_is(
    image_folder: Path, pool: EncoderPool, parts: NpzParts, job: Job, then: str
) -> None:
    """The first one was not read, so that there is something to try again."""
    data = (image_folder / "frame0.png").read_bytes()
    encode_to_parts([Item("a", _gone), *_items("bc", data)], pool, parts, job, Progress())
    finished = job.model_copy(update={"is_complete": True})
    parts.begin(finished)
    before = _columns(parts, 1)
    with pytest.raises(ConfigError, match="was finished, which stays as it is: leave --ret"):
        encode_to_parts(_items(then, data), pool, parts, finished, Progress(), retries=True)
    assert repr(_columns(parts, 1)) == repr(before)
    assert parts.job() == finished


@pytest.mark.parametrize("away", [(1,), (0, 1, 2), (2, 3, 4)])
def test_of_a_disk_that_is_away_at_the_retry_nothing_is_lost(
    image_folder: Path, pool: EncoderPool, parts: NpzParts, job: Job, away: Sequence[int]
) -> None:
    """A file that is not there has no date, as at the first try of the one that was missing."""
    data = (image_folder / "frame0.png").read_bytes()
    first = [Item("a", _gone), *_items("bcdef", data, "1")]
    encode_to_parts(first, pool, parts, job, Progress())
    finished = job.model_copy(update={"is_complete": True})
    parts.begin(finished)
    before = _columns(parts, 2)
    now = [Item(one.name, _gone) if row in away else one for row, one in enumerate(first)]
    if now != first:
        with pytest.raises(ConfigError, match="which stays as it is"):
            encode_to_parts(now, pool, parts, finished, Progress(), retries=True)
    assert repr(_columns(parts, 2)) == repr(before)


def test_a_file_that_is_there_now_with_its_date_is_mended_alone(
    image_folder: Path, pool: EncoderPool, parts: NpzParts, job: Job
) -> None:
    data = (image_folder / "frame0.png").read_bytes()
    asked = list[str]()

    def read(name: str) -> bytes:
        asked.append(name)
        return data

    first = [Item("a", _gone), *_items("bcdef", data, "1")]
    encode_to_parts(first, pool, parts, job, Progress())
    finished = job.model_copy(update={"is_complete": True})
    parts.begin(finished)
    now = [Item(name, partial(read, name), stamp="1") for name in "abcdef"]
    progress = Progress()
    encode_to_parts(now, pool, parts, finished, progress, retries=True)
    assert asked == ["a"]
    assert progress.remarks == []
    assert _columns(parts, 2)["reasons"] == [""] * 6
    # And once more there is nothing to do.
    encode_to_parts(now, pool, parts, finished, Progress(), retries=True)
    assert asked == ["a"]


def test_a_run_that_goes_on_while_a_disk_is_away_keeps_its_latents(
    image_folder: Path, pool: EncoderPool, parts: NpzParts, job: Job
) -> None:
    data = (image_folder / "frame0.png").read_bytes()
    encode_to_parts(_items("abcdef", data, "1"), pool, parts, job, Progress())
    before = _columns(parts, 2)
    encode_to_parts([Item(name, _gone) for name in "abcdef"], pool, parts, job, Progress())
    assert repr(_columns(parts, 2)) == repr(before)


def test_another_content_behind_a_name_is_encoded_anew(
    image_folder: Path, pool: EncoderPool, parts: NpzParts, job: Job
) -> None:
    first, other = ((image_folder / f"frame{n}.png").read_bytes() for n in (0, 9))
    encode_to_parts(_items("abc", first, "1"), pool, parts, job, Progress())
    (before,) = parts.rows(1)
    encode_to_parts(_items("abc", other, "2"), pool, parts, job, Progress())
    (after,) = parts.rows(1)
    assert before.texts["sha256"] != after.texts["sha256"]


def test_a_damaged_part_is_made_again(
    image_folder: Path,
    inputs_of: Callable[..., Inputs],
    pool: EncoderPool,
    parts: NpzParts,
    job: Job,
) -> None:
    encode_to_parts(inputs_of(image_folder), pool, parts, job, Progress())
    parts.path(1).write_bytes(parts.path(1).read_bytes()[:100])
    progress = Progress()
    found = encode_to_parts(inputs_of(image_folder), pool, parts, job, progress)
    assert progress.resumed == PART
    assert _names(parts, len(found)) == [f"frame{n}.png" for n in range(12)]


def test_a_part_that_cannot_be_written_ends_the_run_and_leaves_the_others(
    image_folder: Path,
    inputs_of: Callable[..., Inputs],
    pool: EncoderPool,
    parts: NpzParts,
    job: Job,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    save = NpzParts.save

    def full(self: NpzParts, number: int, *rest: Any) -> None:
        if number == 2:
            raise OutputError("cannot write: no space left")
        save(self, number, *rest)

    monkeypatch.setattr(NpzParts, "save", full)
    with pytest.raises(OutputError, match="no space left"):
        encode_to_parts(inputs_of(image_folder), pool, parts, job, Progress())
    assert len(parts.finished()) == 2


@pytest.mark.parametrize("output", ["latents.npz", "latents.parquet"])
def test_a_run_that_is_killed_goes_on_and_ends_as_if_it_had_not_been(
    small_bundle: Path, image_folder: Path, tmp_path: Path, output: str
) -> None:
    """Killed when a part has appeared; the rest of a part that was under way is lost."""
    listing = tmp_path / "list.txt"
    names = [str(image_folder / f"frame{n % 12}.png") for n in range(600)]
    listing.write_text("\n".join(names), encoding="utf-8")
    command = [sys.executable, "-m", "motorvae", "encode", str(listing)]
    command += ["--model", str(small_bundle), "--part-images", "40", "--batch-size", "4"]
    folder = tmp_path / (output if output.endswith(".parquet") else f"{output}.parts")
    kills = 0
    for wanted in (1, 3, 6):
        with subprocess.Popen(
            [*command, "--output", str(tmp_path / output)],
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ) as process:
            end_s = time.monotonic() + 60
            while len(list(folder.glob("part-*"))) < wanted and process.poll() is None:
                assert time.monotonic() < end_s
                time.sleep(0.002)  # there is nothing to wait on but the folder
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                kills += 1
    assert kills
    done = subprocess.run(
        [*command, "--output", str(tmp_path / output)],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "of them by an earlier run" in done.stderr
    whole = tmp_path / f"whole{Path(output).suffix}"
    subprocess.run([*command, "--output", str(whole)], capture_output=True, timeout=120, check=True)
    assert _content(tmp_path / output) == _content(whole)
    assert _content(whole)["names"] == names


def _content(path: Path) -> dict[str, Any]:
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as held:
            return {name: held[name].tolist() for name in held.files if name != "ood_score"}
    pq = pytest.importorskip("pyarrow.parquet")
    table = pq.read_table(path).to_pydict()
    return {"names": table.pop("name"), **{k: v for k, v in table.items() if k != "ood_score"}}
