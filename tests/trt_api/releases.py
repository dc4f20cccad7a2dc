"""The releases of TensorRT that our code must fit, as their real Python bindings describe them.

A bindings wheel is about a megabyte and loads without TensorRT once libraries of the right names
stand beside it. Nothing can be built with that, but every name and signature is there.
"""

from __future__ import annotations

import ast
import functools
import json
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Container
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
CACHE = HERE.parents[1] / ".scratch" / "trt-api" / sys.implementation.cache_tag


@dataclass(frozen=True)
class Release:
    """One release.

    Attributes:
        title: As tests and the planted errors call it.
        requirement: The bindings wheel.
        package: What the wheel holds.
        libraries: What the bindings load, by file name.
        newest_python: The last minor version of Python 3 that the wheel exists for.
    """

    title: str
    requirement: str
    package: str
    libraries: tuple[str, ...]
    newest_python: int = 99

    @property
    def is_rtx(self) -> bool:
        return self.package.startswith("tensorrt_rtx")

    def fits(self, python: int) -> bool:
        """Whether there is a wheel for Python 3.`python`."""
        return python <= self.newest_python

    def title_in(self, titles: Container[str]) -> bool:
        """Whether it is named, by itself or, as all of TensorRT-RTX, by "rtx"."""
        return self.title in titles or self.title.partition("-")[0] in titles


def tensorrt_release(
    title: str, requirement: str, major: int, *, newest_python: int = 99
) -> Release:
    """Return a release of full TensorRT."""
    names = ("nvinfer", "nvinfer_plugin", "nvonnxparser")
    libraries = tuple(f"lib{name}.so.{major}" for name in names)
    return Release(title, requirement, "tensorrt_bindings", libraries, newest_python)


def _rtx(title: str, requirement: str) -> Release:
    libraries = ("libtensorrt_rtx.so.1", "libtensorrt_onnxparser_rtx.so.1")
    return Release(title, requirement, "tensorrt_rtx_bindings", libraries)


RELEASES = (
    # JetPack 6; JetPack 7; the newest; and of TensorRT-RTX the oldest and the newest.
    tensorrt_release("10.3", "tensorrt_cu12_bindings==10.3.0", 10, newest_python=12),
    tensorrt_release("10.16", "tensorrt_cu13_bindings==10.16.*", 10),
    tensorrt_release("11.4", "tensorrt_cu13_bindings==11.4.*", 11),
    _rtx("rtx-1.4", "tensorrt_rtx_cu13_bindings==1.4.*"),
    _rtx("rtx-1.7", "tensorrt_rtx_cu13_bindings==1.7.*"),
)


@dataclass(frozen=True)
class Bindings:
    """A release on this machine.

    Attributes:
        release: Which one.
        version: What the module says of itself.
        names: What the module, under "", and each class, under its dotted path, hold.
        stubs: A folder with a package `tensorrt` of type stubs.
    """

    release: Release
    version: str
    names: dict[str, frozenset[str]] = field(repr=False)
    stubs: Path

    def has(self, chain: str) -> bool:
        """Whether a dotted path from the module exists, as far as it leads through classes."""
        owner = ""
        for name in chain.split("."):
            if owner not in self.names:
                return True  # the attribute of a value: its type is mypy's business
            if name not in self.names[owner]:
                return False
            owner = f"{owner}.{name}".lstrip(".")
        return True

    @functools.cached_property
    def members(self) -> frozenset[str]:
        """The names of everything that instances have."""
        return frozenset().union(*(held for owner, held in self.names.items() if owner))


@functools.cache
def bindings_of(release: Release) -> Bindings:
    """Download a release's bindings once, and tell what they hold."""
    folder = CACHE / release.title
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f"{release.title}.", dir=folder.parent))
        try:
            _make(release, made)
            made.rename(folder)
        finally:
            shutil.rmtree(made, ignore_errors=True)
    said = json.loads((folder / "names.json").read_text())
    names = {owner: frozenset(held) for owner, held in said["names"].items()}
    return Bindings(release, said["version"], names, folder / "stubs")


def _make(release: Release, folder: Path) -> None:
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "download")
    _run(*pip, "--no-deps", "--only-binary=:all:", "--dest", str(folder), release.requirement)
    (wheel,) = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder)
    for library in release.libraries:
        made = folder / release.package / library
        source = HERE / "stub_library.c"
        _run("gcc", "-shared", "-fPIC", f"-Wl,-soname,{library}", str(source), "-o", str(made))
    listed = _run(sys.executable, str(HERE / "list_names.py"), release.package, path=folder)
    (folder / "names.json").write_text(listed)

    stubs = folder / "stubs"
    native = f"{release.package}.{release.package.removesuffix('_bindings')}"
    stubgen = (str(Path(sys.executable).with_name("stubgen")), "--inspect-mode", "--quiet")
    _run(*stubgen, "-o", str(stubs), "-m", release.package, "-m", native, path=folder)
    for stub in stubs.rglob("*.pyi"):
        stub.write_text(_mended(stub.read_text()))
    public = stubs / "tensorrt" / "__init__.pyi"
    public.parent.mkdir()
    public.write_text(
        f"from {release.package} import *\n"
        f"from {release.package} import __version__ as __version__\n"
    )


def _mended(stub: str) -> str:
    """Put right what generated stubs get wrong."""
    lines = ["import builtins, typing"]
    for generated in stub.splitlines():
        line = generated
        if line.startswith((" ", "def ")):
            # The module has a data type of its own called bool.
            line = re.sub(r"\bbool\b", "builtins.bool", line)
            # Newer bindings say so where older ones say int, and callbacks get an int.
            line = line.replace("typing.SupportsInt", "int")
            # The bindings turn sequences into Dims.
            line = re.sub(r": Dims(?=[,)])", ": Dims | typing.Sequence[int]", line)
        if line.lstrip().startswith("def ") and not _parses(line):
            # A parameter without a default stands after one with.
            line = re.sub(r"\(.*\)", "(*args: typing.Any, **kwargs: typing.Any)", line)
        lines.append(line)
        if line == "class IHostMemory:":
            lines.append("    def __buffer__(self, flags: int, /) -> memoryview: ...")
        if line == "class Dims:":
            lines.append("    def __iter__(self) -> typing.Iterator[int]: ...")
    return "\n".join(lines)


def _parses(line: str) -> bool:
    try:
        ast.parse(line.strip())
    except SyntaxError:
        return False
    return True


def _run(*command: str, path: Path | None = None) -> str:
    environment = None if path is None else {"PYTHONPATH": str(path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr.strip() or done.stdout}")
    return done.stdout
