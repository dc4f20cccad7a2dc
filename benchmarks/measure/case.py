"""Case: one thing that is measured, what identifies it, and its samples or why it has none."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from ...runtime.bundle.graph_key import OUTPUTS, GraphKey, Precision, Variant
from ...runtime.bundle.manifest import GraphReport, Metric
from ...runtime.core.errors import MeasurementError
from ...runtime.core.spec import StrictModel
from ..options import RunGroup
from .energy import Conditions, Energy

EAGER, COMPILED, ONNX, OPENVINO = "torch eager", "torch.compile", "ONNX Runtime", "OpenVINO"
PLAIN, LIBJPEG = "plain recipe", "libjpeg-turbo"
RIVALS = (EAGER, COMPILED, ONNX, OPENVINO, PLAIN)
"""Names of the engines; the plain recipe is colour decode, cvtColor, resize and torch eager. ONNX
Runtime and OpenVINO are rivals as installed; both run our graphs, too."""
STREAM_MODULE = "motorvae.runtime.cli"
"""The engine of the import case whose time is part of a stream's start-up."""
BARE, NO_PYTHON = "bare script of the engine", "empty Python"
"""The variants of start-ups that are floors: the engine opens the same graph and runs it once, with
nothing of ours, and a Python that does nothing."""
DECODE_ALONE, ENCODE_ALONE = "decode and convert alone", "encode alone"
HUFFMAN_ALONE = "Huffman codes alone"
"""The variant of what every decoder of a JPEG has to do first, and none of the rest."""
FPS = 60
READ_ALONE, WAKE_ALONE = "reading as many bytes as its weights", "waking a thread"
HOT, PACED, AWAKE = "hot loop", f"paced at {FPS} fps", f"paced at {FPS} fps, awake"
"""What the stream cases call the parts of a stream and the loops that they are timed in. A paced
loop finds colder caches and sleeping cores; one that is awake has the caches alone. A camera is
paced."""
STREAM, LOWEST = "motorvae-stream", "motorvae-stream --latency lowest"
"""The variants of whole streams."""

Unit = Literal["ns", "bytes"]

_SHOWN: dict[Unit, tuple[str, float]] = {"ns": ("ms", 1e6), "bytes": ("MiB", 2.0**20)}
"""What people read a unit in, and how much of the unit one of that is."""

NOT_REACHED = "not reached: the command ended before it"
"""Why a case that was planned has no figure, until it has another reason."""
SPREAD_LIMIT = 0.10
"""Largest (p75 - p25) / p50 of a stable series."""
DRIFT_LIMIT = 0.10
"""Largest |median of the last third - median of the first third| / p50 of a stable series."""
BUSY_LOAD_PER_CORE = 0.5
"""Load average of one minute, per core, from which a machine counts as busy at the start."""

Group = Literal[RunGroup, "memory", "training"]
InputType = Literal["float32", "uint8"]
FrameSource = Literal["mjpeg", "yuv", "bgr"]
CudaGraph = Literal["off", "copies and kernels", "kernels", "left to the engine"]
Status = Literal["measured", "drifted", "unproven"]


class Samples(StrictModel):
    """Every sample of one stage, in the order in which they were taken, and its percentiles."""

    unit: Unit = "ns"  # Of the samples
    samples: tuple[int, ...] = Field(min_length=1)  # Nanoseconds or bytes, each above 0
    p50: float  # Linear-interpolated percentile, in milliseconds or MiB, as are the next four
    p90: float  # The same: the one that MLPerf judges a single stream by
    p95: float  # The same
    p99: float  # The same
    max: float  # The largest sample

    @model_validator(mode="after")
    def _check_percentiles(self) -> Samples:
        if min(self.samples) <= 0:
            raise ValueError(f"a sample of {min(self.samples)} {self.unit}: each must be above 0")
        given = (self.p50, self.p90, self.p95, self.p99, self.max)
        found = percentiles_of(self.samples, self.unit)
        if not all(map(math.isclose, given, found)):
            raise ValueError(f"percentiles {given} are not those of the samples, {found}")
        return self

    @property
    def shown_in(self) -> str:
        """The unit of the percentiles: "ms" or "MiB"."""
        return _SHOWN[self.unit][0]

    @property
    def shown(self) -> tuple[float, ...]:
        """The samples in the unit of the percentiles."""
        scale = _SHOWN[self.unit][1]
        return tuple(sample / scale for sample in self.samples)


class Agreement(StrictModel):
    """How far one output of an engine is from the reference on the benchmark's own input."""

    output: str
    reference: str
    max_difference: float
    limit: float


