"""Writing a bundle, or adding precisions to one: all of it or nothing."""

from __future__ import annotations

import datetime as dt
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import onnx_ir as ir

from ..runtime.bundle.graph_key import ENGINES, TARGETS, GraphKey, Part, Precision, Target
from ..runtime.bundle.load import Bundle, load_bundle
from ..runtime.bundle.manifest import (
    HELD_OUT,
    MANIFEST,
    SCHEMA_VERSION,
    SIGNATURE,
    STATISTICS,
    VERIFICATION_IMAGES,
    FileEntry,
    GraphEntry,
    GraphReport,
    Manifest,
    OODCapability,
    Origin,
    Preprocessing,
)
from ..runtime.core.atomic_files import check_writable, replaced_folder
from ..runtime.core.documents import json_from_file
from ..runtime.core.errors import (
    BackendError,
    BundleError,
    ConfigError,
    DataError,
    MissingDependencyError,
    OutputError,
    VerificationError,
    missing_dependency,
    sentence_list,
)
from ..runtime.core.packages import own_version
from ..runtime.core.spec import ModelSpec
from ..runtime.core.system.temporaries import is_temporary, sweep
from ..runtime.engines.open import EngineRequest, open_engine
from ..runtime.engines.tensorrt.find import unknown_in_engines
from ..runtime.engines.trial.run import remember_verified
from ..runtime.ood.detector import statistics_from_npz
from .graph_folder import GraphFolder, graph_keys
from .int8.graphs import Int8Search, Searched
from .int8.images import CalibrationImages, Luma, calibration_from_text
from .ood import ood_capability
from .shared_weights import copy_with_whole_graphs, is_kept_whole, write_with_weights
from .transforms.float_parts import fragile_nodes, kept_in_engines
from .transforms.fp16 import fp16_from_fp32
from .transforms.io_variants import luma_from_float, mu_from_encoder
from .transforms.node_names import module_of, name_nodes, nodes_called
from .transforms.phases import phases_from_decoder
from .transforms.rounding import InputMoments, Rounded, weights_rounded_together
from .transforms.values_inside import opened_with_values
from .verify.activations import OVERFLOW, Activations
from .verify.reference import Reference, reference_from_bundle, save_reference
from .verify.reports import WORST_PROBE, advice_on
from .verify.verifier import Verifier

AUTO = "auto"
"""Of what FP16 keeps in float32: whatever overflows."""
IN_OPENVINO = 64
"""So many held-out images, evenly taken, judge a float32 graph a second time, in OpenVINO."""

ReportsHook = Callable[[Sequence[GraphReport], Sequence[Searched]], None]
OnStep = Callable[[str], None]


