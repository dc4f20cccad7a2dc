"""What a build measured and decided: where layers run, which route won, whether INT8 is faster."""

from __future__ import annotations

import statistics
from typing import Annotated, Literal

from pydantic import Field, model_validator
from typing_extensions import Self

from ...bundle.graph_key import Variant
from ...core.errors import shortened
from ...core.spec import StrictModel

LEAST_GAIN = 0.02
"""How much less time a faster engine takes at least, as a share of the other's."""
LEAST_WON = 0.75
"""In how many of the turns it is the faster one at least."""

Milliseconds = Annotated[float, Field(ge=1e-6, le=1e9, allow_inf_nan=False)]
"""From a nanosecond to days: what is outside was not measured, and has no ratio either."""


class DlaPlacement(StrictModel):
    """Which of an engine's layers run on a DLA core.

    Attributes:
        core: Number of the core, from 0.
        layers: How many layers the network has, without its constants.
        on_gpu: Those that the core cannot run, each with its kind, such as "head (SHUFFLE)".
    """

    core: int = Field(ge=0, lt=64)
    layers: int = Field(ge=1, lt=10**6)
    on_gpu: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _some_of_all(self) -> Self:
        if len(self.on_gpu) > self.layers:
            raise ValueError(f"{len(self.on_gpu)} of {self.layers} layers on the GPU")
        return self

    def runs(self, name: str) -> bool:
        """Whether the layer of that name runs there."""
        return all(text.rpartition(" (")[0] != name for text in self.on_gpu)

    @property
    def sentence(self) -> str:
        """How many layers run there, and which do not."""
        left = self.layers - len(self.on_gpu)
        there = f"{left} of {self.layers} layers on DLA core {self.core}"
        return f"{there}{f', on the GPU {shortened(self.on_gpu)}' if self.on_gpu else ''}"


class PairedTimes(StrictModel):
    """Two engines that took turns on one GPU: the median of each turn's runs, in milliseconds.

    By the GPU's own clock (CUDA events), from the start of the copy in to the end of the copies
    out, as `TensorRTBackend.repeat_timed` has it under "device".

    Attributes:
        batch: Images per run.
        ms: Of the engine that this is about, a value for each turn.
        against_ms: Of the one that it is compared with, in the same turns.
    """

    batch: int = Field(ge=1)
    ms: tuple[Milliseconds, ...] = Field(min_length=1)
    against_ms: tuple[Milliseconds, ...]

    @model_validator(mode="after")
    def _paired(self) -> Self:
        if len(self.ms) != len(self.against_ms):
            raise ValueError(f"{len(self.ms)} turns of one and {len(self.against_ms)} of the other")
        return self

    @property
    def medians(self) -> tuple[float, float]:
        """Milliseconds of this engine and of the other, over all turns."""
        return statistics.median(self.ms), statistics.median(self.against_ms)

    @property
    def ratio(self) -> float:
        """This engine's time as a share of the other's: the median of the turns' own shares.

        What slows both down for a while, such as a GPU that grows warm, does not change it.
        """
        pairs = zip(self.ms, self.against_ms, strict=True)
        return statistics.median(one / other for one, other in pairs)

    @property
    def is_faster(self) -> bool:
        """Whether it is clearly faster: by `LEAST_GAIN`, and in `LEAST_WON` of the turns."""
        won = sum(one < other for one, other in zip(self.ms, self.against_ms, strict=True))
        return self.ratio <= 1 - LEAST_GAIN and won >= LEAST_WON * len(self.ms)

    @property
    def sentence(self) -> str:
        """Both times in words."""
        one, other = self.medians
        return f"{one:.3f} ms against {other:.3f} ms at batch {self.batch}"


class RouteSettings(StrictModel):
    """What a build route sets on the builder; None is TensorRT's own default.

    Attributes:
        optimization_level: How much the builder may try, 0 to 5; 3 is its default.
        tiling: How long it looks for tiles that fit the cache; not in TensorRT 10.3.
        aux_streams: How many streams beside the main one an engine may use.
        timing_runs: How often it times each kernel before it chooses.
        tuner: Options of TensorRT 11's own tuner, such as "-conv_use_long_w=off".
    """

    optimization_level: int | None = Field(default=None, ge=0, le=5)
    tiling: Literal["fast", "moderate", "full"] | None = None
    aux_streams: int | None = Field(default=None, ge=0)
    timing_runs: int | None = Field(default=None, ge=1)
    tuner: str = ""


RouteVerdict = Literal["kept", "not faster", "drifted", "failed", "not tried"]


class TriedRoute(StrictModel):
    """One build route, and what came of it.

    Attributes:
        name: What it is called in tables; "default" sets nothing.
        settings: What it sets.
        verdict: "kept" is the engine that there is now; "not faster" passed the gate and was not
            kept, "drifted" did not pass it, "failed" was refused by the builder, earned no label or
            did not run, and for "not tried" there was no time.
        reason: Why it drifted, failed or was not tried.
        times: Its time and that of the default route in the same turns; None where it was not
            timed.
    """

    name: str
    settings: RouteSettings
    verdict: RouteVerdict
    reason: str | None = None
    times: PairedTimes | None = None


class Int8Speed(StrictModel):
    """Whether an INT8 engine is faster than the FP16 one of the same outputs, on this machine.

    Attributes:
        int8: The variant of the INT8 graph.
        int8_sha256: Of the INT8 graph; what was measured of another says nothing of this one.
        fp16: The variant of the FP16 graph that streams would run instead; None where there is
            none.
        times: The INT8 engine's time and the FP16 one's in the same turns; None where they were
            not measured.
        reason: Why they were not.
    """

    int8: Variant
    int8_sha256: str = Field(pattern="^[0-9a-f]{64}$")
    fp16: Variant | None = None
    times: PairedTimes | None = None
    reason: str | None = None

    @model_validator(mode="after")
    def _measured_or_not(self) -> Self:
        if (self.times is None) == (self.reason is None):
            raise ValueError("either times or the reason why there are none")
        return self

    @property
    def is_slower(self) -> bool:
        """Whether it was measured and is not clearly faster."""
        return self.times is not None and not self.times.is_faster

    @property
    def sentence(self) -> str:
        """The verdict as a clause."""
        if self.times is None:
            return f"whether int8 is faster than fp16 was not measured: {self.reason}"
        verdict = "not faster" if self.is_slower else "faster"
        return f"int8 is {verdict} than fp16 on this GPU: {self.times.sentence}"
