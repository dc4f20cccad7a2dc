"""Writing a bundle, or adding precisions to one: all of it or nothing."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import onnx_ir as ir
import orjson

from ..runtime.bundle.graph_key import ENGINES, GraphKey, Part, Precision
from ..runtime.bundle.load import Bundle
from ..runtime.bundle.manifest import (
    HELD_OUT,
    MANIFEST,
    STATISTICS,
    VERIFICATION_IMAGES,
    GraphReport,
)
from ..runtime.core.atomic_files import check_writable, replaced_folder
from ..runtime.core.documents import arrays_from_npz
from ..runtime.core.errors import (
    BackendError,
    BundleError,
    DataError,
    MissingDependencyError,
    OutputError,
    missing_dependency,
    sentence_list,
)
from ..runtime.core.spec import ModelSpec
from ..runtime.engines.tensorrt.find import unknown_in_engines
from .graph_folder import GraphFolder
from .int8.graphs import Int8Request, Int8Search, LeftOut, Searched
from .int8.images import Luma, calibration_from_text
from .ood import ood_capability
from .verify.reference import Reference, reference_from_bundle, save_reference
from .writer import BundleWriter

ReportsHook = Callable[[Sequence[GraphReport], Sequence[Searched]], None]
Tell = Callable[[str], None]


def check_replaceable(output: Path) -> None:
    """Refuse to replace anything but a bundle with nothing else in it.

    Raises:
        OutputError: Something there is not ours, or `output` cannot be written.
    """
    if output.exists():
        try:
            manifest = orjson.loads((output / MANIFEST).read_bytes())
            listed = {entry["file"] for entry in (*manifest["graphs"], *manifest["files"])}
            unknown = {path.name for path in output.iterdir()} - listed - {MANIFEST, ENGINES}
            unknown.update(unknown_in_engines(output))
        except (OSError, ValueError, KeyError, TypeError) as error:
            if output.is_dir() and not any(output.iterdir()):
                return
            raise OutputError(
                f"{output} exists and is not a bundle: name another --output, so that nothing is "
                "lost"
            ) from error
        if unknown:
            raise OutputError(
                f"{output} holds {sentence_list(sorted(unknown)[:5])} beside the bundle: move that "
                "away, or name another --output, so that nothing is lost"
            )
    check_writable(output)


def write_bundle(
    output: Path,
    *,
    graphs: Mapping[Part, ir.Model],
    spec: ModelSpec,
    weights_sha256: str,
    statistics: Path,
    reference: Reference,
    on_reports: ReportsHook,
    held_out: Luma | None = None,
    precisions: Collection[Precision] = (),
    int8: Int8Request | None = None,
    remarks: Sequence[str] = (),
    tell: Tell = lambda _: None,
) -> tuple[LeftOut, ...]:
    """Write a whole new bundle.

    Args:
        output: Where; an earlier bundle there is replaced in one step.
        graphs: The float32 graphs.
        spec: Sizes of the model.
        weights_sha256: Identity of the weights.
        statistics: The run's latent statistics, copied into the bundle.
        reference: What every graph is held against.
        on_reports: Called with all reports and INT8 searches before the gate decides.
        held_out: (N, S, S) uint8, all images that the model was not trained on, of which INT8
            graphs take more than others; by default those of the reference.
        precisions: What the bundle is to hold besides float32.
        int8: How INT8 graphs are made, where they are asked for; by default for every engine.
        remarks: What whoever uses the bundle should know, for its manifest.
        tell: Called with what is being done.

    Returns:
        Which INT8 graphs did not pass; the bundle is there without them.

    Raises:
        VerificationError: Another graph drifted past its limit; no bundle is written.
        OutputError: `output` cannot be written, or is something else than a bundle.
        MotorVAEError: Calibration images cannot be had, or bf16 not be computed.
    """
    check_replaceable(output)
    with replaced_folder(output) as folder:
        writer = BundleWriter(GraphFolder(folder, spec, weights_sha256), reference)
        tell("float32 graphs")
        writer.add_fp32(graphs)
        images = reference.images if held_out is None else held_out
        searched, left_out = _add(writer, precisions, int8 or Int8Request(), images, tell)
        shutil.copyfile(statistics, folder / STATISTICS)
        tell("what out-of-distribution detection can tell")
        writer.ood = ood_capability(
            writer.files.file(GraphKey("encoder")).path,
            arrays_from_npz(statistics, error=BundleError, again="train again"),
            reference.images,
        )
        save_reference(folder / VERIFICATION_IMAGES, reference)
        on_reports(_with_refused(writer, left_out), searched)
        writer.finish((STATISTICS, VERIFICATION_IMAGES), remarks=remarks)
    return left_out


def add_to_bundle(
    bundle: Bundle,
    precisions: Collection[Precision],
    *,
    on_reports: ReportsHook,
    int8: Int8Request | None = None,
    tell: Tell = lambda _: None,
) -> tuple[LeftOut, ...]:
    """Add precisions that a bundle lacks, from its float32 graphs; needs no torch.

    Args:
        bundle: What is added to; it is replaced in one step.
        precisions: What it lacks.
        on_reports: As of `write_bundle`, with the new graphs only.
        int8: As of `write_bundle`; only engines for which the bundle has no INT8 graphs.
        tell: As of `write_bundle`.

    Returns:
        Which INT8 graphs did not pass.

    Raises:
        VerificationError: Another graph drifted past its limit; the bundle stays as it was.
        BundleError: The bundle does not hold what verification needs.
        MotorVAEError: As of `write_bundle`.
    """
    reference = reference_from_bundle(bundle)
    with replaced_folder(bundle.folder) as folder:
        shutil.copytree(bundle.folder, folder, dirs_exist_ok=True)
        manifest = bundle.manifest
        files = GraphFolder(folder, bundle.spec, manifest.weights_sha256)
        writer = BundleWriter(files, reference)
        images = reference.images
        searched, left_out = _add(writer, precisions, int8 or Int8Request(), images, tell)
        on_reports(_with_refused(writer, left_out), searched)
        writer.finish([entry.file for entry in manifest.files], manifest)
    return left_out


def _add(
    writer: BundleWriter,
    precisions: Collection[Precision],
    int8: Int8Request,
    held_out: Luma,
    tell: Tell,
) -> tuple[tuple[Searched, ...], tuple[LeftOut, ...]]:
    """Add what is asked for; what may be refused at once comes first.

    Where too few are held out for INT8, that is left out.
    """
    images, left_out = None, tuple[LeftOut, ...]()
    if "int8" in precisions:
        try:
            images = calibration_from_text(int8.calibration, held_out, writer.files.spec)
        except DataError as error:
            if int8.calibration != HELD_OUT:
                raise
            keys = (GraphKey("encoder", "int8", target=target) for target in int8.runners)
            left_out = tuple(LeftOut(key, reason=str(error)) for key in keys)
    if "bf16" in precisions:
        tell("bf16 graphs")
        _add_bf16(writer)
    if "fp16" in precisions:
        tell("FP16 graphs")
        writer.add_fp16()
    # INT8 is held against the float32 graphs, which are worth that if they passed.
    if images is None or not all(report.passed for report in writer.reports):
        return (), left_out
    search = Int8Search(writer.files, writer.verifier.reference, images, tell)
    searched, failed = search.graphs_for(int8.runners)
    for found in searched:
        if found.calibration is not None:
            best = found.trials[-1]
            writer.add_passed(found.keys, best.model, found.calibration, best.reports)
    return searched, failed


def _with_refused(writer: BundleWriter, left_out: Sequence[LeftOut]) -> list[GraphReport]:
    return [*writer.reports, *(report for part in left_out for report in part.failed)]


def _add_bf16(writer: BundleWriter) -> None:
    try:
        writer.add_bf16()
    except MissingDependencyError as error:
        raise missing_dependency(
            "verifying bf16 graphs", "openvino", extra="openvino", instead="leave out --bf16"
        ) from error
    except BackendError as error:
        raise BackendError(f"{error}; or leave out --bf16") from error
