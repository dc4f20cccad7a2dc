"""Results are written whole, without NaN, and take away what an earlier one left too much."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from motorvae.runtime.core.errors import OutputError
from motorvae.training.explore.options import TraversalsOptions
from motorvae.training.explore.results import Result

RESULT = Result(
    "traversals",
    {"x": np.float32(0.5), "nan": float("nan"), "rows": np.arange(2), "inner": {"p": (1, 2)}},
    {"z": np.zeros(3)},
    ["a line"],
    {"traversals.png": b"png", "traversal-1.png": b"one", "traversal-2.png": b"two"},
)
OPTIONS = TraversalsOptions(model=Path("runs/x"))


def test_numbers_and_arrays_can_be_read_again(tmp_path: Path) -> None:
    saved = RESULT.saved(tmp_path / "new" / "explore", OPTIONS)
    document = json.loads((tmp_path / "new/explore/traversals.json").read_text())
    assert document["numbers"] == {"x": 0.5, "nan": None, "rows": [0, 1], "inner": {"p": [1, 2]}}
    assert (document["options"]["model"], document["verb"]) == ("runs/x", "traversals")
    assert [path.name for path in saved.files] == document["files"]
    assert saved.files[0].name == "traversals.png"
    with np.load(tmp_path / "new/explore/traversals.npz", allow_pickle=False) as arrays:
        assert arrays["z"].tolist() == [0, 0, 0]


def test_files_that_only_an_earlier_result_had_are_gone_and_others_stay(tmp_path: Path) -> None:
    RESULT.saved(tmp_path, OPTIONS)
    (tmp_path / "traversal-9.png").write_bytes(b"the user's own")
    (tmp_path / "samples.png").write_bytes(b"of another verb")
    fewer = dataclasses.replace(
        RESULT, pictures={"traversals.png": b"new", "traversal-1.png": b"1"}
    )
    fewer.saved(tmp_path, OPTIONS)
    left = {path.name for path in tmp_path.iterdir()}
    assert "traversal-2.png" not in left
    assert {"traversal-1.png", "traversal-9.png", "samples.png"} <= left


@pytest.mark.parametrize("names", [["../victim.png"], ["victim.png"], "x", None, [3]])
def test_an_earlier_document_that_lies_takes_nothing_else_away(
    names: object, tmp_path: Path
) -> None:
    folder = tmp_path / "explore"
    folder.mkdir()
    for victim in (tmp_path / "victim.png", folder / "victim.png"):
        victim.write_bytes(b"")
    (folder / "traversals.json").write_text(json.dumps({"files": names}))
    RESULT.saved(folder, OPTIONS)
    assert (tmp_path / "victim.png").exists()
    assert (folder / "victim.png").exists()


def test_what_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="cannot write"):
        RESULT.saved(tmp_path / "file" / "explore", OPTIONS)


def test_where_one_file_cannot_be_written_none_is(tmp_path: Path) -> None:
    (tmp_path / f"{RESULT.verb}.npz").mkdir()
    with pytest.raises(OutputError, match=r"npz exists and is not a file: name another output"):
        RESULT.saved(tmp_path, OPTIONS)
    assert [one.name for one in tmp_path.iterdir()] == [f"{RESULT.verb}.npz"]
