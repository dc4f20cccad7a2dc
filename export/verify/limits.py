"""What each precision is held to; docs/gate.md derives every number from what latents are for."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace

from ...runtime.bundle.graph_key import Precision


@dataclass(frozen=True, slots=True)
class Limits:
    """What a precision is held to; spreads are standard deviations over the data."""

    max_spread: float  # largest error of a latent over its spread
    rms_spread: float  # the same, root mean square over images and latents
    # relative error of an image's posterior standard deviations, exp(log_var / 2), root mean square
    # over the units, of the worst image; one below a hundredth of the unit's spread counts as that
    # hundredth
    max_deviation: float
    rms_deviation: float  # the same, root mean square
    psnr_db: float  # least PSNR of a reconstruction against the float32 one
    # largest RMS error over the latents of a probe image, over its distance from the mean where
    # that is more than 1, both in spreads
    probe_spread: float
    probe_deviation: float  # the same of log_var / 2, in units of the logarithm
    probe_median: float  # the median of `probe_spread` over the probe images
    probe_psnr_db: float | None  # least PSNR of what is decoded from a probe latent ...
    probe_reach: float = math.inf  # ... at most so many spreads from the mean, root mean square
    neighbours: float | None = None  # least agreement of nearest neighbours of `mu`; None: no limit
    # largest error of a pixel in [0, 1] of what is decoded from held-out latents, likewise
    max_pixel: float | None = None
    probe_pixel: float | None = None  # the same of probe latents

    def loosened(self, factor: float) -> Limits:
        """Return the same with room for errors `factor` times as large."""
        if factor == 1:
            return self
        decibels = 20 * math.log10(factor)
        kept = {"probe_reach", "neighbours"}
        changed = {
            name: value - decibels if name.endswith("_db") else value * factor
            for name, value in asdict(self).items()
            if name not in kept and value is not None
        }
        return replace(self, **changed)


LIMITS: dict[Precision, Limits] = {
    "fp32": Limits(
        5e-4, 1e-4, 5e-4, 1e-4, 80.0, 2e-4, 2e-4, 2e-4, 80.0, max_pixel=5e-4, probe_pixel=5e-4
    ),
    "fp16": Limits(
        5e-2, 1e-2, 5e-2, 1e-2, 45.0, 2e-2, 2e-2, 2e-2, 45.0, max_pixel=2.8e-2, probe_pixel=2.8e-2
    ),
    "bf16": Limits(
        0.25, 5e-2, 0.25, 5e-2, 40.0, 0.1, 0.1, 0.1, 40.0, max_pixel=5e-2, probe_pixel=0.1
    ),
    "int8": Limits(
        0.25, 5e-2, 0.25, 5e-2, 40.0, 0.75, 0.75, 0.15, 25.0, probe_reach=2.0, neighbours=0.85
    ),
}
OTHER_NETWORKS = 2.0
"""Float32 graphs of other networks are given so many times the room: dozens of layers and sums over
attention maps round more. See docs/gate.md for right graphs and faults on either side of it."""
