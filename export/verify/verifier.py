"""Verifier: graphs compared with a reference, whatever runs them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ...runtime.bundle.graph_key import GraphKey, Precision, Target
from ...runtime.bundle.load import Bundle
from ...runtime.bundle.manifest import GraphReport, Metric
from ...runtime.core.errors import BackendError, MissingDependencyError, VerificationError
from ...runtime.engines.base import Backend, Batch
from ...runtime.engines.open import EngineRequest, GraphFile, open_engine
from ...runtime.engines.tensorrt.engine_manifest import BatchProfile
from .batches import (
    BATCH_SIZE,
    BATCH_SIZES,
    Decoded,
    Engine,
    FloatInput,
    Images,
    encoder_input,
    run_in_batches,
)
from .metrics import IMAGE_METRIC, LATENT_METRIC, metric, psnr_metric
from .reference import Reference
from .reports import ACTIVATIONS, decoder_report, encoder_reports, report_of

if TYPE_CHECKING:
    from .activations import Activations

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Verifier:
    """Compares graphs with a reference and gives a report for each of their outputs.

    At which batch sizes a graph runs and what a decoder decodes is decided here. A decoder also
    decodes what the encoder of its precision gave, which is verified before it: the one for the
    same target, or for all; of several the last.
    """

    reference: Reference
    sizes: Sequence[int] = BATCH_SIZES  # images per run, in turn
    # whether every size has reports of its own, as an engine may have other kernels for each; else
    # they share the images
    each: bool = False
    notes: Sequence[str] = ()  # what no verdict covers, for every report
    _encoded: dict[tuple[Precision, Target | None], list[Floats]] = field(default_factory=dict)

    @classmethod
    def of_engines(cls, reference: Reference, profile: BatchProfile) -> Verifier:
        """Return one by a profile's smallest, tuned and largest batch sizes, and one between."""
        sizes = {profile.min, profile.opt, (profile.min + profile.max) // 2, profile.max}
        return cls(reference, sizes=sorted(sizes), each=True)

    @classmethod
    def of_frames(cls, reference: Reference, count: int, *, one_by_one: bool = True) -> Verifier:
        """Return one by the first images alone, for what is timed while it is verified.

        One by one, each is a run of its own, as a camera's are.
        """
        part = replace(reference.rows(slice(count)), probes=None)
        return cls(part, sizes=(1,) if one_by_one else BATCH_SIZES)

    def rows(self, rows: slice) -> Verifier:
        """Return one by some of the images."""
        encoded = {key: [mu[rows] for mu in every] for key, every in self._encoded.items()}
        return replace(self, reference=self.reference.rows(rows), _encoded=encoded)

    @property
    def _turns(self) -> list[Sequence[int]]:
        return [(size,) for size in self.sizes] if self.each else [self.sizes]

    def verify(self, key: GraphKey, engine: Engine, *, note: str = "") -> tuple[GraphReport, ...]:
        """Run a graph and report on each output, or on each batch size and output.

        The limits are those of its precision. A note follows the engine's name in reports. A
        decoder before the encoder of its precision is a VerificationError.
        """
        is_encoder = key.part == "encoder"
        encoded = [] if is_encoder else self._encoded_for(key)
        reports: list[GraphReport] = []
        for turn, sizes in enumerate(self._turns):
            found: Sequence[GraphReport]
            if is_encoder:
                found, mu = encoder_reports(engine, self.reference, key, sizes=sizes)
                encoded.append(mu)
            else:
                mu = encoded[turn]
                found = [decoder_report(engine, self.reference, key, encoded=mu, sizes=sizes)]
            of_size = f", batch {sizes[0]}" if self.each else ""
            for report in found:
                name, notes = f"{report.engine}{note}{of_size}", (*report.notes, *self.notes)
                reports.append(report.model_copy(update={"engine": name, "notes": notes}))
        if is_encoder:
            self._encoded[key.precision, key.target] = encoded
        return tuple(reports)

    def verify_file(self, key: GraphKey, file: Bundle | GraphFile) -> tuple[GraphReport, ...]:
        """Open a graph on the engine that it is made for and verify it; see `verify`."""
        backend, note = opened_as_verified(key, file)
        with backend:
            return self.verify(key, backend, note=note)

    def verify_activations(
        self, key: GraphKey, found: Activations, kept: Collection[str] = (), *, engine: str
    ) -> GraphReport:
        """Report whether FP16 holds what is inside, while nodes are `kept` in float32.

        An engine that computes FP16 graphs in float32, as ONNX Runtime may on a CPU, gives finite
        outputs where a GPU's arithmetic would overflow.

        `key` is of the FP16 graph, and `engine` the name of what ran the float32 one.
        """
        notes = (*self.notes, *found.notes(kept))
        metrics = [found.metric(kept)]
        return report_of(ACTIVATIONS, metrics, key, self.reference, engine=engine, notes=notes)

    def single_inputs(self, key: GraphKey) -> Iterator[Batch]:
        """Yield the data that a graph is run on, one at a time, for what keeps every value."""
        reference = self.reference
        is_encoder = key.part == "encoder"
        return _one_by_one(FloatInput(reference.images) if is_encoder else reference.mu)

    def single_probes(self, key: GraphKey) -> Iterator[Batch]:
        """Yield the probes likewise."""
        probes = self.reference.probes
        if probes is not None and key.part == "encoder":
            yield from _one_by_one(FloatInput(probes.images))
        elif probes is not None and probes.latents is not None:
            yield from _one_by_one(probes.latents)

    def worst(self, key: GraphKey, engine: Engine) -> Metric:
        """Return the one figure that engines are compared by, without probes and bounds.

        Of an encoder it is the largest error of a latent over its spread, of a decoder the PSNR of
        the worst image.
        """
        reference, limits = self.reference, self.reference.limits(key.precision)
        if key.part == "decoder":
            found = Decoded.of(engine, reference.mu, reference.decoded, (BATCH_SIZE,))
            return psnr_metric(IMAGE_METRIC, found.squared_errors, limits.psnr_db, risk=None)
        inputs = encoder_input(engine, reference.images)
        mu = np.asarray(run_in_batches(engine, inputs, BATCH_SIZE)["mu"], np.float64)
        error = np.abs((mu - reference.mu) / reference.scale)[:, reference.judged_units]
        return metric(LATENT_METRIC, float(error.max()), limit=limits.max_spread)

    def take_encoded(self, key: GraphKey, mu: Floats) -> None:
        """Let decoders of a key's precision and target decode (N, D) mu of an encoder."""
        self._encoded[key.precision, key.target] = [mu] * len(self._turns)

    def encoded(self, key: GraphKey) -> Floats:
        """Return (N, D) mu of the last encoder of a key's precision and target."""
        return self._encoded_for(key)[-1]

    def _encoded_for(self, key: GraphKey) -> list[Floats]:
        for target in (key.target, None):
            if (key.precision, target) in self._encoded:
                return self._encoded[key.precision, target]
        raise VerificationError(
            f"{key.title}: no encoder of its precision was verified before it: verify that first"
        )


def opened_as_verified(key: GraphKey, file: Bundle | GraphFile) -> tuple[Backend, str]:
    """Open a graph on the engine it is made for, or on ONNX Runtime with a note that says so."""
    if key.target == "openvino":
        try:
            return open_engine(file, key, EngineRequest(backend="openvino")), ""
        except (MissingDependencyError, BackendError) as error:
            if key.precision == "bf16":  # the float32 file in ONNX Runtime would prove nothing
                raise
            return open_engine(file, key), f", not OpenVINO: {error.clause()}"
    return open_engine(file, key), ", not TensorRT" if key.target == "tensorrt" else ""


def _one_by_one(every: Images) -> Iterator[Batch]:
    for row in range(len(every)):
        yield every[row : row + 1]
