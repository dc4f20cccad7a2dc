"""The model under test, in torch and as a bundle, and what engines that run it are held to."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np
import safetensors.torch
import torch
from torch import nn

from ...export.bundle import write_bundle
from ...export.onnx_export import onnx_from_model
from ...export.verify.metrics import IMAGE_METRIC, LATENT_METRIC
from ...export.verify.reference import Reference, reference_from_bundle, spread_from_statistics
from ...export.verify.torch_reference import reference_from_model
from ...export.verify.verifier import Verifier
from ...runtime.bundle.graph_key import GraphKey, Part, Precision
from ...runtime.bundle.load import Bundle, load_bundle
from ...runtime.bundle.manifest import STATISTICS, VERIFICATION_IMAGES, GraphEntry, Manifest, Metric
from ...runtime.core.documents import Form, arrays_from_npz
from ...runtime.core.errors import BundleError, MeasurementError
from ...runtime.core.spec import ModelSpec
from ...runtime.engines.base import Arrays, Batch
from ...training.dataset import DataSet
from ...training.latent_statistics import latent_statistics, save_latents
from ...training.model import MotorVAE, decoding_of, encoding_of
from ..measure.case import COMPILED, EAGER, ONNX, Agreement, Case
from .scenes import vehicles
from .torch_models import model_of_bundle
from .untrained_int8 import add_int8_encoders

Run = Callable[[Batch], Arrays]

SPREAD_TOLERANCE: dict[Precision, float] = {"fp32": 1e-3, "fp16": 0.1, "bf16": 1, "int8": 1}
"""Largest difference from torch over the standard deviation of the output. Below float32 it only
catches what is plainly wrong: drift is the gate's business."""
ROUNDING_TOLERANCE = 1e-6
"""What is allowed on top, over the largest value: some float32 roundings, for constant outputs."""


@dataclass
class Running:
    """An engine under test as a verifier takes it: those as installed are functions alone."""

    run: Run
    input_dtype: np.dtype[Any]
    name: str = "the engine under test"


@dataclass
class DriftGate:
    """What each engine drifts, found once and kept for all batches and paths."""

    reference: Reference
    manifest: Manifest
    _known: dict[str, Metric] = field(default_factory=dict)

    def judged(self, case: Case, run: Run, entry: GraphEntry | None = None) -> Case:
        """Hold an engine to the limits over the held-out images; torch is the reference.

        The case gets the worst figure, and what the bundle's manifest announces of `entry`, where
        the engine runs one of our graphs. A compiled module is made for one batch size, and its
        agreement is checked anyway.
        """
        if case.engine in {EAGER, COMPILED}:
            return case
        if case.how not in self._known:
            engine = Running(run, np.dtype(case.input_type or np.float32))
            self._known[case.how] = Verifier(self.reference).worst(case.graph, engine)
        name = "psnr" if case.graph.part == "decoder" else "latent_error"
        notes = announced(self.manifest, entry) if entry else ()
        return case.with_facts(**{name: self._known[case.how]}, notes=(*case.notes, *notes))


def announced(manifest: Manifest, entry: GraphEntry) -> tuple[str, ...]:
    """Return what the manifest's verification holds of a graph, in a clause for each output."""
    clauses = tuple(
        f"the manifest, {report.engine}: {metric.name} {metric.value:.3g} "
        f"(limit {metric.limit:g}), {'passed' if metric.passed else 'failed'}"
        for report in manifest.verification
        if report.key == entry.key and report.output in {"mu", "reconstruction"}
        for metric in report.metrics
        if metric.name in {LATENT_METRIC, IMAGE_METRIC} and metric.limit is not None
    )
    return clauses or ("the manifest holds no verification of this graph",)


def agreement_with(
    reference: Arrays,
    found: Arrays,
    engine: str,
    precision: Precision = "fp32",
    *,
    against: str = EAGER,
) -> tuple[Agreement, ...]:
    """Compare an engine's outputs, all that it gives, with the reference's on the same input.

    Raises:
        MeasurementError: They differ by more than the tolerance, or in shape: timing a wrong
            result is worthless.
    """
    compared = []
    for output, values in found.items():
        expected = reference[output]
        if values.shape != expected.shape:
            raise MeasurementError(
                f"{engine} gives {output} of shape {values.shape} and {against} {expected.shape}: "
                "export the bundle again"
            )
        limit = SPREAD_TOLERANCE[precision] * float(expected.std())
        limit += ROUNDING_TOLERANCE * float(np.abs(expected).max())
        difference = float(np.abs(values - expected).max())
        if not difference <= limit:  # catches NaN too
            raise MeasurementError(
                f"{engine} and {against} disagree on {output}: largest difference "
                f"{difference:.3g}, limit {limit:.3g}; a benchmark of a wrong result is "
                "worthless: export the bundle again, and report this if it stays"
            )
        compared.append(
            Agreement(output=output, reference=against, max_difference=difference, limit=limit)
        )
    return tuple(compared)


