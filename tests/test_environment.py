"""The set-up of the Makefile: which Python it takes, and what environment.py makes."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
# pip's own import of setuptools objects to a distutils that another test's package has loaded;
# environment.py runs in a process of its own.
pytestmark = pytest.mark.filterwarnings("ignore:Setuptools is replacing distutils:UserWarning")


@pytest.fixture(scope="module")
def environment() -> ModuleType:
    spec = importlib.util.spec_from_file_location("environment", ROOT / "environment.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("make") is None:
        pytest.skip("needs make")
    inherited = {k: v for k, v in os.environ.items() if k not in {"MAKEFLAGS", "MAKELEVEL"}}
    return subprocess.run(
        ["make", "--no-print-directory", f"VENV={folder / 'venv'}", *args],
        cwd=ROOT,
        env=inherited,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def python_that(folder: Path, script: str) -> Path:
    """Write a stand-in for an interpreter that is not on this machine."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


WITHOUT_ENSUREPIP = """
[ "$1" = -c ] && exec {python} -c "import sys; sys.modules['ensurepip'] = None
$2"
exec {python} "$@"
"""
OF_VERSION = """
[ "$1" = -c ] && exec {python} -c "import sys; sys.version_info = ({major}, {minor}, 1)
$2"
"""


@pytest.mark.parametrize(("major", "minor"), [(3, 9), (3, 14), (2, 7)])
def test_a_python_of_another_time_is_named_with_what_to_set(
    major: int, minor: int, tmp_path: Path
) -> None:
    script = OF_VERSION.format(python=sys.executable, major=major, minor=minor)
    python = python_that(tmp_path, script)
    done = make(tmp_path, "demo", f"PYTHON={python}")
    assert done.returncode != 0
    assert done.stderr.splitlines()[0] == (
        f"{python} is Python {major}.{minor}, and motorVAE needs Python 3.10 to 3.13: "
        "make demo PYTHON=python3.12"
    )
    assert not (tmp_path / "venv").exists()


@pytest.mark.parametrize("script", ["exit 0", "cat", "echo 3.11", "exit 1"])
def test_what_is_no_python_is_named(script: str, tmp_path: Path) -> None:
    python = python_that(tmp_path, script)
    done = make(tmp_path, "demo", f"PYTHON={python}")
    assert done.returncode != 0
    line = f"{python} is not a Python that runs: make demo PYTHON=python3.12"
    assert done.stderr.splitlines()[0] == line
    assert not (tmp_path / "venv").exists()


def test_a_python_that_is_not_there_is_named(tmp_path: Path) -> None:
    done = make(tmp_path, "test", "PYTHON=python3.99")
    assert done.returncode != 0
    assert done.stderr.splitlines()[0] == (
        "python3.99 is not installed: apt-get install python3 python3-venv, or name another: "
        "make test PYTHON=python3.12"
    )
    assert not (tmp_path / "venv").exists()


def test_a_python_without_venv_names_the_package(tmp_path: Path) -> None:
    python = python_that(tmp_path, WITHOUT_ENSUREPIP.format(python=sys.executable))
    done = make(tmp_path, "demo", f"PYTHON={python}")
    assert done.returncode != 0
    assert done.stderr.splitlines()[0].startswith(
        f"{python} cannot make a virtual environment: apt-get install python3-venv, or name another"
    )
    assert not (tmp_path / "venv").exists()


@pytest.mark.parametrize(
    ("given", "flags"),
    [
        ([], ""),
        (["DEMO_MINUTES=3"], "--minutes 3"),
        (["DEMO_MINUTES=3", "DEMO_SEED=7"], "--minutes 3 --seed 7"),
    ],
)
def test_the_demo_gets_only_the_flags_that_are_set(
    given: list[str], flags: str, tmp_path: Path
) -> None:
    done = make(tmp_path, "--dry-run", "demo", f"PYTHON={sys.executable}", *given)
    lines = [line for line in done.stdout.splitlines() if "motorvae.benchmarks.demo" in line]
    (line,) = lines
    assert line.split("motorvae.benchmarks.demo")[1].split() == flags.split()


