"""The cases of the model alone: each half in every engine on the same input, and training steps."""

from __future__ import annotations

import contextlib
from functools import partial
from itertools import islice

from ...runtime.bundle.graph_key import Part
from ...runtime.core.spec import ModelSpec
from ...runtime.pixels.convert import input_from_pixels
from ...training.hardware import timed_steps
from ..measure.case import EAGER, ONNX, Case
from ..measure.rounds import CaseMeter, Laps, RoundPlan, stopwatch, timed_cases
from ..under_test.engines import engines_under_test, open_all, reference_run
from ..under_test.model_under_test import ModelUnderTest, agreement_with
from ..under_test.scenes import array_sha256, luma_for


def graph_cases(
    tested: ModelUnderTest,
    part: Part,
    batch: int,
    *,
    schedule: RoundPlan,
    seed: int,
    threads: int | None = None,
    leading: bool = False,
    skip_compile: bool = False,
    meter: CaseMeter | None = None,
) -> list[Case]:
    """Time the engines on one graph and batch, in the order in which they were planned.

    The encoder sees vehicles; the decoder sees the latents of the same vehicles. `threads` is for
    every engine, which has a default of its own; of `leading` and `skip_compile` see
    `engines_under_test`. An engine that disagrees with the reference is a MeasurementError.
    """
    if part == "decoder" and not tested.spec.has_decoder:
        planned_none = Case.planned(group=part, engine=ONNX, outputs="reconstruction", batch=batch)
        return [planned_none.without("this model has no decoder")]
    luma = luma_for(tested.spec, batch, seed)
    values = input_from_pixels(luma)
    # The luma is the identity of the images: each engine sees the same, scaled or not.
    identity = array_sha256(luma)
    if part == "decoder":
        values = reference_run(tested, "encoder")(values)["mu"]
        identity = array_sha256(values)
    reference = reference_run(tested, part)(values)
    engines = engines_under_test(
        tested, part, batch, threads=threads, leading=leading, skip_compile=skip_compile
    )
    with contextlib.ExitStack() as stack:
        opened, refused = open_all(engines, tested, luma, values, stack)
        planned = []
        for case, run, given in opened:
            against = tested.reference_engine
            found = agreement_with(reference, run(given), case.how, case.precision, against=against)
            agreement = () if case.engine == EAGER else found
            case_of_input = case.with_facts(input_sha256=identity, agreement=agreement)
            planned.append((case_of_input, stopwatch(partial(run, given), "run")))
        measured = timed_cases(planned, schedule, meter)
    cases = {case.key: case for case in (*measured, *refused)}
    return [cases[engine.planned.key] for engine in engines]


def training_cases(
    spec: ModelSpec, batch: int, schedule: RoundPlan, *, has_bf16: bool
) -> list[Case]:
    """Time a training step (forward, loss, backward, Adam) in both precisions, in turns.

    Every timed step follows an untimed one of the same fresh model, so that memory is in place
    and Adam has its state. Where the processor has no bf16 by itself, a step can take a minute,
    and training never chooses bf16.
    """

    def laps(precision: str) -> Laps:
        def lap() -> dict[str, int]:
            _, last_s = islice(timed_steps(spec, precision=precision, batch_size=batch), 2)
            return {"step": round(last_s * 1e9)}

        return lap

    plain = Case.planned(group="training", engine=EAGER, batch=batch)
    bf16 = plain.with_facts(precision="bf16", variant="channels last")
    if spec.channels is None:
        reason = "motorvae-train trains the model card's network, and this is another"
        return [plain.without(reason), bf16.without(reason)]
    planned = [(plain, laps("32-true")), (bf16, laps("bf16-mixed"))]
    if has_bf16:
        return timed_cases(planned, schedule)
    reason = "this processor has no bf16 arithmetic, and motorvae-train does not emulate it"
    return [*timed_cases(planned[:1], schedule), bf16.without(reason)]
