"""The cases of one graph: every engine that runs it, on the same input, in turns."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from ...export.verify.verifier import Verifier
from ...runtime.bundle.graph_key import OUTPUTS, GraphKey, Part
from ...runtime.bundle.manifest import GraphEntry
from ...runtime.engines.base import Batch
from ...runtime.pixels.convert import input_from_luma
from ..measure.case import COMPILED, EAGER, Case, measured_case
from ..measure.roofline import Cost, cost_of
from ..measure.rounds import RoundPlan, Timings, interleaved, stopwatch
from ..measure.samples import Samples, samples_of
from ..subjects.engine_error import Drift, announced, drift_of
from ..subjects.engines_under_test import EngineUnderTest, contenders_of, open_all
from ..subjects.model_under_test import ModelUnderTest
from ..subjects.scenes import array_sha256, luma_for
from ..subjects.torch_engines import Run, agreement_with, eager_run


@dataclass
class DriftGate:
    """The drift of each engine, found once and kept for all batches and paths."""

    subject: ModelUnderTest
    _known: dict[str, Drift] = field(default_factory=dict)

    def of(self, case: Case, run: Run, entry: GraphEntry | None = None) -> Drift:
        """Return what an engine drifts; nothing for torch, which is the reference.

        A compiled module is made for one batch size, and its agreement is checked anyway.

        Args:
            case: Says which engine it is, and what it takes and gives.
            run: The engine.
            entry: The bundle's graph that it runs, where it is one of ours.
        """
        if case.engine in {EAGER, COMPILED}:
            return Drift()
        if case.how not in self._known:
            part: Part = "decoder" if case.outputs == "reconstruction" else "encoder"
            found = drift_of(
                run,
                GraphKey(part, case.precision),
                Verifier(self.subject.reference),
                takes_luma=case.input_type == "uint8",
            )
            if entry is not None:
                found = replace(found, notes=announced(self.subject.bundle.manifest, entry))
            self._known[case.how] = found
        return self._known[case.how]


def graph_cases(
    subject: ModelUnderTest,
    graph: Part,
    batch: int,
    *,
    schedule: RoundPlan,
    seed: int,
    gate: DriftGate,
    threads: int | None = None,
    leading: bool = False,
    skip_compile: bool = False,
) -> list[Case]:
    """Time the engines on one graph and batch.

    The encoder sees vehicles; the decoder sees the latents of the same vehicles.

    Args:
        subject: The model.
        graph: Which half.
        batch: Images in one call.
        schedule: How often each is called.
        seed: Which vehicles.
        gate: Says what each engine drifts.
        threads: Of every engine; each engine's default where left out.
        leading: See `contenders_of`.
        skip_compile: See `contenders_of`.

    Raises:
        MeasurementError: An engine disagrees with torch.
    """
    luma = luma_for(subject.spec, batch, seed)
    images = input_from_luma(luma)
    half = subject.model.encoder if graph == "encoder" else subject.model.decoder
    names = [tensor.name for tensor in GraphKey(graph).outputs(subject.spec)]
    values: Batch = images
    if graph == "decoder":
        values = eager_run(subject.model.encoder, OUTPUTS["encoder"])(images)["mu"]
    reference = eager_run(half, names)(values)

    def input_for(contender: EngineUnderTest) -> Batch:
        return luma if contender.takes_luma else values

    contenders = contenders_of(
        subject, graph, batch, threads=threads, leading=leading, skip_compile=skip_compile
    )
    with contextlib.ExitStack() as stack:
        opened, refused = open_all(contenders, input_for, stack)
        agreements = {
            one.contender.planned.key: agreement_with(
                reference,
                one.run(input_for(one.contender)),
                one.contender.planned.how,
                one.contender.planned.precision,
            )
            for one in opened
        }
        drifts = {
            one.contender.planned.key: gate.of(one.contender.planned, one.run, one.contender.entry)
            for one in opened
        }
        samples = interleaved(
            {
                one.contender.planned.key: stopwatch(
                    _call(one.run, input_for(one.contender)), "run"
                )
                for one in opened
            },
            schedule,
        )
    # The luma is the identity of the images: each engine sees the same, scaled or not.
    identity = array_sha256(luma if graph == "encoder" else values)
    measured = []
    for one in opened:
        planned = one.contender.planned
        drift = drifts[planned.key]
        update = {
            "not_measured": None,
            "input_sha256": identity,
            "prepare_s": one.prepare_s,
            "stages": samples_by_stage(samples[planned.key]),
            "turn": schedule.turn,
            "agreement": agreements[planned.key] if planned.engine != EAGER else (),
            "latent_error": drift.latent_error,
            "psnr": drift.psnr,
            "notes": drift.notes,
        }
        measured.append(measured_case(planned.model_copy(update=update)))
    return in_order([one.planned for one in contenders], [*measured, *refused])


def cost_of_case(subject: ModelUnderTest, case: Case) -> Cost:
    """Return what one run of a graph's case costs on paper."""
    graph: Part = "encoder" if case.group == "encoder" else "decoder"
    return cost_of(
        subject.spec,
        graph,
        case.batch,
        precision=case.precision,
        mu_only=case.outputs == "mu",
        luma=case.input_type == "uint8",
    )


def in_order(planned: Sequence[Case], cases: Sequence[Case]) -> list[Case]:
    """Return cases in the order in which they were planned."""
    places = {case.key: place for place, case in enumerate(planned)}
    return sorted(cases, key=lambda case: places[case.key])


def samples_by_stage(samples: Timings) -> dict[str, Samples]:
    """Return each stage's samples with their percentiles."""
    return {stage: samples_of(taken) for stage, taken in samples.items()}


def _call(run: Run, values: Batch) -> Callable[[], object]:
    return lambda: run(values)
