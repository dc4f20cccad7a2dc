"""Engines of a bundle: where they lie, and whether one fits this machine."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from ...bundle.graph_key import (
    ENGINES,
    LEANEST_FIRST,
    OUTPUTS,
    PARTS,
    GraphKey,
    Part,
    Precision,
    Variant,
)
from ...bundle.load import Bundle
from ...bundle.manifest import GraphEntry
from ...core.documents import bytes_of_file, opened_regular
from ...core.errors import EngineError, EngineFitError, next_command, sentence_list
from ...core.system.temporaries import is_temporary
from ..gpu_info import Gpu, NoGpu
from .build_record import Int8Speed
from .engine_manifest import EngineManifest, ReadEngineManifest
from .origin import check_origin
from .package import TENSORRT_PACKAGES, TensorRTName, TensorRTPackage, import_tensorrt

_MOST_PLAN = 64 << 30


@dataclass(frozen=True, slots=True)
class EnginePlan:
    """An engine in memory that may be loaded on this GPU: it was checked, or just built here.

    Loading one runs whatever is in it, so `check_engine` and the builder alone make these, and
    `plan_from_file` for a user who vouches for it.
    """

    content: bytes
    entry: GraphEntry  # the graph that it was built from
    package: TensorRTPackage
    gpu: Gpu
    notes: tuple[str, ...] = ()  # what to know of where it comes from, a clause each
    file: str = ""  # what to call it; by default as in a bundle
    dla_core: int | None = None  # which one it was built for, if any


def unknown_in_engines(folder: Path) -> list[str]:
    """Return what lies among a bundle's engines and is neither an engine nor an engine manifest."""
    parts = (PARTS, get_args(Precision), get_args(Variant))
    ours = {
        path.name
        for names in itertools.product(*parts)
        for package in TENSORRT_PACKAGES
        for path in GraphKey(*names).engine_paths(folder, package)
    }
    place = folder / ENGINES
    if not place.is_dir():
        return [ENGINES] if place.exists() or place.is_symlink() else []
    return sorted(
        f"{ENGINES}/{path.name}"
        for path in place.iterdir()
        if not is_temporary(path.name)
        and (path.name not in ours or path.is_symlink() or not path.is_file())
    )


def graphs_for_engines(bundle: Bundle, key: GraphKey) -> tuple[GraphEntry, ...]:
    """Return the variants of a part in a precision that engines are built from, leanest first.

    Of two files of one variant the one that is made for TensorRT counts.
    """
    found: dict[Variant, GraphEntry] = {}
    for entry in bundle.manifest.graphs:
        if (entry.graph, entry.precision) == (key.part, key.precision) and (
            entry.made_for == "tensorrt" or (entry.made_for is None and entry.variant not in found)
        ):
            found[entry.variant] = entry
    return tuple(found[variant] for variant in LEANEST_FIRST if variant in found)


def graphs_with_engine(
    bundle: Bundle, key: GraphKey, package: TensorRTName
) -> tuple[GraphEntry, ...]:
    """Return those of them of which a bundle holds an engine of a package, leanest first."""
    return tuple(
        entry for entry in graphs_for_engines(bundle, key) if _is_there(bundle, entry.key, package)
    )


def precisions_with_engine(
    bundle: Bundle, part: Part, package: TensorRTName
) -> tuple[Precision, ...]:
    """Return in which precisions a bundle holds any engine of a package.

    FP16 comes first: who asks for none by name gets it.
    """
    precisions: tuple[Precision, ...] = ("fp16", "int8", "fp32")
    return tuple(
        precision
        for precision in precisions
        if any(
            _is_there(bundle, GraphKey(part, precision, variant), package)
            for variant in get_args(Variant)
        )
    )


def leanest_engine(
    bundle: Bundle, key: GraphKey, package: TensorRTName, outputs: Sequence[str] = ()
) -> GraphEntry:
    """Return the graph of a part in a precision whose engine does least and gives these outputs.

    By default these are all that the part can give. An EngineFitError where there is none.
    """
    for entry in graphs_with_engine(bundle, key, package):
        if entry.gives(outputs):
            return entry
    raise EngineFitError(
        f"{bundle.folder} has no {key.engine_file(package)}, nor one like it that gives "
        f"{sentence_list(outputs or OUTPUTS[key.part])}: {_again(bundle, key.precision, package)}"
    )


def slower_int8(
    bundle: Bundle, part: Part, package: TensorRTPackage, gpu: Gpu, outputs: Sequence[str] = ()
) -> Int8Speed | None:
    """Return the measurement by which INT8 is not the faster one of a part here, where there is.

    It is about the INT8 graph that would run for these outputs, and lies in the engine manifests of
    both precisions, of which the slower one's engine may be gone. One that was taken on another GPU
    or by another version of the package says nothing of this machine, and none of another graph.
    """
    wanted = outputs or OUTPUTS[part]
    graphs = graphs_for_engines(bundle, GraphKey(part, "int8", target="tensorrt"))
    int8 = next((entry for entry in graphs if entry.gives(wanted)), None)
    if int8 is None:
        return None
    for precision in ("int8", "fp16"):
        for entry in graphs_with_engine(bundle, GraphKey(part, precision), package.name):
            with contextlib.suppress(EngineFitError):  # what is wrong with it is said elsewhere
                manifest = engine_manifest_of(bundle, entry, package.name).manifest
                if manifest.gpu != gpu.name or manifest.mismatch(package, gpu, entry.sha256):
                    continue
                for speed in manifest.int8_speed:
                    is_of_it = (speed.int8, speed.int8_sha256) == (int8.variant, int8.sha256)
                    if is_of_it and speed.is_slower:
                        return speed
    return None


