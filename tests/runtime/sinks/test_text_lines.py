from __future__ import annotations

import csv
import errno
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from motorvae.runtime.core.errors import OutputError
from motorvae.runtime.core.row import COLUMNS, SCHEMA, Row, RunFacts
from motorvae.runtime.core.spec import ModelSpec
from motorvae.runtime.sinks.text_lines import CsvSink, JsonLinesSink, LinesSink

ReadRows = Callable[[Path], list[dict[str, Any]]]
FACTS = RunFacts(
    ModelSpec(image_size=32, latent_size=8), ("front",), "ab" * 32, "onnxruntime cpu", lossless=True
)
SINKS = [(JsonLinesSink, "latents.jsonl"), (CsvSink, "latents.csv")]


def row_at(index: int, mu: np.ndarray | None = None, **facts: Any) -> Row:
    status = "lost" if mu is None else "ok"
    return Row(index, 1_700_000_000_000_000_000 + index, 1.5, 0, status, mu, "front", **facts)


def table_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file, strict=True))


def indexes_in(path: Path) -> list[int]:
    """From lines that must each be whole."""
    data = path.read_bytes()
    assert data == b"" or data.endswith(b"\n")
    if path.suffix == ".csv":
        return [int(row["index"]) for row in table_of(path)]
    return [int(line.split(b'"index":')[1].split(b",")[0]) for line in data.splitlines()]


@pytest.mark.parametrize(("kind", "name"), SINKS)
def test_each_row_is_in_the_file_as_soon_as_it_is_written(
    tmp_path: Path, kind: Callable[..., LinesSink], name: str
) -> None:
    path = tmp_path / name
    with kind(str(path), FACTS) as sink:
        for index in range(3):
            sink.write(row_at(index, np.arange(8, dtype=np.float32)))
            assert indexes_in(path) == list(range(index + 1))
        assert sink.rows == 3


@pytest.mark.parametrize(("kind", "name"), SINKS)
def test_each_row_is_one_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Callable[..., LinesSink], name: str
) -> None:
    write, written = os.write, []

    def noted(handle: int, data: memoryview) -> int:
        written.append(bytes(data))
        return write(handle, data)

    with kind(str(tmp_path / name), FACTS) as sink:
        monkeypatch.setattr(os, "write", noted)
        sink.write(row_at(0, np.arange(8, dtype=np.float32)))
        sink.write(row_at(1))
        monkeypatch.undo()
    assert [line.count(b"\n") for line in written] == [1, 1]
    assert all(line.endswith(b"\n") for line in written)


@given(st_numpy.arrays(np.float32, 8, elements=st.floats(width=32, allow_nan=False)))
def test_any_float32_reads_back_equal(
    tmp_path_factory: pytest.TempPathFactory, read_rows: ReadRows, mu: np.ndarray
) -> None:
    if not np.isfinite(mu).all():
        return  # such a latent is refused before it gets here
    folder = tmp_path_factory.mktemp("sink")
    with JsonLinesSink(str(folder / "a.jsonl"), FACTS) as lines:
        lines.write(row_at(0, mu))
    assert np.array_equal(np.asarray(read_rows(folder / "a.jsonl")[0]["mu"], np.float32), mu)
    with CsvSink(str(folder / "a.csv"), FACTS) as table:
        table.write(row_at(0, mu))
    (row,) = table_of(folder / "a.csv")
    assert np.array_equal(np.array([row[f"mu_{i}"] for i in range(8)], np.float32), mu)


@pytest.mark.parametrize(
    "text", ['say "when",\nthen', "a\r\nb", ",", '"', "naïve\u2028line", " x "]
)
def test_any_text_survives_in_a_table(tmp_path: Path, text: str) -> None:
    path = tmp_path / "latents.csv"
    with CsvSink(str(path), FACTS) as sink:
        sink.write(row_at(0, reason=text))
        sink.write(row_at(1, np.ones(8, np.float32), name=text))
    first, second = table_of(path)
    assert first["reason"] == second["name"] == text
    assert second["mu_7"] == "1.0"


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1.jpg", "@SUM(A1)", "\t=1"])
def test_a_spreadsheet_takes_no_name_for_a_formula(tmp_path: Path, text: str) -> None:
    path = tmp_path / "latents.csv"
    with CsvSink(str(path), FACTS) as sink:
        sink.write(row_at(0, reason=text, name=text, kl=-0.5))
    (row,) = table_of(path)
    assert row["reason"] == row["name"] == f"'{text}"
    assert row["kl"] == "-0.5"


