"""The structure of the source tree: directions of imports, no circles, sizes, mirrored tests."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("runtime", "training", "export", "benchmarks")  # each imports from its left only
ROOMS = (
    {"core"},
    {"bundle", "pixels", "sinks"},
    {"signing"},
    {"sources", "engines", "ood"},
    {"stream", "bulk", "doctor"},
    {"cli", "encode_cli", "signing_cli"},
)
"""The rooms of `runtime`, floor by floor: each imports from lower floors only."""
FACE = ("runtime", "api")
"""The folder of the package `motorvae` itself: it may import all four, and nothing imports it."""
MOST_MODULES = 12
LONGEST_FILE = 400
SOURCES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
TESTS = sorted((ROOT / "tests").rglob("*.py"))
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
    "ray",
    "zmq",
    "mcap",
    "rerun",
    "cryptography",
    "sklearn",
    "umap",
    "zeus",
    "pynvml",
    "mlperf_loadgen",
}
ABOUT_ONE_PACKAGE = {
    "runtime/engines/import_onnxruntime.py",
    "runtime/engines/onnx_runtime.py",
    "runtime/engines/openvino_runtime.py",
    "runtime/engines/cuda/pycuda_layer.py",
    "runtime/engines/cuda/bindings.py",
    "runtime/sinks/mcap_file.py",
    "runtime/bulk/parquet_parts.py",
    "runtime/sinks/parquet.py",
    "runtime/sinks/zeromq.py",
    "runtime/sinks/rerun_sink.py",
    "runtime/signing/ed25519.py",
}
"""Modules about one heavy package each, which only their opener imports."""


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def dotted(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    if parts[:2] == FACE:
        parts = parts[1:]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {dotted(path): path for path in SOURCES}


def modules_imported(path: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of every module that a file imports anywhere, relative ones resolved.

    A module that is named in a string, as of `python -m`, counts as imported.
    """
    folders = path.relative_to(ROOT).parts[:-1]
    package = ["motorvae", *(folders[2:] if folders[:2] == FACE else folders)]
    docstrings = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            docstrings.add(node.value)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            base = [*start, *(node.module.split(".") if node.module else [])]
            for alias in node.names:
                yield node.lineno, ".".join([*base, alias.name])
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            named = re.fullmatch(r"motorvae(\.\w+)+", node.value)
            if named and node not in docstrings:
                yield node.lineno, node.value


