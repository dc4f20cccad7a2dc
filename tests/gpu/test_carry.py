"""The folder for a machine that is reached by files alone, packed and run here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

CARRY = Path(__file__).with_name("carry.py")
ROOT = CARRY.parents[2]


def git(folder: Path, *words: str) -> str:
    user = ("-c", "user.name=Somebody", "-c", "user.email=somebody@example.com")
    done = subprocess.run(
        ["git", "-C", str(folder), *user, *words], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def carry(script: Path, *args: object, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(script), *map(str, args)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout of its own in which everything is committed, as this one may have changes."""
    if not (ROOT / ".git").exists():
        pytest.skip("needs a git checkout")
    folder = tmp_path / "checkout"
    subprocess.run(["git", "clone", "-q", "--shared", str(ROOT), str(folder)], check=True)
    # What is not committed yet is tested, too.
    (folder / "tests/gpu/carry.py").write_bytes(CARRY.read_bytes())
    git(folder, "add", "--all")
    if git(folder, "status", "--porcelain"):
        git(folder, "commit", "-qm", "As it is now")
    return folder


def test_a_packed_folder_proves_with_what_it_holds(checkout: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir()
    done = carry(
        checkout / "tests/gpu/carry.py", "pack", there / "kit", "--no-wheels", folder=there
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "python3 kit/carry.py prove --output proof"
    for _ in range(2):  # unpacked once, run twice
        done = carry(there / "kit/carry.py", "prove", "--output", "proof", folder=there)
        found = json.loads((there / "proof/proof.json").read_text("utf-8"))
        assert {step["commit"] for step in found["steps"]} == {git(checkout, "rev-parse", "HEAD")}
        if found["machine"]["no_gpu"]:
            assert done.returncode == 1
            assert "gpu-proof: no GPU, so that nothing is proven: " in done.stderr
    assert (there / "kit/site/motorvae/benchmarks/proof/proof.html.j2").is_file()
    assert (there / "kit/source/tests/gpu").is_dir()


def test_a_folder_of_somebody_elses_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    done = carry(CARRY, "pack", tmp_path, "--no-wheels", folder=tmp_path)
    assert done.returncode == 1
    assert done.stderr == (
        f"{tmp_path} is not empty, and not made by this script: name another folder\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_changes_that_are_not_committed_are_refused(checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "kit").mkdir()
    (tmp_path / "kit" / "source.tar").write_text("an earlier one", encoding="utf-8")
    (checkout / "README.md").write_text("changed", encoding="utf-8")
    done = carry(checkout / "tests/gpu/carry.py", "pack", tmp_path / "kit", folder=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("there are changes that are not committed: commit them")
    assert [path.name for path in (tmp_path / "kit").iterdir()] == ["source.tar"]


def test_what_was_not_packed_proves_nothing_in_one_line(tmp_path: Path) -> None:
    done = carry(CARRY, "prove", folder=tmp_path)
    assert done.returncode == 1
    assert done.stderr == (
        f"{CARRY.parent} holds no source.tar: pack a folder first, and run the carry.py in it\n"
    )