def usable_package(name: TensorRTName, gpu: Gpu | NoGpu) -> tuple[TensorRTPackage, Gpu]:
    """Import a package; raise EngineError where there is no GPU, or one that it does not run on."""
    if isinstance(gpu, NoGpu):
        raise EngineError(
            f"{gpu.reason}; run it on the machine with the GPU, or use --backend onnx"
        )
    package = import_tensorrt(name)
    if objection := package.objection_to(gpu):
        raise EngineError(objection, fix="use --backend tensorrt or onnx")
    return package, gpu


def check_engine(
    bundle: Bundle,
    entry: GraphEntry,
    package: TensorRTPackage,
    gpu: Gpu,
    *,
    trust: bool = False,
) -> tuple[EngineManifest, EnginePlan]:
    """Make sure that a graph's engine is whole, and built for and by this machine, before it loads.

    One for another machine ends in a cryptic error at best and in a crash at worst, and one by
    another machine in whatever its maker likes, unless with `trust` that is accepted. Returned are
    the engine manifest, and the engine with the very bytes that were checked. An EngineFitError
    where it is absent, altered, of unknown origin, or for another machine, version or graph; an
    EngineError where nothing can be said of its origin.
    """
    try:
        read = engine_manifest_of(bundle, entry, package.name)
        _check_fit(read, entry, package, gpu)
        try:
            notes = check_origin(bundle, read)
        except EngineError as error:
            if not trust:
                raise
            notes = (f"{error}, and runs as --trust was given",)
        plan = engine_of(read)
    except EngineFitError as error:
        again = _again(bundle, entry.precision, package.name)
        raise EngineFitError(f"{error}: {again}") from error
    placed = read.manifest.precision_report.dla
    if placed is not None:
        notes = (*notes, placed.sentence)
    core = placed.core if placed else None
    return read.manifest, EnginePlan(plan, entry, package, gpu, notes, dla_core=core)


def plan_from_file(
    path: Path, precision: Precision, package: TensorRTPackage, gpu: Gpu
) -> EnginePlan:
    """Read an engine of which nothing else is known; whoever calls this was told to trust it."""
    again = "name a TensorRT engine"
    content = bytes_of_file(path, most_bytes=_MOST_PLAN, error=EngineFitError, again=again)
    entry = GraphEntry(
        graph="encoder",
        precision=precision,
        file=path.name,
        sha256=hashlib.sha256(content).hexdigest(),
        size_bytes=len(content),
        opset=0,
        inputs=(),
        outputs=(),
    )
    return EnginePlan(content, entry, package, gpu, file=str(path))


def engine_manifest_of(
    bundle: Bundle, entry: GraphEntry, package: TensorRTName
) -> ReadEngineManifest:
    """Read the engine manifest of a graph; an EngineFitError where it is absent or another's."""
    key = entry.key.for_any
    engine, path = key.engine_paths(bundle.folder, package)
    for one in (engine, path):
        if not one.is_file():
            raise EngineFitError(f"{one.parent.parent} has no {one.name}")
    read = ReadEngineManifest.of(path)
    if (read.manifest.key, read.manifest.package) != (key, package):
        found = f"{read.manifest.key.title} {read.manifest.package}"
        raise EngineFitError(f"{path} describes {found}")
    return read


def engine_of(read: ReadEngineManifest) -> bytes:
    """Read the engine that an engine manifest is of, once; an EngineFitError where it is altered.

    What is returned is what was hashed.
    """
    path, said = read.path.with_suffix(".engine"), read.manifest.engine
    again = "copy the bundle again"
    with opened_regular(path, most_bytes=None, error=EngineFitError, again=again) as file:
        found_bytes = file.seek(0, os.SEEK_END)
    if found_bytes != said.size_bytes:
        raise EngineFitError(
            f"{path} has {found_bytes} bytes, and its engine manifest says {said.size_bytes}"
        )
    plan = bytes_of_file(path, most_bytes=said.size_bytes, error=EngineFitError, again=again)
    if hashlib.sha256(plan).hexdigest() != said.sha256:
        raise EngineFitError(f"{path} was altered after it was built")
    return plan


def _check_fit(
    read: ReadEngineManifest, entry: GraphEntry, package: TensorRTPackage, gpu: Gpu
) -> None:
    if problem := read.manifest.mismatch(package, gpu, entry.sha256):
        raise EngineFitError(problem)
    if problem := read.manifest.precision_report.problem_with(entry.precision):
        file = read.path.with_suffix(".engine").name
        raise EngineFitError(f"{file} is not {entry.precision}: {problem}")


def _is_there(bundle: Bundle, key: GraphKey, package: TensorRTName) -> bool:
    return any(path.exists() for path in key.engine_paths(bundle.folder, package))


def _again(bundle: Bundle, precision: Precision, package: TensorRTName) -> str:
    flags = [] if precision == "fp32" else [f"--{precision}"]
    command = next_command("motorvae-export", "--model", bundle.folder, "--engine", package, *flags)
    return f"run {command} here, or add --rebuild"