_RANDOM_IMAGES = 32
"""Vehicles that random weights are verified on."""


@dataclass(frozen=True)
class ModelUnderTest:
    """What is benchmarked."""

    # In evaluation mode, float32, on the CPU; None of weights that came as graphs, of which the
    # float32 ones in ONNX Runtime are the reference
    model: MotorVAE | None
    bundle: Bundle  # Exported from the same weights
    reference: Reference  # The bundle's verification images, and what the reference gives for them
    untrained: bool  # Whether the weights are random

    @property
    def spec(self) -> ModelSpec:
        """The model's sizes."""
        return self.bundle.spec

    @functools.cached_property
    def gate(self) -> DriftGate:
        """Holds engines to the limits, each of them once."""
        return DriftGate(self.reference, self.bundle.manifest)

    @property
    def reference_engine(self) -> str:
        """What others are compared with."""
        return ONNX if self.model is None else EAGER

    def outputs(self, part: Part) -> tuple[str, ...]:
        """Name what a half gives."""
        return tuple(tensor.name for tensor in GraphKey(part).outputs(self.spec))

    def half(self, part: Part) -> nn.Module:
        """Return the encoder or the decoder in torch; a MeasurementError where there is none."""
        if self.model is None:
            raise MeasurementError("this model's weights came as graphs: there is no torch module")
        return self.model.encoder if part == "encoder" else self.model.decoder


def model_from_files(
    bundle_folder: Path, checkpoint: Path, *, images: int | None = None
) -> ModelUnderTest:
    """Load a bundle and the run that it was exported from, with all or some verification images.

    It is a MeasurementError where one of them is not there, or where their weights differ. A
    bundle of another network than the card's has no run, and is its own reference.
    """
    if bundle_folder.exists() and (bundle := load_bundle(bundle_folder)).spec.channels is None:
        own = reference_from_bundle(bundle).rows(slice(images))
        return ModelUnderTest(None, bundle, own, untrained=False)
    for what, path in (("bundle", bundle_folder), ("training run", checkpoint)):
        if not path.exists():
            raise MeasurementError(
                f"no {what} at {path}: run motorvae-train and then motorvae-export, name both "
                "with --model and --checkpoint, or measure random weights with --untrained"
            )
    bundle = load_bundle(bundle_folder)
    model = model_of_bundle(bundle, checkpoint)
    path = bundle_folder / VERIFICATION_IMAGES
    again = "export the bundle again"
    form = Form("u1", ("images", *bundle.spec.picture_shape))
    luma = arrays_from_npz(path, {"images": form}, error=BundleError, again=again)
    spread = spread_from_statistics(bundle_folder / STATISTICS, bundle.spec, error=BundleError)
    reference = reference_from_model(model, luma["images"][:images], spread)
    return ModelUnderTest(model, bundle, reference, untrained=False)


@contextlib.contextmanager
def untrained_model(spec: ModelSpec, seed: int, *, int8: bool = False) -> Iterator[ModelUnderTest]:
    """Make a model with random weights and export it into a folder that goes with the block.

    With `int8` its bundle has INT8 encoders, too, which are not verified.
    """
    model = random_model(spec, seed)
    luma = vehicles(seed, _RANDOM_IMAGES, spec)
    rows = np.arange(len(luma))
    data = DataSet(
        luma, [str(row) for row in rows], train=rows, held_out=rows, skipped=0, color=spec.color
    )
    reference = reference_from_model(model, luma)
    digest = hashlib.sha256(safetensors.torch.save(model.state_dict())).hexdigest()
    with tempfile.TemporaryDirectory(prefix="motorvae-bench-") as folder:
        statistics = Path(folder) / "latents.npz"
        halves = encoding_of(model), decoding_of(model)
        save_latents(statistics, latent_statistics(data, spec, *halves))
        write_bundle(
            Path(folder) / "bundle",
            graphs={graph: onnx_from_model(model, spec, graph) for graph in get_args(Part)},
            spec=spec,
            weights_sha256=digest,
            statistics=statistics,
            reference=reference,
            on_reports=lambda _reports, _searched: None,
            external_data=False,  # INT8 graphs are made of its files
        )
        if int8:
            add_int8_encoders(Path(folder) / "bundle", luma)
        yield ModelUnderTest(model, load_bundle(Path(folder) / "bundle"), reference, untrained=True)


def random_model(spec: ModelSpec, seed: int) -> MotorVAE:
    """Return a model with weights drawn from a seed, in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MotorVAE(spec).eval()
