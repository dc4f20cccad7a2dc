"""The manifest of one engine: what it is, where it was built, and whether it fits here."""

from __future__ import annotations

import hashlib
import platform
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import orjson
from pydantic import Field, model_validator
from typing_extensions import Self

from ...bundle.graph_key import GraphKey, Part, Precision, Variant
from ...bundle.manifest import FileEntry, GraphReport
from ...core.documents import MOST_JSON, bytes_of_file, document_from_bytes
from ...core.errors import EngineFitError, shortened
from ...core.spec import StrictModel
from ...signing.machine_key import MachineKey
from ..gpu_info import Gpu
from .build_record import DlaPlacement, Int8Speed, TriedRoute
from .package import TensorRTName, TensorRTPackage, title_of

ENGINE_MANIFEST_VERSION: Literal[5] = 5
LEAST_SHARE = 0.95
"""An engine with less of its weights or layer outputs in a precision does not get its label; an
INT8 engine must do that much of the INT8 multiplications that its graph asks for."""
LEAST_KEPT = 0.25
"""An FP16 graph that keeps nodes in float32 has at least so much of both in FP16."""
LEAST_INT8 = 0.5
"""An INT8 graph keeps layers in float that its latents need, but not most of its arithmetic."""

Source = Literal[
    "engine inspector",
    "engine file",
    "typed network",
    "DLA",
    "engine inspector and DLA",
    "engine file and DLA",
]
"""Where a figure was read. No tool looks into what runs on DLA, which computes in FP16 and INT8
alone: what the typed network has there in these formats is computed in them."""


class BatchProfile(StrictModel):
    """Images per run: the fewest, those the engine is tuned for, and the most."""

    min: int = Field(default=1, ge=1)
    opt: int = Field(default=1, ge=1)
    max: int = Field(default=8, ge=1, le=1024)

    @property
    def text(self) -> str:
        """The three numbers as `--batch` takes them."""
        return f"{self.min},{self.opt},{self.max}"

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.min <= self.opt <= self.max:
            raise ValueError(f"min {self.min}, opt {self.opt}, max {self.max} do not rise")
        return self


