"""The bundle: what its manifest says, and reading one without trusting it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, Field

from .documents import document_from_json
from .errors import BundleError, sentence_list
from .files import sha256_of
from .spec import ModelSpec, StrictModel

SCHEMA_VERSION: Literal[1] = 1
MANIFEST = "manifest.json"
STATISTICS = "latents.npz"
VERIFICATION_IMAGES = "verification.npz"
BATCH = "batch"

GraphName = Literal["encoder", "decoder"]
Precision = Literal["fp32", "fp16"]


class Tensor(StrictModel):
    """One input or output of a graph; a dimension is a number or the name of a free axis."""

    name: str
    dtype: Literal["float32"]
    shape: tuple[int | str, ...]


class FileEntry(StrictModel):
    """One file of the bundle, by a path inside it."""

    file: str
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    size_bytes: int = Field(ge=0)


class GraphEntry(FileEntry):
    """One ONNX graph of the bundle."""

    graph: GraphName
    precision: Precision
    opset: int
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    subnormal_weights: int = Field(default=0, ge=0)


class Metric(StrictModel):
    """One figure of a verification; `limit` is None where it is reported but not gated."""

    model_config = ConfigDict(ser_json_inf_nan="strings")

    name: str
    value: float
    unit: str = ""
    limit: float | None = None
    passed: bool = True
    higher_is_better: bool = False


class GraphReport(StrictModel):
    """How far one output of one graph is from its reference, and the limits it was held to."""

    graph: GraphName
    precision: Precision
    output: str
    engine: str
    reference: str
    images: int
    metrics: tuple[Metric, ...]

    @property
    def passed(self) -> bool:
        """Whether every gated metric stayed within its limit."""
        return all(metric.passed for metric in self.metrics)

    @property
    def failures(self) -> tuple[str, ...]:
        """Every figure past its limit, as a clause."""
        return tuple(
            f"{self.graph} {self.precision} {self.output}: {metric.name} {metric.value:.3g} "
            f"(limit {metric.limit:g})"
            for metric in self.metrics
            if not metric.passed and metric.limit is not None
        )


class Preprocessing(StrictModel):
    """How a frame becomes the encoder's input, in words for readers without our code."""

    luma: str = "BT.601 weights, full range, 8 bit"
    resize: str = "area average (bilinear where an axis grows)"
    scale: float = 1 / 255


class Manifest(StrictModel):
    """Everything that `manifest.json` holds."""

    schema_version: Literal[1]
    producer: str
    created: str
    weights_sha256: str
    model: ModelSpec
    preprocessing: Preprocessing
    graphs: tuple[GraphEntry, ...]
    files: tuple[FileEntry, ...]
    verification: tuple[GraphReport, ...]


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle whose files were all found whole.

    Attributes:
        folder: Where it lies.
        manifest: What it says about itself.
    """

    folder: Path
    manifest: Manifest

    @property
    def spec(self) -> ModelSpec:
        """The sizes of the model, and how frames are fitted to it."""
        return self.manifest.model

    def entry(self, graph: GraphName, precision: Precision) -> GraphEntry:
        """Return a graph's entry.

        Raises:
            BundleError: The bundle has no such graph; the message says which it has.
        """
        for entry in self.manifest.graphs:
            if (entry.graph, entry.precision) == (graph, precision):
                return entry
        present = [f"{entry.graph} {entry.precision}" for entry in self.manifest.graphs]
        way = (
            "export it again"
            if precision == "fp32"
            else (f"run motorvae-export --bundle {self.folder} --{precision}")
        )
        raise BundleError(
            f"{self.folder} has no {precision} {graph} (it has {sentence_list(present)}): {way}"
        )

    def path(self, entry: FileEntry) -> Path:
        """Return where a file of this bundle lies."""
        return self.folder / entry.file


def tensors_of(graph: GraphName, spec: ModelSpec) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Return the inputs and outputs that the contract gives a graph of this model."""
    side = spec.image_size
    latent: tuple[int | str, ...] = (BATCH, spec.latent_size)
    image: tuple[int | str, ...] = (BATCH, 1, side, side)
    if graph == "encoder":
        outputs = tuple(Tensor(name=n, dtype="float32", shape=latent) for n in ("mu", "log_var"))
        return (Tensor(name="image", dtype="float32", shape=image),), outputs
    return (
        (Tensor(name="z", dtype="float32", shape=latent),),
        (Tensor(name="reconstruction", dtype="float32", shape=image),),
    )


def load_bundle(folder: Path) -> Bundle:
    """Read a bundle and check all of it: schema, paths, sizes, hashes, names, shapes, dtypes.

    Raises:
        BundleError: Anything is missing, altered, of another version, or outside the folder.
    """
    if not folder.is_dir():
        raise BundleError(f"no bundle at {folder}: run motorvae-export --output {folder} first")
    if not (folder / MANIFEST).exists():
        raise BundleError(
            f"{folder} is no bundle, it has no {MANIFEST}: give a folder that motorvae-export wrote"
        )
    manifest = manifest_from_json(folder / MANIFEST)
    entries: tuple[FileEntry, ...] = (*manifest.graphs, *manifest.files)
    for entry in entries:
        _check_file(folder, entry)
    for graph in manifest.graphs:
        if (graph.inputs, graph.outputs) != tensors_of(graph.graph, manifest.model):
            raise BundleError(
                f"{folder / graph.file}: the manifest's inputs and outputs are not those of a "
                f"{graph.graph} with {manifest.model}: export the bundle again"
            )
    return Bundle(folder, manifest)


def manifest_from_json(path: Path) -> Manifest:
    """Read a manifest.

    Raises:
        BundleError: It is missing, not JSON, of another schema version, or does not fit it.
    """
    return document_from_json(
        path,
        Manifest,
        version=SCHEMA_VERSION,
        error=BundleError,
        again="export the bundle again",
    )


def _check_file(folder: Path, entry: FileEntry) -> None:
    path = folder / entry.file
    try:
        inside = path.resolve().is_relative_to(folder.resolve())
        is_readable = inside and not Path(entry.file).is_absolute() and path.is_file()
        size_bytes = path.stat().st_size if is_readable else 0
        digest = sha256_of(path) if is_readable else ""
    except (OSError, ValueError, RuntimeError) as error:  # a link to itself, a NUL, too long
        raise BundleError(
            f"cannot read {entry.file[:80]!r} of {folder}: {error}; export the bundle again"
        ) from error
    if not inside or Path(entry.file).is_absolute():
        raise BundleError(
            f"{folder / MANIFEST} names {entry.file!r}, which leaves the bundle: do not use it"
        )
    if not is_readable:
        raise BundleError(f"{path} is missing: copy the whole bundle again, or export it again")
    if size_bytes != entry.size_bytes:
        raise BundleError(
            f"{path} has {size_bytes} bytes, and the manifest says {entry.size_bytes}: "
            "copy the bundle again, or export it again"
        )
    if digest != entry.sha256:
        raise BundleError(
            f"{path} was altered: sha256 {digest[:12]}..., and the manifest says "
            f"{entry.sha256[:12]}...; copy the bundle again, or export it again"
        )
