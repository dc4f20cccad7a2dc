"""The bundle: what its manifest says, and reading one without trusting it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..core.errors import BundleError, next_command, sentence_list
from ..core.spec import ModelSpec
from .graph_key import LEANEST_FIRST, GraphKey
from .integrity import check_bytes, check_place
from .manifest import MANIFEST, FileEntry, GraphEntry, Manifest, manifest_from_json


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle whose files are all there.

    Attributes:
        folder: Where it lies.
        manifest: What it says about itself.
        unread: Files whose bytes were not held against the manifest yet.
    """

    folder: Path
    manifest: Manifest
    unread: set[str] = field(default_factory=set, compare=False)

    @property
    def spec(self) -> ModelSpec:
        """The sizes of the model, and how frames are fitted to it."""
        return self.manifest.model

    def entry(self, key: GraphKey) -> GraphEntry:
        """Return one graph's entry.

        Raises:
            BundleError: The bundle has no such graph; the message says which it has.
        """
        for entry in self.manifest.graphs:
            if entry.key == key:
                return entry
        raise self._lacks(key)

    def leanest(self, key: GraphKey, outputs: Iterable[str] = ()) -> GraphEntry:
        """Return the variant of a graph that does least for what is asked of it.

        Args:
            key: Part, precision, and as the target the engine that is to run it; whatever the
                variant.
            outputs: What it must give; all that the part can give where left out.

        Raises:
            BundleError: The bundle has no such graph; the message says which it has.
        """
        fitting = [
            entry
            for entry in self.manifest.graphs
            if (entry.graph, entry.precision) == (key.part, key.precision)
            and entry.made_for in {None, key.target}
            and entry.gives(outputs)
        ]
        if not fitting:
            raise self._lacks(replace(key, variant="full"))
        return min(fitting, key=lambda entry: LEANEST_FIRST.index(entry.variant))

    def verified_in(self, entry: GraphEntry, engine: str) -> bool:
        """Whether a graph passed verification in an engine whose name begins so."""
        return any(
            report.title == entry.title and report.engine.startswith(engine)
            for report in self.manifest.verification
        )

    def _lacks(self, key: GraphKey) -> BundleError:
        present = sentence_list([entry.title for entry in self.manifest.graphs])
        is_int8 = key.precision == "int8"
        target = [key.target] if is_int8 and key.target else []
        flag = f"--{key.precision}"
        way = f"run {next_command('motorvae-export', '--model', self.folder, flag, *target)}"
        if key.precision == "fp32":
            way = "export it again"
        elif target and any(
            (e.precision, e.made_for) == ("int8", key.target) for e in self.manifest.graphs
        ):
            way = (
                "it did not pass verification when the others were made; export the "
                "checkpoint again with other images in --calibration, or take another precision"
            )
        return BundleError(f"{self.folder} has no {key.title} (it has {present}): {way}")

    def path(self, entry: FileEntry) -> Path:
        """Return where a file of this bundle lies, its bytes checked.

        Raises:
            BundleError: It was altered, or cannot be read.
        """
        if entry.file in self.unread:
            check_bytes(self.folder, entry.file, entry.sha256)
            self.unread.discard(entry.file)
        return self.folder / entry.file


def load_bundle(folder: Path, *, hash_all: bool = True) -> Bundle:
    """Read a bundle and check all of it: schema, paths, sizes, hashes, names, shapes, dtypes.

    Args:
        folder: Where it lies.
        hash_all: Else a file is hashed when it is first opened, so that a stream does not wait for
            graphs that it never runs.

    Raises:
        BundleError: Anything is missing, altered, of another version, or outside the folder.
    """
    if not folder.is_dir():
        command = next_command("motorvae-export", "--output", folder)
        raise BundleError(f"no bundle at {folder}: run {command} first")
    if not (folder / MANIFEST).exists():
        raise BundleError(
            f"{folder} is no bundle, it has no {MANIFEST}: give a folder that motorvae-export wrote"
        )
    manifest = manifest_from_json(folder / MANIFEST)
    entries: tuple[FileEntry, ...] = (*manifest.graphs, *manifest.files)
    for entry in entries:
        check_place(folder, entry.file, entry.size_bytes)
    for graph in manifest.graphs:
        expected = graph.key.inputs(manifest.model), graph.key.outputs(manifest.model)
        if (graph.inputs, graph.outputs) != expected:
            raise BundleError(
                f"{folder / graph.file}: the manifest's inputs and outputs are not those of a "
                f"{graph.graph} with {manifest.model}: export the bundle again"
            )
    if len({entry.file for entry in entries}) < len({(e.file, e.sha256) for e in entries}):
        raise BundleError(f"{folder / MANIFEST} says of one file that it is two: export it again")
    bundle = Bundle(folder, manifest, {entry.file for entry in entries})
    for entry in entries if hash_all else ():
        bundle.path(entry)
    return bundle
