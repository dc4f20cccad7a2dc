"""The INT8 forms of a bundle: calibrate once, search for each kind of engine, keep what passes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ...runtime.bundle.calibration import HELD_OUT, Calibration
from ...runtime.bundle.graph_key import TARGETS, GraphKey, Target
from ...runtime.bundle.manifest import GraphReport
from ...runtime.core.errors import sentence_list
from ...runtime.engines.open import GraphFile, open_engine
from ...runtime.pixels.convert import input_from_luma
from ..transforms.bias_correction import correct_biases
from ..transforms.equalise import equalise, reach_over
from ..transforms.io_variants import luma_from_quantised, mu_from_encoder
from ..transforms.phases import phases_from_decoder
from ..transforms.qdq import Activations, Method, int8_from_fp32, layers_of
from ..verify.batches import run_in_batches
from ..verify.extremes import RISK
from ..verify.graph_reference import reference_from_graphs
from ..verify.metrics import FEWEST_FOR_BOUND
from ..writer import BundleWriter
from .images import CalibrationImages
from .search import METHODS, Question, Trial, search

SCREENED = 32
"""About so many of the images that choose, evenly taken, see each candidate first."""
NEGATIVE_SIDE = 0.5
"""What a LeakyReLU of an encoder reads is represented down to this share of its positive side."""
MANY = 512
"""What fresh images may reach is told closely from so many on."""
RISK_OF_ONE = RISK / 5
"""From so many on the five gated figures of an engine's encoder and decoder hold together: largest
errors of latents, of collapsed ones and of deviations, and the worst image in two ways."""
_NO_LATENTS = np.empty((0, 0), np.float32)


@dataclass(frozen=True, slots=True)
class Int8Request:
    """What is asked for.

    Attributes:
        runners: For which kinds of engines.
        calibration: Where ranges come from; see `calibration_from_text`.
    """

    runners: tuple[Target, ...] = TARGETS
    calibration: str = HELD_OUT


@dataclass(frozen=True, slots=True)
class Searched:
    """Every candidate for one graph; the last is the one that was kept, or the best refused."""

    key: GraphKey
    trials: tuple[Trial, ...]

    @property
    def passed(self) -> bool:
        """Whether a graph was kept."""
        return self.trials[-1].passed


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What a bundle lacks of one kind of engine's INT8 graphs, as it did not pass.

    Attributes:
        key: What failed: an encoder, without which nothing of the set is kept, or a decoder.
        failed: The reports of the best candidate that did not pass.
        reason: Why there was no candidate, such as too few images; empty where there was one.
    """

    key: GraphKey
    failed: tuple[GraphReport, ...] = ()
    reason: str = ""

    @property
    def sentence(self) -> str:
        """What was left out and by which figures, without a full stop."""
        if self.reason:
            return f"the INT8 graphs are left out: {self.reason}"
        # An encoder that gives mu alone fails by the same figures as the one with both outputs.
        first = [report for report in self.failed if report.title == self.failed[0].title]
        clauses = sentence_list([clause for report in first for clause in report.failures])
        if self.key.part == "encoder":
            return f"the INT8 graphs for {self.key.target} are left out: {clauses}"
        return (
            f"the INT8 decoder for {self.key.target} is left out, its encoder is there: {clauses}"
        )


