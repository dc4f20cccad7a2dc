"""RepositoryManifest: what `motorvae.json` says of a model repository, for readers and for us."""

from __future__ import annotations

from typing import Literal

from ...runtime.bundle.frame_format import FrameFormat
from ...runtime.bundle.graph_key import Precision, Tensor
from ...runtime.bundle.manifest import FileEntry, GraphReport, Preprocessing
from ...runtime.core.spec import ModelSpec, StrictModel
from .options import Platform

REPOSITORY_MANIFEST = "motorvae.json"
REPOSITORY_VERSION: Literal[1] = 1


class ModelEntry(StrictModel):
    """One model of the server; of an ensemble `steps` are the models that it runs in turn.

    `max_batch_size` is 0 where a run is one request. `verification` is of the graph or engine as it
    was exported, in the engine that each report names; Triton's own was not among these.
    """

    name: str
    graph: str | None = None  # such as "encoder fp16 luma"
    source: FileEntry | None = None  # the file of the bundle that it is a copy of
    max_batch_size: int
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    frame: FrameFormat | None = None
    steps: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    verification: tuple[GraphReport, ...] = ()


class RepositoryManifest(StrictModel):
    """Everything that `motorvae.json` holds; `files` are all others, by their paths inside."""

    schema_version: Literal[1]
    producer: str
    created: str
    weights_sha256: str  # of the bundle
    manifest_sha256: str  # of its manifest.json
    platform: Platform
    precision: Precision
    version: int
    model: ModelSpec
    preprocessing: Preprocessing
    models: tuple[ModelEntry, ...]
    notes: tuple[str, ...]
    files: tuple[FileEntry, ...]
