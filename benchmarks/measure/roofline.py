"""What the model costs on paper: arithmetic, weights, and the least time a machine can take."""

from __future__ import annotations

from ...runtime.bundle.graph_key import Part, Precision
from ...runtime.core.spec import ModelSpec, StrictModel

_KERNEL = 9  # every convolution is 3x3
_FLOAT_BYTES = 4
_WEIGHT_BYTES: dict[Precision, int] = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1}


class Cost(StrictModel):
    """Arithmetic and memory traffic of one run of a graph.

    Attributes:
        flops: Two for each multiply-accumulate of convolutions and linear layers. Batch norm
            is folded; activations are not counted.
        weight_bytes: Weights and biases, read once whatever the batch.
        moved_bytes: Weights, input and output. Maps between layers are not counted, as if they
            stayed in the caches, so this is a lower bound.
    """

    flops: int
    weight_bytes: int
    moved_bytes: int


class Roofline(StrictModel):
    """The least time for a `Cost` at a machine's measured rates (Williams et al. 2009).

    Attributes:
        cost: What has to be done.
        compute_ms: Its arithmetic at the best matrix rate of its precision.
        memory_ms: Its traffic at the best read bandwidth.
        times: The measured p50 over `least_ms`.
    """

    cost: Cost
    compute_ms: float
    memory_ms: float
    times: float

    @property
    def least_ms(self) -> float:
        """The larger of the two times: arithmetic and traffic overlap at best."""
        return max(self.compute_ms, self.memory_ms)


def cost_of(
    spec: ModelSpec,
    graph: Part,
    batch: int = 1,
    *,
    precision: Precision = "fp32",
    mu_only: bool = False,
    luma: bool = False,
) -> Cost:
    """Count what one run of a graph costs; see `Cost` for what counts.

    A decoder that was rewritten into phases is held to the arithmetic that the contract needs.

    Args:
        spec: Sizes of the model.
        graph: "encoder" or "decoder".
        batch: Images or latents in the run.
        precision: Gives the bytes of a weight.
        mu_only: Whether an encoder leaves `log_var` out, and so half of the heads.
        luma: Whether an encoder takes uint8.
    """
    macs, weights = _encoder(spec, 1 if mu_only else 2) if graph == "encoder" else _decoder(spec)
    image, latent = spec.image_size**2, spec.latent_size
    heads = 2 if graph == "encoder" and not mu_only else 1
    end_bytes = image * (1 if luma else _FLOAT_BYTES) + heads * latent * _FLOAT_BYTES
    weight_bytes = weights * _WEIGHT_BYTES[precision]
    return Cost(
        flops=2 * macs * batch,
        weight_bytes=weight_bytes,
        moved_bytes=weight_bytes + end_bytes * batch,
    )


def roofline_of(cost: Cost, *, flops_per_s: float, bytes_per_s: float, p50_ms: float) -> Roofline:
    """Return the least time for `cost`, and how far a measured median is above it.

    Args:
        cost: What has to be done.
        flops_per_s: The machine's best matrix rate in the same precision.
        bytes_per_s: The machine's best read bandwidth: weights are only read.
        p50_ms: The measured median.
    """
    compute_ms = cost.flops / flops_per_s * 1e3
    memory_ms = cost.moved_bytes / bytes_per_s * 1e3
    return Roofline(
        cost=cost,
        compute_ms=compute_ms,
        memory_ms=memory_ms,
        times=p50_ms / max(compute_ms, memory_ms),
    )


def _encoder(spec: ModelSpec, heads: int) -> tuple[int, int]:
    """Return (multiply-accumulates of one image, weights and biases)."""
    macs = weights = 0
    side, width_in = spec.image_size, 1
    for width in spec.channels:
        side //= 2
        macs += side**2 * width_in * width * _KERNEL
        weights += (width_in * _KERNEL + 1) * width
        width_in = width
    head = spec.flat_size * spec.latent_size
    return macs + heads * head, weights + heads * (head + spec.latent_size)


def _decoder(spec: ModelSpec) -> tuple[int, int]:
    """Return (multiply-accumulates of one image, weights and biases)."""
    macs = spec.latent_size * spec.flat_size
    weights = macs + spec.flat_size
    side, width_in = spec.feature_size, spec.channels[-1]
    for width in (*reversed(spec.channels[:-1]), spec.channels[0]):
        # A transposed convolution spreads every input value over one kernel.
        macs += side**2 * width_in * width * _KERNEL
        weights += (width_in * _KERNEL + 1) * width
        side, width_in = side * 2, width
    macs += side**2 * width_in * _KERNEL
    return macs, weights + width_in * _KERNEL + 1
