"""The cases of one graph: every engine that runs it, on the same input, in turns."""

from __future__ import annotations

import contextlib
from functools import partial

from ...runtime.bundle.graph_key import OUTPUTS, Part
from ...runtime.pixels.convert import input_from_luma
from ..measure.case import EAGER, Case
from ..measure.rounds import RoundPlan, interleaved, stopwatch
from ..under_test.engines import eager_run, engines_under_test, open_all
from ..under_test.gate import agreement_with
from ..under_test.model_under_test import ModelUnderTest
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
) -> list[Case]:
    """Time the engines on one graph and batch, in the order in which they were planned.

    The encoder sees vehicles; the decoder sees the latents of the same vehicles. `threads` is for
    every engine, which has a default of its own; of `leading` and `skip_compile` see
    `engines_under_test`.

    Raises:
        MeasurementError: An engine disagrees with torch.
    """
    luma = luma_for(tested.spec, batch, seed)
    values = input_from_luma(luma)
    # The luma is the identity of the images: each engine sees the same, scaled or not.
    identity = array_sha256(luma)
    if part == "decoder":
        values = eager_run(tested.model.encoder, OUTPUTS["encoder"])(values)["mu"]
        identity = array_sha256(values)
    reference = eager_run(tested.half(part), OUTPUTS[part])(values)
    engines = engines_under_test(
        tested, part, batch, threads=threads, leading=leading, skip_compile=skip_compile
    )
    with contextlib.ExitStack() as stack:
        opened, refused = open_all(engines, tested, luma, values, stack)
        agreements = [
            agreement_with(
                reference, one.run(one.batch), one.planned.how, precision=one.planned.precision
            )
            for one in opened
        ]
        timed = {one.planned.key: stopwatch(partial(one.run, one.batch), "run") for one in opened}
        samples = interleaved(timed, schedule)
    measured = [
        one.planned.timed(
            samples[one.planned.key],
            input_sha256=identity,
            turn=schedule.turn,
            agreement=() if one.planned.engine == EAGER else agreement,
        )
        for one, agreement in zip(opened, agreements, strict=True)
    ]
    cases = {case.key: case for case in (*measured, *refused)}
    return [cases[engine.planned.key] for engine in engines]
