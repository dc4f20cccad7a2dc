"""The INT8 forms of a bundle: calibrate once, search for each kind of engine, keep what passes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from ..runtime.backend import open_onnx
from ..runtime.bundle import Runner
from ..runtime.calibration import Calibration
from ..runtime.frames import input_from_luma
from .batches import run_in_batches
from .bias import correct_biases
from .calibration_images import CalibrationImages
from .forms import RUNNERS, Form
from .phases import phases_from_decoder
from .qdq import Activations, Method, int8_from_fp32, layers_of
from .search import Question, Trial, search
from .variants import luma_from_quantised, mu_from_encoder
from .writer import BundleWriter

SCREENED = 4
"""Every fourth image judges first; all judge what is kept."""


@dataclass(frozen=True, slots=True)
class Searched:
    """Every candidate for one graph; the last is the one that was kept."""

    form: Form
    trials: tuple[Trial, ...]


class Int8Forms:
    """Derives, writes and verifies the INT8 forms of the float32 graphs in a writer's folder.

    Candidates and finished graphs are judged by images that no range comes from.

    Args:
        writer: Holds the float32 graphs already.
        images: What ranges come from, and which held-out images are none of these.
        tell: Called with what is being done.
    """

    def __init__(
        self,
        writer: BundleWriter,
        images: CalibrationImages,
        tell: Callable[[str], None],
    ) -> None:
        self._writer, self._images, self._tell = writer, images, tell
        self._reference = writer.reference.rows(images.judges)
        self._encoder = writer.fp32("encoder")
        self._phases = writer.fp32("decoder")
        phases_from_decoder(self._phases, everywhere=True)
        inputs = input_from_luma(images.luma[:, None])
        with open_onnx(writer.folder / Form("encoder", "fp32").file) as backend:
            self._latents = run_in_batches(backend, inputs)
        self._in_encoder = Activations(self._encoder, inputs, self._counted("encoder"))
        self._in_decoder = Activations(self._phases, self._latents["mu"], self._counted("decoder"))

    def add(self) -> tuple[Searched, ...]:
        """Add the forms for every kind of engine; return the searches."""
        searched = []
        for runner in RUNNERS:
            searched += [self._add_encoders(runner), self._add_decoder(runner)]
        return tuple(searched)

    def _add_encoders(self, runner: Runner) -> Searched:
        """Add an encoder with both outputs, and the part of it that gives `mu`."""
        form = Form("encoder", "int8", "luma", runner)

        def derive(method: Method, excluded: Sequence[str]) -> ir.Model:
            ranges = self._in_encoder.ranges(method)

            def derived(source: ir.Model) -> ir.Model:
                model = int8_from_fp32(source, ranges, runner, excluded=excluded)
                luma_from_quantised(model)
                return model

            found = self._writer.run(form, derived(self._encoder), self._images.luma[:, None])
            corrected = self._encoder.clone()
            correct_biases(corrected, found, self._latents)
            return derived(corrected)

        layers = [*layers_of(self._encoder)]
        # TensorRT's signed type would drop luma's lowest bit; the layer that reads it is small.
        excluded = tuple(layers[:1]) if runner == "tensorrt" else ()
        trials = self._search(form, derive, layers, excluded)
        mu = trials[-1].model.clone()
        mu_from_encoder(mu)
        self._keep(form, trials[-1], trials[-1].model)
        self._keep(Form("encoder", "int8", "mu", runner), trials[-1], mu)
        return Searched(form, trials)

    def _add_decoder(self, runner: Runner) -> Searched:
        form = Form("decoder", "int8", "phases", runner)

        def derive(method: Method, excluded: Sequence[str]) -> ir.Model:
            ranges = self._in_decoder.ranges(method)
            return int8_from_fp32(self._phases, ranges, runner, excluded=excluded)

        trials = self._search(form, derive, [*layers_of(self._phases)])
        self._keep(form, trials[-1], trials[-1].model)
        return Searched(form, trials)

    def _search(
        self,
        form: Form,
        derive: Callable[[Method, Sequence[str]], ir.Model],
        layers: Sequence[str],
        excluded: tuple[str, ...] = (),
    ) -> tuple[Trial, ...]:
        question = Question(
            derive=derive,
            screen=lambda model: self._writer.judge(form, model, self._reference, every=SCREENED),
            judge=lambda model: self._writer.judge(form, model, self._reference),
            layers=layers,
            excluded=excluded,
            tell=lambda candidate: self._tell(f"{form.title}: {candidate}"),
        )
        return search(question)

    def _keep(self, form: Form, trial: Trial, model: ir.Model) -> None:
        percentile = trial.method.percentile
        calibration = Calibration(
            method="min-max" if percentile is None else "percentile",
            percentile=percentile,
            excluded=trial.excluded,
            images=len(self._images.luma),
            origin=self._images.origin,
            judged=len(self._reference.images),
        )
        self._writer.add(form, model, calibration=calibration, reference=self._reference)

    def _counted(self, graph: str) -> Callable[[int], None]:
        count = len(self._images.luma)
        return lambda seen: self._tell(f"ranges inside the {graph}: image {seen} of {count}")
