from __future__ import annotations

import errno
import os
import resource
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from motorvae.runtime.core.errors import OutputError
from motorvae.runtime.core.row import COLUMNS, SCHEMA, Row, RunFacts
from motorvae.runtime.core.spec import ModelSpec
from motorvae.runtime.sinks.npz import BLOCK_ROWS, NpzSink

FACTS = RunFacts(
    ModelSpec(image_size=32, latent_size=3),
    ("front", "rear"),
    "ab" * 32,
    "onnxruntime cpu",
    lossless=True,
)


def row_at(index: int, **facts: Any) -> Row:
    mu = np.full(3, index, np.float32)
    captured_ns = 1_700_000_000_000_000_001 + index
    return Row(index, captured_ns, 0.1 * index, 0, "ok", mu, "front", **facts)


@pytest.mark.parametrize("count", [0, 1, BLOCK_ROWS - 1, BLOCK_ROWS, 2 * BLOCK_ROWS + 3])
def test_any_number_of_rows_comes_back_in_order(tmp_path: Path, count: int) -> None:
    path = tmp_path / "latents.npz"
    with NpzSink(str(path), FACTS) as sink:
        for index in range(count):
            sink.write(row_at(index, name=f"frame{index}.png"))
        assert not path.exists()
    with np.load(path) as data:
        assert np.array_equal(data["index"], np.arange(count))
        assert np.array_equal(data["captured_ns"], 1_700_000_000_000_000_001 + np.arange(count))
        assert np.array_equal(data["mu"], np.arange(count)[:, None].repeat(3, axis=1))
        assert data["mu"].dtype == np.float32
        assert data["name"].tolist() == [f"frame{index}.png" for index in range(count)]
        assert (data["status"] == "ok").all()


def test_every_column_is_there_and_says_what_is_not_known(tmp_path: Path) -> None:
    with NpzSink(str(tmp_path / "latents.npz"), FACTS) as sink:
        sink.write(row_at(0, duplicate=True, is_ood=False, kl=0.5, clock="driver"))
        sink.write(Row(1, 2, None, 3, "lost", camera="rear", reason="weg: größer\n", unwritten=4))
        sink.write(Row(2, 3, None, 0, "end", summary={"rows": 2}))
    with np.load(tmp_path / "latents.npz") as data:
        once = {"schema_version", "weights_sha256", "latent_shape", "summary"}
        assert set(data) == {*COLUMNS, "mu", *once}
        assert data["latent_shape"].tolist() == [3]
        assert data["schema_version"] == SCHEMA
        assert data["weights_sha256"] == "ab" * 32
        assert data["summary"] == '{"rows":2}'
        assert data["status"].tolist() == ["ok", "lost", "end"]
        assert data["camera"].tolist() == ["front", "rear", ""]
        assert data["clock"].tolist() == ["driver", "", ""]
        assert data["reason"].tolist() == ["", "weg: größer\n", ""]
        assert data["duplicate"].tolist() == [1, -1, -1]
        assert data["is_ood"].tolist() == [0, -1, -1]
        assert data["unwritten"].tolist() == [0, 4, 0]
        assert data["dropped"].tolist() == [0, 3, 0]
        assert data["kl"][0] == 0.5
        assert np.isnan(data["kl"][1:]).all()
        assert np.isnan(data["mu"][1:]).all()
        assert np.isnan(data["age_ms"][1:]).all()


def test_texts_of_any_length_come_back(tmp_path: Path) -> None:
    names = ["a", "b", "", "long " * 40, "größer\ud800", "two\nlines", "c"]
    with NpzSink(str(tmp_path / "latents.npz"), FACTS) as sink:
        for index in range(BLOCK_ROWS + len(names)):
            sink.write(row_at(index, name=names[index % len(names)]))
    with np.load(tmp_path / "latents.npz") as data:
        found = data["name"].tolist()
    assert found == [names[index % len(names)] for index in range(BLOCK_ROWS + len(names))]


