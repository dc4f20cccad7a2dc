"""Run by itself (make jetson-wheels): which wheels a Jetson gets for each of our requirements.

pip resolves for the Jetson's Python, architecture and C library; nothing is installed. It asks
the package index, so it is no part of CI. Requirements are those of the installed motorvae.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib import metadata

from packaging.requirements import Requirement

EXTRAS = ("", "cpu", "gpu", "export", "tensorrt", "pycuda", "tensorrt-rtx")
EXPECTED_ABSENT = {"tensorrt", "tensorrt-rtx", "pycuda", "onnxruntime-gpu"}
"""TensorRT comes with JetPack, TensorRT-RTX is for desktop GPUs, and pycuda is compiled there."""


@dataclass(frozen=True)
class Jetson:
    """What a JetPack brings that decides which wheels fit."""

    title: str
    python: str
    glibc: int
    cuda: int


JETSONS = (Jetson("JetPack 6", "3.10", 35, 12), Jetson("JetPack 7", "3.12", 39, 13))


def main() -> int:
    print(f"| extra | requirement | {' | '.join(jetson.title for jetson in JETSONS)} |")
    print(f"| --- | --- |{' --- |' * len(JETSONS)}")
    missing = 0
    for extra, requirement in _requirements():
        cells = [_wheel(requirement, jetson) for jetson in JETSONS]
        if None in cells and requirement.name not in EXPECTED_ABSENT:
            missing += 1
        shown = " | ".join(cell or "no wheel" for cell in cells)
        print(f"| {extra or 'base'} | {requirement} | {shown} |", flush=True)
    return 1 if missing else 0


def _requirements() -> list[tuple[str, Requirement]]:
    """Return extra and requirement, each of them under the first extra that asks for it."""
    rows: dict[str, tuple[str, Requirement]] = {}
    for extra in EXTRAS:
        for text in metadata.requires("motorvae") or ():
            requirement = Requirement(text)
            marker, requirement.marker = requirement.marker, None
            if marker is None or (extra and marker.evaluate({"extra": extra})):
                rows.setdefault(str(requirement), (extra, requirement))
    return list(rows.values())


def _wheel(requirement: Requirement, jetson: Jetson) -> str | None:
    """Return the wheel's file name, with the number of packages that come along, or None."""
    wanted = str(requirement)
    if requirement.name == "cuda-bindings":  # each major version is for that of CUDA
        wanted += f",=={jetson.cuda}.*"
    if requirement.name == "numpy" and jetson.cuda == 12:  # as docs/jetson.md says: the system's
        wanted += ",<2"  # OpenCV there was built against NumPy 1
    platforms = [f"manylinux_2_{minor}_aarch64" for minor in range(17, jetson.glibc + 1)]
    with tempfile.TemporaryDirectory() as target:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"),
                *("install", "--dry-run", "--ignore-installed", "--only-binary=:all:"),
                *("--report=-", f"--target={target}", f"--python-version={jetson.python}"),
                *(f"--platform={platform}" for platform in ("manylinux2014_aarch64", *platforms)),
                wanted,
            ],
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        if "No matching distribution found" not in done.stderr:
            raise RuntimeError(f"pip failed on {requirement}: {done.stderr}")
        return None
    chosen = json.loads(done.stdout)["install"]
    (own,) = (item for item in chosen if item.get("requested"))
    name = str(own["download_info"]["url"]).rpartition("/")[2]
    return name if len(chosen) == 1 else f"{name} (+{len(chosen) - 1})"


if __name__ == "__main__":
    sys.exit(main())