class Cost(StrictModel):
    """Arithmetic and memory traffic of one run of a graph."""

    # Two for each multiply-accumulate of convolutions and linear layers. Batch norm is folded;
    # activations are not counted.
    flops: int
    weight_bytes: int  # Weights and biases, read once whatever the batch
    # Weights, input and output. Maps between layers are not counted, as if they stayed in the
    # caches, so this is a lower bound.
    moved_bytes: int


class Roofline(StrictModel):
    """The least time for a `Cost` at a machine's measured rates (Williams et al. 2009)."""

    cost: Cost
    compute_ms: float  # Its arithmetic at the best matrix rate of its precision
    memory_ms: float  # Its traffic at the best read bandwidth
    times: float  # The measured p50 over `least_ms`

    @property
    def least_ms(self) -> float:
        """The larger of the two times: arithmetic and traffic overlap at best."""
        return max(self.compute_ms, self.memory_ms)


class GpuMode(StrictModel):
    """How a case used the GPU."""

    # What runs as one recorded CUDA graph. TensorRT-RTX is asked to record its kernels and does not
    # report whether it did.
    cuda_graph: CudaGraph = "off"
    # How the host waits for the GPU: "driver's default" spins where there are more processors than
    # contexts, and else yields
    spin: Literal["driver's default", "engine's own"] = "driver's default"
    # How images and latents cross; always part of "wall"
    transfers: Literal["pinned memory", "engine's own"] = "pinned memory"


class Case(StrictModel):
    """One thing that is measured: its samples, or the reason why there are none.

    The fields from `group` to `mode` identify a case, in one result and between two.
    """

    group: Group  # What was timed
    engine: str  # Which engine or recipe; of an import the module
    precision: Precision = "fp32"  # Of weights and arithmetic
    outputs: str | None = None  # Of the graph, such as "mu and log_var" or "mu"
    input_type: InputType | None = None  # What the graph takes
    source: FrameSource | None = None  # What a path begins with: JPEG bytes, decoded YUV, or BGR
    frame: tuple[int, int] | None = None  # Width and height of the frame of a path
    variant: str | None = None  # Whatever else distinguishes it, in a few words
    batch: int = 1  # Images in one call
    mode: GpuMode | None = None  # How the GPU was used
    # Identity of the input's bytes; equal for all that are compared
    input_sha256: str | None = None
    not_measured: str | None = None  # Why there are no samples; None where there are
    prepare_s: float | None = None  # Time of opening or compiling the engine up to its first result
    stages: dict[str, Samples] = Field(default_factory=dict)  # The first is the whole
    turn: int | None = Field(default=None, ge=1)  # Samples in one go, if not the schedule's
    agreement: tuple[Agreement, ...] = ()  # How outputs compare with the reference, before timing
    # The drift gate's largest error of a latent over its spread, on the held-out images
    latent_error: Metric | None = None
    psnr: Metric | None = None  # The drift gate's PSNR of the worst reconstruction in dB
    gate: tuple[GraphReport, ...] = ()  # Reports on the very outputs that were timed, on a GPU
    # Whether `mu` of every image is bit for bit that of the same engine without a CUDA graph; None
    # where it was not compared
    equals_graph_off: bool | None = None
    roofline: Roofline | None = None  # The least time on this machine, for single graphs
    energy: tuple[Energy, ...] = ()  # By each sensor, where it was asked for
    # Temperatures, clocks and throttling meanwhile, where the system shows them
    conditions: Conditions | None = None
    name: str | None = None  # Engine, version, device and its layer, as the GPU's engine reports
    notes: tuple[str, ...] = ()  # How it ran, as the engine reports it
    warnings: tuple[str, ...] = ()  # What makes the figures doubtful

    @model_validator(mode="after")
    def _check_measured(self) -> Case:
        if bool(self.stages) == (self.not_measured is not None):
            raise ValueError("a case has either samples or the reason why there are none")
        if self.stages and self.mode and not (self.gate and self.passed):
            raise ValueError("a GPU case counts as measured only past the drift gate")
        return self

    @property
    def what(self) -> str:
        """What was done, whoever did it: engines with the same answer may be compared."""
        frame = f"{self.frame[0]}x{self.frame[1]} frame" if self.frame else ""
        has_no_batch = self.frame or self.group in {"start-up", "memory", "import", "stream"}
        batch = "" if has_no_batch and self.batch == 1 else f"batch {self.batch}"
        words = (self.group, f"{self.source or ''} {frame}".strip(), batch)
        return ", ".join(filter(None, words))

    @property
    def how(self) -> str:
        """How it was done: engine, precision, and whatever else distinguishes it."""
        words = (
            self.engine,
            "" if self.precision == "fp32" and self.mode is None else self.precision,
            self.outputs,
            "uint8 input" if self.input_type == "uint8" else "",
            self.variant,
            f"CUDA graph: {self.mode.cuda_graph}" if self.mode else "",
        )
        return ", ".join(filter(None, words))

    @property
    def key(self) -> str:
        """The case's name: the same in every result, and unlike that of every other case."""
        return f"{self.what}, {self.how}"

    @property
    def graph(self) -> GraphKey:
        """The graph of an encoder's or decoder's case, as far as its cost and limits go."""
        is_decoder = self.outputs in OUTPUTS["decoder"]
        lean: Variant = "luma" if self.input_type == "uint8" else "full"
        variant = "mu" if self.outputs == "mu" else lean
        return GraphKey("decoder" if is_decoder else "encoder", self.precision, variant)

    @property
    def passed(self) -> bool:
        """Whether the drift gate, where it looked, let it through."""
        return all(found.passed for found in (self.latent_error, self.psnr, *self.gate) if found)

    @property
    def status(self) -> Status:
        """Whether it has samples, or was past a limit of the gate, or nothing is known."""
        return "drifted" if not self.passed else "measured" if self.stages else "unproven"

    @property
    def whole(self) -> Samples | None:
        """The first stage, the one that is compared; None where nothing was measured."""
        return next(iter(self.stages.values()), None)

    @classmethod
    def planned(cls, **facts: Any) -> Case:
        """Return a case that nothing was measured of yet."""
        return cls(**{"not_measured": "not reached", **facts})

    def timed(self, taken: Mapping[str, Sequence[int]], unit: Unit = "ns", **facts: object) -> Case:
        """Return the case measured, with the warnings that its samples deserve.

        `taken` holds samples by stage, the whole first; `facts` are further fields.
        """
        stages = {stage: samples_of(values, unit) for stage, values in taken.items()}
        times = taken.items() if unit == "ns" else ()
        warnings = tuple(text for stage, values in times for text in warnings_of(stage, values))
        return self.with_facts(not_measured=None, stages=stages, warnings=warnings, **facts)

    def with_facts(self, **facts: object) -> Case:
        """Return the same with other values of some fields."""
        return self.model_copy(update=facts)

    def without(self, reason: str) -> Case:
        """Return the case with the reason why it has no samples."""
        return self.with_facts(not_measured=reason)