class PrecisionReport(StrictModel):
    """The number formats that were read back from a finished engine.

    Each is a format's name to a number, and where that was read.

    Attributes:
        weights: Number of weights.
        outputs: Number of values that layers hand on for one image; the engine's own inputs and
            outputs, which are fixed by contract, do not count.
        multiplications: Number of multiplications for one image in convolutions, their transposes
            and matrix products; the wider format of a layer's two operands counts.
        asked: The same as the graph's own types have it; an engine may do otherwise.
        kept_float32: Nodes that an FP16 graph keeps in float32 by intention.
        asked_weights: The formats of weights as the graph has them, where nodes are kept.
        dla: Which layers run on a DLA core; None where it uses none.
    """

    weights: dict[str, int]
    weights_from: Source
    outputs: dict[str, int]
    outputs_from: Source
    multiplications: dict[str, int]
    multiplications_from: Source
    asked: dict[str, int]
    kept_float32: tuple[str, ...] = ()
    asked_weights: dict[str, int] = Field(default_factory=dict)
    dla: DlaPlacement | None = None

    @model_validator(mode="before")
    @classmethod
    def _without_asked_outputs(cls, content: object) -> object:
        """Leave out what motorVAE wrote before schema 5, and no label went by."""
        if isinstance(content, dict):
            return {name: value for name, value in content.items() if name != "asked_outputs"}
        return content

    def shares(self, precision: Precision) -> tuple[float, float]:
        """Return the share of weights and of layer outputs in a format; 0 where none is known."""
        return _share(self.weights, precision), _share(self.outputs, precision)

    def share_of_multiplications(self, precision: Precision) -> float:
        """Return the share of multiplications in a format; 0 where none is known."""
        return _share(self.multiplications, precision)

    def proves(self, precision: Precision) -> bool:
        """Return whether what a label is about was read back from the engine, at least in part."""
        if precision == "int8":
            return self.multiplications_from != "typed network"
        return not self.weights_from == self.outputs_from == "typed network"

    def problem_with(self, precision: Precision) -> str | None:
        """Return in a clause why a label is not deserved, or None where it is.

        An INT8 label is about arithmetic: what is handed on between layers is float there, and
        weights that are kept as INT8 may be turned back before they are multiplied.
        """
        if not self.proves(precision):
            return "nothing of its precision can be read back from the finished engine"
        share, least, of = min(self.shares(precision)), LEAST_SHARE, " of both"
        if precision == "int8":
            share, of = self.share_of_multiplications("int8"), ""
            least = max(LEAST_INT8, LEAST_SHARE * _share(self.asked, "int8"))
        elif self.kept_float32:
            found, wanted = _share(self.multiplications, "fp32"), _share(self.asked, "fp32")
            if found < LEAST_SHARE * wanted:  # it would overflow, and was kept for that
                return (
                    f"{found:.2%} of multiplications ({self.multiplications_from}) are fp32, and "
                    f"the graph keeps {wanted:.2%} in float32"
                )
            # What is float32 by intention is no fault of the engine; most must still be FP16. Of
            # outputs a fused engine has only some, and of kept nodes others than of the rest.
            weights, outputs = self.shares(precision)
            asked = _share(self.asked_weights, precision)
            least = max(LEAST_KEPT, LEAST_SHARE * asked)
            share = weights if outputs >= LEAST_KEPT else min(weights, outputs)
            halves, of_graph = (
                _share(one, precision) for one in (self.multiplications, self.asked)
            )
            if halves < LEAST_SHARE * of_graph:
                return (
                    f"{halves:.2%} of multiplications ({self.multiplications_from}) are "
                    f"{precision}, and the graph has {of_graph:.2%} so"
                )
        if share >= least:
            return None
        return f"{self.sentence(precision)}, and the label needs {least:.0%}{of}"

    def sentence(self, precision: Precision) -> str:
        """Return the precision report as a clause."""
        placed = f"; {self.dla.sentence}" if self.dla else ""
        if precision == "int8":
            share = self.share_of_multiplications(precision)
            return f"{share:.2%} of multiplications ({self.multiplications_from}) are int8{placed}"
        weights, outputs = self.shares(precision)
        kept = ""
        if self.kept_float32:
            kept = f", and by intention not {shortened(self.kept_float32, 3)}"
        return (
            f"{weights:.2%} of weights ({self.weights_from}) and {outputs:.2%} of layer outputs "
            f"({self.outputs_from}) are {precision}{kept}{placed}"
        )


class EngineVerification(StrictModel):
    """Whether the engine itself was held against the reference, and what came of it."""

    verified: bool
    reason: str | None = None
    reports: tuple[GraphReport, ...] = ()

    @model_validator(mode="after")
    def _proven(self) -> Self:
        if self.verified and not (self.reports and all(report.passed for report in self.reports)):
            raise ValueError("verified without a report of each output that passed")
        return self


class BuiltHere(StrictModel):
    """What the machine that built an engine knows it by again; see `MachineKey`.

    The tag is of all else in the engine manifest, and so of the engine's hash and its graph's.
    """

    key_id: str = Field(pattern="^[0-9a-f]{32}$")
    tag: str = Field(pattern="^[0-9a-f]{64}$")


