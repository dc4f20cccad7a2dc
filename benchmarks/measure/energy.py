"""What a result holds about energy, temperatures, clocks and throttling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field, model_validator

from ...runtime.core.spec import StrictModel

Scope = Literal["board", "processor", "GPU", "part"]
"""What a sensor sees: all that is powered, the processor's package, the GPU's board, or a rail or
domain that is only part of one of these."""
WINDOWS, WINDOW_S = 3, 5.0
"""Of each case, and how many seconds each lasts unless something else is asked for."""
IDLE_S = 5.0
"""How long the machine is left alone for its idle power, likewise."""
LEAST_UPDATES = 20
"""A window in which a sensor's value changes less often has no figure: each of its ends lies
somewhere between two changes, so that with 20 the energy is uncertain by up to 5 % at each."""


class Window(StrictModel):
    """One uninterrupted stretch of work, and the energy that a sensor counted in it."""

    duration_ns: int = Field(gt=0)
    latents: int = Field(gt=0)  # Calls times batch; reconstructions, of a decoder
    microjoules: int = Field(ge=0)  # Nothing is subtracted, neither idle power nor other processes


class Energy(StrictModel):
    """What one sensor counted while a case ran, or the reason why it gives no figure."""

    sensor: str  # The name of one of `EnergyFacts.sensors`
    windows: tuple[Window, ...] = ()
    not_measured: str | None = None

    @model_validator(mode="after")
    def _check_measured(self) -> Energy:
        if bool(self.windows) == (self.not_measured is not None):
            raise ValueError("energy has either windows or the reason why there are none")
        return self

    @property
    def joules_per_latent(self) -> float | None:
        """All energy over all latents; None where it was not measured."""
        latents = sum(window.latents for window in self.windows)
        return self._joules / latents if latents else None

    @property
    def watts(self) -> float | None:
        """All energy over all time; None where it was not measured."""
        seconds = sum(window.duration_ns for window in self.windows) / 1e9
        return self._joules / seconds if seconds else None

    @property
    def _joules(self) -> float:
        return sum(window.microjoules for window in self.windows) / 1e6


class SensorFacts(StrictModel):
    """One energy sensor, as the system names it, and how it behaved in this run."""

    name: str  # Its own, such as "package-0", "VDD_IN" or "GPU 0 NVIDIA ..."
    source: str  # Where it was read
    scope: Scope
    covers: str  # What its energy is that of, in words
    reads: Literal["energy counter", "power"]  # Power is sampled and integrated
    # Median time between two changes of its value, measured while it was polled; None where it did
    # not change
    update_ms: float | None
    changes: int  # How many changes that is the median of
    idle_w: float | None  # Mean power before the first case, with this process doing nothing
    idle_s: float  # Over how long


class EnergyFacts(StrictModel):
    """The sensors of a run that was asked for energy."""

    sensors: tuple[SensorFacts, ...]
    absent: tuple[str, ...] = ()  # Which others were looked for, and why each is not there
    windows: int  # Of each case
    window_s: float  # How long each lasts at least


class Span(StrictModel):
    """The lowest and highest of some readings, and their median."""

    low: float
    median: float
    high: float


class Conditions(StrictModel):
    """Temperatures and clocks while a case was measured, and what throttled it."""

    samples: int  # How many readings were taken in the meantime
    temperatures_c: dict[str, Span] = Field(default_factory=dict)  # By the sensor's own name
    # Of the fastest core, as "processor", and of GPUs by name
    clocks_mhz: dict[str, Span] = Field(default_factory=dict)
    throttled: tuple[str, ...] = ()  # Each cause that was seen, with its own name


class WatchFacts(StrictModel):
    """The process that read temperatures, clocks and power during the cases, and its cost."""

    interval_s: float  # Between two readings
    samples: int
    processor_share: float  # Its processor time over the time it ran: 0.01 is 1 % of one core
    reading_ms: float  # Median duration of one reading of everything


def span_of(values: Sequence[float]) -> Span:
    """Return the span of at least one reading."""
    ordered = sorted(values)
    return Span(low=ordered[0], median=ordered[len(ordered) // 2], high=ordered[-1])
