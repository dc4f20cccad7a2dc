"""A proof on a machine that is reached by files alone: pack a folder here, run it there.

    python tests/gpu/carry.py pack FOLDER [--python 3.12] [--packages NAME ...] [--no-wheels]
    python3 FOLDER/carry.py prove [options of python -m motorvae.benchmarks.proof]

The folder holds the committed source, motorVAE as a wheel, and the wheels of other packages, which
there come before the machine's own, except for NumPy, on which its torch and OpenCV were built.
Nothing is fetched there, and nothing is installed outside of the folder. Only the standard library,
as it runs before anything is there.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent  # of the checkout; nothing of the kind beside a packed folder
SOURCE, WHEELS, SITE, COMMIT = "source", "wheels", "site", ".commit"
ARCHIVE = "source.tar"
PACKAGES = (
    *("pydantic", "tyro", "rich", "orjson", "typing-extensions", "docstring-parser", "av"),
    *("simplejpeg", "pillow", "pillow-heif", "onnx-ir", "onnxscript", "jinja2", "psutil"),
    *("matplotlib", "cuda-bindings", "pytest", "pytest-timeout"),
)
"""What is small, with what it needs. NumPy, OpenCV, torch, ONNX Runtime and TensorRT are taken
from the machine; name them in --packages where it lacks them."""
PLATFORMS = ("manylinux_2_28_{}", "manylinux_2_27_{}", "manylinux_2_17_{}", "manylinux2014_{}")


def pack(options: argparse.Namespace) -> None:
    """Write the folder; what it held before is replaced."""
    folder: Path = options.folder.resolve()
    if folder.exists() and not (folder / ARCHIVE).exists() and any(folder.iterdir()):
        sys.exit(f"{folder} is not empty, and not made by this script: name another folder")
    commit = _said("git", "rev-parse", "HEAD")
    if _said("git", "status", "--porcelain", "--untracked-files=no"):
        sys.exit(
            "there are changes that are not committed: commit them, as the proof names a commit"
        )
    shutil.rmtree(folder, ignore_errors=True)
    (folder / WHEELS).mkdir(parents=True)
    _run("git", "archive", "--format=tar", "-o", str(folder / ARCHIVE), commit, folder=ROOT)
    (folder / COMMIT).write_text(f"{commit}\n", encoding="utf-8")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    wheels = str(folder / WHEELS)
    _run(*pip, "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", wheels, str(ROOT))
    if not options.no_wheels:
        platforms = [f"--platform={one.format(options.machine)}" for one in PLATFORMS]
        _run(
            *(*pip, "download", "-q", "--only-binary=:all:", f"--python-version={options.python}"),
            *(*platforms, "-d", wheels, *options.packages),
        )
    shutil.copy(Path(__file__), folder)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"{folder}: {size / 2**20:.0f} MiB, commit {commit[:12]}; carry it, and run there:")
    print(f"python3 {folder.name}/{Path(__file__).name} prove --output proof")


def prove(arguments: list[str]) -> int:
    """Unpack what is beside this file, once, and run the proof with it; return its exit code."""
    source, site = HERE / SOURCE, HERE / SITE
    if not source.exists() and not (HERE / ARCHIVE).exists():
        sys.exit(f"{HERE} holds no {ARCHIVE}: pack a folder first, and run the carry.py in it")
    if not source.exists():
        with tarfile.open(HERE / ARCHIVE) as archive:
            archive.extractall(HERE / "unpacked", filter="data")
        shutil.copy(HERE / COMMIT, HERE / "unpacked" / COMMIT)
        (HERE / "unpacked").rename(source)
    if not site.exists():
        wanted = [str(path) for path in sorted((HERE / WHEELS).glob("*.whl")) if _is_wanted(path)]
        new = HERE / "installing"
        shutil.rmtree(new, ignore_errors=True)
        pip = (sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps")
        _run(*pip, "--disable-pip-version-check", "--target", str(new), *wanted)
        new.rename(site)
    paths = [str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    # Not -m: that would put the working directory first, on Pythons without -P.
    code = (
        "import sys; sys.path[:1] == [''] and sys.path.pop(0); "
        "from motorvae.benchmarks.proof.cli import main; sys.exit(main())"
    )
    command = [sys.executable, "-c", code, "run", "--checkout", str(source), *arguments]
    return subprocess.run(command, env=environment, check=False).returncode


def _is_wanted(wheel: Path) -> bool:
    """Return whether a wheel is to be used: NumPy's only where the machine's Python has none."""
    name = re.sub(r"[-_.]+", "-", wheel.name.split("-")[0]).lower()
    if name != "numpy":
        return True
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return True
    return False


def _said(*command: str) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout.strip()


def _run(*command: str, folder: Path = HERE) -> None:
    if subprocess.run(command, cwd=folder, check=False).returncode:
        sys.exit(f"failed: {' '.join(command)[:300]}")


def main() -> int:
    """Pack, or prove."""
    if sys.argv[1:2] == ["prove"]:
        return prove(sys.argv[2:])
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=["pack"], help="or prove, on the other machine")
    parser.add_argument("folder", type=Path, help="what to make; an earlier one is replaced")
    parser.add_argument("--python", default="3.12", help="that machine's")
    parser.add_argument("--machine", default="x86_64", help="that machine's, or aarch64")
    parser.add_argument("--packages", nargs="*", default=PACKAGES, help="instead of the small ones")
    parser.add_argument("--no-wheels", action="store_true", help="that machine has all of them")
    pack(parser.parse_args())
    return 0


if __name__ == "__main__":
    sys.exit(main())