def samples_of(samples: Sequence[int], unit: Unit = "ns") -> Samples:
    """Return samples with their percentiles; none at all are a MeasurementError."""
    if not len(samples):
        raise MeasurementError("no samples were taken, so that there are no percentiles")
    names = ("p50", "p90", "p95", "p99", "max")
    percentiles = dict(zip(names, percentiles_of(samples, unit), strict=True))
    return Samples(unit=unit, samples=tuple(samples), **percentiles)


def spread_of(samples_ns: Sequence[int]) -> float:
    """Return the interquartile range over the median: a spread that outliers cannot move."""
    p25, p50, p75 = np.percentile(np.asarray(samples_ns, np.float64), (25, 50, 75))
    return float((p75 - p25) / p50)


def drift_of(samples_ns: Sequence[int]) -> float:
    """Return how far the last third's median is above the first's, over the median of all."""
    values = np.asarray(samples_ns, np.float64)
    third = len(values) // 3
    if not third:  # fewer than three samples
        return 0.0
    change = np.median(values[-third:]) - np.median(values[:third])
    return float(change / np.median(values))


def warnings_of(stage: str, samples_ns: Sequence[int]) -> tuple[str, ...]:
    """Return one sentence for each rule that a series breaks."""
    found = []
    spread, drift = spread_of(samples_ns), drift_of(samples_ns)
    if spread > SPREAD_LIMIT:
        found.append(f"{stage}: the middle half spans {spread:.0%} of the median")
    if abs(drift) > DRIFT_LIMIT:
        found.append(f"{stage}: last third above first by {drift:+.0%} of the median")
    return tuple(found)


def busy_warning(load_per_core: float) -> str | None:
    """Return a sentence where the machine was busy before the benchmark began."""
    if load_per_core <= BUSY_LOAD_PER_CORE:
        return None
    return (
        f"the machine was busy at the start: load {load_per_core:.2f} per core "
        f"(limit {BUSY_LOAD_PER_CORE:.2f}); stop other work and run again"
    )


def percentiles_of(samples: Sequence[int], unit: Unit) -> tuple[float, ...]:
    """Return p50, p90, p95, p99 and the largest, in the unit that people read."""
    values = np.asarray(samples, np.float64) / _SHOWN[unit][1]
    return tuple(float(value) for value in np.percentile(values, (50, 90, 95, 99, 100)))
