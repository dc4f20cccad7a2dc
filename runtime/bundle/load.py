"""The bundle: what its manifest says, and reading one without trusting it."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..core.documents import MOST_ARRAYS, document_from_json, opened_regular
from ..core.errors import BundleError, next_command, sentence_list
from ..core.spec import ModelSpec
from .graph_check import budget_of, check_graph
from .graph_key import ENGINES, LEANEST_FIRST, GraphKey
from .manifest import MANIFEST, WEIGHTS, FileEntry, GraphEntry, Manifest
from .weights import whole_graph

_EXPORT_AGAIN = "export the bundle again"
_COPY_AGAIN = "copy the bundle again, or export it again"
_NOT_OURS = "do not use a bundle that you do not know, and export your own again"
_FOR_ENGINES = {".onnx", ".ort", ".data", ".bin", ".xml", ".pb", ".engine", ".plan", ".trt", ".so"}
"""Suffixes of what an engine would open, or load beside what it opens."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle whose files are all there."""

    folder: Path
    manifest: Manifest
    unread: set[str] = field(default_factory=set, compare=False)  # files not hashed yet

    @property
    def spec(self) -> ModelSpec:
        """The sizes of the model, and how frames are fitted to it."""
        return self.manifest.model

    def entry(self, key: GraphKey) -> GraphEntry:
        """Return one graph's entry, or raise a BundleError that names those that there are."""
        for entry in self.manifest.graphs:
            if entry.key == key:
                return entry
        raise self._lacks(key)

    def leanest(
        self, key: GraphKey, outputs: Iterable[str] = (), *, on_cpu: bool = True
    ) -> GraphEntry:
        """Return the variant of a graph that does least and gives `outputs`, by default all.

        The target of `key` is the engine that is to run it. Of two forms of one variant it is on a
        CPU the one that is made for that engine, as such forms were timed there (x86-64 alone), and
        elsewhere the one that is made for all. A BundleError names the graphs that there are where
        none fits.
        """
        fitting = [
            entry
            for entry in self.manifest.graphs
            if (entry.graph, entry.precision) == (key.part, key.precision)
            and entry.made_for in {None, key.target}
            and entry.frame is None
            and entry.gives(outputs)
        ]
        if not fitting:
            raise self._lacks(replace(key, variant="full"))
        return min(
            fitting,
            key=lambda one: (LEANEST_FIRST.index(one.variant), (one.made_for is None) == on_cpu),
        )

    def verified_in(self, entry: GraphEntry, engine: str) -> bool:
        """Whether a graph passed verification in an engine whose name begins so."""
        return any(
            report.title == entry.title and report.engine.startswith(engine)
            for report in self.manifest.verification
        )

    def path(self, entry: FileEntry) -> Path:
        """Return where a file lies, once it is safe to open.

        That of a graph may keep its weights in `weights.bin`: `content` has all of it. A
        BundleError where it was altered, cannot be read, or is a graph that is none of ours.
        """
        if entry.file in self.unread:
            self._checked(entry)
        return self.folder / entry.file

    def content(self, entry: GraphEntry) -> bytes:
        """Return a whole graph's bytes, which were read once and are safe to open, as of `path`.

        All weights are inside, wherever they lie. Whoever opened the file after it was checked
        would trust who can write it in between.
        """
        return self._checked(entry)

    def _checked(self, entry: FileEntry) -> bytes:
        """Read a file and check it; return its bytes where it is a graph."""
        path = self.folder / entry.file
        graphs = [graph for graph in self.manifest.graphs if graph.file == entry.file]
        stored, again = entry.on_disk, _COPY_AGAIN
        most = stored.size_bytes
        with opened_regular(path, most_bytes=most, error=BundleError, again=again) as file:
            try:
                # Not read again in between: what has the hash is what is looked into.
                data = file.read(most) if graphs else b""
                digest = hashlib.sha256(data)
                while block := file.read(1 << 20):
                    digest.update(block)
            except (OSError, MemoryError) as error:
                raise _unreadable(self.folder, entry.file, error) from error
        if (found := digest.hexdigest()) != stored.sha256:
            raise _altered(path, found, stored)
        if graphs and graphs[0].stored is not None:
            data = self._made_whole(path, data, graphs[0])
        for graph in graphs:
            self._check_graph(path, data, graph)
        self.unread.discard(entry.file)
        return data

    def _made_whole(self, path: Path, data: bytes, graph: GraphEntry) -> bytes:
        """Return a graph with the weights that lie elsewhere, once they are the right ones."""
        try:
            data = whole_graph(data, self.folder, graph.size_bytes)
        except MemoryError as error:
            raise _unreadable(self.folder, graph.file, error) from error
        except ValueError as error:
            raise BundleError(f"{path} cannot be made whole: {error}; {_COPY_AGAIN}") from error
        if (found := hashlib.sha256(data).hexdigest()) != graph.sha256:
            raise _altered(self.folder / WEIGHTS, found, graph, f"with it, {graph.file} has ")
        return data

    def _check_graph(self, path: Path, data: bytes, graph: GraphEntry) -> None:
        """Raise a BundleError unless an engine may open a graph."""
        try:
            check_graph(data, graph, self.spec)
        except ValueError as error:
            raise BundleError(
                f"{path} is not opened, as no {graph.title} of ours is like it: {error}; "
                f"{_NOT_OURS}"
            ) from error

    def _lacks(self, key: GraphKey) -> BundleError:
        present = sentence_list([entry.title for entry in self.manifest.graphs])
        target = [key.target] if key.precision == "int8" and key.target else []
        made = {(entry.precision, entry.made_for) for entry in self.manifest.graphs}
        if key.precision == "fp32":
            fix = "export it again"
        elif target and ("int8", key.target) in made:
            fix = (
                "it did not pass verification when the others were made; export the "
                "checkpoint again with other images in --calibration, or take another precision"
            )
        else:
            words = ("motorvae-export", "--model", self.folder, f"--{key.precision}", *target)
            fix = f"run {next_command(*words)}"
        return BundleError(f"{self.folder} has no {key.title} (it has {present}): {fix}")