class Int8Forms:
    """Derives, writes and verifies the INT8 forms of the float32 graphs in a writer's folder.

    Candidates are chosen by images that no range comes from, and judged by others yet.

    Args:
        writer: Holds the float32 graphs, which passed.
        images: What calibrates, chooses and judges.
        tell: Called with what is being done.
    """

    def __init__(
        self,
        writer: BundleWriter,
        images: CalibrationImages,
        tell: Callable[[str], None],
    ) -> None:
        self._writer, self._images, self._tell = writer, images, tell
        tell(f"float32 graphs on {len(images.choosing) + len(images.judging)} held-out images")
        self._choosing, self._judging = (
            reference_from_graphs(writer.folder, writer.spec, part, writer.reference)
            for part in (images.choosing, images.judging)
        )
        if len(images.judging) >= MANY:
            self._judging = replace(self._judging, risk=RISK_OF_ONE)
        self._encoder, self._phases = writer.fp32("encoder"), writer.fp32("decoder")
        inputs = input_from_luma(images.luma[:, None])
        key = GraphKey("encoder")
        file = GraphFile(writer.folder / key.onnx_file, writer.spec)
        with open_engine(file, key) as backend:
            self._latents = run_in_batches(backend, inputs)
        tell("how far channels reach")
        equalise(self._encoder, reach_over(self._encoder, inputs, writer.folder))
        mu = self._latents["mu"]
        # Decoders gain from it in some models and lose in others: the search has both.
        equalised = self._phases.clone()
        equalise(equalised, reach_over(equalised, mu, writer.folder))
        for decoder in (self._phases, equalised):
            phases_from_decoder(decoder, everywhere=True)
        self._in_encoder = Activations(
            self._encoder, inputs, negative_side=NEGATIVE_SIDE, progress=self._counted("encoder")
        )
        self._decoders = {
            is_equalised: (decoder, Activations(decoder, mu, progress=self._counted("decoder")))
            for is_equalised, decoder in ((False, self._phases), (True, equalised))
        }
        self._encoded: dict[Target, tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]] = {}

    def add(self, runners: Sequence[Target]) -> tuple[tuple[Searched, ...], tuple[LeftOut, ...]]:
        """Add the forms for kinds of engines; return the searches, and what did not pass.

        An engine's decoder is not searched for where its encoder failed: rows come from encoders.
        """
        searched: list[Searched] = []
        left_out: list[LeftOut] = []
        for runner in runners:
            for search_one in (self._add_encoders, self._add_decoder):
                found = search_one(runner)
                searched.append(found)
                if not found.passed:
                    failed = tuple(r for r in found.trials[-1].reports if not r.passed)
                    left_out.append(LeftOut(found.key, failed))
                    break
        return tuple(searched), tuple(left_out)

    def _add_encoders(self, runner: Target) -> Searched:
        """Add an encoder with both outputs, and the part of it that gives `mu`."""
        key = GraphKey("encoder", "int8", "luma", runner)

        def derive(method: Method, excluded: Sequence[str]) -> ir.Model:
            ranges = self._in_encoder.ranges(method)

            def derived(source: ir.Model) -> ir.Model:
                model = int8_from_fp32(source, ranges, runner, excluded=excluded)
                luma_from_quantised(model)
                return model

            found = self._writer.run(key, derived(self._encoder), self._images.luma[:, None])
            corrected = self._encoder.clone()
            correct_biases(corrected, found, self._latents)
            return derived(corrected)

        def both(model: ir.Model) -> dict[GraphKey, ir.Model]:
            mu = model.clone()
            mu_from_encoder(mu)
            return {key: model, GraphKey("encoder", "int8", "mu", runner): mu}

        layers = [*layers_of(self._encoder)]
        # TensorRT's signed type would drop luma's lowest bit; the layer that reads it is small.
        excluded = tuple(layers[:1]) if runner == "tensorrt" else ()
        methods = [replace(method, equalised=True) for method in METHODS]
        trials = self._search(key, derive, both, layers, excluded, methods=methods)
        if trials[-1].passed:
            choosing, judging = (
                self._writer.run(key, trials[-1].model, images[:, None])["mu"]
                for images in (self._images.choosing, self._images.judging)
            )
            self._encoded[runner] = choosing, judging
        return Searched(key, trials)

    def _add_decoder(self, runner: Target) -> Searched:
        key = GraphKey("decoder", "int8", "phases", runner)

        def derive(method: Method, excluded: Sequence[str]) -> ir.Model:
            decoder, activations = self._decoders[method.equalised]
            return int8_from_fp32(decoder, activations.ranges(method), runner, excluded=excluded)

        layers = [*layers_of(self._phases)]
        methods = (*METHODS, *(replace(method, equalised=True) for method in METHODS))
        trials = self._search(key, derive, lambda model: {key: model}, layers, methods=methods)
        return Searched(key, trials)

    def _search(
        self,
        key: GraphKey,
        derive: Callable[[Method, Sequence[str]], ir.Model],
        forms_of: Callable[[ir.Model], dict[GraphKey, ir.Model]],
        layers: Sequence[str],
        excluded: tuple[str, ...] = (),
        *,
        methods: Sequence[Method],
    ) -> tuple[Trial, ...]:
        choosing, judging = self._encoded.get(key.target or "onnx", (_NO_LATENTS, _NO_LATENTS))
        some = slice(None, None, max(1, len(self._images.choosing) // SCREENED))

        def on_choosing(model: ir.Model, rows: slice = slice(None)) -> tuple[GraphReport, ...]:
            part = self._choosing.rows(rows)
            return self._writer.judge(key, model, part, encoded=choosing[rows])

        question = Question(
            derive=derive,
            screen=lambda model: on_choosing(model, some),
            choose=on_choosing,
            judge=lambda trial, finalists: self._writer.add_if_passed(
                forms_of(trial.model),
                calibration=self._calibration(trial, finalists),
                reference=self._judging,
                encoded=judging,
                notes=self._notes(),
            ),
            layers=layers,
            excluded=excluded,
            methods=methods,
            tell=lambda candidate: self._tell(f"{key.title}: {candidate}"),
        )
        return search(question)

    def _calibration(self, trial: Trial, finalists: int) -> Calibration:
        percentile = trial.method.percentile
        return Calibration(
            method="min-max" if percentile is None else "percentile",
            percentile=percentile,
            equalised=trial.method.equalised,
            excluded=trial.excluded,
            images=len(self._images.luma),
            origin=self._images.origin,
            chosen=len(self._images.choosing),
            judged=len(self._images.judging),
            finalists=finalists,
        )

    def _notes(self) -> tuple[str, ...]:
        count = len(self._images.judging)
        if count >= MANY:
            return ()
        others = "what others may reach is told from these with a wide margin"
        if count < FEWEST_FOR_BOUND:
            others = "what others may reach cannot be told from so few"
        return (
            f"{count} images judge INT8, and {others}: a training run keeps up to 2048 images for "
            "that, and the export of its checkpoint takes all",
        )

    def _counted(self, graph: str) -> Callable[[int], None]:
        count = len(self._images.luma)
        return lambda seen: self._tell(f"ranges inside the {graph}: image {seen} of {count}")