def full(*_: object) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def fill(sink: NpzSink) -> None:
    for index in range(100 * BLOCK_ROWS):
        sink.write(row_at(index))


def test_a_full_disk_while_rows_wait_keeps_those_that_fit(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    path = tmp_path / "latents.npz"
    earlier = resource.getrlimit(resource.RLIMIT_FSIZE)
    request.addfinalizer(lambda: resource.setrlimit(resource.RLIMIT_FSIZE, earlier))
    with NpzSink(str(path), FACTS) as sink:
        resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, earlier[1]))  # one block, not two
        reason = f"File too large; the {2 * BLOCK_ROWS - 1} rows before it are whole"
        with pytest.raises(OutputError, match=reason):
            fill(sink)
        resource.setrlimit(resource.RLIMIT_FSIZE, earlier)
        rows = sink.rows
    assert sink.rows == rows == 2 * BLOCK_ROWS - 1
    with np.load(path) as data:
        assert np.array_equal(data["index"], np.arange(rows))
        assert len(data["name"]) == rows


def test_a_full_disk_at_the_end_leaves_nothing_and_the_earlier_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "latents.npz"
    path.write_text("earlier")
    sink = NpzSink(str(path), FACTS)
    sink.write(row_at(0))
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=f"cannot write {path}: No space left on device"):
        sink.close()
    assert sink.rows == 0
    assert [entry.name for entry in tmp_path.iterdir()] == ["latents.1.npz"]


def test_waiting_rows_that_cannot_be_read_are_one_error_and_no_file(tmp_path: Path) -> None:
    path = tmp_path / "latents.npz"
    sink = NpzSink(str(path), FACTS)
    for index in range(3 * BLOCK_ROWS):
        sink.write(row_at(index))
    os.ftruncate(sink._spool.fileno(), 100_000)
    with pytest.raises(OutputError, match=f"cannot write {path}: .* cut short"):
        sink.close()
    assert sink.rows == 0
    assert list(tmp_path.iterdir()) == []


def test_the_end_reads_waiting_rows_once_and_little_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    read = os.pread

    def counted(file: int, size: int, offset: int) -> bytes:
        sizes.append(size)
        return read(file, size, offset)

    sink = NpzSink(str(tmp_path / "latents.npz"), FACTS)
    for index in range(10 * BLOCK_ROWS):
        sink.write(row_at(index, name=f"frame{index}.png"))
    waiting = os.fstat(sink._spool.fileno()).st_size
    monkeypatch.setattr(os, "pread", counted)
    tracemalloc.start()
    sink.close()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sum(sizes) == waiting
    assert peak < waiting / 3


def test_waiting_rows_take_no_memory_and_no_name(tmp_path: Path) -> None:
    with NpzSink(str(tmp_path / "latents.npz"), FACTS) as sink:
        tracemalloc.start()
        sizes = []
        for index in range(30 * BLOCK_ROWS):
            sink.write(row_at(index, name=f"frame{index}.png"))
            if index % (10 * BLOCK_ROWS) == 10 * BLOCK_ROWS - 1:
                sizes.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
        assert list(tmp_path.iterdir()) == []
        assert os.fstat(sink._spool.fileno()).st_size > 30 * BLOCK_ROWS * 8 * len(COLUMNS) / 2
    assert max(sizes) - min(sizes) < BLOCK_ROWS * 8 * len(COLUMNS)


def test_a_latent_of_maps_is_flat_with_its_shape(tmp_path: Path) -> None:
    spec = ModelSpec(image_size=32, channels=None, latent_size=12, latent_shape=(2, 3, 2))
    mu = np.arange(12, dtype=np.float32)
    with NpzSink(str(tmp_path / "a.npz"), replace(FACTS, model=spec)) as sink:
        sink.write(Row(0, 1, 2.0, 0, "ok", mu))
    with np.load(tmp_path / "a.npz") as found:
        assert found["mu"].shape == (1, 12)
        assert found["mu"].reshape(-1, *found["latent_shape"])[0, 1, 2, 0] == 10
