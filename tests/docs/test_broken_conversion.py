"""The example of docs/verify.md: what np.allclose passes, and motorvae verify does not."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_example_shows_what_the_page_says(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs/examples/broken_conversion.py"), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].endswith("True")
    assert lines[2].startswith("motorvae verify: FAILED: encoder.fp16.onnx")
    assert lines[3].startswith("motorvae verify: passed: scaled.fp16.onnx")
    shown = (ROOT / "docs/verify.md").read_text(encoding="utf-8")
    for line in lines:  # figures and versions may be others elsewhere
        assert _without_numbers(line) in _without_numbers(shown)


def _without_numbers(text: str) -> str:
    return re.sub(r"\d[\d.e-]*", "N", text)
