"""The short form of the attacks on outputs; each script says how it is run in full."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from . import writers

ENGINES_KILLED = """
import sys
from pathlib import Path
from motorvae.runtime.core.atomic_files import replaced_folder
with replaced_folder(Path(sys.argv[1]) / "engines") as folder:
    (folder / "half.engine").touch()
    print("inside", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("kind", [".npz", "encode"])
def test_two_writers_lose_nothing(kind: str, small_bundle: Path, tmp_path: Path) -> None:
    images = writers.pictures(tmp_path / "images")
    found = writers.two_writers(kind, small_bundle, images, random.Random(1))
    assert found["written"] >= 1
    assert found["written"] + found["refused"] == 2
    assert not found["lost"]
    assert not found["litter"]


def test_racing_renames_overwrite_nothing() -> None:
    assert writers.races(90) == {"races": 90, "lost": 0}


@pytest.mark.parametrize(
    ("kind", "what"), [(".jsonl", "folder"), (".npz", "folder"), (".parquet", "output")]
)
def test_a_deleted_output_is_an_error(kind: str, what: str, small_bundle: Path) -> None:
    found = writers.deleted(kind, small_bundle, what)
    assert found["failed"] == 1
    assert not found["claimed"]


def test_an_export_goes_on_after_a_kill_while_engines_are_built(
    small_bundle: Path, tmp_path: Path
) -> None:
    import shutil

    from motorvae.export.bundle import check_replaceable
    from motorvae.runtime.bundle.load import load_bundle

    bundle = Path(shutil.copytree(small_bundle, tmp_path / "bundle"))
    command = [sys.executable, "-c", ENGINES_KILLED, str(bundle)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"inside\n"
        assert [one.name for one in bundle.glob(".*")]
        load_bundle(bundle)
        process.send_signal(signal.SIGKILL)
    assert check_replaceable(bundle) == {"fp16 graphs"}
    assert [one.name for one in bundle.glob(".*")] == []