def load_bundle(folder: Path, *, hash_all: bool = True) -> Bundle:
    """Read a bundle and check all of it: schema, paths, sizes, hashes, names, shapes, dtypes.

    Without `hash_all` a file is hashed when it is first opened, so that a stream does not wait for
    graphs that it never runs. A BundleError is raised where anything is missing, altered, of
    another version, or outside the folder.
    """
    if not folder.is_dir():
        command = next_command("motorvae-export", "--output", folder)
        raise BundleError(f"no bundle at {folder}: run {command} first")
    if not (folder / MANIFEST).exists():
        raise BundleError(
            f"{folder} is no bundle, it has no {MANIFEST}: give a folder that motorvae-export wrote"
        )
    manifest = document_from_json(
        folder / MANIFEST, Manifest, error=BundleError, again=_EXPORT_AGAIN
    )
    entries: tuple[FileEntry, ...] = (*manifest.graphs, *manifest.files)
    budgets = {
        graph.file: budget_of(manifest.model, graph.frame).file_bytes for graph in manifest.graphs
    }
    for entry in entries:
        most = budgets.get(entry.file, MOST_ARRAYS)
        if entry.file == WEIGHTS:
            most = sum(budgets.values())
        if isinstance(entry, GraphEntry) and entry.stored is not None:
            _check_size(folder / entry.file, entry.size_bytes, most, " with its weights")
        _check_place(folder, entry.on_disk, most)
    _check_unlisted(folder, {entry.file for entry in entries})
    for graph in manifest.graphs:
        if not graph.file.endswith(".onnx"):  # engines go by it: one opens a program as `.ort`
            raise BundleError(
                f"{folder / graph.file} is named as a graph and is no .onnx file: {_NOT_OURS}"
            )
        expected = graph.key.inputs(manifest.model, graph.frame), graph.key.outputs(manifest.model)
        if (graph.inputs, graph.outputs) != expected:
            raise BundleError(
                f"{folder / graph.file}: the manifest's inputs and outputs are not those of a "
                f"{graph.graph} with {manifest.model}: {_EXPORT_AGAIN}"
            )
    bundle = Bundle(folder, manifest, {entry.file for entry in entries})
    for entry in entries if hash_all else ():
        bundle.path(entry)
    return bundle


def _check_place(folder: Path, entry: FileEntry, most_bytes: int) -> None:
    """Make sure that a file lies inside the bundle and has its size, which is not too large."""
    path = folder / entry.file
    try:
        inside = path.resolve().is_relative_to(folder.resolve())
        inside = inside and not Path(entry.file).is_absolute()
        found_bytes = path.stat().st_size if inside and path.is_file() else None
    except (OSError, ValueError, RuntimeError) as error:  # a link to itself, a NUL, too long
        raise _unreadable(folder, entry.file, error) from error
    if not inside:
        raise BundleError(
            f"the manifest of {folder} names {entry.file!r}, which leaves the bundle: do not use it"
        )
    if found_bytes is None:
        raise BundleError(f"{path} is missing: copy the whole bundle again, or export it again")
    if found_bytes != entry.size_bytes:
        raise BundleError(
            f"{path} has {found_bytes} bytes, and the manifest says {entry.size_bytes}: "
            f"{_COPY_AGAIN}"
        )
    _check_size(path, found_bytes, most_bytes)


def _check_size(path: Path, size_bytes: int, most_bytes: int, what: str = "") -> None:
    if size_bytes > most_bytes:
        raise BundleError(
            f"{path} has {size_bytes} bytes{what}, and for this model {most_bytes} at most are "
            f"read: {_NOT_OURS}"
        )


def _check_unlisted(folder: Path, listed: set[str]) -> None:
    """Refuse what lies in a bundle, is not in its manifest, and could be opened with it.

    Notes and pictures that somebody put there do no harm, and engines have manifests of their own.
    """
    try:
        found = sorted(path for path in folder.iterdir() if path.name not in listed)
        for path in found:
            mode = path.lstat().st_mode
            is_plain = stat.S_ISREG(mode) or stat.S_ISDIR(mode)
            if path.name == ENGINES and not stat.S_ISDIR(mode):
                is_plain = False
            if is_plain and not _FOR_ENGINES.intersection(path.suffixes):
                continue
            what = "no plain file" if not is_plain else "not in its manifest"
            raise BundleError(
                f"{path} lies in the bundle and is {what}: move it away, or export the bundle again"
            )
    except OSError as error:
        raise _unreadable(folder, MANIFEST, error) from error


def _altered(path: Path, found: str, entry: FileEntry, with_it: str = "") -> BundleError:
    return BundleError(
        f"{path} was altered: {with_it}sha256 {found[:12]}..., and the manifest says "
        f"{entry.sha256[:12]}...; {_COPY_AGAIN}"
    )


def _unreadable(folder: Path, file: str, error: Exception) -> BundleError:
    said = error if str(error) else "too little memory"
    return BundleError(f"cannot read {file[:80]!r} of {folder}: {said}; {_EXPORT_AGAIN}")
