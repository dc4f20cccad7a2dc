"""The training case: whole steps in plain float32 against bf16 with channels last."""

from __future__ import annotations

from ..runtime.spec import ModelSpec
from ..training.hardware import training_step_seconds
from .measure import Laps, Schedule, interleaved
from .results import Case, measured_case, series_of

FLOAT32, BF16 = "float32", "bf16, channels last"
_STEP = "step"


def training_cases(
    spec: ModelSpec, batch: int, schedule: Schedule, *, has_bf16: bool
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
    ways = {FLOAT32: _laps(spec, batch, precision="32-true", channels_last=False)}
    if has_bf16:
        ways[BF16] = _laps(spec, batch, precision="bf16-mixed", channels_last=True)
    cases = [
        measured_case(
            Case(
                group="training",
                engine=name,
                batch=batch,
                stages={_STEP: series_of(samples[_STEP])},
            )
        )
        for name, samples in interleaved(ways, schedule).items()
    ]
    if not has_bf16:
        reason = "this processor has no bf16 arithmetic, and motorvae-train does not emulate it"
        cases.append(Case(group="training", engine=BF16, batch=batch, not_measured=reason))
    return cases


def _laps(spec: ModelSpec, batch: int, *, precision: str, channels_last: bool) -> Laps:
    def lap() -> dict[str, int]:
        *_, last_s = training_step_seconds(
            spec, precision=precision, channels_last=channels_last, batch_size=batch, steps=2
        )
        return {_STEP: round(last_s * 1e9)}

    return lap
