"""served_models: which graphs or engines of a bundle a repository holds, under which names."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ...runtime.bundle.graph_key import PARTS, GraphKey, Precision, Target, Tensor, Variant
from ...runtime.bundle.load import Bundle
from ...runtime.bundle.manifest import GraphEntry, GraphReport
from ...runtime.core.errors import ConfigError, EngineFitError, next_command
from ...runtime.engines.tensorrt.engine_manifest import EngineManifest
from ...runtime.engines.tensorrt.find import (
    engine_manifest_of,
    engine_of,
    graphs_with_engine,
    precisions_with_engine,
)
from ...runtime.engines.tensorrt.origin import check_origin
from .model_config import Signature, Step
from .options import Platform, TritonOptions

DEFAULT_BATCH = 16
MOST_INPUT_BYTES = 64 << 20
"""Of one run's input, by default: a batch of whole frames would else take much of a GPU."""

_TARGETS: dict[Platform, Target] = {
    "onnxruntime": "onnx",
    "openvino": "openvino",
    "tensorrt": "tensorrt",
}
_ENCODERS: tuple[Variant, ...] = ("full", "luma", "mu", "nv12", "bgr")


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One graph, or its engine, as a model of the server.

    `read` returns its file, which was checked as it was read.
    """

    name: str
    entry: GraphEntry
    signature: Signature
    read: Callable[[], bytes]
    reports: tuple[GraphReport, ...]
    engine: EngineManifest | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Ensemble:
    """An encoder and the decoder, of which the second reconstructs from the first's `mu`."""

    name: str
    signature: Signature
    steps: tuple[Step, Step]
    encoder: GraphEntry


@dataclass(frozen=True, slots=True)
class Served:
    """All of a repository: its models, its ensembles, and what is to know of what is missing."""

    precision: Precision
    models: tuple[ServedModel, ...]
    ensembles: tuple[Ensemble, ...]
    notes: tuple[str, ...]


def served_models(bundle: Bundle, options: TritonOptions) -> Served:
    """Return what a repository of this bundle holds.

    Raises:
        BundleError: The bundle lacks graphs of that precision; how to add them.
        EngineFitError: It has no engine of TensorRT, or one is altered or of unknown origin.
        ConfigError: Its engines take no single images.
    """
    if options.triton_platform == "tensorrt":
        precision, found = _engines(bundle, options)
    else:
        precision, found = _graphs(bundle, options)
    encoders = [one for one in found if one.entry.graph == "encoder"]
    decoder = next((one for one in found if one.entry.graph == "decoder"), None)
    notes = [*_left_out(bundle, options, precision, encoders)]
    ensembles: list[Ensemble] = []
    if decoder is not None:
        by_variant = {one.entry.variant: one for one in encoders}
        pictures = [by_variant[one] for one in ("full", "luma", "mu") if one in by_variant]
        frames = [one for one in encoders if one.entry.frame is not None]
        ensembles += [
            _ensemble(encoder, decoder, options.triton_name) for encoder in (*pictures[:1], *frames)
        ]
    return Served(precision, tuple(found), tuple(ensembles), tuple(notes))


def _graphs(bundle: Bundle, options: TritonOptions) -> tuple[Precision, list[ServedModel]]:
    precision: Precision = options.triton_precision or "fp32"
    target = _TARGETS[options.triton_platform]
    bundle.leanest(GraphKey("encoder", precision, target=target), ("mu",))  # or what to run first
    entries = [
        entry
        for entry in bundle.manifest.graphs
        if (entry.graph, entry.precision) == ("encoder", precision)
        and entry.made_for in {None, target}
    ]
    entries.sort(key=lambda entry: _ENCODERS.index(entry.variant))
    if any(one.graph == "decoder" for one in bundle.manifest.graphs):
        on_cpu = options.triton_device == "cpu"
        key = GraphKey("decoder", precision, target=target)
        entries.append(bundle.leanest(key, on_cpu=on_cpu))
    models = []
    for entry in entries:
        reports = tuple(one for one in bundle.manifest.verification if one.key == entry.key)
        models.append(
            ServedModel(
                _name_of(entry, options),
                entry,
                Signature(entry.inputs, entry.outputs, _most(entry, options)),
                lambda entry=entry: bundle.content(entry),  # type: ignore[misc]
                reports,
            )
        )
    return precision, models


