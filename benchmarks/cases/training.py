"""The training case: whole steps in plain float32 against bf16 with channels last."""

from __future__ import annotations

from itertools import islice

from ...runtime.bundle.graph_key import Precision
from ...runtime.core.spec import ModelSpec
from ...training.hardware import timed_steps
from ..measure.case import EAGER, Case
from ..measure.rounds import Laps, RoundPlan, interleaved


def training_cases(
    spec: ModelSpec, batch: int, schedule: RoundPlan, *, has_bf16: bool
) -> list[Case]:
    """Time a training step (forward, loss, backward, Adam) both ways, in turns.

    Every timed step follows an untimed one of the same fresh model, so that memory is in place
    and Adam has its state. Where the processor has no bf16 by itself, a step can take a minute,
    and training never chooses bf16.
    """

    def laps(precision: str) -> Laps:
        def lap() -> dict[str, int]:
            _, last_s = islice(timed_steps(spec, precision=precision, batch_size=batch), 2)
            return {"step": round(last_s * 1e9)}

        return lap

    timed: dict[Precision, Laps] = {"fp32": laps("32-true")}
    if has_bf16:
        timed["bf16"] = laps("bf16-mixed")
    samples = interleaved(timed, schedule)
    reason = "this processor has no bf16 arithmetic, and motorvae-train does not emulate it"
    plain = Case.planned(group="training", engine=EAGER, batch=batch)
    bf16 = plain.with_facts(precision="bf16", variant="channels last", not_measured=reason)
    return [
        case.timed(taken, turn=schedule.turn) if (taken := samples.get(case.precision)) else case
        for case in (plain, bf16)
    ]