class EngineManifest(StrictModel):
    """Everything that an engine's `.json` holds.

    Version 3 had no `built_here`, and so does an engine manifest that it was taken out of. Version
    5 added `routes` and `int8_speed`, and in the precision report `dla` in place of
    `asked_outputs`.

    Attributes:
        routes: The build routes that were tried for this engine; none where it was built one way.
        int8_speed: How INT8 and FP16 engines of this part compare on this GPU, in the engine
            manifests of both.
    """

    schema_version: Literal[3, 4, 5]
    producer: str
    created: str
    graph: Part
    precision: Precision
    variant: Variant
    package: TensorRTName
    version: str
    compute_capabilities: tuple[str, ...]
    gpu: str | None
    driver: str | None
    cuda: str | None
    platform: str
    onnx_sha256: str = Field(pattern="^[0-9a-f]{64}$")
    engine: FileEntry
    profile: BatchProfile
    workspace_bytes: int = Field(ge=0)
    precision_report: PrecisionReport
    verification: EngineVerification
    build_seconds: float = Field(ge=0)
    routes: tuple[TriedRoute, ...] = ()
    int8_speed: tuple[Int8Speed, ...] = ()
    built_here: BuiltHere | None = None

    def tagged(self, key: MachineKey) -> Self:
        """Return the same with the tag of the machine that built the engine."""
        content = orjson.loads(self.model_dump_json())
        tag = BuiltHere(key_id=key.key_id, tag=key.tag(_statement(content)))
        return self.model_copy(update={"built_here": tag})

    @property
    def key(self) -> GraphKey:
        """Which graph's engine this is; see `GraphKey.for_any`."""
        return GraphKey(self.graph, self.precision, self.variant)

    def mismatch(self, package: TensorRTPackage, gpu: Gpu, onnx_sha256: str) -> str | None:
        """Return in a clause why this package and GPU cannot run it for this graph, or None."""
        if self.onnx_sha256 != onnx_sha256:
            return (
                f"engine built from another {self.graph} (sha256 {self.onnx_sha256[:12]}..., and "
                f"the bundle holds {onnx_sha256[:12]}...)"
            )
        platform_here = this_platform()
        here = (package.name, package.version, platform_here)
        fits = here == (self.package, self.version, self.platform)
        if fits and gpu.compute_capability in self.compute_capabilities:
            return None
        there, now = "", ""
        if self.platform != platform_here:
            there, now = f" ({self.platform})", f" ({platform_here})"
        return (
            f"engine built for {title_of(self.package)} {self.version} on compute capability "
            f"{', '.join(self.compute_capabilities)}{there}; this machine has {package.version} "
            f"on {gpu.compute_capability}{now}"
        )


def this_platform() -> str:
    """Return operating system and processor, such as "linux-aarch64"."""
    return f"{sys.platform}-{platform.machine().lower()}"


def engine_manifest_from_json(path: Path) -> EngineManifest:
    """Read an engine manifest; an EngineFitError where it is missing or does not fit."""
    return ReadEngineManifest.of(path).manifest


@dataclass(frozen=True, slots=True)
class ReadEngineManifest:
    """An engine manifest, and where and from what bytes it was read."""

    path: Path
    manifest: EngineManifest
    content: bytes

    @classmethod
    def of(cls, path: Path) -> ReadEngineManifest:
        """Read one, once; an EngineFitError where it is missing or does not fit the schema."""
        again = "build the engine again"
        content = bytes_of_file(path, most_bytes=MOST_JSON, error=EngineFitError, again=again)
        manifest = document_from_bytes(
            content, path, EngineManifest, error=EngineFitError, again=again
        )
        return cls(path, manifest, content)

    @property
    def sha256(self) -> str:
        """Of what was read."""
        return hashlib.sha256(self.content).hexdigest()

    def is_tagged_by(self, key: MachineKey) -> bool:
        """Whether this very content was tagged by the machine that has this key."""
        tag = self.manifest.built_here
        return tag is not None and key.made(tag.tag, _statement(orjson.loads(self.content)))


def _statement(content: dict[str, Any]) -> bytes:
    """Return what the tag is of: all that the file says but the tag, however it is spelled."""
    said = {name: value for name, value in content.items() if name != "built_here"}
    return orjson.dumps(said, option=orjson.OPT_SORT_KEYS)


def _share(counts: dict[str, int], precision: Precision) -> float:
    total = sum(counts.values())
    return counts.get(precision, 0) / total if total else 0.0
