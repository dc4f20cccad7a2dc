from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from motorvae.runtime.core.errors import OutputError
from motorvae.runtime.core.row import COLUMNS, SCHEMA, Row, RunFacts
from motorvae.runtime.core.spec import ModelSpec

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

from motorvae.runtime.sinks import parquet as sink_parquet  # noqa: E402  # needs the package
from motorvae.runtime.sinks.parquet import ParquetSink  # noqa: E402

FACTS = RunFacts(
    ModelSpec(image_size=32, latent_size=3), ("front",), "ab" * 32, "onnxruntime cpu", lossless=True
)
WRITING = """
import sys, time
import numpy as np
from motorvae.runtime.core.spec import ModelSpec
from motorvae.runtime.core.row import Row, RunFacts
from motorvae.runtime.sinks.open import open_sink
model = ModelSpec(image_size=32, latent_size=128)
facts = RunFacts(model, ("front",), "ab" * 32, "onnxruntime cpu", lossless=True)
sink = open_sink(sys.argv[1], facts)
index = 0
while True:
    mu = np.full(128, index, np.float32)
    sink.write(Row(index, time.time_ns(), 1.0, 0, "ok", mu, "front"))
    written = time.monotonic()
    sink.flush()
    print(index, written, time.monotonic(), flush=True)
    index += 1
    time.sleep(0.005)  # the pace of a camera: full parts must not be what puts rows there
"""


def row_at(index: int, **facts: Any) -> Row:
    return Row(index, 100 + index, 0.5, 0, "ok", np.full(3, index, np.float32), "front", **facts)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "latents.parquet"


def test_every_column_comes_back_with_its_type(path: Path) -> None:
    with ParquetSink(str(path), FACTS) as sink:
        sink.write(row_at(0, duplicate=True, kl=0.5, clock="driver", name="ä.png"))
        sink.write(Row(1, 2, None, 3, "lost", camera="front", reason="gone"))
        sink.write(Row(2, 3, None, 0, "end", summary={"rows": 2}))
    table = pq.read_table(path)
    assert table.column_names == [*COLUMNS, "mu", "summary"]
    first, lost, end = table.to_pylist()
    assert {name: value for name, value in first.items() if value is not None} == {
        "index": 0,
        "captured_ns": 100,
        "age_ms": 0.5,
        "dropped": 0,
        "status": "ok",
        "camera": "front",
        "clock": "driver",
        "duplicate": True,
        "name": "ä.png",
        "kl": 0.5,
        "mu": [0.0, 0.0, 0.0],
    }
    assert (lost["mu"], lost["reason"], lost["dropped"]) == (None, "gone", 3)
    assert (end["status"], end["summary"], end["camera"]) == ("end", '{"rows":2}', None)
    assert table.schema.field("mu").type == pa.list_(pa.float32())
    assert table.schema.metadata[b"motorvae.latent_size"] == b"3"
    assert table.schema.metadata[b"motorvae.schema_version"] == str(SCHEMA).encode()
    assert table.schema.metadata[b"motorvae.weights_sha256"] == b"ab" * 32


def test_the_folder_can_be_read_at_any_moment(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink_parquet, "PUBLISH_AFTER_S", 0.0)
    with ParquetSink(str(path), FACTS) as sink:
        for index in range(5):
            assert pq.read_table(path)["index"].to_pylist() == list(range(index))
            sink.write(row_at(index))
            sink.flush()
    assert [entry.name for entry in path.iterdir()] == ["part-000000.parquet"]


def test_rows_wait_half_a_second_at_most_where_flush_is_called(path: Path) -> None:
    with ParquetSink(str(path), FACTS) as sink:
        sink.write(row_at(0))
        sink._waiting_since_s -= 0.5
        sink.flush()
        assert pq.read_table(path).num_rows == 1


def test_a_part_that_is_full_or_old_is_followed_by_the_next(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sink_parquet, "PART_ROWS", 4)
    with ParquetSink(str(path), FACTS) as sink:
        for index in range(10):
            sink.write(row_at(index))
        sink._part_since_s -= 60
    names = ["part-000000.parquet", "part-000001.parquet", "part-000002.parquet"]
    assert sorted(entry.name for entry in path.iterdir()) == names
    assert [pq.read_metadata(path / name).num_rows for name in names] == [4, 4, 2]
    assert pq.read_table(path)["index"].to_pylist() == list(range(10))
    assert sink._part == 3


def test_a_killed_process_loses_the_last_second_at_most(path: Path) -> None:
    acknowledged = []
    with subprocess.Popen(
        [sys.executable, "-c", WRITING, str(path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            index, written_s, now_s = line.split()
            acknowledged.append((int(index), float(written_s)))
            if float(now_s) - acknowledged[0][1] > 2.5:
                break
        process.send_signal(signal.SIGKILL)
        assert process.wait(60) == -signal.SIGKILL
    safe = {index for index, written_s in acknowledged if written_s < float(now_s) - 1}
    table = pq.read_table(path)
    indexes = table["index"].to_pylist()
    assert len(safe) > 10
    assert safe <= set(indexes)
    assert indexes == list(range(len(indexes)))
    assert np.array(table["mu"].to_pylist())[:, 0].tolist() == indexes


def test_an_earlier_folder_is_kept_under_a_number(path: Path) -> None:
    for _ in range(2):
        with ParquetSink(str(path), FACTS) as sink:
            sink.write(row_at(7))
    kept = path.with_name("latents.1.parquet")
    assert sink.set_aside_as == kept
    assert pq.read_table(kept)["index"].to_pylist() == [7]


def test_a_full_disk_keeps_what_was_there_and_counts_only_that(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(sink_parquet, "PUBLISH_AFTER_S", 0.0)
    with ParquetSink(str(path), FACTS) as sink:
        sink.write(row_at(0))
        sink.flush()
        sink.write(row_at(1))
        sink.write(row_at(2))
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OutputError, match="No space left on device; the 1 rows before it are"):
            sink.flush()
        assert sink.rows == 1
    assert pq.read_table(path)["index"].to_pylist() == [0]
    assert [entry.name for entry in path.iterdir()] == ["part-000000.parquet"]
