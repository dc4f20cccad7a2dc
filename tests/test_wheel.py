"""The wheel: what is on disk, under one name, and nothing else."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("runtime", "training", "export", "benchmarks")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy, as building writes beside the sources."""
    # Not imported here: where another test has loaded the old distutils, setuptools refuses.
    if importlib.util.find_spec("setuptools") is None:
        pytest.skip("building needs setuptools in this environment")
    copy = tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copyfile(ROOT / name, copy / name)
    for package in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, copy / package, ignore=ignored)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    subprocess.run(
        [*command, "--no-build-isolation", "--wheel-dir", str(copy / "out"), str(copy)], check=True
    )
    (found,) = (copy / "out").glob("*.whl")
    return found


def test_the_wheel_puts_only_motorvae_on_the_path(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"motorvae"}
    packaged = {name.removeprefix("motorvae/") for name in names if name.startswith("motorvae/")}
    kinds = {".csv", ".j2", ".js", ".json", ".md", ".npz", ".py", ".safetensors", ".typed"}
    on_disk = {
        path.relative_to(ROOT).as_posix().removeprefix("runtime/api/")
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.suffix in kinds and "__pycache__" not in path.parts
    }
    assert packaged == on_disk
