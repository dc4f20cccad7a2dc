"""The manifest of a bundle: graphs, files, verification reports, and how frames become input."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, Field, model_validator

from ..core.atomic_files import sha256_of
from ..core.spec import Fit, Interpolation, ModelSpec, StrictModel
from .frame_format import FrameFormat
from .graph_key import GraphKey, Part, Precision, Target, Tensor, Variant

SCHEMA_VERSION: Literal[7] = 7

MANIFEST = "manifest.json"
SIGNATURE = "signature.json"
"""Beside the manifest of a bundle that was signed; it lists all else of the bundle."""
STATISTICS = "latents.npz"
VERIFICATION_IMAGES = "verification.npz"
WEIGHTS = "weights.bin"
"""What the graphs of a bundle keep their weights in; see `bundle.weights`."""

MOST_ENTRIES = 256
MOST_KEPT = 8192
"""All graphs of all precisions and targets are 25."""
HELD_OUT = "held-out"
"""The origin of calibration images that were kept from training."""
DETECTED_SHARE, PARTLY_SHARE = 0.9, 0.1
"""Rows flag an image or do not, so an AUROC earns no word: a group is detected where at least so
many images of each of its kinds are flagged, and partly where so many of one of them are, and in
both cases more than known images may be."""


class FileEntry(StrictModel):
    """One file of the bundle, by a path inside it."""

    file: str
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    size_bytes: int = Field(ge=0)

    @classmethod
    def of(cls, path: Path) -> FileEntry:
        """Return the entry of a file that lies in its folder."""
        return FileEntry(file=path.name, sha256=sha256_of(path), size_bytes=path.stat().st_size)

    @property
    def on_disk(self) -> FileEntry:
        """The same of the file as it lies there."""
        return self


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


class Calibration(StrictModel):
    """How an INT8 graph's ranges were found: by images, of which no group shares one with another.

    `chosen` is 0 in bundles of version 2, where those images that judged chose as well.
    """

    method: Literal["min-max", "percentile"]  # a range holds all values seen, or a share of them
    percentile: float | None = Field(default=None, gt=50, lt=100)  # that share, in percent
    equalised: bool = False  # whether channels of neighbouring layers were scaled alike before
    channels: tuple[str, ...] = ()  # of layers that lost some, as in "features.12: 192 of 512"
    excluded: tuple[str, ...] = ()  # layers that stay in float32
    images: int = Field(ge=1)  # how many images the ranges come from
    origin: str  # where these come from: `held-out`, or what the user named
    chosen: int = Field(default=0, ge=0)  # how many images candidates were compared on
    judged: int = Field(ge=1)  # how many images judged what was chosen
    finalists: int = Field(default=1, ge=1)  # candidates to judge; the first that passed was kept


class StoredGraph(StrictModel):
    """The file of a graph whose weights lie in `weights.bin`."""

    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    size_bytes: int = Field(ge=0)


class GraphEntry(NamedGraph, FileEntry):
    """One ONNX graph of the bundle; `frame` is what one takes that does the pixel work itself.

    `sha256` and `size_bytes` are of the whole graph, all weights inside, wherever they lie: of what
    an engine is given. Where its file is another, that is `stored`.
    """

    opset: int
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    subnormal_weights: int = Field(default=0, ge=0)
    # of an FP16 graph the nodes that stay in float32, as FP16 would not hold what they compute
    kept_float32: tuple[str, ...] = Field(default=(), max_length=MOST_KEPT)
    calibration: Calibration | None = None
    frame: FrameFormat | None = None
    stored: StoredGraph | None = None

    @property
    def on_disk(self) -> FileEntry:
        """Name, hash and size of its file as it lies there."""
        kept = self.stored or self
        return FileEntry(file=self.file, sha256=kept.sha256, size_bytes=kept.size_bytes)

    @model_validator(mode="after")
    def _check_frame(self) -> GraphEntry:
        if (self.frame is not None) != self.key.takes_frames:
            raise ValueError(f"{self.title} with frame={self.frame}")
        if self.frame is None:
            return self
        if self.frame.is_free or (self.graph, self.variant) != ("encoder", self.frame.layout):
            raise ValueError(f"{self.title} with frame={self.frame}")
        return self

    def gives(self, outputs: Iterable[str]) -> bool:
        """Whether it gives these outputs; all of its half where none are named."""
        wanted = set(outputs)
        if not wanted:
            return self.variant != "mu"
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

    def __str__(self) -> str:
        if self.bound is None:
            return f"{self.value:.3g}"
        direction = "down" if self.higher_is_better else "up"
        return f"{self.value:.3g}, {direction} to {self.bound:.3g} in the next 128 images"


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
            f"{self.title} {self.output}: {metric.name} {metric} (limit {metric.limit:g})"
            for metric in self.metrics
            if not metric.passed and metric.limit is not None
        )


class Preprocessing(StrictModel):
    """How a frame becomes the encoder's input, in words for readers without our code."""

    luma: str | None = "BT.601 weights, full range, 8 bit"  # None where colours stay
    planes: str = "luma"
    crop: str = "none"
    fit: str = "stretch to the input"
    resize: str = "area average (bilinear where an axis grows)"
    scale: float = 1 / 255

    @classmethod
    def of(cls, spec: ModelSpec) -> Preprocessing:
        """Return the words for a model."""
        kinds: dict[Fit, str] = {
            "stretch": "stretch to the input",
            "crop": "the largest part in the middle of the input's aspect ratio",
            "pad": "white around it, to the input's aspect ratio",
            "letterbox": "resized to whole pixels, rounded down, then in the middle of white",
        }
        filters: dict[Interpolation, str] = {
            "area": "area average (bilinear where an axis grows)",
            "bilinear": "bilinear, its filter widened where an axis shrinks, as Pillow's",
            "bicubic": "bicubic, a = -0.5, its filter widened where an axis shrinks, as Pillow's",
            "lanczos": "Lanczos, a = 3, its filter widened where an axis shrinks, as Pillow's",
            "bilinear-no-antialias": "bilinear between two pixels, as OpenCV's INTER_LINEAR",
        }
        is_grey = spec.color == "grey"
        box = spec.crop_box
        unit = (
            "pixels, of the far edge where not above 0" if spec.has_box_in_pixels else "fractions"
        )
        return cls(
            luma="BT.601 weights, full range, 8 bit" if is_grey else None,
            planes="luma" if is_grey else ", ".join(spec.color.upper()),
            crop="none" if box is None else f"left, top, right, bottom {box} in {unit}, first",
            fit=kinds[spec.fit],
            resize=filters[spec.interpolation],
        )


