"""The cases of one graph: every engine that runs it, on the same input, in turns."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

from ...runtime.bundle.graph_key import OUTPUTS, GraphKey, Part
from ...runtime.engines.base import Batch
from ...runtime.pixels.convert import input_from_luma
from ..measure.case import EAGER, Case
from ..measure.roofline import Cost, cost_of
from ..measure.rounds import RoundPlan, interleaved, stopwatch
from ..under_test.engines_under_test import EngineUnderTest, engines_under_test, open_all
from ..under_test.gate_metrics import DriftGate
from ..under_test.model_under_test import ModelUnderTest
from ..under_test.scenes import array_sha256, luma_for
from ..under_test.torch_engines import Run, agreement_with, eager_run


def graph_cases(
    tested: ModelUnderTest,
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
        tested: The model.
        graph: Which half.
        batch: Images in one call.
        schedule: How often each is called.
        seed: Which vehicles.
        gate: Says what each engine drifts.
        threads: Of every engine; each engine's default where left out.
        leading: See `engines_under_test`.
        skip_compile: See `engines_under_test`.

    Raises:
        MeasurementError: An engine disagrees with torch.
    """
    luma = luma_for(tested.spec, batch, seed)
    images = input_from_luma(luma)
    half = tested.model.encoder if graph == "encoder" else tested.model.decoder
    names = [tensor.name for tensor in GraphKey(graph).outputs(tested.spec)]
    values: Batch = images
    if graph == "decoder":
        values = eager_run(tested.model.encoder, OUTPUTS["encoder"])(images)["mu"]
    reference = eager_run(half, names)(values)

    def input_for(engine: EngineUnderTest) -> Batch:
        return luma if engine.takes_luma else values

    engines = engines_under_test(
        tested, graph, batch, threads=threads, leading=leading, skip_compile=skip_compile
    )
    with contextlib.ExitStack() as stack:
        opened, refused = open_all(engines, input_for, stack)
        agreements = {
            one.engine.planned.key: agreement_with(
                reference,
                one.run(input_for(one.engine)),
                one.engine.planned.how,
                one.engine.planned.precision,
            )
            for one in opened
        }
        drifts = {
            one.engine.planned.key: gate.of(one.engine.planned, one.run, one.engine.entry)
            for one in opened
        }
        samples = interleaved(
            {
                one.engine.planned.key: stopwatch(_call(one.run, input_for(one.engine)), "run")
                for one in opened
            },
            schedule,
        )
    # The luma is the identity of the images: each engine sees the same, scaled or not.
    identity = array_sha256(luma if graph == "encoder" else values)
    measured = []
    for one in opened:
        planned = one.engine.planned
        drift = drifts[planned.key]
        measured.append(
            planned.timed(
                samples[planned.key],
                input_sha256=identity,
                prepare_s=one.prepare_s,
                turn=schedule.turn,
                agreement=agreements[planned.key] if planned.engine != EAGER else (),
                latent_error=drift.latent_error,
                psnr=drift.psnr,
                notes=drift.notes,
            )
        )
    return in_order([one.planned for one in engines], [*measured, *refused])


def cost_of_case(tested: ModelUnderTest, case: Case) -> Cost:
    """Return what one run of a graph's case costs on paper."""
    graph: Part = "encoder" if case.group == "encoder" else "decoder"
    return cost_of(
        tested.spec,
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


def _call(run: Run, values: Batch) -> Callable[[], object]:
    return lambda: run(values)
