"""Learning rate and weight of the KL term as functions of how much of a run is done."""

from __future__ import annotations

import math

from ..options import TrainOptions

RISE_OF_A_CYCLE = 0.5
"""Share of a cycle in which the weight rises, by default: R of Fu et al. 2019."""


def learning_rate_at(options: TrainOptions, share: float, *, stage: int, first: float) -> float:
    """Return Adam's learning rate where `share` of the run is done, from 0 to 1.

    - stages: `--learning-rate`, and half of it in the second stage (`stage` 1), as the model card.
    - constant: `--learning-rate` all the way.
    - cosine: falls to 0 along half a cosine (Loshchilov & Hutter 2017, eq. 5, without restarts).
    - linear: falls to 0 along a line.

    Before, over `--warmup` of the run, the rate rises along a line (Goyal et al. 2017, section
    2.2), and what falls begins to fall after it. `first` is the share of the run that one step is:
    the very first step has a rate above 0, too.
    """
    rate, warmup = options.learning_rate, options.warmup
    if share < warmup:
        return rate * min((share + first) / warmup, 1.0)
    left = (1 - min(share, 1.0)) / (1 - warmup)
    match options.lr_schedule:
        case "stages":
            return rate * (0.5 if stage else 1.0)
        case "constant":
            return rate
        case "cosine":
            return rate * (1 - math.cos(math.pi * left)) / 2
        case "linear":
            return rate * left


def kl_weight_at(options: TrainOptions, share: float, *, stage: int) -> float:
    """Return the weight of the KL term where `share` of the run is done, from 0 to 1.

    - constant: the stage's own of the two `--betas`, as the model card.
    - linear: rises from the first to the second along a line (Bowman et al. 2016, section 3.1;
      Sønderby et al. 2016), within `--kl-span` of the run.
    - cyclical: does so again and again (Fu et al. 2019), within `--kl-span` of each of
      `--kl-cycles` cycles, by default within its first half.
    """
    low, high = options.betas
    match options.kl_schedule:
        case "constant":
            return options.betas[stage]
        case "linear":
            begin, end = options.kl_span or (0.0, 1.0)
        case "cyclical":
            begin, end = options.kl_span or (0.0, RISE_OF_A_CYCLE)
            share = share * options.kl_cycles % 1.0 if share < 1 else 1.0
    risen = min(max((share - begin) / (end - begin), 0.0), 1.0)
    return low + (high - low) * risen
