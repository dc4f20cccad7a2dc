"""The INT8 graphs of a bundle: calibrate once, search for each kind of engine, keep what passes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ...runtime.bundle.graph_key import GraphKey, Target
from ...runtime.bundle.manifest import Calibration, GraphReport
from ...runtime.core.errors import ConfigError, sentence_list
from ...runtime.engines.base import Batch
from ...runtime.engines.open import open_engine
from ...runtime.pixels.convert import batch_of
from ..graph_folder import GraphFolder
from ..transforms.equalise import Outputs, correct_biases, equalise, links_of, reach_over
from ..transforms.io_variants import luma_from_quantised, mu_from_encoder
from ..transforms.node_names import name_nodes
from ..transforms.phases import phases_from_decoder
from ..transforms.prune import prune_channels
from ..transforms.qdq import Activations, Method, int8_from_fp32, layers_of
from ..verify.batches import FloatInput, run_in_batches
from ..verify.extremes import RISK
from ..verify.limits import LIMITS
from ..verify.metrics import FEWEST_FOR_BOUND
from ..verify.reference import Reference, reference_from_graphs
from ..verify.verifier import Verifier, opened_as_verified
from .images import CalibrationImages
from .search import METHODS, Search, Trial

SCREENED = 32
"""About so many of the images that choose, evenly taken, see each candidate first."""
NEGATIVE_SIDE = 0.5
"""What a LeakyReLU of an encoder reads is represented down to this share of its positive side."""
PRUNING = 64
"""About so many of the calibrating images say which channels go."""
PRUNED_SHARE = 0.2
"""Of the limit of an INT8 latent's error: what channels may take that are left out."""
MANY = 512
"""From so many on the estimate of what fresh images may reach is a close one."""
RISK_OF_ONE = RISK / 5
"""From so many on the five gated figures of an engine's encoder and decoder hold together: largest
errors of latents, of collapsed ones and of deviations, and the worst image in two ways."""


@dataclass(frozen=True, slots=True)
class Searched:
    """What came of the search for one graph."""

    key: GraphKey  # an encoder, without which nothing of its set is kept, or a decoder
    trials: tuple[Trial, ...] = ()  # the last is the one that was kept, or the best refused
    keys: tuple[GraphKey, ...] = ()  # what was kept in the folder: the graph, and a leaner variant
    calibration: Calibration | None = None  # of these; None where nothing was kept
    reason: str = ""  # why there was no candidate, such as too few images
    channels: tuple[str, ...] | None = None  # of an encoder that was pruned, what layers kept

    @property
    def passed(self) -> bool:
        """Whether a graph was kept."""
        return bool(self.keys)

    @property
    def failed(self) -> tuple[GraphReport, ...]:
        """The reports of the best candidate that did not pass."""
        return tuple(
            report for trial in self.trials[-1:] for report in trial.reports if not report.passed
        )

    @property
    def sentence(self) -> str:
        """What was left out and by which figures, without a full stop."""
        if self.reason:
            return f"the INT8 graphs are left out: {self.reason}"
        what = f"INT8 graphs for {self.key.target} are left out"
        if self.key.part == "decoder":
            what = f"INT8 decoder for {self.key.target} is left out, its encoder is there"
        # An encoder that gives mu alone fails by the same figures as the one with both outputs.
        first = [report for report in self.failed if report.title == self.failed[0].title]
        clauses = sentence_list([clause for report in first for clause in report.failures])
        return f"the {what}: {clauses}"


