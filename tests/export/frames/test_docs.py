"""The Python of docs/whole-frame.md, on a bundle to which its command has added a graph."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from motorvae.export.cli import main

PAGE = Path(__file__).parents[3] / "docs" / "whole-frame.md"


def test_the_example_runs(
    small_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(small_bundle, tmp_path / "bundle")
    monkeypatch.chdir(tmp_path)
    assert main(["--model", "bundle", "--whole-frame", "bgr:640x480"]) == 0
    (block,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    namespace: dict[str, Any] = {}
    exec(compile(block, PAGE.name, "exec"), namespace)  # noqa: S102
    assert namespace["mu"].shape == namespace["log_var"].shape == (1, 8)
