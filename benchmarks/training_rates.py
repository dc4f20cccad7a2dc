"""python -m motorvae.benchmarks.training_rates: images/s of training steps, ours and plain.

Ways take turns at each batch size, so that a busy neighbour slows all of them:

- `plain`: the loop of a notebook: float32, torch's DataLoader over images in memory, torch.optim's
  Adam, everything else as torch has it;
- `ours`: the step that motorvae-train makes on this device: its precision, layout and optimizer;
- `bytes`, on a GPU: the same with the images as bytes in its memory, which motorvae-train does not
  do: what the way of float32 over the bus costs;
- `compiled`, with `--compile`: `bytes` (on a CPU `ours`) through torch.compile, likewise.

`peak` is the rate of a square matrix product in the precision of each way, in the same run, and
`share` is of it: the multiplications of a step, counted by torch's own counter, over its time.
Memory is what the device's allocator held at most on a GPU. On a CPU nothing says it of one way.
The last line is JSON; `--json FILE` writes it there as well.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.flop_counter import FlopCounterMode

from ..runtime.core.spec import ModelSpec
from ..training.hardware import keep_freed_memory, layout_of, precision_from_options
from ..training.loop.averaging import optimizer_of, set_rate
from ..training.loop.losses import loss_of_batch
from ..training.model import MotorVAE, sample_latent, vae_loss

_SIDES = {"cpu": 2048, "cuda": 8192}
_IMAGES = 256
_WARM_UP, _STEPS = 3, 6
_Steps = Iterator[None]


class Way(NamedTuple):
    """How steps are made."""

    name: str
    precision: str  # "32-true" or "bf16-mixed"
    plain: bool = False
    held: bool = False  # the images lie on the device, as bytes
    compiled: bool = False


def main(words: Sequence[str]) -> int:
    """Measure; see the module."""
    parser = argparse.ArgumentParser(prog="python -m motorvae.benchmarks.training_rates")
    parser.add_argument("--device", choices=tuple(_SIDES), default="cpu")
    parser.add_argument("--batch", type=int, nargs="+", default=[8, 16, 32, 64])
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args(words)
    device = torch.device(asked.device)
    torch.set_num_threads(asked.threads)
    keep_freed_memory()  # as training does
    on_cuda = device.type == "cuda"
    ours = precision_from_options("auto", on_cuda=on_cuda, on_cpu=not on_cuda)
    ways = [Way("plain", "32-true", plain=True), Way("ours", ours)]
    if on_cuda:
        ways.append(Way("bytes", ours, held=True))
    if asked.compile:
        ways.append(Way("compiled", ours, held=on_cuda, compiled=True))
    spec = ModelSpec()
    found: dict[str, Any] = {
        "device": torch.cuda.get_device_name(0) if on_cuda else "cpu",
        "torch": torch.__version__,
        "threads": asked.threads,
        "precision": ours,
        "flop_of_a_step_and_image": flop_of_step(spec),
        "peak_tflop_per_s": {
            precision: peak(device, precision) / 1e12 for precision in ("32-true", "bf16-mixed")
        },
        "rows": [row for size in asked.batch for row in rows_of(ways, spec, size, device, asked)],
    }
    line = json.dumps(found)
    if asked.json is not None:
        asked.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(line)
    return 0


def rows_of(
    ways: Sequence[Way], spec: ModelSpec, size: int, device: torch.device, asked: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """Time every way in turns at one batch size; print and return a row of each."""
    steps = {way: _steps_of(way, spec, size, device) for way in ways}
    held: dict[Way, int] = {}
    for way, one in steps.items():
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        _seconds(one, _WARM_UP, device)
        if device.type == "cuda":
            held[way] = torch.cuda.max_memory_allocated()
    taken: dict[Way, list[float]] = {way: [] for way in ways}
    for _ in range(asked.rounds):
        for way, one in steps.items():
            taken[way].append(_seconds(one, _STEPS, device) / _STEPS)
    peaks = {way.precision: peak(device, way.precision) for way in ways}
    for way, seconds in taken.items():
        median = statistics.median(seconds)
        row = {
            "way": way.name,
            "batch": size,
            "images_per_s": size / median,
            "against_plain": statistics.median(
                plain / own for plain, own in zip(taken[ways[0]], seconds, strict=True)
            ),
            "share_of_peak": size * flop_of_step(spec) / median / peaks[way.precision],
            "seconds": seconds,
            "held_bytes": held.get(way),
        }
        shown = {
            name: round(value, 3) if isinstance(value, float) else value
            for name, value in row.items()
            if name != "seconds"
        }
        print(shown, flush=True)
        yield row


def flop_of_step(spec: ModelSpec) -> int:
    """Return the floating-point operations of one image's forward and backward pass."""
    model, image = MotorVAE(spec), torch.rand(2, *spec.input_shape)
    with FlopCounterMode(display=False) as counter:
        mu, log_var = model.encode(image)
        loss = vae_loss(image, model.decode(sample_latent(mu, log_var)), mu, log_var, beta=0.05)
        loss.total.backward()  # type: ignore[no-untyped-call]  # untyped in torch
    return int(counter.get_total_flops()) // 2