class Origin(StrictModel):
    """Where weights came from that were not trained here, or not from the beginning.

    A latent diffusion model multiplies latents by `scaling_factor` after it has subtracted
    `shift_factor`; the bundle's latents are as the encoder gives them, before that.
    """

    kind: Literal["checkpoint", "onnx", "module", "diffusers", "pretrained"]
    name: str  # what it is, such as the name of its class or of the project that wrote it
    files: dict[str, str] = Field(
        default_factory=dict
    )  # name of each file that was read, and its SHA-256
    scaling_factor: float | None = None
    shift_factor: float | None = None
    notes: tuple[str, ...] = ()  # what was dropped or changed on the way, a clause each


class KindCapability(StrictModel):
    """How well `is_ood` does on generated images of one kind.

    `auroc` is the share of pairs of a held-out image and one of these in which this one has the
    higher `ood_score`; a tie counts half.
    """

    name: str  # a group, or a group and what is special, as in "noise, white"
    images: int = Field(ge=1)
    auroc: float = Field(ge=0, le=1)
    flagged: float = Field(ge=0, le=1)  # the share of these with `is_ood`


class OODCapability(StrictModel):
    """How well `is_ood` does for one model, as the export measured it with the float32 graphs."""

    ood_above: float = Field(gt=0, le=100)  # the percentile that it was measured at
    false_alarms: float = Field(ge=0, le=1)  # the share of known images past it, at most
    images: int = Field(ge=1)  # held-out images behind the limits
    effective_images: float = Field(ge=1)  # how many independent ones are worth as much
    kinds: tuple[KindCapability, ...]

    def groups(self) -> tuple[list[str], list[str], list[str]]:
        """Return the groups of kinds that are detected, detected in part, and not detected."""
        found: tuple[list[str], list[str], list[str]] = ([], [], [])
        for group, shares in self._shares().items():
            fully = min(shares) >= DETECTED_SHARE and min(shares) > self.false_alarms
            partly = max(shares) >= PARTLY_SHARE and max(shares) > self.false_alarms
            found[0 if fully else 1 if partly else 2].append(group)
        return found

    @property
    def detects_nothing(self) -> bool:
        """Whether not one kind is detected even in part."""
        return not any(self.groups()[:2])

    def in_words(self) -> str:
        """Return such as "noise, covered; partly: overexposed (40 to 100 %); not: shifted"."""
        fully, partly, not_ = self.groups()
        shares = self._shares()
        for place, group in enumerate(partly):
            least, most = (f"{100 * end(shares[group]):.0f}" for end in (min, max))
            partly[place] = f"{group} ({least if least == most else f'{least} to {most}'} %)"
        parts = (("", fully), ("partly: ", partly), ("not: ", not_))
        return "; ".join(f"{prefix}{', '.join(names)}" for prefix, names in parts if names)

    def _shares(self) -> dict[str, list[float]]:
        """Return the flagged share of each kind, by group."""
        shares: dict[str, list[float]] = {}
        for kind in self.kinds:
            shares.setdefault(kind.name.partition(",")[0], []).append(kind.flagged)
        return shares


class Manifest(StrictModel):
    """Everything that `manifest.json` holds.

    `remarks` are what whoever uses the bundle should know, such as that the model has learned too
    little and was exported anyway; `ood` is None in bundles of earlier versions.
    `origin` is None where the weights were trained here.
    """

    schema_version: Literal[2, 4, 5, 6, 7]
    producer: str
    created: str
    weights_sha256: str
    model: ModelSpec
    preprocessing: Preprocessing
    graphs: tuple[GraphEntry, ...] = Field(min_length=1, max_length=MOST_ENTRIES)
    files: tuple[FileEntry, ...] = Field(max_length=MOST_ENTRIES)
    verification: tuple[GraphReport, ...]
    remarks: tuple[str, ...] = ()
    ood: OODCapability | None = None
    origin: Origin | None = None

    @model_validator(mode="after")
    def _check_names(self) -> Manifest:
        hashes: dict[str, str] = {}
        for one in (*self.graphs, *self.files):
            stands = f"{one.sha256} {one.on_disk.sha256}"
            if hashes.setdefault(one.file, stands) != stands:
                raise ValueError(f"{one.file} is listed with two hashes")
        if any(one.stored for one in self.graphs) and WEIGHTS not in hashes:
            raise ValueError(f"graphs keep weights in {WEIGHTS}, which is not listed")
        titles = [graph.title for graph in self.graphs]
        for title in titles:
            if titles.count(title) > 1:
                raise ValueError(f"{title} is listed twice")
        if not self.model.has_decoder and any(one.graph == "decoder" for one in self.graphs):
            raise ValueError("a decoder is listed, and the model has none")
        return self
