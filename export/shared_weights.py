"""The weights of a bundle's graphs in one file, each of them once, and graphs made whole again."""

from __future__ import annotations

import hashlib
import shutil
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt
import onnx

from ..runtime.bundle.graph_key import LEANEST_FIRST
from ..runtime.bundle.load import Bundle, load_bundle
from ..runtime.bundle.made_weights import added_to, factors_of, flips_of, rounded_of
from ..runtime.bundle.manifest import (
    MANIFEST,
    WEIGHTS,
    FileEntry,
    GraphEntry,
    Manifest,
    StoredGraph,
)
from ..runtime.bundle.weights import (
    BLOCK,
    DEFLATED,
    PAGE,
    QUANTIZED,
    ROUNDED,
    SHORTEST_ROW,
    Place,
    whole_graph,
)
from ..runtime.core.atomic_files import replaced_folder
from ..runtime.core.documents import json_from_document
from ..runtime.core.system.temporaries import without_temporaries

SHARING_SINCE = 7
"""The version of manifests that says where weights lie."""
LEAST_BYTES = 64 << 10
"""Smaller constants stay in their graphs: they start on a page of their own."""
_MADE_SHARE, _DEFLATED_SHARE = 1 / 8, 1 / 2
"""Of INT8 weights what is kept instead of them may take. To make them, four times their bytes are
read; to inflate them takes longer than to read them."""
_QUANTIZER = "_quantized"
"""What ONNX Runtime's quantizer puts behind the name of weights."""


def share_weights(folder: Path, graphs: Sequence[GraphEntry]) -> tuple[GraphEntry, ...]:
    """Move the large weights of whole graphs in a folder to its `weights.bin`, each once.

    The entries of the manifest are returned as they are then. FP16 weights that are float32 ones of
    the same graph's, rounded up or down, are kept as which of both. INT8 ones are kept as how they
    are made of float32 ones, where that takes an eighth of them or less, or deflated, where that
    halves them; not so what a stream starts with by default. A file whose bytes would not come back
    stays whole, and so do encoders of whole frames, which are for programs of others; without any
    large weights there is no `weights.bin`. The same graphs give the same bytes, whatever their
    order was when they were made.
    """
    with (folder / WEIGHTS).open("w+b") as file:
        store = _Store(file)
        stored: dict[str, StoredGraph] = {}
        first = _started_with(graphs)
        # Float32 first, as others are made of these.
        for graph in sorted(
            graphs, key=lambda one: (one.precision != "fp32", one.file not in first, one.file)
        ):
            if graph.file in stored or graph.frame is not None:
                continue
            path = folder / graph.file
            whole = path.read_bytes()
            kept = store.kept(whole, graph, plain=graph.file in first)
            if kept is None:
                continue
            file.flush()
            if whole_graph(kept, folder, len(whole)) != whole:
                continue
            path.unlink()  # or a link would be written through
            path.write_bytes(kept)
            digest = hashlib.sha256(kept).hexdigest()
            stored[graph.file] = StoredGraph(sha256=digest, size_bytes=len(kept))
    if not stored:
        (folder / WEIGHTS).unlink()
    return tuple(one.model_copy(update={"stored": stored.get(one.file)}) for one in graphs)


def _started_with(graphs: Sequence[GraphEntry]) -> set[str]:
    """Return the files of encoders that a stream opens by default: of each kind the leanest."""
    found: dict[tuple[str, str | None], GraphEntry] = {}
    for graph in graphs:
        kind = graph.precision, graph.made_for
        if graph.graph == "encoder" and graph.frame is None:
            found[kind] = min(
                found.get(kind, graph), graph, key=lambda one: LEANEST_FIRST.index(one.variant)
            )
    return {graph.file for graph in found.values()}


def copy_with_whole_graphs(bundle: Bundle, folder: Path) -> Manifest:
    """Copy a bundle to a folder that is there and empty, all weights in the files of its graphs.

    The manifest as it is then is returned, and not written. Links stay links: what they point at
    is not the bundle.
    """
    shutil.copytree(
        bundle.folder, folder, symlinks=True, dirs_exist_ok=True, ignore=without_temporaries
    )
    manifest = bundle.manifest
    for entry in manifest.graphs:
        if entry.stored is not None:
            path = folder / entry.file
            path.unlink(missing_ok=True)  # or a link would be written through
            path.write_bytes(bundle.content(entry))
    (folder / WEIGHTS).unlink(missing_ok=True)
    graphs = tuple(one.model_copy(update={"stored": None}) for one in manifest.graphs)
    files = tuple(one for one in manifest.files if one.file != WEIGHTS)
    return manifest.model_copy(update={"graphs": graphs, "files": files})


def is_kept_whole(manifest: Manifest) -> bool:
    """Whether a bundle's weights lie in its graphs by choice: what is added to it is written so."""
    return manifest.schema_version >= SHARING_SINCE and not any(
        one.stored for one in manifest.graphs
    )


def weights_into_graphs(bundle: Bundle) -> None:
    """Put a bundle's weights into the files of its graphs; it is replaced in one step.

    Graphs stay the graphs that they were: their engines are still theirs, and so is what was
    verified.
    """
    with replaced_folder(bundle.folder) as folder:
        manifest = copy_with_whole_graphs(bundle, folder)
        write_with_weights(manifest, folder, external_data=False)
        load_bundle(folder)


