"""How fast a training step is by each choice that changes no figure of the model.

    python tests/training/step_rates.py OUT [--side 256] [--batch 8] [--rounds 12] [--threads 1]

The demo's narrow network on random images, in one process: each round makes a few steps by every
choice, so that a busy neighbour slows all of them. What is printed is the median over rounds of a
choice's time as a share of that of the first choice in the same round.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import NamedTuple

import torch

from motorvae.runtime.core.spec import ModelSpec
from motorvae.training.hardware import cpu_has_bf16, keep_freed_memory
from motorvae.training.loop.averaging import optimizer_of, set_rate
from motorvae.training.loop.losses import loss_of_batch
from motorvae.training.model import MotorVAE, sample_latent

CPU = torch.device("cpu")
STEPS = 3


class Choice(NamedTuple):
    """How steps are made."""

    layout: torch.memory_format = torch.channels_last
    bf16: bool = True
    fused: bool | None = True
    foreach: bool | None = None
    muon: bool = False
    all_threads: bool = False


CHOICES = {
    "as it is: bf16, channels last, fused Adam": Choice(),
    "contiguous memory": Choice(layout=torch.contiguous_format),
    "Adam by foreach": Choice(fused=None, foreach=True),
    "Adam weight by weight": Choice(fused=None, foreach=False),
    "float32": Choice(bf16=False),
    "float32, contiguous memory": Choice(bf16=False, layout=torch.contiguous_format),
    "Muon": Choice(muon=True),
    "two threads": Choice(all_threads=True),
    "Muon, two threads": Choice(muon=True, all_threads=True),
}


class Stepper:
    """A model and what moves it."""

    def __init__(self, choice: Choice, spec: ModelSpec, batch: int) -> None:
        torch.manual_seed(0)
        self.choice = choice
        self.model = MotorVAE(spec).to(memory_format=choice.layout)  # type: ignore[call-overload]  # torch's stub lacks it
        self.optimizer: torch.optim.Optimizer
        if choice.fused and not choice.muon:
            self.optimizer = optimizer_of(self.model, CPU)
        elif choice.muon:
            self.optimizer = optimizer_of(self.model, CPU, name="muon", weight_decay=0.1)
        else:
            self.optimizer = torch.optim.Adam(self.model.parameters(), foreach=choice.foreach)
        set_rate(self.optimizer, 1e-4)
        images = torch.rand((batch, *spec.input_shape))
        self.images = images.contiguous(memory_format=choice.layout)

    def seconds_of_steps(self, threads: int) -> float:
        """Make some steps and return how long they took."""
        torch.set_num_threads(2 if self.choice.all_threads else threads)
        begin = time.perf_counter()
        for _ in range(STEPS):
            self.optimizer.zero_grad(set_to_none=True)
            with torch.autocast("cpu", torch.bfloat16, enabled=self.choice.bf16):
                mu, log_var = self.model.encode(self.images)
                logits = self.model.decoder.logits(sample_latent(mu, log_var))
            loss = loss_of_batch(self.images, logits, mu, log_var, beta=0.05)
            loss.total.backward()  # type: ignore[no-untyped-call]  # untyped in torch
            self.optimizer.step()
        return time.perf_counter() - begin


def main() -> None:
    """Time, print, and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    keep_freed_memory()  # as training does
    spec = ModelSpec(image_size=asked.side, channels=(16, 32, 64, 128, 256))
    steppers = {name: Stepper(choice, spec, asked.batch) for name, choice in CHOICES.items()}
    for one in steppers.values():
        one.seconds_of_steps(asked.threads)  # buffers and primitives are made
    seconds: dict[str, list[float]] = {name: [] for name in CHOICES}
    for _ in range(asked.rounds):
        for name, one in steppers.items():
            seconds[name].append(one.seconds_of_steps(asked.threads) / STEPS)
    first = seconds[next(iter(CHOICES))]
    print("| a step | ms, median | share |")
    print("| --- | ---: | ---: |")
    for name, found in seconds.items():
        share = statistics.median(a / b for a, b in zip(found, first, strict=True))
        print(f"| {name} | {1000 * statistics.median(found):.0f} | {share:.2f} |")
    document = {
        **{name: value for name, value in vars(asked).items() if name != "out"},
        "torch": torch.__version__,
        "cpu_has_bf16": cpu_has_bf16(),
        "seconds_a_step": seconds,
    }
    asked.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