def edges() -> dict[str, set[str]]:
    """Module to the modules of ours that it imports, without the leading `motorvae`."""
    found: dict[str, set[str]] = {name: set() for name in MODULES}
    for name, path in MODULES.items():
        for _, target in modules_imported(path):
            parts = target.split(".")[1:] if target.startswith("motorvae.") else []
            if parts and parts[0] not in PACKAGES:
                of_face = [FACE[-1], parts[0]]
                parts = of_face if ".".join(of_face) in MODULES else []
            while parts and ".".join(parts) not in MODULES:
                parts.pop()
            if parts and ".".join(parts) != name:
                found[name].add(".".join(parts))
    return found


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Return the nodes left after all that import nothing unresolved were taken away, again."""
    left = {node: set(targets) & set(graph) for node, targets in graph.items()}
    while free := [node for node, targets in left.items() if not targets]:
        for node in free:
            del left[node]
        for targets in left.values():
            targets.difference_update(free)
    # What only imports a circle is none: take away what nobody left imports.
    while loose := [node for node in left if not any(node in targets for targets in left.values())]:
        for node in loose:
            del left[node]
    return [sorted(left)] if left else []


def room_of(module: str) -> str:
    """Return a module's sub-package, or itself where it lies in a package's own folder."""
    return ".".join(module.split(".")[:2])


def test_the_four_packages_are_there() -> None:
    for package in PACKAGES:
        assert (ROOT / package / "__init__.py").is_file()
        assert (ROOT / package / "py.typed").is_file()
    assert not (ROOT / "motorvae").exists()


def test_packages_import_one_way() -> None:
    order = (*PACKAGES, FACE[-1])
    wrong = [
        f"{name} imports {target}"
        for name, targets in edges().items()
        for target in targets
        if order.index(target.split(".")[0]) > order.index(name.split(".")[0])
    ]
    assert wrong == []


def test_the_face_is_imported_as_motorvae_and_from_outside_only() -> None:
    """A second copy of its classes would lie behind `motorvae.runtime.api`."""
    names = [name for name in MODULES if name.split(".")[0] == FACE[-1]]
    assert {"api", "api.models"} <= set(names)
    wrong = [
        f"{name_of(path)}:{line} imports {module}"
        for path in [*SOURCES, *TESTS]
        for line, module in modules_imported(path)
        if module.startswith(".".join(("motorvae", *FACE)))
    ]
    assert wrong == []


def test_rooms_of_the_runtime_import_from_lower_floors_only() -> None:
    floor_of = {room: floor for floor, rooms in enumerate(ROOMS) for room in rooms}
    wrong = []
    for name, targets in edges().items():
        for target in targets:
            if not (name.startswith("runtime.") and target.startswith("runtime.")):
                continue
            own, other = name.split(".")[1], target.split(".")[1]
            if own != other and floor_of[other] >= floor_of[own]:
                wrong.append(f"{name} imports {target}")
    assert wrong == []


def test_no_circles_of_modules() -> None:
    modules = edges()
    assert circles(modules) == []


def test_no_circles_of_rooms() -> None:
    modules = edges()
    rooms: dict[str, set[str]] = {}
    for name, targets in modules.items():
        if "." not in name:
            continue
        rooms.setdefault(room_of(name), set()).update(
            room
            for target in targets
            if "." in target and (room := room_of(target)) != room_of(name)
        )
    assert circles(rooms) == []


def test_the_circle_finder_finds_circles() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == [["b", "c"]]


def test_type_checkers_see_the_face_as_it_is_installed() -> None:
    """`.types/motorvae` holds a link to each of its modules and to the four packages."""
    links = {path.name: path.resolve() for path in (ROOT / ".types" / "motorvae").iterdir()}
    face = {path.name: path for path in ROOT.joinpath(*FACE).iterdir() if path.is_file()}
    assert links == face | {package: ROOT / package for package in PACKAGES}


def test_openers_alone_construct_backends() -> None:
    """Whatever opens a graph goes through `open_engine`, which holds its tensors to its key."""
    backends = {"OnnxBackend", "OpenVINOBackend", "TensorRTBackend"}
    found = {
        name_of(path)
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "id", None) in backends
    }
    assert found == {"runtime/engines/open.py", "runtime/engines/open_graph.py"}
    assert calls_of("open_graph") == {"runtime/engines/open.py", "runtime/engines/trial/child.py"}


def calls_of(name: str) -> set[str]:
    """Names of the sources that call something of this name."""
    return {
        name_of(path)
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and name in {getattr(node.func, "id", None), getattr(node.func, "attr", None)}
    }


def test_engines_are_loaded_where_their_origin_is_known_only() -> None:
    """An engine is a program: what loads one takes what the check, or the builder, hands on."""
    assert calls_of("deserialize_cuda_engine") == {
        "runtime/engines/tensorrt/engine.py",
        "export/tensorrt/build.py",  # of what it has just built
    }
    assert calls_of("EnginePlan") == {
        "runtime/engines/tensorrt/find.py",
        "export/tensorrt/build.py",  # as above
    }


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


def light_modules(package: str) -> list[str]:
    """Modules that must load nothing heavy: all of the runtime, and the others' commands."""
    if package == "runtime":
        chosen = [name for name, path in MODULES.items() if name_of(path) not in ABOUT_ONE_PACKAGE]
        return [f"motorvae.{name}" for name in chosen if name.startswith("runtime")]
    if package == FACE[-1]:
        return ["motorvae", "motorvae.models"]
    return [f"motorvae.{package}", f"motorvae.{package}.cli"]


@pytest.mark.parametrize("package", [*PACKAGES, FACE[-1]])
def test_importing_a_package_or_its_command_loads_nothing_heavy(package: str) -> None:
    source = (
        "import importlib, sys\n"
        f"for name in {light_modules(package)!r}: importlib.import_module(name)\n"
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


def test_no_folder_holds_too_much() -> None:
    counts: dict[str, int] = {}
    for path in SOURCES:
        folder = name_of(path.parent)
        counts[folder] = counts.get(folder, 0) + (path.name not in {"__init__.py", "__main__.py"})
    assert {folder: count for folder, count in counts.items() if count > MOST_MODULES} == {}


def test_every_package_says_what_it_is_for() -> None:
    silent = [
        name_of(path)
        for path in SOURCES
        if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert silent == []


def test_test_folders_mirror_packages() -> None:
    own = {
        "aarch64",
        "attacks",
        "faults",
        "gpu",
        "packaging",
        "soak",
        "stand_in_driver",
        "triton_server",
        "trt_api",
    }
    folders = {
        path.parent.relative_to(ROOT / "tests") for path in TESTS if path.name.startswith("test_")
    }
    strangers = [
        folder.as_posix()
        for folder in folders
        if folder.parts and folder.parts[0] not in own and not (ROOT / folder).is_dir()
    ]
    assert strangers == []


def test_what_the_readme_points_at_is_there() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert links
    assert [link for link in links if "://" not in link and not (ROOT / link).is_file()] == []


def test_no_absolute_path_of_a_machine_is_in_the_sources() -> None:
    home = os.sep + "work" + os.sep
    assert [name_of(p) for p in SOURCES if home in p.read_text(encoding="utf-8")] == []
