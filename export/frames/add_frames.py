"""add_frames: encoders of whole frames into a bundle, or one into a file beside its description."""

from __future__ import annotations

import datetime as dt
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import onnx
import onnx_ir as ir

from ...runtime.bundle.frame_format import FrameFormat
from ...runtime.bundle.graph_check import check_graph
from ...runtime.bundle.graph_key import GraphKey, Precision, Tensor
from ...runtime.bundle.load import Bundle, load_bundle
from ...runtime.bundle.manifest import (
    SCHEMA_VERSION,
    FileEntry,
    GraphEntry,
    GraphReport,
    Preprocessing,
)
from ...runtime.core.atomic_files import check_writable, replaced_file, replaced_folder
from ...runtime.core.documents import json_from_document
from ...runtime.core.errors import ConfigError, OutputError, VerificationError
from ...runtime.core.packages import own_version
from ...runtime.core.spec import ModelSpec, StrictModel
from ...runtime.engines.trial.run import remember_verified
from ..shared_weights import copy_with_whole_graphs, is_kept_whole, write_with_weights
from ..verify.reference import reference_from_bundle
from .encoder import frame_from_encoder
from .verify import JudgingFrames, frame_reports

OnReports = Callable[[Sequence[GraphReport]], None]
OnStep = Callable[[str], None]


class FrameFile(StrictModel):
    """What is said beside an encoder of whole frames that lies in no bundle."""

    schema_version: Literal[1]
    producer: str
    created: str
    weights_sha256: str
    model: ModelSpec
    preprocessing: Preprocessing  # what the graph does itself
    frame: FrameFormat
    precision: Precision
    file: FileEntry
    opset: int
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    verification: tuple[GraphReport, ...]


def frames_to_bundle(
    bundle: Bundle,
    frame: FrameFormat,
    precisions: Sequence[Precision],
    *,
    on_reports: OnReports,
    on_step: OnStep = lambda _: None,
    replace: bool = False,
    external_data: bool = True,
) -> None:
    """Add an encoder of whole frames to a bundle in each of some precisions that it has.

    The bundle is replaced in one step, and stays as it was where one drifts past a limit. Of each
    layout and precision it holds one; another is a ConfigError unless `replace`. `external_data` is
    as of `--no-external-data`.

    Raises:
        ConfigError: The frame's size is free, the bundle has such an encoder of other frames, or
            the model's crop box takes nothing of such a frame.
        VerificationError: A picture or latent is too far from the reference's.
    """
    if frame.is_free:
        raise ConfigError(
            f"--whole-frame {frame}: a graph for frames of any size is kept outside of bundles, "
            "whose graphs are checked at the sizes they have: name a file with --output"
        )
    keys = [GraphKey("encoder", precision, frame.layout) for precision in precisions]
    earlier = [entry for entry in bundle.manifest.graphs if entry.key in keys]
    others = [entry for entry in earlier if entry.frame != frame]
    if others and not replace:
        raise ConfigError(
            f"{bundle.folder} has an {others[0].title} already, for {others[0].frame}: name a file "
            "with --output, or replace it with --replace"
        )
    reference = reference_from_bundle(bundle)
    on_step(f"frames {frame}, and what the reference makes of them")
    judging = JudgingFrames.of(frame, bundle.spec, reference.images)
    with replaced_folder(bundle.folder) as folder:
        manifest = copy_with_whole_graphs(bundle, folder)
        entries: list[GraphEntry] = []
        reports: list[GraphReport] = []
        for key in keys:
            on_step(f"{key.title}, {frame}")
            path = folder / key.onnx_file
            path.unlink(missing_ok=True)  # or a link would be written through
            model = _written(bundle, key, frame, path)
            entries.append(entry := _entry(bundle, key, frame, model, path))
            try:
                check_graph(path.read_bytes(), entry, bundle.spec)
            except ValueError as error:
                raise VerificationError(
                    f"the {key.title} for {frame} would not be opened: {error}; report this"
                ) from error
            reports += frame_reports(key, path, judging, bundle, reference)
        on_reports(reports)
        _check(reports, frame, f"{bundle.folder} is as it was")
        reports = [*(one for one in manifest.verification if one.key not in keys), *reports]
        manifest = manifest.model_copy(
            update={
                "schema_version": SCHEMA_VERSION,
                "producer": f"motorvae {own_version()}",
                "created": _now(),
                "graphs": (*(one for one in manifest.graphs if one.key not in keys), *entries),
                "verification": tuple(reports),
            }
        )
        shares = external_data and not is_kept_whole(bundle.manifest)
        write_with_weights(manifest, folder, external_data=shares)
        remember_verified(load_bundle(folder), entries)