def test_a_table_has_every_column_and_empty_cells_for_what_is_not_known(tmp_path: Path) -> None:
    path = tmp_path / "latents.csv"
    with CsvSink(str(path), FACTS) as sink:
        sink.write(row_at(4, np.ones(8, np.float32), duplicate=True, is_ood=False, kl=0.25))
        sink.write(Row(5, 7, None, 0, "end", summary={"rows": 1}))
    ok, end = table_of(path)
    assert list(ok) == [*COLUMNS, "schema", *(f"mu_{i}" for i in range(8))]
    assert (ok["duplicate"], ok["is_ood"], ok["kl"], ok["gap_ms"]) == ("true", "false", "0.25", "")
    assert {name: value for name, value in end.items() if value} == {
        "index": "5",
        "captured_ns": "7",
        "dropped": "0",
        "status": "end",
        "schema": str(SCHEMA),
    }


@pytest.mark.parametrize(("kind", "name"), SINKS)
def test_half_a_row_is_cut_off_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Callable[..., LinesSink], name: str
) -> None:
    write = os.write
    path = tmp_path / name
    with kind(str(path), FACTS) as sink:
        sink.write(row_at(0))
        room = [5]

        def write_little(handle: int, data: memoryview) -> int:
            if not room:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return write(handle, data[: room.pop()])

        monkeypatch.setattr(os, "write", write_little)
        with pytest.raises(OutputError) as caught:
            sink.write(row_at(1))
        monkeypatch.setattr(os, "write", write)
        assert str(caught.value) == (
            f"cannot write {path}: No space left on device; the 1 rows before it are whole; "
            "make room or choose another --output"
        )
        assert indexes_in(path) == [0]
        sink.write(row_at(2))
    assert indexes_in(path) == [0, 2]
    assert sink.rows == 2


def test_standard_output_is_json_lines_and_stays_open(python: Callable[..., Any]) -> None:
    done = python(
        "from motorvae.runtime.core.spec import ModelSpec\n"
        "from motorvae.runtime.core.row import Row, RunFacts\n"
        "from motorvae.runtime.sinks.open import open_sink\n"
        "facts = RunFacts(ModelSpec(image_size=32, latent_size=8), (), '', '', lossless=True)\n"
        "with open_sink('-', facts) as sink: sink.write(Row(0, 1, None, 0, 'end'))\n"
        "print(sink.name, sink.rows)\n"
    )
    row, said = done.stdout.splitlines()
    assert '"status":"end"' in row
    assert said == "standard output 1"


def test_a_closed_reader_is_an_output_error(python: Callable[..., Any]) -> None:
    done = python(
        "import os\n"
        "from motorvae.runtime.core.errors import OutputError\n"
        "from motorvae.runtime.core.spec import ModelSpec\n"
        "from motorvae.runtime.core.row import Row, RunFacts\n"
        "from motorvae.runtime.sinks.open import open_sink\n"
        "reader, writer = os.pipe()\n"
        "os.close(reader)\n"
        "kept = os.dup(1)\n"
        "os.dup2(writer, 1)\n"
        "model = ModelSpec(image_size=32, latent_size=8)\n"
        "sink = open_sink('-', RunFacts(model, (), '', '', lossless=True))\n"
        "try: sink.write(Row(0, 1, None, 0, 'end'))\n"
        "except OutputError as error: os.dup2(kept, 1); print(error)\n"
    )
    assert done.stdout == (
        "cannot write standard output: Broken pipe; make room or choose another --output\n"
    )


MAPS = replace(
    FACTS,
    model=ModelSpec(
        image_size=32, color="rgb", channels=None, latent_size=12, latent_shape=(2, 3, 2)
    ),
)


def test_a_latent_of_maps_has_its_shape_beside_it(tmp_path: Path) -> None:
    mu = np.arange(12, dtype=np.float32)
    for name, kind in (("a.jsonl", JsonLinesSink), ("a.csv", CsvSink)):
        with kind(str(tmp_path / name), MAPS) as sink:
            sink.write(Row(0, 1, 2.0, 0, "ok", mu))
            sink.write(Row(1, 1, None, 0, "lost"))
    ok, lost = map(json.loads, (tmp_path / "a.jsonl").read_text().splitlines())
    assert np.reshape(ok["mu"], ok["latent_shape"])[1, 2, 0] == 10
    assert "latent_shape" not in lost
    with (tmp_path / "a.csv").open(newline="") as file:
        row, _ = list(csv.DictReader(file))
    assert float(row["mu_1_2_0"]) == 10
    with JsonLinesSink(str(tmp_path / "b.jsonl"), FACTS) as flat:
        flat.write(Row(0, 1, 2.0, 0, "ok", mu[:8]))
    assert "latent_shape" not in json.loads((tmp_path / "b.jsonl").read_text())