def test_an_interrupted_installation_is_made_anew_and_a_whole_one_is_kept(
    environment: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "venv"
    python = environment.make_environment(folder)
    assert subprocess.run([python, "-m", "pip", "--version"], check=False).returncode == 0
    half = folder / "half-unpacked"
    half.touch()
    assert environment.make_environment(folder) == python
    assert half.exists()
    capsys.readouterr()
    (folder / environment.INSTALLING).touch()
    environment.make_environment(folder)
    assert not half.exists()
    assert "was interrupted: making it anew" in capsys.readouterr().out


def test_an_environment_without_pip_gets_it_and_keeps_what_is_in_it(
    environment: ModuleType, tmp_path: Path
) -> None:
    folder = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (folder / "mine.txt").write_text("kept", encoding="utf-8")
    python = environment.make_environment(folder)
    assert (folder / "mine.txt").read_text(encoding="utf-8") == "kept"
    assert subprocess.run([python, "-m", "pip", "--version"], check=False).returncode == 0


def test_pip_that_fails_leaves_no_mark_and_one_that_was_killed_does(
    environment: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = tmp_path / environment.INSTALLING
    marker.touch()
    with pytest.raises(SystemExit):
        environment._pip(marker, "no-such-command")
    assert not marker.exists()
    marker.touch()
    monkeypatch.setattr(sys, "executable", str(python_that(tmp_path, "kill -KILL $$")))
    with pytest.raises(SystemExit):
        environment._pip(marker, "install", "x")
    assert marker.exists()


def test_a_system_without_the_libraries_gets_the_headless_opencv_of_the_same_version(
    environment: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    if not environment.has_package("opencv-python"):
        pytest.skip("this environment has another OpenCV")
    version = importlib.metadata.version("opencv-python")
    found = environment.wants_headless(("libnone-of-this.so.1", "libc.so.6"))
    assert found == f"opencv-python-headless=={version}"
    assert capsys.readouterr().out == (
        "this system has no libnone-of-this.so.1, which opencv-python needs: "
        "opencv-python-headless of the same version takes its place in this environment\n"
    )
    assert environment.wants_headless(("libc.so.6",)) is None


def test_a_headless_opencv_stays_in_the_second_step(
    environment: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The metadata asks for opencv-python, which pip would bring back."""
    monkeypatch.setattr(environment, "has_package", lambda name: name == environment.HEADLESS)
    monkeypatch.setattr(environment.importlib.metadata, "version", lambda _name: "4.9.0.80")
    assert environment.wants_headless(("libc.so.6",)) == "opencv-python-headless==4.9.0.80"


def test_an_environment_that_sees_the_systems_packages_constrains_none_of_them(
    environment: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A torch for this GPU, or JetPack's NumPy, must stay what it is."""
    folder = tmp_path / "venv"
    environment.make_environment(folder, system_packages=True)
    config = (folder / "pyvenv.cfg").read_text(encoding="utf-8")
    assert "include-system-site-packages = true" in config
    called: list[tuple[str, ...]] = []
    monkeypatch.setattr(environment, "_pip", lambda _marker, *words: called.append(words))
    environment.install(folder, ["bench"], ["pytest"], system_packages=True)
    (folder / environment.INSTALLING).touch()
    environment.install(folder, ["bench"], ["pytest"])
    with_system, own = (words for words in called if "pytest" in words)
    assert "--constraint" not in with_system
    assert "--constraint" in own


@pytest.mark.parametrize(
    ("args", "python", "makes"),
    [
        ((), ".venv-gpu/bin/python", "--extras export,bench,energy"),
        (
            ("GPU_EXTRAS=gpu,train",),
            ".venv-gpu/bin/python",
            "--extras export,bench,energy,gpu,train",
        ),
        (("GPU_PYTHON=/opt/python3",), "/opt/python3", None),
    ],
)
def test_the_proof_on_a_gpu_installs_nothing_large_unless_it_is_named(
    args: tuple[str, ...], python: str, makes: str | None, tmp_path: Path
) -> None:
    done = make(tmp_path, "-n", "-W", "pyproject.toml", "gpu-proof", *args, "GPU_FLAGS=--list")
    assert done.stdout.splitlines()[-1] == f"'{python}' -m motorvae.benchmarks.proof --list"
    if makes is None:
        assert "environment.py" not in done.stdout
    else:
        assert f"{makes}\n" in done.stdout
        assert "--system-packages" in done.stdout


def test_requirements_are_those_of_the_extras_that_apply_here(environment: ModuleType) -> None:
    base = environment.requirements(())
    with_outputs = environment.requirements(("zmq", "cpu"))
    assert "numpy>=1.26" in base
    assert set(with_outputs) - set(base) == {"pyzmq>=25.1.1", "onnxruntime>=1.20"}
    with pytest.raises(SystemExit, match="no extra nonsense"):
        environment.requirements(("nonsense",))


def test_the_demo_imports_nothing_but_what_its_step_installs(tmp_path: Path) -> None:
    """What the second step adds is made impossible to import, in every process of the demo."""
    for absent in ("openvino", "tensorrt", "tensorrt_rtx", "pyarrow", "zmq", "mcap", "rerun"):
        (tmp_path / f"{absent}.py").write_text(
            f"raise ImportError('{absent} is not for the demo')\n", encoding="utf-8"
        )
    code = (
        "import motorvae.benchmarks.demo.cli, motorvae.benchmarks.demo.report,"
        "motorvae.training.train,"
        "motorvae.training.cli, motorvae.export.cli, motorvae.export.bundle, motorvae.runtime.cli,"
        "motorvae.runtime.stream.run, motorvae.runtime.engines.onnx_runtime"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
