from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import cv2
import pytest
from rich.console import Console

from motorvae.runtime.core.errors import MeasurementError

SPEC = importlib.util.spec_from_file_location("soak", Path(__file__).with_name("soak.py"))
assert SPEC is not None
assert SPEC.loader is not None
script = importlib.util.module_from_spec(SPEC)
sys.modules[SPEC.name] = script  # where pydantic looks annotations up
SPEC.loader.exec_module(script)


@pytest.fixture(scope="module")
def soak(small_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A real stream, too short to say anything of growth."""
    options = script.SoakOptions(model=small_bundle, frames=6000, every_s=0.02)
    rows = tmp_path_factory.mktemp("soak") / "rows.jsonl"
    return script.soaked(options, rows, Console(quiet=True))


def test_every_frame_is_a_row_in_order(soak: Any) -> None:
    assert (soak.rows_ok, soak.rows_other, soak.in_order) == (6000, 0, True)
    assert soak.summary["frames"] == 6000
    assert soak.samples[-1].written_bytes > soak.samples[0].written_bytes
    assert all(sample.rss_bytes > 0 for sample in soak.samples)
    assert all(sample.threads >= 1 and sample.descriptors >= 1 for sample in soak.samples)


@pytest.mark.parametrize(
    ("change", "clause"),
    [
        ({"rows_ok": 5999}, "5999 rows for 6000 frames"),
        ({"rows_other": 2}, "2 rows that are not ok"),
        ({"in_order": False}, "rows out of order"),
        ({"rss_growth": 0.021}, "memory grew by 2.10%"),
        ({"thread_growth": 1}, "1 more threads"),
        ({"descriptor_growth": 3}, "3 more descriptors"),
    ],
)
def test_each_kind_of_growth_fails_it(soak: Any, change: dict[str, Any], clause: str) -> None:
    still = {"rss_growth": 0.0, "thread_growth": 0, "descriptor_growth": 0}
    assert soak.model_copy(update=still).failures == []
    assert soak.model_copy(update=still | change).failures == [clause]


def test_its_picture_shows_something(soak: Any, tmp_path: Path) -> None:
    path = tmp_path / "soak.png"
    script.draw(soak, path)
    drawn = cv2.imread(str(path))
    assert drawn is not None
    assert drawn.std() > 10


def test_what_it_writes_reads_back(small_bundle: Path, tmp_path: Path) -> None:
    output = tmp_path / "soak.json"
    args = ["--model", str(small_bundle), "--frames", "6000", "--every-s", "0.02"]
    code = script.main([*args, "--output", str(output)])
    read = script.Soak.model_validate_json(output.read_bytes())
    assert code == (1 if read.failures else 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["soak.json", "soak.png"]


def test_a_run_too_short_to_say_anything_is_an_error(small_bundle: Path, tmp_path: Path) -> None:
    options = script.SoakOptions(model=small_bundle, frames=10, every_s=5.0)
    with pytest.raises(MeasurementError, match=r"only 0 samples in .* take more --frames"):
        script.soaked(options, tmp_path / "rows.jsonl", Console(quiet=True))


def test_a_stream_that_fails_is_said_in_its_own_words(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "soak.json"
    assert script.main(["--model", str(tmp_path / "none"), "--output", str(output)]) == 1
    assert "motorvae-stream failed: motorvae-stream: no bundle at" in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []
