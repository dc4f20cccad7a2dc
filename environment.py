"""Installs this checkout with some extras into a virtual environment: what the Makefile runs.

    python environment.py .venv --extras cpu,train [--also PACKAGE ...] [--system-packages]

With --system-packages the environment sees the packages of the Python that makes it, and they stay
what they are: pip adds what is missing, of whichever version goes with them.

Only the standard library, as it runs before anything is installed. It runs twice: by the Python
that the user has, which makes the environment, and then by the environment's own, whose pip
knows which requirements apply there.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.metadata
import itertools
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent
INSTALLING = ".installing"
"""A file in an environment while pip changes it; whoever finds it knows that pip was killed."""
OPENCV, HEADLESS = "opencv-python", "opencv-python-headless"
OPENCV_LIBRARIES = ("libGL.so.1", "libgthread-2.0.so.0")
"""What opencv-python's wheels for Linux take from the system; the headless ones take nothing."""


def make_environment(folder: Path, *, system_packages: bool = False) -> Path:
    """Return the Python of a virtual environment, which is made, or made anew if it is broken.

    What is there is kept, whoever made it: pip, and where that is missing venv, adds what it
    lacks. Only an environment that pip was killed in is emptied first.

    Raises:
        SystemExit: `venv` failed; it has said why.
    """
    python = folder / "bin" / "python"
    interrupted = (folder / INSTALLING).exists()
    if folder.exists() and not interrupted and _has_pip(python):
        return python
    if interrupted:
        print(f"an earlier installation into {folder} was interrupted: making it anew", flush=True)
    else:
        print(f"making {folder} with Python {sys.version.split()[0]}", flush=True)
    clear = ["--clear"] if interrupted else []
    seeing = ["--system-site-packages"] if system_packages else []
    _run([sys.executable, "-m", "venv", *clear, *seeing, str(folder)])
    return python


def install(
    folder: Path, extras: Sequence[str], also: Sequence[str], *, system_packages: bool = False
) -> None:
    """Install this checkout, editable, and what the extras need; run by the environment's Python.

    Args:
        folder: The environment.
        extras: Names of extras in pyproject.toml.
        also: Further packages.
        system_packages: Whether it sees the system's packages, which no constraint may replace.

    Raises:
        SystemExit: pip failed, which has said why, or OpenCV does not load.
    """
    marker = folder / INSTALLING
    marker.touch()
    needed = requirements(extras)
    headless = wants_headless()
    if headless:
        needed = [headless if _name(text) == OPENCV else text for text in needed]
        if has_package(OPENCV):  # both unpack into the folder cv2
            _pip(marker, "uninstall", "--yes", OPENCV)
    constraint = [] if system_packages else ["--constraint", str(ROOT / "constraints.txt")]
    _pip(marker, "install", *constraint, *needed, *also)
    # Itself last and alone: pip would bring opencv-python back, or call its absence an error.
    _pip(marker, "install", "--no-deps", "--editable", str(ROOT))
    marker.unlink()
    if subprocess.run([sys.executable, "-c", "import cv2"], check=False).returncode:
        raise SystemExit("OpenCV does not load; the error is above: make clean, then try again")


def requirements(extras: Sequence[str]) -> list[str]:
    """Return what pyproject.toml asks for here with some extras, without environment markers.

    Raises:
        SystemExit: There is no such extra.
    """
    # pip brings both, and nothing else is there yet.
    from pip._vendor.packaging.requirements import Requirement  # noqa: PLC0415

    try:
        import tomllib  # noqa: PLC0415  # since Python 3.11
    except ModuleNotFoundError:
        from pip._vendor import tomli as tomllib  # noqa: PLC0415

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    optional = project["optional-dependencies"]
    if unknown := set(extras) - set(optional):
        raise SystemExit(f"pyproject.toml has no extra {', '.join(sorted(unknown))}")
    found = []
    for text in itertools.chain(project["dependencies"], *(optional[extra] for extra in extras)):
        requirement = Requirement(text)
        marker, requirement.marker = requirement.marker, None
        if marker is None or marker.evaluate():
            found.append(str(requirement))
    return list(dict.fromkeys(found))


def wants_headless(libraries: Sequence[str] = OPENCV_LIBRARIES) -> str | None:
    """Return the requirement that stands in for opencv-python where that would not load, or None.

    It asks for the version that is installed, of either, so that a later step changes nothing.
    """
    if has_package(HEADLESS):
        return f"{HEADLESS}=={importlib.metadata.version(HEADLESS)}"
    missing = list(missing_libraries(libraries))
    if not missing:
        return None
    bounds = next(t for t in requirements(()) if _name(t) == OPENCV)[len(OPENCV) :]
    if has_package(OPENCV):
        bounds = f"=={importlib.metadata.version(OPENCV)}"
    print(
        f"this system has no {' and no '.join(missing)}, which opencv-python needs: "
        f"{HEADLESS} of the same version takes its place in this environment",
        flush=True,
    )
    return HEADLESS + bounds


def missing_libraries(libraries: Sequence[str]) -> Iterator[str]:
    """Yield the shared libraries that the system's loader does not find."""
    for library in libraries if sys.platform == "linux" else ():
        try:
            ctypes.CDLL(library)
        except OSError:  # noqa: PERF203  # two turns
            yield library


def has_package(package: str) -> bool:
    """Return whether a distribution of this name is installed."""
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _name(requirement: str) -> str:
    return requirement.partition(">")[0].partition("=")[0].strip()


def _has_pip(python: Path) -> bool:
    try:
        done = subprocess.run([python, "-m", "pip", "--version"], capture_output=True, check=False)
    except OSError:
        return False
    return done.returncode == 0


def _pip(marker: Path, *arguments: str) -> None:
    """Run pip, whose own lines are the progress; an error of it leaves whole packages."""
    command = [sys.executable, "-m", "pip", *arguments]
    code = subprocess.run([*command, "--disable-pip-version-check"], check=False).returncode
    if code > 0:
        marker.unlink()
    if code:
        raise SystemExit(code if code > 0 else 1)


def _run(command: Sequence[str]) -> None:
    if code := subprocess.run(command, check=False).returncode:
        raise SystemExit(code)


def main() -> None:
    """Make or complete an environment."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--extras", default="")
    parser.add_argument("--also", nargs="*", default=[])
    parser.add_argument("--system-packages", action="store_true")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        extras = [extra for extra in options.extras.split(",") if extra]
        install(options.folder, extras, options.also, system_packages=options.system_packages)
        return
    python = make_environment(options.folder, system_packages=options.system_packages)
    try:
        _run([str(python), str(Path(__file__).resolve()), *sys.argv[1:], "--inside"])
    except KeyboardInterrupt:
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
