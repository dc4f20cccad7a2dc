"""The training case: whole steps in plain float32 against bf16 with channels last."""

from __future__ import annotations

from ...runtime.bundle.graph_key import Precision
from ...runtime.core.spec import ModelSpec
from ...training.hardware import training_step_seconds
from ..measure.case import EAGER, Case, measured_case
from ..measure.rounds import Laps, RoundPlan, interleaved
from ..measure.samples import samples_of

_STEP = "step"
_VARIANTS: dict[Precision, str | None] = {"fp32": None, "bf16": "channels last"}


def training_cases(
    spec: ModelSpec, batch: int, schedule: RoundPlan, *, has_bf16: bool
) -> list[Case]:
    """Time a training step (forward, loss, backward, Adam) both ways, in turns.

    Every timed step follows an untimed one of the same fresh model, so that memory is in place
    and Adam has its state.

    Args:
        spec: Sizes of the model.
        batch: Images in one step.
        schedule: Timed steps each way, and how they take turns.
        has_bf16: Whether the processor multiplies bf16 by itself. Where it does not, a step can
            take a minute, and training never chooses bf16.
    """
    ways: dict[Precision, Laps] = {
        "fp32": _laps(spec, batch, precision="32-true", channels_last=False)
    }
    if has_bf16:
        ways["bf16"] = _laps(spec, batch, precision="bf16-mixed", channels_last=True)
    samples = interleaved(ways, schedule)
    reason = "this processor has no bf16 arithmetic, and motorvae-train does not emulate it"
    return [
        measured_case(
            Case(
                group="training",
                engine=EAGER,
                precision=precision,
                variant=variant,
                batch=batch,
                turn=schedule.turn,
                stages=(
                    {_STEP: samples_of(samples[precision][_STEP])} if precision in samples else {}
                ),
                not_measured=None if precision in samples else reason,
            )
        )
        for precision, variant in _VARIANTS.items()
    ]


def _laps(spec: ModelSpec, batch: int, *, precision: str, channels_last: bool) -> Laps:
    def lap() -> dict[str, int]:
        *_, last_s = training_step_seconds(
            spec, precision=precision, channels_last=channels_last, batch_size=batch, steps=2
        )
        return {_STEP: round(last_s * 1e9)}

    return lap
