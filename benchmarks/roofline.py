"""What the model costs on paper: arithmetic, weights, and the least time a machine can take."""

from __future__ import annotations

from ..runtime.bundle import GraphName
from ..runtime.spec import ModelSpec, StrictModel

_KERNEL = 9  # every convolution is 3x3
_FLOAT_BYTES = 4


class Cost(StrictModel):
    """Arithmetic and memory traffic of one run of a graph in float32.

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
        compute_ms: Its arithmetic at the best matrix rate.
        memory_ms: Its traffic at the best copy bandwidth.
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


def cost_of(spec: ModelSpec, graph: GraphName, batch: int = 1) -> Cost:
    """Count what one run of a graph costs; see `Cost` for what counts.

    Args:
        spec: Sizes of the model.
        graph: "encoder" or "decoder".
        batch: Images or latents in the run.
    """
    macs, weights = _encoder(spec) if graph == "encoder" else _decoder(spec)
    image, latent = spec.image_size**2, spec.latent_size
    ends = image + (2 * latent if graph == "encoder" else latent)
    weight_bytes = weights * _FLOAT_BYTES
    return Cost(
        flops=2 * macs * batch,
        weight_bytes=weight_bytes,
        moved_bytes=weight_bytes + ends * batch * _FLOAT_BYTES,
    )


def roofline_of(cost: Cost, *, flops_per_s: float, bytes_per_s: float, p50_ms: float) -> Roofline:
    """Return the least time for `cost`, and how far a measured median is above it.

    Args:
        cost: What has to be done.
        flops_per_s: The machine's best float32 matrix rate.
        bytes_per_s: The machine's best copy bandwidth, bytes read plus bytes written.
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


def _encoder(spec: ModelSpec) -> tuple[int, int]:
    """Return (multiply-accumulates of one image, weights and biases)."""
    macs = weights = 0
    side, width_in = spec.image_size, 1
    for width in spec.channels:
        side //= 2
        macs += side**2 * width_in * width * _KERNEL
        weights += (width_in * _KERNEL + 1) * width
        width_in = width
    heads = 2 * spec.flat_size * spec.latent_size
    return macs + heads, weights + heads + 2 * spec.latent_size


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
