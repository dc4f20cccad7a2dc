"""How wide the bounds on fresh images are: over the exact ones, the median of 12 draws a tail.

python tests/export/verify/bound_widths.py
"""

from __future__ import annotations

import numpy as np
from test_extremes import TAILS, exact_level

from motorvae.export.verify.extremes import upper_bound


def main() -> None:
    """Print the narrowest and the widest tail's for the numbers of images that exports have."""
    rng = np.random.default_rng(1)
    for count, risk in ((64, 0.05), (256, 0.05), (1792, 0.01)):
        ratios = {
            tail: float(np.median([upper_bound(draw(rng, count), risk=risk) for _ in range(12)]))
            / exact_level(below, risk)
            for tail, (draw, below) in TAILS.items()
        }
        widths = ", ".join(f"{tail} {ratio:.2f}" for tail, ratio in ratios.items())
        print(f"{count} images, risk {risk:.0%}: {widths}")


if __name__ == "__main__":
    main()
