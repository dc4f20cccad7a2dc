"""How the repository is laid out: directions of imports, sizes, the README's tree, the wheel."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("runtime", "training", "export", "benchmarks")  # each imports from its left only
HEAVY = {
    "torch",
    "lightning",
    "onnx",
    "onnx_ir",
    "onnxscript",
    "onnxruntime",
    "matplotlib",
    "tensorboard",
    "tensorrt",
    "tensorrt_rtx",
    "pycuda",
    "cuda",
    "pyarrow",
    "zmq",
    "mcap",
    "rerun",
}
OPTIONAL = {
    "__init__",
    "backend_onnx",
    "cuda_pycuda",
    "cuda_bindings",
    "cuda_graph",
    "sink_mcap",
    "sink_parquet",
    "sink_zmq",
    "view_layout",
    "view_rerun",
}
"""Modules about one heavy package each, which only their opener imports, and package markers."""
LONGEST_FILE = 400
SOURCES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
TESTS = sorted((ROOT / "tests").rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def modules_imported(path: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of every module that a file imports anywhere, relative ones resolved."""
    package = ["motorvae", *path.relative_to(ROOT).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            base = [*start, *(node.module.split(".") if node.module else [])]
            for alias in node.names:
                yield node.lineno, ".".join([*base, alias.name])


def test_the_four_packages_are_there() -> None:
    for package in PACKAGES:
        assert (ROOT / package / "__init__.py").is_file()
        assert (ROOT / package / "py.typed").is_file()
    assert not (ROOT / "motorvae").exists()


def test_imports_point_one_way() -> None:
    wrong = []
    for path in SOURCES:
        own = PACKAGES.index(path.relative_to(ROOT).parts[0])
        for line, module in modules_imported(path):
            top, *rest = module.split(".")
            if top == "motorvae" and (not rest or PACKAGES.index(rest[0]) > own):
                wrong.append(f"{name_of(path)}:{line} imports {module}")
    assert wrong == []


def test_nothing_imports_a_package_by_its_bare_name() -> None:
    """Under `python -m pytest` that would succeed, and give a second, different class."""
    wrong = [
        f"{name_of(path)}:{line} imports {module}"
        for path in [*SOURCES, *TESTS]
        for line, module in modules_imported(path)
        if module.split(".")[0] in PACKAGES
    ]
    assert wrong == []


def test_between_packages_imports_are_relative() -> None:
    absolute = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level and node.module:
                names = [node.module]
            absolute += [name_of(path) for name in names if name.split(".")[0] == "motorvae"]
    assert absolute == []


@pytest.mark.parametrize("package", PACKAGES)
def test_importing_a_package_or_its_command_loads_nothing_heavy(package: str) -> None:
    modules = [f"motorvae.{package}", f"motorvae.{package}.cli"]
    if package == "runtime":  # whose modules are all light but the one about ONNX Runtime
        modules += [
            f"motorvae.runtime.{path.stem}"
            for path in (ROOT / "runtime").glob("*.py")
            if path.stem not in OPTIONAL
        ]
    source = (
        "import importlib, sys\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        f"print(*sorted({HEAVY!r} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stderr == ""
    assert done.stdout == "\n"


def test_no_file_is_too_long_to_read() -> None:
    lengths = {name_of(path): path.read_bytes().count(b"\n") for path in SOURCES}
    assert {name: lines for name, lines in lengths.items() if lines > LONGEST_FILE} == {}


def tree_of_readme() -> dict[str, str]:
    """Path to description, from the fenced block under the README's heading "The files"."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = re.search(r"^## The files$.*?^```\w*\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert block, "README.md needs a fenced block under '## The files'"
    tree, folder = {}, ""
    for line in block[1].splitlines():
        name, _, description = line.strip().partition(" ")
        if not line.startswith(" "):
            folder = name if name.endswith("/") else ""
        path = name if not line.startswith(" ") else folder + name
        assert path not in tree, f"README.md names {path} twice"
        tree[path] = description.strip()
    return tree


def test_the_tree_in_the_readme_is_the_one_on_disk() -> None:
    tree = tree_of_readme()
    listed = {path for path in tree if path.split("/")[0] in PACKAGES and path.endswith(".py")}
    on_disk = {name_of(path) for path in SOURCES if path.name != "__init__.py"}
    assert {"missing": on_disk - listed, "gone": listed - on_disk} == {
        "missing": set(),
        "gone": set(),
    }
    assert [path for path in tree if not (ROOT / path).exists()] == []
    assert [path for path in listed if not tree[path]] == []


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy, as building writes beside the sources."""
    pytest.importorskip("setuptools", reason="building needs setuptools in this environment")
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
    files = {name_of(path) for path in SOURCES} | {f"{package}/py.typed" for package in PACKAGES}
    assert packaged == files


def test_what_the_readme_points_at_is_there() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert links
    assert [link for link in links if "://" not in link and not (ROOT / link).is_file()] == []