def check_replaceable(output: Path) -> set[str]:
    """Refuse, with an OutputError, to replace anything but a bundle with nothing else in it.

    Return what a bundle there, of any version, holds beyond float32 graphs.
    """
    parts = {"fp32 graphs"}
    if output.exists():
        try:
            manifest = json_from_file(output / MANIFEST, error=BundleError, again="name another")
            listed = {entry["file"] for entry in (*manifest["graphs"], *manifest["files"])}
            sweep(output)
            found = {path.name for path in output.iterdir() if not is_temporary(path.name)}
            unknown = found - listed - {MANIFEST, ENGINES, SIGNATURE}
            unknown.update(unknown_in_engines(output))
            for entry in manifest["graphs"]:
                target = entry.get("made_for") if entry["precision"] == "int8" else None
                parts.add(f"{entry['precision']} graphs" + (f" for {target}" if target else ""))
                if frame := entry.get("frame"):
                    parts.add(f"encoders of whole {frame['layout']} frames")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            if output.is_dir() and not any(output.iterdir()):
                return set()
            raise OutputError(
                f"{output} exists and is not a bundle: name another --output, so that nothing is "
                "lost"
            ) from error
        if unknown:
            raise OutputError(
                f"{output} holds {sentence_list(sorted(unknown)[:5])} beside the bundle: move that "
                "away, or name another --output, so that nothing is lost"
            )
    for path in (output / ENGINES).glob("*.engine"):
        precision, package = path.stem.split(".")[-2:]
        parts.add(f"{precision} engines of {package}")
    check_writable(output, or_folder=True)
    return parts - {"fp32 graphs"}


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
    keep_float32: Collection[str] = (),
    targets: Collection[Target] = TARGETS,
    calibration: str = HELD_OUT,
    prune_channels: bool = False,
    remarks: Sequence[str] = (),
    origin: Origin | None = None,
    external_data: bool = True,
    on_step: OnStep = lambda _: None,
    on_remark: OnStep = lambda _: None,
) -> tuple[Searched, ...]:
    """Write a whole new bundle.

    An earlier one at `output` is replaced in one step. `graphs` are float32, and every graph is
    compared with `reference`; INT8 graphs take more images, (N, S, S) uint8 of all `held_out`. The
    file of `statistics` is copied. `calibration`, `keep_float32` and `external_data` are as of the
    options. `on_reports` gets all reports and INT8 searches before the gate decides, `on_remark`
    what to know of the calibrating images. Return the INT8 graphs that did not pass; the bundle is
    there without them.

    Raises:
        VerificationError: Another graph drifted past its limit; no bundle is written.
        OutputError: `output` cannot be written, or is something else than a bundle.
        MotorVAEError: Calibration images cannot be had, or bf16 not be computed.
    """
    check_replaceable(output)
    held_out = reference.images if held_out is None else held_out
    images = _calibration(precisions, targets, calibration, held_out, spec, on_remark=on_remark)
    with replaced_folder(output) as folder:
        files = GraphFolder(folder, spec, weights_sha256)
        writer = BundleWriter(files, reference, on_step, keep_float32, prune_channels)
        writer.derive("fp32", lambda part: graphs[part].clone())
        searched = writer.add(precisions, targets, images)
        shutil.copyfile(statistics, folder / STATISTICS)
        on_step("what out-of-distribution detection can recognise")
        ood = ood_capability(
            writer.files.file(GraphKey("encoder")).path,
            statistics_from_npz(statistics, spec, error=BundleError, again="train again"),
            reference.images,
            spec,
        )
        save_reference(folder / VERIFICATION_IMAGES, reference)
        writer.check_gate(searched, on_reports)
        writer.write_manifest(external_data, remarks=remarks, ood=ood, origin=origin)
    return tuple(one for one in searched if not one.passed)


def add_to_bundle(
    bundle: Bundle,
    precisions: Collection[Precision],
    *,
    on_reports: ReportsHook,
    keep_float32: Collection[str] = (),
    targets: Collection[Target] = TARGETS,
    calibration: str = HELD_OUT,
    prune_channels: bool = False,
    external_data: bool = True,
    on_step: OnStep = lambda _: None,
    on_remark: OnStep = lambda _: None,
) -> tuple[Searched, ...]:
    """Add precisions that a bundle lacks, from its float32 graphs; needs no torch.

    It is replaced in one step, and stays as it was where nothing is added or a graph drifted. All
    else is as of `write_bundle`; `on_reports` gets the new graphs only.
    """
    open_engine(bundle, GraphKey("encoder")).close()  # tried first, where it is not ours
    reference = reference_from_bundle(bundle)  # which opens the decoder
    images = _calibration(
        precisions, targets, calibration, reference.images, bundle.spec, on_remark=on_remark
    )
    if isinstance(images, tuple) and {*precisions} == {"int8"}:
        return images
    with replaced_folder(bundle.folder) as folder:
        earlier = copy_with_whole_graphs(bundle, folder)
        files = GraphFolder(folder, bundle.spec, earlier.weights_sha256)
        writer = BundleWriter(files, reference, on_step, keep_float32, prune_channels)
        searched = writer.add(precisions, targets, images)
        writer.check_gate(searched, on_reports)
        writer.write_manifest(external_data and not is_kept_whole(bundle.manifest), earlier)
    return tuple(one for one in searched if not one.passed)


