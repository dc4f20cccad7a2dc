from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from motorvae.runtime.errors import ConfigError, OutputError
from motorvae.runtime.sinks import JsonLinesSink, check_output

ReadRows = Callable[[Path], list[dict[str, Any]]]


def test_each_row_is_in_the_file_as_soon_as_it_is_written(
    tmp_path: Path, read_rows: ReadRows
) -> None:
    path = tmp_path / "new" / "latents.jsonl"
    with JsonLinesSink(str(path)) as sink:
        for index in range(3):
            sink.write({"index": index, "mu": np.arange(2, dtype=np.float32)})
            assert [row["index"] for row in read_rows(path)] == list(range(index + 1))
        assert sink.rows == 3
    sink.close()
    assert path.read_bytes().endswith(b"\n")


@given(st_numpy.arrays(np.float32, 8, elements=st.floats(width=32, allow_nan=False)))
def test_any_float32_reads_back_equal(
    tmp_path_factory: pytest.TempPathFactory, read_rows: ReadRows, mu: np.ndarray
) -> None:
    if not np.isfinite(mu).all():
        return  # such a latent is refused before it gets here
    path = tmp_path_factory.mktemp("sink") / "a.jsonl"
    with JsonLinesSink(str(path)) as sink:
        sink.write({"mu": mu})
    assert np.array_equal(np.asarray(read_rows(path)[0]["mu"], np.float32), mu)


def test_an_earlier_file_is_kept_under_a_number(tmp_path: Path) -> None:
    path = tmp_path / "latents.jsonl"
    path.write_text("earlier\n")
    with JsonLinesSink(str(path)) as sink:
        assert sink.set_aside_as == tmp_path / "latents.1.jsonl"
    assert (tmp_path / "latents.1.jsonl").read_text() == "earlier\n"
    assert path.read_text() == ""


@pytest.mark.parametrize("name", ["latents.json", "latents", "latents.npz", "", ".jsonl"])
def test_another_suffix_is_refused(tmp_path: Path, name: str) -> None:
    output = str(tmp_path / name) if name else ""
    with pytest.raises(ConfigError, match=r"name a file ending in \.jsonl, or - for stdout"):
        JsonLinesSink(output)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_refused_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "latents.jsonl"
    path.mkdir()
    with pytest.raises(OutputError, match="exists and is not a file"):
        JsonLinesSink(str(path))
    assert path.is_dir()


def test_a_place_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for function in (check_output, JsonLinesSink):
        with pytest.raises(OutputError, match=r"cannot write .*file/latents\.jsonl: Not a dir"):
            function(str(tmp_path / "file" / "latents.jsonl"))


def test_checking_leaves_nothing_behind(tmp_path: Path) -> None:
    check_output(str(tmp_path / "deep" / "latents.jsonl"))
    check_output("-")
    assert list(tmp_path.iterdir()) == []


def test_half_a_row_is_cut_off_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read_rows: ReadRows
) -> None:
    write = os.write
    path = tmp_path / "latents.jsonl"
    with JsonLinesSink(str(path)) as sink:
        sink.write({"index": 0})
        room = [5]

        def write_little(handle: int, data: memoryview) -> int:
            if not room:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return write(handle, data[: room.pop()])

        monkeypatch.setattr(os, "write", write_little)
        with pytest.raises(OutputError) as caught:
            sink.write({"index": 1})
        assert str(caught.value) == (
            f"cannot write {path}: No space left on device; the 1 rows before it are whole; "
            "make room or choose another --output"
        )
        assert [row["index"] for row in read_rows(path)] == [0]
        monkeypatch.setattr(os, "write", write)
        sink.write({"index": 2})
    assert [row["index"] for row in read_rows(path)] == [0, 2]
    assert sink.rows == 2
