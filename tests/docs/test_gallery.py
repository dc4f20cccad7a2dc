"""docs/gallery.md, which a script makes: its pictures, and that the script makes such a page."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from motorvae.training.explore.cli import VERBS

ROOT = Path(__file__).parents[2]
PAGE, PICTURES = ROOT / "docs" / "gallery.md", ROOT / "docs" / "gallery"
SCRIPT = ROOT / "docs" / "tools" / "gallery.py"
EQUAL_TIME = ROOT / "docs" / "tools" / "equal_time.py"
DEFAULT_MODEL = ROOT / "docs" / "tools" / "default_model.py"
SHOWN = {*VERBS} - {"live"}
"""A stream's verb has no picture to keep."""
MOST_BYTES = 4_000_000


def check(page: Path) -> None:
    """Assert that a page shows every verb, and exactly the pictures of its folder."""
    text = page.read_text(encoding="utf-8")
    folder = page.with_suffix("")
    verbs = set(re.findall(r"^motorvae explore (\w+)", text, re.MULTILINE))
    assert verbs == SHOWN
    there = {path.name for path in folder.iterdir()}
    assert {*re.findall(r"!\[[^]]+\]\(gallery/([^)]+)\)", text)} == there
    for name in sorted(there):
        with Image.open(folder / name) as image:
            image.load()
            assert image.width > 200, name
            assert getattr(image, "n_frames", 1) > 1 or not name.endswith(".gif"), name
    assert sum(path.stat().st_size for path in folder.iterdir()) <= MOST_BYTES
    assert re.findall(r"(?<![\w)])/(?:home|tmp|root|work)\b|\bnan\b|None", text) == []
    assert text.count("python docs/tools/gallery.py") == 1


def test_the_page_has_every_verb_and_its_pictures() -> None:
    check(PAGE)


@pytest.mark.slow
@pytest.mark.timeout(1000)
def test_the_script_makes_a_page(tiny_run: Path, tmp_path: Path) -> None:
    other = shutil.copytree(tiny_run, tmp_path / "another")
    options = (tiny_run, "docs", "--count", "100", "--method", "pca", "--other", other)
    (tmp_path / "docs").mkdir()
    subprocess.run(
        [sys.executable, SCRIPT, *map(str, options)], cwd=tmp_path, check=True, timeout=900
    )
    check(tmp_path / "docs" / "gallery.md")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_default_models_page_shows_each_picture_and_each_epoch(
    tiny_run: Path, tmp_path: Path
) -> None:
    other = shutil.copytree(tiny_run, tmp_path / "another")
    (tmp_path / "docs").mkdir()
    subprocess.run(
        [sys.executable, DEFAULT_MODEL, tiny_run, "docs", "--other", other, "--count", "100"],
        cwd=tmp_path,
        check=True,
        timeout=500,
    )
    page = tmp_path / "docs" / "default-model.md"
    text = page.read_text(encoding="utf-8")
    there = {path.name for path in page.with_suffix("").iterdir()}
    assert {*re.findall(r"!\[[^]]+\]\(default-model/([^)]+)\)", text)} == there
    epochs = (tiny_run / "metrics.csv").read_text(encoding="utf-8").splitlines()[1:]
    assert len(re.findall(r"^\| \d+ \| \d+ \|", text, re.MULTILINE)) == len(epochs)
    assert re.findall(r"(?<![\w)])/(?:home|tmp|root|work)\b|\bnan\b|None", text) == []


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_models_after_equal_time_are_drawn_below_each_other(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    (docs / "results").mkdir(parents=True)
    subprocess.run(
        [sys.executable, EQUAL_TIME, docs, "--minutes", "0.02", "--threads", "1", "--count", "60"],
        check=True,
        timeout=500,
    )
    ways = json.loads((docs / "results" / "equal-time.json").read_text(encoding="utf-8"))["ways"]
    assert len(ways) == 3
    assert all(way["steps"] > 0 for way in ways.values())
    with Image.open(docs / "equal-time.jpg") as image:
        levels = np.asarray(image.convert("L"), np.float64)
    # The row of originals has dark paint, and so has that of the model which was trained long.
    assert (np.array([part.min() for part in np.array_split(levels, 4)])[[0, 3]] < 60).all()
