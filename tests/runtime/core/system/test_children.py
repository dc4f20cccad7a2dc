"""Planted packages in the working directory, which no process of ours may run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from motorvae.runtime.core.system import children
from motorvae.runtime.core.system.children import processor_s, python_code, python_module

PLANTED = (
    "tensorrt/__init__.py",
    "json.py",
    "numpy/__init__.py",
    "runpy.py",
    "orjson.py",
    "cv2.py",
)


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    """A working directory in which each of these would leave a file."""
    folder = tmp_path / "work"
    for name in PLANTED:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("open(__file__ + '.ran', 'w')\nraise SystemExit('planted')\n")
    return folder


def run(command: list[str], cwd: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert [path.name for path in cwd.rglob("*.ran")] == []
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_module_and_code_run_without_the_working_directory(planted: Path) -> None:
    assert run(python_module("calendar", "2026", "1"), planted).strip().startswith("January 2026")
    code = "import json, sys; print(json.dumps(sys.argv[1:]))"
    assert run(python_code(code, "a", "-b"), planted) == '["a", "-b"]\n'


@pytest.mark.parametrize("version", ["3.10", "3.12"])
def test_other_pythons_do_so_too(
    planted: Path, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`-P` and PYTHONSAFEPATH are not known to 3.10."""
    found = [
        shutil.which(f"python{version}") or "",
        *Path.home().glob(f".pyenv/versions/{version}.*/bin/python"),
    ]
    for python in filter(None, map(str, found)):
        if subprocess.run([python, "--version"], capture_output=True, check=False).returncode == 0:
            monkeypatch.setattr(children.sys, "executable", python)
            assert run(python_module("calendar", "2026", "1"), planted).strip()[:7] == "January"
            assert run(python_code("import json; print(json.__file__)"), planted)
            return
    pytest.skip(f"no Python {version} here")


def test_doctor_and_module_import_nothing_planted(planted: Path) -> None:
    assert "motorvae" in run([sys.executable, "-m", "motorvae", "--version"], planted / "tensorrt")
    script = str(Path(sys.executable).with_name("motorvae-doctor"))
    done = subprocess.run([script, "--json"], cwd=planted, capture_output=True, check=False)
    assert done.stdout.startswith(b"{"), done.stderr
    assert [path.name for path in planted.rglob("*.ran")] == []


def test_the_command_imports_nothing_from_there(tmp_path: Path) -> None:
    """Python itself looks there for runpy and what that needs, before any of ours runs."""
    by_python = {"runpy", "importlib", "io", "os", "pkgutil", "sys", "types", "typing", "warnings"}
    for name in {*sys.stdlib_module_names} - by_python:
        (tmp_path / f"{name}.py").write_text("open(__file__ + '.ran', 'w')\nraise SystemExit(9)\n")
    assert "motorvae" in run([sys.executable, "-m", "motorvae", "--version"], tmp_path)


def test_a_child_that_has_ended_keeps_its_time() -> None:
    """As where an import has started a compiler."""
    burn = "import time\nwhile time.process_time() < 0.5:\n    pass"
    code = f"""
import subprocess, sys
subprocess.run([sys.executable, "-c", {burn!r}])
print("ended", flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        python_code(code), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ended\n"
        had_s = processor_s(process.pid)
        process.communicate("", timeout=60)
    assert had_s >= 0.4