def write_with_weights(manifest: Manifest, folder: Path, *, external_data: bool) -> None:
    """Write the manifest of whole graphs in a folder; with `external_data` share weights before."""
    if external_data:
        graphs = share_weights(folder, manifest.graphs)
        path = folder / WEIGHTS
        files = (*manifest.files, *([FileEntry.of(path)] if path.exists() else []))
        manifest = manifest.model_copy(update={"graphs": graphs, "files": files})
    text = json_from_document(manifest, indent=2)
    (folder / MANIFEST).write_text(text, encoding="utf-8")


@dataclass(slots=True)
class _Store:
    """A file of weights while it is written: what is in it, by content and by its graph's names."""

    file: IO[bytes]
    size: int = 0
    places: dict[str, tuple[int, int]] = field(default_factory=dict)  # by SHA-256
    floats: dict[tuple[str, str], list[tuple[tuple[int, int], bytes]]] = field(default_factory=dict)
    smaller: dict[tuple[str, str], Place | None] = field(default_factory=dict)  # of INT8 weights

    def kept(self, whole: bytes, graph: GraphEntry, *, plain: bool) -> bytes | None:
        """Return a graph's file without its large weights; None where it has none.

        With `plain` INT8 ones are not made when the graph is opened, which takes milliseconds.
        """
        model = onnx.load_from_string(whole)
        if model.SerializeToString() != whole:
            return None  # by another writer, and it is to come back as it was
        # One that says where it is in so many words would come back without them.
        large = [
            one
            for one in model.graph.initializer
            if len(one.raw_data) >= LEAST_BYTES and not one.HasField("data_location")
        ]
        for tensor in large:
            place = self._place_of(tensor, graph, plain=plain)
            tensor.ClearField("raw_data")
            tensor.data_location = onnx.TensorProto.EXTERNAL
            for key, value in place.entries:
                tensor.external_data.add(key=key, value=value)
        return model.SerializeToString() if large else None

    def _place_of(self, tensor: onnx.TensorProto, graph: GraphEntry, *, plain: bool) -> Place:
        data = tensor.raw_data
        name = graph.graph, tensor.name.removesuffix(_QUANTIZER)
        if tensor.data_type == onnx.TensorProto.FLOAT16:
            halves = np.frombuffer(data, "<f2")
            for exact_at, exact in self.floats.get(name, ()):
                if (flips := _flips(halves, np.frombuffer(exact, "<f4"))) is not None:
                    return Place(*exact_at, ROUNDED, self._add(flips))
        if tensor.data_type == onnx.TensorProto.INT8 and not plain:
            place = self._smaller(data, tensor.dims[0], name)
            if place is not None:
                return place
        where = self._add(data)
        if tensor.data_type == onnx.TensorProto.FLOAT:
            known = self.floats.setdefault(name, [])
            if where not in (place for place, _ in known):
                known.append((where, data))
        return Place(*where)

    def _smaller(self, data: bytes, rows: int, name: tuple[str, str]) -> Place | None:
        """Return where INT8 weights are kept in fewer bytes; None where that is not worth it."""
        digest = hashlib.sha256(data).hexdigest()
        if digest in self.places:
            return None
        if (digest, name[1]) not in self.smaller:
            self.smaller[digest, name[1]] = self._made_smaller(data, rows, name)
        return self.smaller[digest, name[1]]

    def _made_smaller(self, data: bytes, rows: int, name: tuple[str, str]) -> Place | None:
        for exact_at, exact in self.floats.get(name, ()):
            if (says := _quantization(data, exact, rows)) is not None:
                return Place(*exact_at, QUANTIZED, (*self._add(says), rows))
        deflated = zlib.compress(data, 9)
        if len(deflated) > _DEFLATED_SHARE * len(data):
            return None
        return Place(*self._add(deflated), DEFLATED, (len(data),))

    def _add(self, data: bytes) -> tuple[int, int]:
        """Return where bytes are in the file; those that are not get pages of their own."""
        digest = hashlib.sha256(data).hexdigest()
        if digest not in self.places:
            start = -(-self.size // PAGE) * PAGE
            self.file.seek(start)
            self.file.write(data)
            self.places[digest] = start, len(data)
            self.size = start + len(data)
        return self.places[digest]


def _flips(halves: npt.NDArray[np.float16], exact: npt.NDArray[np.float32]) -> bytes | None:
    """Return which weights were not rounded to the nearest, or None where that is not all."""
    if len(halves) != len(exact):
        return None
    flips = flips_of(halves, exact)
    if rounded_of(exact, flips) != halves.tobytes():
        return None
    return zlib.compress(np.packbits(flips).tobytes(), 9)


def _quantization(data: bytes, exact: bytes, rows: int) -> bytes | None:
    """Return how INT8 weights are made of float32 ones, or None where that takes much to say."""
    row = len(data) // rows
    if 4 * len(data) != len(exact) or not SHORTEST_ROW <= row <= BLOCK // 4:
        return None
    quantized = np.frombuffer(data, np.int8).reshape(rows, -1)
    weights = np.frombuffer(exact, "<f4").reshape(rows, -1)
    factors = factors_of(quantized, weights)
    added = added_to(quantized, weights, factors)
    says = zlib.compress(factors.astype("<f4").tobytes() + added.tobytes(), 9)
    return says if len(says) <= _MADE_SHARE * len(data) else None
