"""The manifest of a bundle: graphs, files, verification reports, and how frames become input."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, Field

from ..core.atomic_files import sha256_of
from ..core.documents import document_from_json
from ..core.errors import BundleError
from ..core.spec import ModelSpec, StrictModel
from .calibration import Calibration
from .graph_key import OUTPUTS, GraphKey, Part, Precision, Target, Tensor, Variant
from .ood_capability import OODCapability

SCHEMA_VERSION: Literal[4] = 4
EARLIER_VERSIONS: tuple[int, ...] = (2,)
"""Bundles of these are read, too: what they lack has a default."""

MANIFEST = "manifest.json"
STATISTICS = "latents.npz"
VERIFICATION_IMAGES = "verification.npz"


class FileEntry(StrictModel):
    """One file of the bundle, by a path inside it."""

    file: str
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    size_bytes: int = Field(ge=0)

    @classmethod
    def of(cls, path: Path) -> FileEntry:
        """Return the entry of a file that lies in its folder."""
        return FileEntry(file=path.name, sha256=sha256_of(path), size_bytes=path.stat().st_size)


class NamedGraph(StrictModel):
    """Whatever is about one graph: the fields of its key, flat."""

    graph: Part
    precision: Precision
    variant: Variant = "full"
    made_for: Target | None = None

    @property
    def key(self) -> GraphKey:
        """Which graph."""
        return GraphKey(self.graph, self.precision, self.variant, self.made_for)

    @property
    def title(self) -> str:
        """Which graph, in words; see `GraphKey.title`."""
        return self.key.title


class GraphEntry(NamedGraph, FileEntry):
    """One ONNX graph of the bundle."""

    opset: int
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    subnormal_weights: int = Field(default=0, ge=0)
    calibration: Calibration | None = None

    def gives(self, outputs: Iterable[str]) -> bool:
        """Whether it gives these outputs; all of its half where none are named."""
        wanted = set(outputs) or set(OUTPUTS[self.graph])
        return wanted <= {tensor.name for tensor in self.outputs}


class Metric(StrictModel):
    """One figure of a verification; `limit` is None where it is reported but not gated.

    `bound`, where there is one, is what the worst of the next 128 fresh images stays within with
    95 % probability, by extreme-value statistics; the limit is for it, then. In INT8 graphs that
    512 images or more judged, all gated bounds of one engine's graphs hold together with that.
    """

    model_config = ConfigDict(ser_json_inf_nan="strings")

    name: str
    value: float
    unit: str = ""
    limit: float | None = None
    bound: float | None = None
    passed: bool = True
    higher_is_better: bool = False


class GraphReport(NamedGraph):
    """How far one output of one graph is from its reference, and the limits it was held to.

    `notes` say what the verdict does not cover, a clause each.
    """

    output: str
    engine: str
    reference: str
    images: int
    notes: tuple[str, ...] = ()
    metrics: tuple[Metric, ...]

    @property
    def passed(self) -> bool:
        """Whether every gated metric stayed within its limit."""
        return all(metric.passed for metric in self.metrics)

    @property
    def failures(self) -> tuple[str, ...]:
        """Every figure past its limit, as a clause."""
        return tuple(
            f"{self.title} {self.output}: {metric.name} {_told(metric)} (limit {metric.limit:g})"
            for metric in self.metrics
            if not metric.passed and metric.limit is not None
        )


def _told(metric: Metric) -> str:
    if metric.bound is None:
        return f"{metric.value:.3g}"
    way = "down" if metric.higher_is_better else "up"
    return f"{metric.value:.3g}, {way} to {metric.bound:.3g} in the next 128 images"


class Preprocessing(StrictModel):
    """How a frame becomes the encoder's input, in words for readers without our code."""

    luma: str = "BT.601 weights, full range, 8 bit"
    resize: str = "area average (bilinear where an axis grows)"
    scale: float = 1 / 255


class Manifest(StrictModel):
    """Everything that `manifest.json` holds.

    `remarks` are what whoever uses the bundle should know, such as that the model has learned too
    little and was exported anyway; `ood` is None in bundles of earlier versions.
    """

    schema_version: Literal[2, 4]
    producer: str
    created: str
    weights_sha256: str
    model: ModelSpec
    preprocessing: Preprocessing
    graphs: tuple[GraphEntry, ...]
    files: tuple[FileEntry, ...]
    verification: tuple[GraphReport, ...]
    remarks: tuple[str, ...] = ()
    ood: OODCapability | None = None


def manifest_from_json(path: Path) -> Manifest:
    """Read a manifest.

    Raises:
        BundleError: It is missing, not JSON, of another schema version, or does not fit it.
    """
    return document_from_json(
        path,
        Manifest,
        version=SCHEMA_VERSION,
        earlier=EARLIER_VERSIONS,
        error=BundleError,
        again="export the bundle again",
    )
