"""BundleWriter: every graph of a bundle written, verified and listed in the manifest."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
from collections.abc import Iterable, Mapping, Sequence

import onnx_ir as ir

from ..runtime.bundle.graph_key import GraphKey, Part
from ..runtime.bundle.load import load_bundle
from ..runtime.bundle.manifest import (
    MANIFEST,
    SCHEMA_VERSION,
    Calibration,
    FileEntry,
    GraphEntry,
    GraphReport,
    Manifest,
    OODCapability,
    Preprocessing,
)
from ..runtime.core.errors import BackendError, MissingDependencyError, VerificationError
from ..runtime.engines.open import EngineRequest, GraphFile, open_engine
from .graph_folder import GraphFolder, facts_of
from .transforms.fp16 import fp16_from_fp32
from .transforms.graph_ops import with_values_exposed
from .transforms.io_variants import luma_from_float, mu_from_encoder
from .transforms.phases import phases_from_decoder
from .verify.reference import Reference
from .verify.reports import WORST_PROBE, advice_on
from .verify.verifier import Verifier

FP32 = (
    GraphKey("encoder"),
    GraphKey("encoder", variant="mu"),
    GraphKey("decoder"),
    GraphKey("decoder", variant="phases"),
)
FP16 = (
    GraphKey("encoder", "fp16"),
    GraphKey("encoder", "fp16", "luma"),
    GraphKey("encoder", "fp16", "mu"),
    GraphKey("decoder", "fp16"),
)
BF16 = (
    GraphKey("encoder", "bf16", target="openvino"),
    GraphKey("encoder", "bf16", "mu", "openvino"),
    GraphKey("decoder", "bf16", "phases", "openvino"),
)
IN_OPENVINO = 64
"""So many held-out images, evenly taken, judge a float32 graph a second time, in OpenVINO."""


class BundleWriter:
    """Collects a bundle in a folder that is not yet in its place.

    Args:
        files: The graphs in the temporary folder.
        reference: What every graph is held against.

    Attributes:
        verifier: Holds them against it.
        graphs: What the manifest is to list.
        reports: What the verifier said of them.
        ood: What out-of-distribution detection can tell.
    """

    def __init__(self, files: GraphFolder, reference: Reference) -> None:
        self.files, self.verifier = files, Verifier(reference)
        part = reference.rows(slice(None, None, -(-len(reference.images) // IN_OPENVINO)))
        self._in_openvino: Verifier | None = Verifier(part)
        self.graphs: list[GraphEntry] = []
        self.reports: list[GraphReport] = []
        self.ood: OODCapability | None = None

    def add_fp32(self, graphs: Mapping[Part, ir.Model]) -> None:
        """Derive, write and verify all float32 variants of the two graphs."""
        for key in FP32:
            model = graphs[key.part].clone()
            if key.variant == "mu":
                luma_from_float(model)
                mu_from_encoder(model)
            elif key.variant == "phases":
                phases_from_decoder(model, everywhere=False)
            self._add(key, model)

    def add_fp16(self) -> None:
        """Derive, write and verify all FP16 variants of the float32 graphs in the folder.

        Raises:
            VerificationError: A weight is beyond the FP16 range.
        """
        for key in FP16:
            model = self.files.load(GraphKey(key.part))
            if key.variant == "full":
                exposed = self.files.folder / "exposed.onnx"
                ir.save(with_values_exposed(model), exposed)
                self.reports.append(self.verifier.verify_activations(key, exposed))
                exposed.unlink()
            else:
                luma_from_float(model)
            if key.variant == "mu":
                mu_from_encoder(model)
            self._add(key, model, subnormal_weights=fp16_from_fp32(model))

    def add_bf16(self) -> None:
        """List the float32 graphs that OpenVINO computes in bf16, having verified that.

        Raises:
            MissingDependencyError: OpenVINO is not installed.
            BackendError: This processor does not compute in bf16.
        """
        for key in BF16:
            self.reports += self.verifier.verify_file(key, self.files.file(key))
            self.graphs.append(self.files.entry(key, self.files.load(key)))

    def add_passed(
        self,
        keys: Iterable[GraphKey],
        model: ir.Model,
        calibration: Calibration,
        reports: Sequence[GraphReport],
    ) -> None:
        """List INT8 graphs that are in the folder and passed.

        Args:
            keys: Which.
            model: One of them.
            calibration: How they were calibrated.
            reports: What was said of them.
        """
        facts = {"calibration": calibration}
        self.graphs += [self.files.entry(key, model).model_copy(update=facts) for key in keys]
        self.reports += reports

    def finish(
        self,
        others: Sequence[str],
        earlier: Manifest | None = None,
        *,
        remarks: Sequence[str] = (),
    ) -> None:
        """Check the gate and write the manifest.

        Args:
            others: Names of the further files of the bundle.
            earlier: The manifest of the bundle that this one adds to.
            remarks: See `Manifest`; those of the earlier bundle stay.

        Raises:
            VerificationError: A graph drifted past its limit; nothing may be kept.
        """
        failed = [report for report in self.reports if not report.passed]
        if failed:
            named = ", ".join(clause for report in failed for clause in report.failures)
            notes = dict.fromkeys(note for report in failed for note in report.notes)
            where = "".join(f"; {note}" for note in notes if note.startswith(WORST_PROBE))
            raise VerificationError(
                f"verification failed, no bundle was written: {named}{where}; "
                f"{advice_on(failed, self.verifier.reference)}"
            )
        manifest = Manifest(
            schema_version=SCHEMA_VERSION,
            producer=f"motorvae {importlib.metadata.version('motorvae')}",
            created=dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds"),
            weights_sha256=self.files.weights_sha256,
            model=self.files.spec,
            preprocessing=Preprocessing(),
            graphs=(*(earlier.graphs if earlier else ()), *self.graphs),
            files=tuple(FileEntry(**facts_of(self.files.folder / name)) for name in others),
            verification=(*(earlier.verification if earlier else ()), *self.reports),
            remarks=(*(earlier.remarks if earlier else ()), *remarks),
            ood=earlier.ood if earlier else self.ood,
        )
        text = manifest.model_dump_json(indent=2) + "\n"
        (self.files.folder / MANIFEST).write_text(text, encoding="utf-8")
        load_bundle(self.files.folder)

    def _add(self, key: GraphKey, model: ir.Model, *, subnormal_weights: int = 0) -> None:
        """Write a graph, verify it, and list it; for `subnormal_weights` see `fp16_from_fp32`."""
        file = self.files.save(key, model)
        self.reports += self.verifier.verify_file(key, file)
        if key.precision == "fp32":
            self.reports += self._openvino_reports(key, file)
        entry = self.files.entry(key, model)
        self.graphs.append(entry.model_copy(update={"subnormal_weights": subnormal_weights}))

    def _openvino_reports(self, key: GraphKey, file: GraphFile) -> tuple[GraphReport, ...]:
        """Verify a float32 graph in OpenVINO too, where it is installed: it may run there.

        Where it is not, or does not open a graph, the manifest holds no such report, and a stream
        in OpenVINO says so.
        """
        if self._in_openvino is None:
            return ()
        try:
            backend = open_engine(file, key, EngineRequest(backend="openvino"))
        except (MissingDependencyError, BackendError):
            self._in_openvino = None  # what does not open here does not run here
            return ()
        with backend:
            return self._in_openvino.verify(key, backend)
