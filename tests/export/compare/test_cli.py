from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from motorvae.commands import main
from motorvae.export.compare.result import VerifyResult

from .graphs import encoder, heads


@pytest.fixture
def here(tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a right graph, a wrong one and images."""
    monkeypatch.chdir(tmp_path)
    weights = heads()
    encoder(tmp_path / "right.onnx", weights)
    encoder(tmp_path / "wrong.onnx", dict(weights, usual=weights["usual"] + np.float32(0.1)))
    (tmp_path / "photos").symlink_to(photos)
    return tmp_path


def test_exit_codes_table_and_verdict(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert here.exists()
    assert main(["verify", "right.onnx", "right.onnx", "photos"]) == 0
    output = capsys.readouterr()
    assert output.out == ""
    *table, verdict = output.err.splitlines()
    assert verdict.startswith("passed: right.onnx in ONNX Runtime")
    assert max(len(line) for line in table if not line.startswith("note: ")) <= 80
    text = output.err
    for words in ("mu (6)", "log_var (6)", "next 128", "max error / spread over data", "≤ 0.0005"):
        assert words in text
    assert main(["verify", "right.onnx", "wrong.onnx", "photos"]) == 1
    error = capsys.readouterr().err
    assert error.splitlines()[-1].startswith("FAILED: wrong.onnx")
    assert "FAILED" in error.splitlines()[-12]


@pytest.mark.parametrize(
    "words",
    [
        ["right.onnx", "absent.onnx", "photos"],
        ["right.onnx", "right.onnx", "absent"],
        ["right.onnx", "right.onnx", "photos", "--most-images", "0"],
        ["right.onnx", "right.onnx", "photos", "--json", "absent/result.json"],
        ["right.onnx", "right.onnx", "photos", "--candidate-provider", "nothing"],
    ],
)
def test_what_cannot_be_judged_is_2_in_one_line(
    words: list[str], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(here.iterdir())
    assert main(["verify", *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("motorvae verify: ")
    assert error.count("\n") == 1
    assert sorted(here.iterdir()) == before


@pytest.mark.parametrize(
    "error", [RuntimeError("a fault of ours"), MemoryError(), OSError(28, "No space left")]
)
def test_whatever_goes_wrong_is_not_a_failed_gate(
    here: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("motorvae.export.compare.cli.run_verify", fail)
    assert here.exists()
    assert main(["verify", "right.onnx", "right.onnx", "photos"]) == 2
    assert ("Traceback" in capsys.readouterr().err) == isinstance(error, RuntimeError)


def test_a_limit_at_its_end_can_be_kept(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "limits.json").write_text('{"neighbours": 1}')
    words = ["verify", "right.onnx", "right.onnx", "photos", "--limits", "limits.json"]
    assert main(words) == 0
    assert "passed: right.onnx" in capsys.readouterr().err


def test_json_is_written_whatever_the_verdict(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["verify", "right.onnx", "wrong.onnx", "photos", "--value-range", "-1", "1"]
    assert main([*words, "--json", "result.json"]) == 1
    text = (here / "result.json").read_text()
    result = VerifyResult.model_validate_json(text)
    assert not result.passed
    assert result.schema_version == 1
    assert result.preparation is not None
    assert result.preparation.value_range == (-1, 1)
    assert main([*words, "--json", "-"]) == 1
    assert json.loads(capsys.readouterr().out) == json.loads(text)


def test_options_of_several_values_may_come_first(here: Path) -> None:
    assert here.exists()
    words = ["--mean", "0.5", "0.4", "0.3", "--batch-sizes", "2", "5"]
    assert main(["verify", *words, "right.onnx", "right.onnx", "photos"]) == 0
