"""BundleWriter: every form of a bundle's graphs, written, verified and listed in the manifest."""

from __future__ import annotations

import contextlib
import datetime as dt
import importlib.metadata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from ..runtime.bundle.calibration import Calibration
from ..runtime.bundle.graph_key import GraphKey, Part, Precision, Target
from ..runtime.bundle.load import Bundle, load_bundle
from ..runtime.bundle.manifest import (
    MANIFEST,
    SCHEMA_VERSION,
    FileEntry,
    GraphEntry,
    GraphReport,
    Manifest,
    Preprocessing,
)
from ..runtime.bundle.ood_capability import OODCapability
from ..runtime.core.atomic_files import sha256_of
from ..runtime.core.errors import BackendError, MissingDependencyError, VerificationError
from ..runtime.core.spec import ModelSpec
from ..runtime.engines.base import Backend, Batch
from ..runtime.engines.open import GraphFile, open_engine, open_file
from ..runtime.engines.request import EngineRequest
from ..runtime.pixels.convert import input_from_luma
from .metadata import describe
from .transforms.fp16 import check_precision, fp16_from_fp32, with_values_exposed
from .transforms.io_variants import luma_from_float, mu_from_encoder
from .transforms.phases import phases_from_decoder
from .verify.advice import advice_on
from .verify.batches import run_in_batches
from .verify.verifier import (
    WORST_PROBE,
    Reference,
    activation_report,
    decoder_reports,
    encoder_reports,
)

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


class _Facts(TypedDict):
    file: str
    sha256: str
    size_bytes: int