def peak(device: torch.device, precision: str) -> float:
    """Return floating-point operations a second of a matrix product, the best of ten."""
    side = _SIDES[device.type]
    dtype = torch.bfloat16 if precision == "bf16-mixed" else torch.float32
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))

    def products() -> Iterator[None]:
        while True:
            torch.mm(left, right)
            yield

    one = products()
    return float(2 * side**3 / min(_seconds(one, 1, device) for _ in range(13)))


def _steps_of(way: Way, spec: ModelSpec, size: int, device: torch.device) -> _Steps:
    torch.manual_seed(0)
    return _plain(spec, size, device) if way.plain else _ours(way, spec, size, device)


def _plain(spec: ModelSpec, size: int, device: torch.device) -> _Steps:
    """Make steps as a notebook would."""
    model = MotorVAE(spec).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    images = TensorDataset(torch.rand(max(_IMAGES, size), *spec.input_shape))
    loader = DataLoader(images, batch_size=size, shuffle=True, drop_last=True)
    while True:
        for (batch,) in loader:
            here = batch.to(device)
            optimizer.zero_grad()
            mu, log_var = model.encode(here)
            made = model.decode(sample_latent(mu, log_var))
            vae_loss(here, made, mu, log_var, beta=0.05).total.backward()  # type: ignore[no-untyped-call]  # untyped in torch
            optimizer.step()
            yield


def _ours(way: Way, spec: ModelSpec, size: int, device: torch.device) -> _Steps:
    """Make the steps of motorvae-train; its images are bytes, and float32 from a batch on."""
    layout = layout_of(way.precision, device.type)
    model = MotorVAE(spec).to(device).to(memory_format=layout)  # type: ignore[call-overload]  # torch's stub lacks it
    optimizer = optimizer_of(model, device, precision=way.precision)
    set_rate(optimizer, 1e-4)
    levels = torch.randint(0, 256, (max(_IMAGES, size), *spec.input_shape), dtype=torch.uint8)
    if way.held:
        levels = levels.to(device)

    def forward(batch: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=way.precision == "bf16-mixed"):
            mu, log_var = model.encode(batch)
            logits = model.decoder.logits(sample_latent(mu, log_var))
        return loss_of_batch(batch, logits, mu, log_var, beta=0.05).total

    loss_of: Callable[[Tensor], Tensor] = torch.compile(forward) if way.compiled else forward
    while True:
        order = torch.randperm(len(levels), device=levels.device)
        for at in range(0, len(levels) - size + 1, size):
            rows = order[at : at + size]
            batch = (levels[rows].float() / 255).to(device).contiguous(memory_format=layout)
            optimizer.zero_grad(set_to_none=True)
            loss_of(batch).backward()  # type: ignore[no-untyped-call]  # untyped in torch
            optimizer.step()
            yield


def _seconds(steps: _Steps, count: int, device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    begin = time.perf_counter()
    for _ in islice(steps, count):
        pass
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begin


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