class Int8Search:
    """Derives, writes and verifies the INT8 variants of the float32 graphs in a folder.

    Candidates are chosen by images that no range comes from, and judged by others yet. The float32
    graphs passed by `verified`. With `prune` encoders lose the channels that hardly move latents; a
    ConfigError where the network is not the card's.
    """

    def __init__(
        self,
        files: GraphFolder,
        verified: Reference,
        images: CalibrationImages,
        on_step: Callable[[str], None],
        prune: bool = False,
    ) -> None:
        self._files, self._images, self._on_step = files, images, on_step
        on_step(f"float32 graphs on {len(images.choosing) + len(images.judging)} held-out images")
        choosing, judging = (
            reference_from_graphs(files.folder, files.spec, part, verified)
            for part in (images.choosing, images.judging)
        )
        notes = []
        if (count := len(images.judging)) >= MANY:
            judging = replace(judging, risk=RISK_OF_ONE)
        else:
            others = "is estimated from these with a wide margin"
            if count < FEWEST_FOR_BOUND:
                others = "cannot be estimated from so few"
            notes.append(
                f"{count} images judge INT8, and what others may reach {others}: a training run "
                "keeps up to 2048 images for that, and the export of its checkpoint takes all"
            )
        self._choosing, self._judging = Verifier(choosing), Verifier(judging, notes=notes)
        key = GraphKey("encoder")
        self._encoder = self._loaded(key)
        pictures = FloatInput(images.luma)
        with open_engine(files.file(key), key) as backend:
            self._latents = run_in_batches(backend, pictures)
        inputs = pictures[:]
        self._pruned: tuple[str, ...] | None = None
        if prune:
            self._pruned = self._without_channels(inputs, verified)
        on_step("how far channels reach")
        equalise(self._encoder, reach_over(self._encoder, inputs, files.folder))
        self._in_encoder = Activations(
            self._encoder, inputs, negative_side=NEGATIVE_SIDE, progress=self._counted("encoder")
        )
        self._decoders: dict[bool, tuple[ir.Model, Activations]] = {}
        if not files.spec.has_decoder:
            return
        # Decoders gain from it in some models and lose in others: the search has both.
        mu, decoder = self._latents["mu"], self._loaded(GraphKey("decoder"))
        every = {False: decoder}
        if links_of(decoder):
            every[True] = decoder.clone()
            equalise(every[True], reach_over(decoder, mu, files.folder))
        for is_equalised, model in every.items():
            # One set of ranges serves every target: other forms differ in what moves numbers.
            form = self._phases(model, "openvino")
            activations = Activations(form, mu, progress=self._counted("decoder"))
            self._decoders[is_equalised] = (model, activations)

    def _without_channels(
        self, inputs: npt.NDArray[np.float32], verified: Reference
    ) -> tuple[str, ...]:
        """Prune the encoder; return what stays of each layer that lost channels, in words."""
        if not self._is_card:
            raise ConfigError(
                "--prune-channels is for encoders of the card's network, and this is another: "
                "leave it out"
            )
        self._on_step("which channels move latents")
        scales = {"mu": verified.scale, "log_var": np.full(verified.scale.shape, 2.0)}
        pruned = prune_channels(
            self._encoder,
            inputs[:: max(1, len(inputs) // PRUNING)],
            {name: scales[name] for name in self._latents},
            self._files.folder,
            most=PRUNED_SHARE * LIMITS["int8"].max_spread,
        )
        layer_of = {node: name for name, of in layers_of(self._encoder).items() for node in of}
        return tuple(f"{layer_of[one.layer]}: {one.kept} of {one.of}" for one in pruned)

    def graphs_for(self, targets: Collection[Target]) -> tuple[Searched, ...]:
        """Search for the graphs of kinds of engines."""
        searched: list[Searched] = []
        for target in targets:
            searched.append(self._encoders_for(target))
            # Rows come from encoders: a decoder alone is of no use.
            if searched[-1].passed and self._files.spec.has_decoder:
                searched.append(self._decoder_for(target))
        return tuple(searched)

    def _encoders_for(self, target: Target) -> Searched:
        """Find an encoder with both outputs, and the part of it that gives `mu`."""
        key = GraphKey("encoder", "int8", "luma", target)

        def derive(method: Method, excluded: Sequence[str]) -> ir.Model:
            ranges = self._in_encoder.ranges(method)
            source = self._encoder.clone()
            model = int8_from_fp32(source, ranges, target, excluded=excluded)
            luma_from_quantised(model)
            correct_biases(
                source, self._run(key, model, batch_of(self._images.luma)), self._latents
            )
            model = int8_from_fp32(source, ranges, target, excluded=excluded)
            luma_from_quantised(model)
            return model

        layers = [*layers_of(self._encoder)]
        # TensorRT's signed type would drop luma's lowest bit; the layer that reads it is small.
        excluded = tuple(layers[:1]) if target == "tensorrt" else ()
        is_equalised = bool(links_of(self._encoder))
        methods = [replace(method, equalised=is_equalised) for method in METHODS]
        found = self._search(key, derive, layers, excluded, methods)
        if found.passed:
            for verifier in (self._choosing, self._judging):
                luma = batch_of(verifier.reference.images)
                verifier.take_encoded(key, self._run(key, found.trials[-1].model, luma)["mu"])
        return found

    def _decoder_for(self, target: Target) -> Searched:
        key = GraphKey("decoder", "int8", "phases" if self._is_card else "full", target)
        forms = {way: self._phases(model, target) for way, (model, _) in self._decoders.items()}

        def derive(method: Method, excluded: Sequence[str]) -> ir.Model:
            ranges = self._decoders[method.equalised][1].ranges(method)
            return int8_from_fp32(forms[method.equalised], ranges, target, excluded=excluded)

        methods = [replace(m, equalised=equalised) for equalised in self._decoders for m in METHODS]
        layers = [*layers_of(self._decoders[False][0])]
        # ONNX Runtime rounds all that an INT8 layer gives.
        together = 2 if target == "onnx" else 1
        return self._search(key, derive, layers, (), methods, together=together)

    def _search(
        self,
        key: GraphKey,
        derive: Callable[[Method, Sequence[str]], ir.Model],
        layers: Sequence[str],
        excluded: tuple[str, ...],
        methods: Sequence[Method],
        *,
        together: int = 1,
    ) -> Searched:
        some = slice(None, None, max(1, len(self._images.choosing) // SCREENED))
        keys: tuple[GraphKey, ...] = (key,)
        if key.part == "encoder" and self._files.spec.has_log_var:
            keys = (key, replace(key, variant="mu"))

        def verify(trial: Trial) -> Sequence[GraphReport]:
            if trial.judges == "judging":
                return self._judged(trial, keys)
            rows = some if trial.judges == "some" else slice(None)
            with self._files.candidate(trial.model) as file:
                return self._choosing.rows(rows).verify_file(key, file)

        def show(candidate: str) -> None:
            self._on_step(f"{key.title}: {candidate}")

        search = Search(derive, verify, layers, excluded, methods, together, show)
        trials = search.run()
        found = trials[-1]
        channels = self._pruned if key.part == "encoder" else None
        if not found.passed:
            return Searched(key, trials, channels=channels)
        calibration = Calibration(
            method="min-max" if found.method.percentile is None else "percentile",
            percentile=found.method.percentile,
            equalised=found.method.equalised,
            channels=channels or (),
            excluded=found.excluded,
            images=len(self._images.luma),
            origin=self._images.origin,
            chosen=len(self._images.choosing),
            judged=len(self._images.judging),
            finalists=sum(trial.judges == "judging" for trial in trials),
        )
        return Searched(key, trials, keys, calibration, channels=channels)

    def _judged(self, trial: Trial, keys: Sequence[GraphKey]) -> list[GraphReport]:
        """Verify the very files that are kept where they pass."""
        reports: list[GraphReport] = []
        for key in keys:
            model = trial.model
            if key.variant == "mu":
                model = model.clone()
                mu_from_encoder(model)
            reports += self._judging.verify_file(key, self._files.save(key, model, trial.excluded))
        if not all(report.passed for report in reports):
            for key in keys:
                self._files.file(key).path.unlink()
        return reports

    @property
    def _is_card(self) -> bool:
        """Whether this is the card's network, whose decoder has another form."""
        return self._files.spec.channels is not None

    def _phases(self, decoder: ir.Model, target: Target) -> ir.Model:
        """Return the form of a decoder that an engine runs fastest."""
        model = decoder.clone()
        if self._is_card:
            phases_from_decoder(model, target)
        return model

    def _loaded(self, key: GraphKey) -> ir.Model:
        """Return a float32 graph whose nodes all have names."""
        model = self._files.load(key)
        name_nodes(model)
        return model

    def _run(self, key: GraphKey, model: ir.Model, inputs: Batch) -> Outputs:
        """Return what a candidate gives, on the engine that it is verified on."""
        with self._files.candidate(model) as file, opened_as_verified(key, file)[0] as backend:
            return run_in_batches(backend, inputs)

    def _counted(self, graph: str) -> Callable[[int], None]:
        count = len(self._images.luma)
        return lambda seen: self._on_step(f"ranges inside the {graph}: image {seen} of {count}")