def _most(entry: GraphEntry, options: TritonOptions) -> int:
    if options.triton_batch is not None:
        return options.triton_batch
    if options.triton_platform == "openvino":
        return 0
    return max(1, min(DEFAULT_BATCH, MOST_INPUT_BYTES // max(map(_bytes_of, entry.inputs))))


def _bytes_of(tensor: Tensor) -> int:
    sides = (int(size) for size in tensor.shape[1:])
    return math.prod(sides) * (4 if tensor.dtype == "float32" else 1)


def _engines(bundle: Bundle, options: TritonOptions) -> tuple[Precision, list[ServedModel]]:
    held = precisions_with_engine(bundle, "encoder", "tensorrt")
    precision = options.triton_precision or (held[0] if held else "fp16")
    if precision not in held:
        flag = [] if precision == "fp32" else [f"--{precision}"]
        words = ("motorvae-export", "--model", bundle.folder, "--engine", "tensorrt", *flag)
        raise EngineFitError(
            f"{bundle.folder} has no TensorRT engine of its encoder in {precision}: run "
            f"{next_command(*words)} on the GPU that will serve, or take --triton-platform "
            "onnxruntime"
        )
    models = []
    for part in PARTS:
        entries: Sequence[GraphEntry] = graphs_with_engine(
            bundle, GraphKey(part, precision), "tensorrt"
        )
        if part == "decoder":
            entries = entries[:1]  # the leanest
        ordered = sorted(entries, key=lambda one: (part, _order(one.variant)))
        models += [_engine(bundle, entry, options) for entry in ordered]
    return precision, models


def _order(variant: Variant) -> int:
    return _ENCODERS.index(variant) if variant in _ENCODERS else len(_ENCODERS)


def _engine(bundle: Bundle, entry: GraphEntry, options: TritonOptions) -> ServedModel:
    """Return an engine as a model; the server will run whatever it holds, as streams would here."""
    read = engine_manifest_of(bundle, entry, "tensorrt")
    manifest, key = read.manifest, entry.key.for_any
    file = key.engine_file("tensorrt")
    if manifest.onnx_sha256 != entry.sha256:
        raise EngineFitError(f"{file} was built from another {entry.graph}: build it again")
    if problem := manifest.precision_report.problem_with(entry.precision):
        raise EngineFitError(f"{file} is not {entry.precision}: {problem}: build it again")
    profile = manifest.profile
    if profile.min > 1:
        raise ConfigError(
            f"{file} takes {profile.text} images per run, and Triton passes on single ones: build "
            f"it again with --batch 1,{profile.opt},{profile.max}"
        )
    where = f"for {', '.join(manifest.compute_capabilities)} with TensorRT {manifest.version}"
    notes = [f"built {where} ({manifest.platform}), and runs there only"]
    if not manifest.verification.verified:
        notes.append(f"not verified: {manifest.verification.reason}")
    return ServedModel(
        _name_of(entry, options),
        entry,
        Signature(key.inputs(bundle.spec, entry.frame), key.outputs(bundle.spec), profile.max),
        lambda: engine_of(read),
        manifest.verification.reports,
        manifest,
        (*notes, *check_origin(bundle, read)),
    )


def _name_of(entry: GraphEntry, options: TritonOptions) -> str:
    form = entry.variant if entry.variant in _ENCODERS[1:] else ""
    return "_".join(word for word in (options.triton_name, entry.graph, form) if word)


def _ensemble(encoder: ServedModel, decoder: ServedModel, name: str) -> Ensemble:
    form = encoder.entry.variant if encoder.entry.frame is not None else ""
    given, made = encoder.signature, decoder.signature
    signature = Signature(given.inputs, (*given.outputs, *made.outputs), min(given.most, made.most))
    return Ensemble(
        "_".join(word for word in (name, "reconstruct", form) if word),
        signature,
        (Step(encoder.name, given, {}), Step(decoder.name, made, {"z": "mu"})),
        encoder.entry,
    )


def _left_out(
    bundle: Bundle, options: TritonOptions, precision: Precision, encoders: Sequence[ServedModel]
) -> Iterator[str]:
    """Yield a clause for each encoder of whole frames that is in the bundle, and not here."""
    here = {one.entry.variant for one in encoders}
    there = {one.variant: one for one in bundle.manifest.graphs if one.frame is not None}
    for variant, entry in there.items():
        if variant not in here:
            what = "no engine" if options.triton_platform == "tensorrt" else f"no {precision} graph"
            yield (
                f"the encoder of {entry.frame} frames is left out, as the bundle has {what} of it: "
                "a second repository with another --triton-name may serve it"
            )