class BundleWriter:
    """Collects a bundle in a folder that is not yet in its place.

    Args:
        folder: The temporary folder.
        spec: Sizes of the model.
        weights_sha256: Identity of the weights, written into each graph and the manifest.
        reference: What every graph is held against.

    Attributes:
        encoded: (N, D) mu of the last encoder of each precision and runner, for its decoders.
    """

    def __init__(
        self, folder: Path, spec: ModelSpec, weights_sha256: str, reference: Reference
    ) -> None:
        self.folder, self.spec, self.weights_sha256 = folder, spec, weights_sha256
        self.reference = reference
        self.encoded: dict[tuple[Precision, Target | None], npt.NDArray[np.float32]] = {}
        self._openvino_mu = np.empty((0, spec.latent_size), np.float32)
        self.graphs: list[GraphEntry] = []
        self.reports: list[GraphReport] = []
        self.ood: OODCapability | None = None

    def add_fp32(self, graphs: Mapping[Part, ir.Model]) -> None:
        """Derive, write and verify all float32 forms of the two graphs."""
        for key in FP32:
            model = graphs[key.part].clone()
            if key.variant == "mu":
                luma_from_float(model)
                mu_from_encoder(model)
            elif key.variant == "phases":
                phases_from_decoder(model, everywhere=False)
            self.add(key, model)

    def add_fp16(self) -> None:
        """Derive, write and verify all FP16 forms of the float32 graphs in the folder.

        Raises:
            VerificationError: A weight is beyond the FP16 range.
        """
        for key in FP16:
            model = self.fp32(key.part)
            if key.variant == "full":
                self._report_activations(key, model)
            else:
                luma_from_float(model)
            if key.variant == "mu":
                mu_from_encoder(model)
            half = fp16_from_fp32(model)
            self.add(key, model, subnormal_weights=half.subnormal)

    def add_bf16(self) -> None:
        """List the float32 graphs that OpenVINO computes in bf16, having verified that.

        Raises:
            MissingDependencyError: OpenVINO is not installed.
            BackendError: This processor does not compute in bf16.
        """
        for key in BF16:
            model = ir.load(self.folder / key.onnx_file)
            self.graphs.append(self._verified(key, model, self.reference))

    def fp32(self, part: Part) -> ir.Model:
        """Return a fresh copy of a whole float32 graph from the folder."""
        return ir.load(self.folder / GraphKey(part).onnx_file)

    def add(
        self,
        key: GraphKey,
        model: ir.Model,
        *,
        subnormal_weights: int = 0,
        calibration: Calibration | None = None,
        reference: Reference | None = None,
    ) -> None:
        """Write a graph, verify it, and list it.

        Args:
            key: What it is.
            model: The graph; its description is changed.
            subnormal_weights: See `HalfWeights`.
            calibration: How an INT8 graph was calibrated.
            reference: The images that verify it; by default all.
        """
        describe(model, key, spec=self.spec, weights=self.weights_sha256)
        check_precision(model, key.precision, calibration.excluded if calibration else ())
        path = self.folder / key.onnx_file
        ir.save(model, path)
        onnx.checker.check_model(path, full_check=True)
        entry = self._verified(key, model, reference or self.reference)
        facts = {"subnormal_weights": subnormal_weights, "calibration": calibration}
        self.graphs.append(entry.model_copy(update=facts))

    def add_if_passed(
        self,
        models: Mapping[GraphKey, ir.Model],
        *,
        calibration: Calibration,
        reference: Reference,
        encoded: npt.NDArray[np.float32],
        notes: Sequence[str] = (),
    ) -> tuple[GraphReport, ...]:
        """Write and verify graphs that belong together; list them if all pass, else keep none.

        Args:
            models: What they are, and the graphs; their descriptions are changed.
            calibration: How they were calibrated.
            reference: The images that verify them.
            encoded: (N, D) mu that their encoder gives for these images; for decoders.
            notes: What the verdict does not cover.

        Returns:
            All reports.
        """
        graphs, reports = len(self.graphs), len(self.reports)
        self.encoded["int8", next(iter(models)).target] = encoded
        for key, model in models.items():
            self.add(key, model, calibration=calibration, reference=reference)
        found = tuple(
            report.model_copy(update={"notes": (*report.notes, *notes)})
            for report in self.reports[reports:]
        )
        self.reports[reports:] = found
        if not all(report.passed for report in found):
            del self.graphs[graphs:], self.reports[reports:]
            for key in models:
                (self.folder / key.onnx_file).unlink()
        return found

    def judge(
        self,
        key: GraphKey,
        model: ir.Model,
        reference: Reference,
        *,
        encoded: npt.NDArray[np.float32],
    ) -> tuple[GraphReport, ...]:
        """Hold a candidate against a reference; arguments as of `add_if_passed`."""
        self.encoded[key.precision, key.target] = encoded
        with self._saved(model) as file:
            return self._reports(key, file, reference)[0]

    def run(
        self, key: GraphKey, model: ir.Model, inputs: Batch
    ) -> dict[str, npt.NDArray[np.float32]]:
        """Return what a candidate gives, on the engine that it is verified on."""
        with self._saved(model) as file, opened_as_verified(key, file)[0] as backend:
            return run_in_batches(backend, inputs)

    @contextlib.contextmanager
    def _saved(self, model: ir.Model) -> Iterator[GraphFile]:
        path = self.folder / "candidate.onnx"
        ir.save(model, path)
        yield GraphFile(path, self.spec)
        path.unlink()

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
                f"{advice_on(failed, self.reference)}"
            )
        manifest = Manifest(
            schema_version=SCHEMA_VERSION,
            producer=f"motorvae {importlib.metadata.version('motorvae')}",
            created=dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds"),
            weights_sha256=self.weights_sha256,
            model=self.spec,
            preprocessing=Preprocessing(),
            graphs=(*(earlier.graphs if earlier else ()), *self.graphs),
            files=tuple(FileEntry(**_facts(self.folder / name)) for name in others),
            verification=(*(earlier.verification if earlier else ()), *self.reports),
            remarks=(*(earlier.remarks if earlier else ()), *remarks),
            ood=earlier.ood if earlier else self.ood,
        )
        text = manifest.model_dump_json(indent=2) + "\n"
        (self.folder / MANIFEST).write_text(text, encoding="utf-8")
        load_bundle(self.folder)

    def _verified(self, key: GraphKey, model: ir.Model, reference: Reference) -> GraphEntry:
        """Verify a graph whose file is there, keep its reports, and return its entry."""
        path = self.folder / key.onnx_file
        file = GraphFile(path, self.spec)
        reports, mu = self._reports(key, file, reference)
        self.reports += reports
        if key.precision == "fp32":
            self.reports += self._openvino_reports(key, file, reference)
        if mu is not None:
            self.encoded[key.precision, key.target] = mu
        return GraphEntry(
            **_facts(path),
            **key.fields,
            opset=model.opset_imports[""],
            inputs=key.inputs(self.spec),
            outputs=key.outputs(self.spec),
        )

    def _openvino_reports(
        self, key: GraphKey, file: GraphFile, reference: Reference
    ) -> tuple[GraphReport, ...]:
        """Verify a float32 graph in OpenVINO too, where it is installed: it may run there.

        Where it is not, or does not open the graph, the manifest holds no such report, and a
        stream in OpenVINO says so.
        """
        part = reference.rows(slice(None, None, -(-len(reference.images) // IN_OPENVINO)))
        try:
            backend = open_engine(file, key, EngineRequest(backend="openvino"))
        except (MissingDependencyError, BackendError):
            return ()  # what does not open here does not run here
        with backend:
            if key.part == "encoder":
                reports, self._openvino_mu = encoder_reports(backend, part, key.precision)
            else:
                encoded = self._openvino_mu
                reports = decoder_reports(backend, part, key.precision, encoded=encoded)
        return tuple(report.model_copy(update={"variant": key.variant}) for report in reports)

    def _reports(
        self, key: GraphKey, file: GraphFile, reference: Reference
    ) -> tuple[tuple[GraphReport, ...], npt.NDArray[np.float32] | None]:
        """Run a file on the production backend; return an encoder's (N, D) mu as well.

        A decoder is also run on what the encoder of its precision gave.
        """
        mu = None
        backend, note = opened_as_verified(key, file)
        with backend:
            if key.part == "encoder":
                reports, mu = encoder_reports(backend, reference, key.precision)
            else:
                encoded = self.encoded[key.precision, key.target]
                reports = decoder_reports(backend, reference, key.precision, encoded=encoded)
        labels = {"variant": key.variant, "made_for": key.target}
        labelled = tuple(
            report.model_copy(update={**labels, "engine": report.engine + note})
            for report in reports
        )
        return labelled, mu

    def _report_activations(self, key: GraphKey, model: ir.Model) -> None:
        """Look inside the float32 graph for values that FP16 arithmetic could not hold."""
        exposed = self.folder / "exposed.onnx"
        ir.save(with_values_exposed(model), exposed)
        reference = self.reference
        is_encoder = key.part == "encoder"
        inputs = input_from_luma(reference.images[:, None]) if is_encoder else reference.mu
        if (probes := reference.probes) is not None:
            probed = input_from_luma(probes.images[:, None]) if is_encoder else probes.latents
            inputs = np.concatenate([inputs, probed])
        largest = 0.0
        with open_file(exposed) as backend:
            for image in range(len(inputs)):  # every value inside is kept, so one at a time
                values = backend.run(inputs[image : image + 1])
                largest = max(largest, *(float(np.abs(value).max()) for value in values.values()))
            report = activation_report(key.part, largest, engine=backend.name, reference=reference)
        exposed.unlink()
        self.reports.append(report)


def opened_as_verified(key: GraphKey, source: Bundle | GraphFile) -> tuple[Backend, str]:
    """Open a graph on the engine it is made for, or on ONNX Runtime with a note that says so."""
    if key.target == "openvino":
        try:
            return open_engine(source, key, EngineRequest(backend="openvino")), ""
        except (MissingDependencyError, BackendError) as error:
            if key.precision == "bf16":  # the float32 file in ONNX Runtime would prove nothing
                raise
            return open_engine(source, key), f", not OpenVINO: {error.clause()}"
    return open_engine(source, key), ", not TensorRT" if key.target == "tensorrt" else ""


def _facts(path: Path) -> _Facts:
    return {"file": path.name, "sha256": sha256_of(path), "size_bytes": path.stat().st_size}
