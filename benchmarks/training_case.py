"""The training case: whole steps in plain float32 against bf16 with channels last."""

from __future__ import annotations

from ..runtime.spec import ModelSpec
from ..training.hardware import cpu_has_bf16, training_step_seconds
from .measure import Laps, Schedule, interleaved
from .results import Case, measured_case, series_of

_STEP = "step"


def training_cases(spec: ModelSpec, batch: int, schedule: Schedule) -> list[Case]:
    """Time a training step (forward, loss, backward, Adam) both ways, in turns.

    Every timed step follows an untimed one of the same fresh model, so that memory is in place
    and Adam has its state.

    Args:
        spec: Sizes of the model.
        batch: Images in one step.
        schedule: Timed steps each way, and how they take turns.
    """
    emulated = "" if cpu_has_bf16() else " (emulated)"
    ways = {
        "float32": _laps(spec, batch, precision="32-true", channels_last=False),
        f"bf16, channels last{emulated}": _laps(
            spec, batch, precision="bf16-mixed", channels_last=True
        ),
    }
    samples = interleaved(ways, schedule)
    return [
        measured_case(
            Case(
                group="training",
                engine=name,
                batch=batch,
                stages={_STEP: series_of(samples[name][_STEP])},
            )
        )
        for name in ways
    ]


def _laps(spec: ModelSpec, batch: int, *, precision: str, channels_last: bool) -> Laps:
    def lap() -> dict[str, int]:
        *_, last_s = training_step_seconds(
            spec, precision=precision, channels_last=channels_last, batch_size=batch, steps=2
        )
        return {_STEP: round(last_s * 1e9)}

    return lap