def frame_to_file(
    bundle: Bundle,
    frame: FrameFormat,
    precision: Precision,
    path: Path,
    *,
    on_reports: OnReports,
    on_step: OnStep = lambda _: None,
) -> None:
    """Write an encoder of whole frames, of one size or any, and what it is as JSON beside it.

    Nothing is written where it drifts past a limit; earlier files of the names are replaced.

    Raises:
        ConfigError: The path is no .onnx, or the crop box may take nothing of such a frame.
        VerificationError: A picture or latent is too far from the reference's.
        OutputError: A file cannot be written there.
    """
    if path.suffix != ".onnx":
        raise ConfigError(f"--output {path}: the file of a whole frame's graph ends in .onnx")
    if path.resolve().is_relative_to(bundle.folder.resolve()):
        raise ConfigError(f"--output {path} lies in the bundle: name a file elsewhere")
    described = path.with_suffix(".json")
    for one in (path, described):
        check_writable(one)
    if not path.absolute().parent.is_dir():
        raise OutputError(f"{path.parent} is not there: make that folder, or name another")
    _check_box(frame, bundle.spec)
    key, reference = GraphKey("encoder", precision, frame.layout), reference_from_bundle(bundle)
    on_step(f"frames {frame}, and what the reference makes of them")
    judging = JudgingFrames.of(frame, bundle.spec, reference.images)
    on_step(f"{key.title}, {frame}")
    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder) / path.name
        model = _written(bundle, key, frame, trial)
        reports = frame_reports(key, trial, judging, bundle, reference)
        on_reports(reports)
        _check(reports, frame, "no file was written")
        graph = FileEntry.of(trial)
        description = FrameFile(
            schema_version=1,
            producer=f"motorvae {own_version()}",
            created=_now(),
            weights_sha256=bundle.manifest.weights_sha256,
            model=bundle.spec,
            preprocessing=Preprocessing.of(bundle.spec),
            frame=frame,
            precision=precision,
            file=graph,
            opset=model.opset_imports[""],
            inputs=key.inputs(bundle.spec, frame),
            outputs=key.outputs(bundle.spec),
            verification=reports,
        )
        with replaced_file(described) as text, replaced_file(path) as temporary:
            text.write_text(json_from_document(description, indent=2), encoding="utf-8")
            shutil.copyfile(trial, temporary)


def _check_box(frame: FrameFormat, spec: ModelSpec) -> None:
    """Refuse, before anything is computed, frames of which the crop box takes nothing, or may."""
    if frame.is_free and spec.fit == "letterbox":
        raise ConfigError(
            f"--whole-frame {frame}: the model's fit is letterbox, which rounds sizes that only a "
            f"known frame has: name one size, such as {frame.layout}:1280x720"
        )
    if frame.is_free and spec.has_box_in_pixels:
        raise ConfigError(
            f"--whole-frame {frame}: the model's crop box is in pixels, and may take nothing of "
            f"such frames: name one size, such as {frame.layout}:1280x720"
        )


def _written(bundle: Bundle, key: GraphKey, frame: FrameFormat, path: Path) -> ir.Model:
    """Write a graph that is not verified yet; its bytes repeat."""
    entry = bundle.entry(GraphKey(key.part, key.precision))
    model = ir.from_proto(onnx.load_from_string(bundle.content(entry)))
    try:
        frame_from_encoder(model, bundle.spec, frame)
    except ValueError as error:
        raise ConfigError(f"--whole-frame {frame}: {error}: name another size") from error
    model.doc_string = f"{key.title} of a motorVAE, for frames {frame}"
    facts = {name: value for name, value in key.fields.items() if value is not None}
    facts["frame"] = frame.model_dump_json()
    model.metadata_props.update({f"motorvae.{name}": text for name, text in facts.items()})
    ir.save(model, path)
    onnx.checker.check_model(path, full_check=True)
    return model


def _entry(
    bundle: Bundle, key: GraphKey, frame: FrameFormat, model: ir.Model, path: Path
) -> GraphEntry:
    earlier = bundle.entry(GraphKey(key.part, key.precision))
    return GraphEntry(
        **FileEntry.of(path).model_dump(),
        **key.fields,
        opset=model.opset_imports[""],
        inputs=key.inputs(bundle.spec, frame),
        outputs=key.outputs(bundle.spec),
        subnormal_weights=earlier.subnormal_weights,
        frame=frame,
    )


def _check(reports: Sequence[GraphReport], frame: FrameFormat, left: str) -> None:
    failures = [clause for report in reports for clause in report.failures]
    if failures:
        saturated = "" if frame.matrix is None else "images of saturated noise may do that; else "
        raise VerificationError(
            f"verification of whole frames {frame} failed, {left}: {', '.join(failures)}; "
            f"{saturated}report this, with the model's spec"
        )


def _now() -> str:
    return dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds")