def _calibration(
    precisions: Collection[Precision],
    targets: Collection[Target],
    text: str,
    held_out: Luma,
    spec: ModelSpec,
    *,
    on_remark: OnStep,
) -> CalibrationImages | tuple[Searched, ...]:
    """Return the images that INT8 takes, or that its graphs are left out as there are too few."""
    if "int8" not in precisions:
        return ()
    try:
        images = calibration_from_text(text, held_out, spec)
    except DataError as error:
        if text != HELD_OUT:
            raise
        keys = (GraphKey("encoder", "int8", target=target) for target in targets)
        return tuple(Searched(key, reason=str(error)) for key in keys)
    for line in images.remarks:
        on_remark(line)
    return images


class BundleWriter:
    """Writes, verifies and lists graphs in a folder that is not yet in its place."""

    def __init__(
        self,
        files: GraphFolder,
        reference: Reference,
        on_step: OnStep = lambda _: None,
        keep_float32: Collection[str] = (),
        prune_channels: bool = False,
    ) -> None:
        self.files, self._keep, self._prune = files, keep_float32, prune_channels
        self._kept: dict[Part, set[str]] = {}  # nodes of FP16 graphs that stay in float32
        self._rounded: dict[Part, Rounded] = {}  # weights of the others
        self.reports: list[GraphReport] = []  # of all graphs that the manifest is to list
        self._reference, self._on_step = reference, on_step
        self.entries: list[GraphEntry] = []  # of the graphs that were added
        self._verifier = Verifier(reference)
        part = reference.rows(slice(None, None, -(-len(reference.images) // IN_OPENVINO)))
        self._in_openvino: Verifier | None = Verifier(part)

    def derive(self, precision: Precision, fp32: Callable[[Part], ir.Model]) -> None:
        """Derive, write and verify float32 or FP16 graphs; `fp32` gives a copy of what each is of.

        That of FP16 ones is read anew each time: clones share the types that are changed in them.
        """
        for key in graph_keys(self.files.spec, precision):
            model = fp32(key.part)
            name_nodes(model)
            if key.precision == "fp16" and key.variant == "full":
                self._judge_activations(key, model)
            if key.variant in {"luma", "mu"}:
                luma_from_float(model)
            if key.variant == "mu":
                mu_from_encoder(model)
            if key.variant == "phases":
                phases_from_decoder(model, key.target, cut=key.target == "onnx")
            subnormal_weights, kept = 0, tuple[str, ...]()
            if key.precision == "fp16":
                names = kept_in_engines(model.graph, self._kept[key.part])
                kept = tuple(str(node.name) for node in model.graph if node.name in names)
                subnormal_weights = fp16_from_fp32(model, kept, self._rounded[key.part])
            self._on_step(key.title)
            file = self.files.save(key, model, kept=kept)
            self.reports += self._verifier.verify_file(key, file)
            if (key.precision, key.target) == ("fp32", None) and self._in_openvino is not None:
                # It may run there. Where OpenVINO is not installed, or does not open a graph, the
                # manifest holds no such report, and a stream in OpenVINO says so.
                try:
                    backend = open_engine(file, key, EngineRequest(backend="openvino"))
                except (MissingDependencyError, BackendError):
                    self._in_openvino = None
                else:
                    with backend:
                        self.reports += self._in_openvino.verify(key, backend)
            facts = {"subnormal_weights": subnormal_weights, "kept_float32": kept}
            self.entries.append(self.files.entry(key, model, **facts))

    def _judge_activations(self, key: GraphKey, model: ir.Model) -> None:
        """Decide what of an FP16 graph stays in float32, and report on what else is inside."""
        self._on_step(f"{key.title}: activations")
        kept = fragile_nodes(model.graph)
        for nodes in nodes_called(model, self._keep).values():
            kept.update(nodes)
        with opened_with_values(model, self.files.folder) as engine:
            inputs = InputMoments(model, engine)
            found = Activations(model, inputs, self._verifier.single_inputs(key))
            found.add(engine, self._verifier.single_probes(key))
            self._rounded[key.part] = weights_rounded_together(model, inputs)
        if AUTO in self._keep:
            kept = found.to_keep(kept)
        self._kept[key.part] = kept
        report = self._verifier.verify_activations(key, found, kept, engine=engine.name)
        self.reports.append(report)

    def _check_kept(self) -> None:
        """Refuse, with a ConfigError, a name to keep in float32 that no graph has."""
        unknown = {name for name in self._keep if name != AUTO}
        modules: dict[str, None] = {}
        for key in graph_keys(self.files.spec, "fp32"):
            if unknown and key.variant == "full":
                model = self.files.load(key)
                name_nodes(model)
                modules |= dict.fromkeys(filter(None, map(module_of, model.graph)))
                unknown -= {name for name, of in nodes_called(model, unknown).items() if of}
        if unknown:
            raise ConfigError(
                f"--keep-float32 {min(unknown)}: no node or module of the graphs is called so; "
                f"there are {sentence_list([*modules][:8]) or 'no module names'}, and auto"
            )

    def add(
        self,
        precisions: Collection[Precision],
        targets: Collection[Target],
        images: CalibrationImages | tuple[Searched, ...],
    ) -> tuple[Searched, ...]:
        """Add precisions to the float32 graphs in the folder; return what was searched for INT8."""
        if "bf16" in precisions:
            self.add_bf16()
        if "fp16" in precisions:
            self._check_kept()
            self.derive("fp16", lambda part: self.files.load(GraphKey(part)))
        if not isinstance(images, CalibrationImages):
            return images
        # INT8 is compared with the float32 graphs, which are worth that if they passed.
        if not all(report.passed for report in self.reports):
            return ()
        search = Int8Search(self.files, self._reference, images, self._on_step, self._prune)
        searched = search.graphs_for(targets)
        for found in searched:
            if found.passed:
                model, facts = found.trials[-1].model, {"calibration": found.calibration}
                self.entries += [self.files.entry(key, model, **facts) for key in found.keys]
                self.reports += found.trials[-1].reports
        return searched

    def add_bf16(self) -> None:
        """List the float32 graphs that OpenVINO computes in bf16, having verified that."""
        try:
            for key in graph_keys(self.files.spec, "bf16"):
                self._on_step(key.title)
                self.reports += self._verifier.verify_file(key, self.files.file(key))
                self.entries.append(self.files.entry(key, self.files.load(key)))
        except MissingDependencyError as error:
            raise missing_dependency(
                "verifying bf16 graphs", "openvino", extra="openvino", instead="leave out --bf16"
            ) from error
        except BackendError as error:
            raise BackendError(f"{error}; or leave out --bf16") from error

    def check_gate(self, searched: Sequence[Searched], on_reports: ReportsHook) -> None:
        """Raise a VerificationError where a graph drifted past its limit: nothing may be kept."""
        refused = [report for one in searched for report in one.failed]
        on_reports([*self.reports, *refused], searched)
        if failed := [report for report in self.reports if not report.passed]:
            named = ", ".join(clause for report in failed for clause in report.failures)
            notes = dict.fromkeys(note for report in failed for note in report.notes)
            where = "".join(f"; {n}" for n in notes if n.startswith((WORST_PROBE, OVERFLOW)))
            raise VerificationError(
                f"verification failed, no bundle was written: {named}{where}; "
                f"{advice_on(failed, self._reference)}"
            )

    def write_manifest(
        self,
        external_data: bool,
        earlier: Manifest | None = None,
        *,
        remarks: Sequence[str] = (),
        ood: OODCapability | None = None,
        origin: Origin | None = None,
    ) -> None:
        """Write the manifest; the parts of an `earlier` one stay."""
        folder = self.files.folder
        own = [one.file for one in earlier.files] if earlier else [STATISTICS, VERIFICATION_IMAGES]
        manifest = Manifest(
            schema_version=SCHEMA_VERSION,
            producer=f"motorvae {own_version()}",
            created=dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds"),
            weights_sha256=self.files.weights_sha256,
            model=self.files.spec,
            preprocessing=Preprocessing.of(self.files.spec),
            graphs=(*(earlier.graphs if earlier else ()), *self.entries),
            files=tuple(FileEntry.of(folder / name) for name in own),
            verification=(*(earlier.verification if earlier else ()), *self.reports),
            remarks=(*(earlier.remarks if earlier else ()), *remarks),
            ood=earlier.ood if earlier else ood,
            origin=earlier.origin if earlier else origin,
        )
        write_with_weights(manifest, folder, external_data=external_data)
        remember_verified(load_bundle(folder), self.entries)
