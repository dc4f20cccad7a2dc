"""Which files of a repository are ours: the only ones that are published, fetched or looked at."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ...runtime.bundle.load import load_bundle
from ...runtime.bundle.manifest import MANIFEST, SIGNATURE, Manifest
from ...runtime.core.documents import document_from_json
from ...runtime.core.errors import BundleError, CheckpointError
from ...runtime.engines.tensorrt.package import TENSORRT_PACKAGES
from ...runtime.signing.bundle_signature import still_signed

RUN_CONFIG = "config.json"
"""As in `training.checkpoint`, which needs torch, and a bundle does not."""
FIRST = (MANIFEST, RUN_CONFIG)
"""What says which kind of model a repository holds."""
CARD = "README.md"
PICTURES = "pictures"
_AGAIN = "name a repository or a folder that motorvae hub wrote"

Kind = Literal["run", "bundle"]


def kind_of(folder: Path) -> Kind:
    """Return what a folder in Hugging Face form holds; a CheckpointError for neither."""
    if (folder / MANIFEST).is_file():
        return "bundle"
    if (folder / RUN_CONFIG).is_file():
        return "run"
    raise CheckpointError(f"{folder} has neither {RUN_CONFIG} nor {MANIFEST}: {_AGAIN}")


def files_of_model(folder: Path) -> tuple[str, ...]:
    """Return the names of a model's files, of which some may be missing, and no others.

    Of a bundle they are those that its manifest lists, its signature, and the engines of its
    graphs. Nothing that could be code is among those of a run.

    Raises:
        CheckpointError: It is neither a run nor a bundle.
        BundleError: Its manifest cannot be read.
    """
    if kind_of(folder) == "run":
        return RUN_CONFIG, "model.safetensors", "latents.npz", "weights.json", "metrics.csv"
    manifest = document_from_json(folder / MANIFEST, Manifest, error=BundleError, again=_AGAIN)
    names = {MANIFEST: None, SIGNATURE: None}
    for entry in (*manifest.graphs, *manifest.files):
        if Path(entry.file).name != entry.file:
            raise BundleError(f"{folder / MANIFEST} lists {entry.file!r}, which is no plain name")
        names[entry.file] = None
    for graph in manifest.graphs:
        for package in TENSORRT_PACKAGES:
            paths = graph.key.engine_paths(Path(), package)
            names |= dict.fromkeys(path.as_posix() for path in paths)
    return tuple(names)


def check_model(folder: Path) -> Kind:
    """Check a model as whoever uses it does: `mv.load` a bundle, training and export a run.

    Of a signed bundle all files must be as its signature says; whose that is matters where engines
    are opened.

    Raises:
        BundleError: Anything of a bundle is missing, altered or of another version.
        CheckpointError: It is neither, or a run's weights do not fit, or a file beside them.
    """
    kind = kind_of(folder)
    if kind == "bundle":
        load_bundle(folder)
        if (folder / SIGNATURE).exists() and not still_signed(folder):
            raise BundleError(f"{folder} is not as its signature says: get the whole of it again")
    else:
        from ..checkpoint import model_from_checkpoint  # noqa: PLC0415  # torch
        from ..pretrained.folder import check_small_files  # noqa: PLC0415  # as above

        _, config = model_from_checkpoint(folder)
        check_small_files(folder, config.model)
    return kind
