"""Writing a bundle: graphs, their verification and the manifest, all of it or nothing."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import orjson

from ..runtime.backend import open_onnx
from ..runtime.bundle import (
    MANIFEST,
    SCHEMA_VERSION,
    STATISTICS,
    VERIFICATION_IMAGES,
    Bundle,
    FileEntry,
    GraphEntry,
    GraphName,
    GraphReport,
    Manifest,
    Precision,
    Preprocessing,
    load_bundle,
    tensors_of,
)
from ..runtime.engines import ENGINES, foreign_in_engines
from ..runtime.errors import OutputError, VerificationError, sentence_list
from ..runtime.files import check_writable, replaced_folder, sha256_of
from ..runtime.frames import input_from_luma
from ..runtime.spec import ModelSpec
from .precision import check_precision, fp16_from_fp32, with_values_exposed
from .reference import reference_from_bundle, save_reference
from .verify import (
    Reference,
    activation_report,
    decoder_reports,
    encoder_reports,
)

GRAPHS: tuple[GraphName, ...] = ("encoder", "decoder")

ReportsHook = Callable[[Sequence[GraphReport]], None]


class _Facts(TypedDict):
    file: str
    sha256: str
    size_bytes: int


def graph_file(graph: GraphName, precision: Precision) -> str:
    """Return the file name of a graph: float32 has the plain one."""
    return f"{graph}.onnx" if precision == "fp32" else f"{graph}.{precision}.onnx"


class BundleWriter:
    """Collects a bundle in a folder that is not yet in its place.

    Args:
        folder: The temporary folder.
        spec: Sizes of the model.
        weights_sha256: Identity of the weights, written into each graph and the manifest.
        reference: What every graph is held against.
    """

    def __init__(
        self, folder: Path, spec: ModelSpec, weights_sha256: str, reference: Reference
    ) -> None:
        self.folder, self.spec, self.weights_sha256 = folder, spec, weights_sha256
        self._reference = reference
        self._encoded: dict[Precision, npt.NDArray[np.float32]] = {}
        self.graphs: list[GraphEntry] = []
        self.reports: list[GraphReport] = []

    def add_fp32(self, graph: GraphName, model: ir.Model) -> None:
        """Write and verify a float32 graph."""
        self._add(graph, "fp32", model)

    def add_fp16(self, graph: GraphName) -> None:
        """Derive, write and verify the FP16 graph of a float32 one that is in the folder.

        Raises:
            VerificationError: A weight is beyond the FP16 range.
        """
        model = ir.load(self.folder / graph_file(graph, "fp32"))
        self._report_activations(graph, model)
        half = fp16_from_fp32(model)
        self._add(graph, "fp16", model, subnormal_weights=half.subnormal)

    def _add(
        self,
        graph: GraphName,
        precision: Precision,
        model: ir.Model,
        *,
        subnormal_weights: int = 0,
    ) -> None:
        _describe(model, graph, precision, spec=self.spec, weights=self.weights_sha256)
        check_precision(model, precision)
        path = self.folder / graph_file(graph, precision)
        ir.save(model, path)
        onnx.checker.check_model(path, full_check=True)
        inputs, outputs = tensors_of(graph, self.spec)
        with open_onnx(path) as backend:
            backend.check_tensors(inputs, outputs)
            if graph == "encoder":
                reports, mu = encoder_reports(backend, self._reference, precision)
                self._encoded[precision] = mu
            else:
                reports = decoder_reports(
                    backend, self._reference, precision, encoded=self._encoded[precision]
                )
            self.reports += reports
        self.graphs.append(
            GraphEntry(
                **_facts(path),
                graph=graph,
                precision=precision,
                opset=model.opset_imports[""],
                inputs=inputs,
                outputs=outputs,
                subnormal_weights=subnormal_weights,
            )
        )

    def _report_activations(self, graph: GraphName, model: ir.Model) -> None:
        """Look inside the float32 graph for values that FP16 arithmetic could not hold."""
        exposed = self.folder / "exposed.onnx"
        ir.save(with_values_exposed(model), exposed)
        reference = self._reference
        inputs = input_from_luma(reference.images[:, None]) if graph == "encoder" else reference.mu
        largest = 0.0
        with open_onnx(exposed) as backend:
            for image in range(len(inputs)):  # every value inside is kept, so one at a time
                values = backend.run(inputs[image : image + 1])
                largest = max(largest, *(float(np.abs(value).max()) for value in values.values()))
            report = activation_report(graph, largest, engine=backend.name, reference=reference)
        exposed.unlink()
        self.reports.append(report)

    def finish(self, others: Sequence[str], earlier: Manifest | None = None) -> None:
        """Check the gate and write the manifest.

        Args:
            others: Names of the further files of the bundle.
            earlier: The manifest of the bundle that this one adds to.

        Raises:
            VerificationError: A graph drifted past its limit; nothing may be kept.
        """
        failed = [report for report in self.reports if not report.passed]
        if failed:
            named = ", ".join(clause for report in failed for clause in report.failures)
            raise VerificationError(
                f"verification failed, no bundle was written: {named}; "
                "train longer"
                + (", or leave out --fp16" if all(r.precision == "fp16" for r in failed) else "")
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
        )
        text = manifest.model_dump_json(indent=2) + "\n"
        (self.folder / MANIFEST).write_text(text, encoding="utf-8")
        load_bundle(self.folder)


def check_replaceable(output: Path) -> None:
    """Refuse to replace anything but a bundle with nothing else in it.

    Raises:
        OutputError: Something there is not ours, or `output` cannot be written.
    """
    if output.exists():
        try:
            manifest = orjson.loads((output / MANIFEST).read_bytes())
            listed = {entry["file"] for entry in (*manifest["graphs"], *manifest["files"])}
            foreign = {path.name for path in output.iterdir()} - listed - {MANIFEST, ENGINES}
            foreign.update(foreign_in_engines(output))
        except (OSError, ValueError, KeyError, TypeError) as error:
            if output.is_dir() and not any(output.iterdir()):
                return
            raise OutputError(
                f"{output} exists and is not a bundle: name another --output, so that nothing is "
                "lost"
            ) from error
        if foreign:
            raise OutputError(
                f"{output} holds {sentence_list(sorted(foreign)[:5])} beside the bundle: move that "
                "away, or name another --output, so that nothing is lost"
            )
    check_writable(output)


def write_bundle(
    output: Path,
    *,
    graphs: dict[GraphName, ir.Model],
    spec: ModelSpec,
    weights_sha256: str,
    statistics: Path,
    reference: Reference,
    fp16: bool,
    on_reports: ReportsHook,
) -> None:
    """Write a whole new bundle.

    Args:
        output: Where; an earlier bundle there is replaced in one step.
        graphs: The float32 graphs.
        spec: Sizes of the model.
        weights_sha256: Identity of the weights.
        statistics: The run's latent statistics, copied into the bundle.
        reference: What every graph is held against.
        fp16: Whether to add FP16 graphs.
        on_reports: Called with all reports before the gate decides.

    Raises:
        VerificationError: A graph drifted past its limit; no bundle is written.
        OutputError: `output` cannot be written, or is something else than a bundle.
    """
    check_replaceable(output)
    with replaced_folder(output) as folder:
        writer = BundleWriter(folder, spec, weights_sha256, reference)
        for graph, model in graphs.items():
            writer.add_fp32(graph, model)
        if fp16:
            for graph in graphs:
                writer.add_fp16(graph)
        shutil.copyfile(statistics, folder / STATISTICS)
        save_reference(folder / VERIFICATION_IMAGES, reference)
        on_reports(writer.reports)
        writer.finish((STATISTICS, VERIFICATION_IMAGES))


def add_fp16_to_bundle(bundle: Bundle, *, on_reports: ReportsHook) -> bool:
    """Add FP16 graphs to a bundle from its float32 ones; needs no torch.

    Returns:
        False where the bundle already had them.

    Raises:
        VerificationError: A graph drifted past its limit; the bundle stays as it was.
        BundleError: The bundle does not hold what verification needs.
    """
    if any(entry.precision == "fp16" for entry in bundle.manifest.graphs):
        return False
    reference = reference_from_bundle(bundle)
    with replaced_folder(bundle.folder) as folder:
        shutil.copytree(bundle.folder, folder, dirs_exist_ok=True)
        manifest = bundle.manifest
        writer = BundleWriter(folder, bundle.spec, manifest.weights_sha256, reference)
        for graph in GRAPHS:
            writer.add_fp16(graph)
        on_reports(writer.reports)
        writer.finish([entry.file for entry in manifest.files], manifest)
    return True


def _facts(path: Path) -> _Facts:
    return {"file": path.name, "sha256": sha256_of(path), "size_bytes": path.stat().st_size}


def _describe(
    model: ir.Model, graph: GraphName, precision: Precision, *, spec: ModelSpec, weights: str
) -> None:
    """Write into the graph what it is; nothing of when or where, so that bytes repeat."""
    model.producer_name = "motorvae"
    model.producer_version = importlib.metadata.version("motorvae")
    model.doc_string = f"{graph} of a motorVAE, {precision}"
    model.metadata_props.update(
        {
            "motorvae.graph": graph,
            "motorvae.precision": precision,
            "motorvae.model": spec.model_dump_json(),
            "motorvae.weights_sha256": weights,
        }
    )
