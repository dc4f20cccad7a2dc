"""Case: one thing that is measured, what tells it apart, and its samples or why it has none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field, model_validator

from ...runtime.bundle.graph_key import OUTPUTS, GraphKey, Precision, Variant
from ...runtime.bundle.manifest import GraphReport, Metric
from ...runtime.core.spec import StrictModel
from .samples import Samples, Unit, samples_of, warnings_of

EAGER, COMPILED, ONNX, OPENVINO = "torch eager", "torch.compile", "ONNX Runtime", "OpenVINO"
TENSORRT, TENSORRT_RTX, PLAIN = "TensorRT", "TensorRT-RTX", "plain recipe"
"""Names of the engines; the plain recipe is colour decode, cvtColor, resize and torch eager."""
STREAM_MODULE = "motorvae.runtime.cli"
"""The engine of the import case whose time is part of a stream's start-up."""
DECODE_ALONE, ENCODE_ALONE = "decode and convert alone", "encode alone"
FPS = 60
HOT, PACED = "hot loop", f"paced at {FPS} fps"
"""What the stream cases call the parts of a stream and the loops that they are timed in. A paced
loop finds colder caches and a slower clock; a camera is paced."""

Group = Literal[
    "encoder",
    "decoder",
    "path",
    "threads",
    "start-up",
    "import",
    "stream",
    "memory",
    "gpu",
    "training",
]
InputType = Literal["float32", "uint8"]
FrameSource = Literal["mjpeg", "yuv", "bgr"]
CudaGraph = Literal["off", "copies and kernels", "kernels", "left to the engine"]
Status = Literal["measured", "drifted", "unproven"]


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

    cost: Cost  # What has to be done
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

    The fields from `group` to `mode` tell cases apart, in one result and between two.
    """

    group: Group  # What was timed
    engine: str  # Which engine, or which way of doing it; of an import the module
    precision: Precision = "fp32"  # Of weights and arithmetic
    outputs: str | None = None  # Of the graph, such as "mu and log_var" or "mu"
    input_type: InputType | None = None  # What the graph takes
    # What a path begins with: JPEG bytes, a decoded YUV frame, or a BGR one
    source: FrameSource | None = None
    frame: tuple[int, int] | None = None  # Width and height of the frame of a path
    variant: str | None = None  # Whatever else tells it apart, in a few words
    batch: int = 1  # Images in one call
    mode: GpuMode | None = None  # How the GPU was used
    # Identity of the input's bytes; equal for all that are compared
    input_sha256: str | None = None
    not_measured: str | None = None  # Why there are no samples; None where there are
    prepare_s: float | None = None  # Time of opening or compiling the engine up to its first result
    # Samples by stage; the first is the whole, which comparisons look at
    stages: dict[str, Samples] = Field(default_factory=dict)
    # Samples taken in one go where that is not the schedule's; 1 for whole processes
    turn: int | None = Field(default=None, ge=1)
    # How the outputs compare with the reference, checked before timing
    agreement: tuple[Agreement, ...] = ()
    # The drift gate's largest error of a latent over its spread, on the held-out images
    latent_error: Metric | None = None
    psnr: Metric | None = None  # The drift gate's PSNR of the worst reconstruction in dB
    # How the very outputs that were timed compare with the reference, of GPU cases
    gate: tuple[GraphReport, ...] = ()
    # Whether `mu` of every image is bit for bit that of the same engine without a CUDA graph; None
    # where it was not compared
    equals_graph_off: bool | None = None
    roofline: Roofline | None = None  # The least time on this machine, for single graphs
    # Engine, version, device and device layer, as a GPU's engine itself says
    name: str | None = None
    notes: tuple[str, ...] = ()  # What the engine says of how it ran
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
        is_one = self.batch == 1
        has_batch = not (
            is_one and (self.frame or self.group in {"start-up", "memory", "import", "stream"})
        )
        batch = f"batch {self.batch}" if has_batch else ""
        words = (self.group, f"{self.source or ''} {frame}".strip(), batch)
        return ", ".join(filter(None, words))

    @property
    def how(self) -> str:
        """How it was done: engine, precision, and whatever else tells it apart."""
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
        """The first stage, which covers all of it; None where nothing was measured."""
        return next(iter(self.stages.values()), None)

    @classmethod
    def planned(cls, **facts: Any) -> Case:
        """Return a case that nothing was measured of yet."""
        return cls(**{"not_measured": "not reached", **facts})

    def timed(self, taken: Mapping[str, Sequence[int]], unit: Unit = "ns", **facts: object) -> Case:
        """Return the case measured, with the warnings that its samples deserve.

        Args:
            taken: Samples by stage, the whole first.
            unit: Of the samples.
            facts: Further fields.
        """
        stages = {stage: samples_of(values, unit) for stage, values in taken.items()}
        warnings = tuple(
            warning
            for stage, values in taken.items()
            if unit == "ns"
            for warning in warnings_of(stage, values)
        )
        return self.with_facts(not_measured=None, stages=stages, warnings=warnings, **facts)

    def with_facts(self, **facts: object) -> Case:
        """Return the same with other values of some fields."""
        return self.model_copy(update=facts)

    def without(self, reason: str) -> Case:
        """Return the case with the reason why it has no samples."""
        return self.with_facts(not_measured=reason)
