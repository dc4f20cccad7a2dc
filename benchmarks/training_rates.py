"""python -m motorvae.benchmarks.training_rates: images/s of training steps, ours and plain.

Ways take turns at each batch size and number of threads, so that a busy neighbour slows all of
them:

- `plain`: the loop of a notebook: float32, torch's DataLoader over images in memory, torch.optim's
  Adam, everything else as torch has it;
- `ours`: the step that motorvae-train makes on this device: its precision, layout, optimizer, and
  on a GPU images that are sent as bytes;
- `ours float32`, on a CPU whose own precision is bf16: the same with --precision 32-true;
- `held`, on a GPU: images that lie in its memory, which motorvae-train does not do: what the way
  over the bus costs;
- `compiled`, with `--compile`: `held` (on a CPU `ours`) through torch.compile, likewise.

`peak` is the rate of a square matrix product in the precision of each way, with as many threads,
in the same run, and `share` is of it: the multiplications of a step, counted by torch's own
counter, over its time. On a GPU convolutions of `plain` may be TF32, as torch has it, and the
product is not. Memory is what the device's allocator held at most on a GPU, and on a CPU the
resident memory at the peak of a process that does nothing else, less what it had before the first
step; `--no-memory` leaves that out. `--layers` adds each convolution by itself, forward and
backward, plain and ours. The last line is JSON; `--json FILE` writes it there as well.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import psutil  # type: ignore[import-untyped]
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.flop_counter import FlopCounterMode

from ..runtime.core.atomic_files import replaced_file
from ..runtime.core.spec import ModelSpec
from ..training.hardware import keep_freed_memory, layout_of, precision_from_options
from ..training.loop.averaging import optimizer_of, set_rate
from ..training.loop.batches import input_of_batch
from ..training.loop.losses import loss_of_batch
from ..training.model import MotorVAE, sample_latent, vae_loss
from .measure.result import environment_now, load_now

_SIDES = {"cpu": 2048, "cuda": 8192}
_IMAGES = 256
_WARM_UP = 2
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
    parser.add_argument("--steps", type=int, default=6, help="of a turn")
    parser.add_argument("--threads", type=int, nargs="+", default=[torch.get_num_threads()])
    parser.add_argument("--channels", type=int, nargs="+", default=list(ModelSpec().channels or ()))
    parser.add_argument("--image-size", type=int, default=256)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--layers", action="store_true")
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args(words)
    device = torch.device(asked.device)
    spec = ModelSpec(image_size=asked.image_size, channels=tuple(asked.channels))
    keep_freed_memory()  # as training does
    on_cuda, load_start = device.type == "cuda", load_now()
    ways = ways_on(device, compiles=asked.compile)
    if asked.memory_of is not None:
        (way,) = (one for one in ways if one.name == asked.memory_of)
        print(_grown_by(way, spec, asked.batch[0], asked.threads[0]))
        return 0
    found: dict[str, Any] = {
        "device": torch.cuda.get_device_name(0) if on_cuda else "cpu",
        "environment": environment_now(threads={}, load_start=load_start).model_dump(mode="json"),
        "precision": ways[1].precision,
        "image_size": asked.image_size,
        "channels": asked.channels,
        "flop_of_a_step_and_image": flop_of_step(spec),
        "peak_tflop_per_s": {},
        "rows": [],
        "layers": [],
    }
    for threads in asked.threads:
        torch.set_num_threads(threads)
        peaks = {way.precision: peak(device, way.precision) for way in ways}
        found["peak_tflop_per_s"][threads] = {name: one / 1e12 for name, one in peaks.items()}
        for size in asked.batch:
            found["rows"] += rows_of(ways, spec, size, device, asked=asked, peaks=peaks)
            _save(found, asked.json)  # an hour's run that is stopped leaves what it has
        if asked.layers:
            for way in ways[:2]:
                found["layers"] += layers_of(way, spec, asked.batch[0], device, peaks)
    _save(found, asked.json)
    print(json.dumps(found))
    return 0


def _save(found: dict[str, Any], file: Path | None) -> None:
    if file is not None:
        with replaced_file(file) as path:
            path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def ways_on(device: torch.device, *, compiles: bool = False) -> list[Way]:
    """Return the ways that are compared on a device, the plain one first."""
    on_cuda = device.type == "cuda"
    ours = precision_from_options("auto", on_cuda=on_cuda, on_cpu=not on_cuda)
    ways = [Way("plain", "32-true", plain=True), Way("ours", ours)]
    if on_cuda:
        ways.append(Way("held", ours, held=True))
    elif ours != "32-true":
        ways.append(Way("ours float32", "32-true"))
    if compiles:
        ways.append(Way("compiled", ours, held=on_cuda, compiled=True))
    return ways


def rows_of(
    ways: Sequence[Way],
    spec: ModelSpec,
    size: int,
    device: torch.device,
    *,
    asked: argparse.Namespace,
    peaks: dict[str, float],
) -> Iterator[dict[str, Any]]:
    """Time every way in turns at one batch size; print and return a row of each."""
    on_cuda, threads = device.type == "cuda", torch.get_num_threads()
    held: dict[Way, int | None] = {}
    steps = {way: _steps_of(way, spec, size, device) for way in ways}
    for way, one in steps.items():
        if on_cuda:
            torch.cuda.reset_peak_memory_stats()
        _seconds(one, _WARM_UP, device)
        if on_cuda:
            held[way] = torch.cuda.max_memory_allocated()
    taken: dict[Way, list[float]] = {way: [] for way in ways}
    for _ in range(asked.rounds):
        for way, one in steps.items():
            taken[way].append(_seconds(one, asked.steps, device) / asked.steps)
    steps.clear()
    for way, seconds in taken.items():
        if not on_cuda and not asked.no_memory:
            held[way] = _memory_of(way, size, threads, asked)
        median = statistics.median(seconds)
        row = {
            "way": way.name,
            "precision": way.precision,
            "batch": size,
            "threads": threads,
            "images_per_s": size / median,
            "against_plain": statistics.median(
                plain / own for plain, own in zip(taken[ways[0]], seconds, strict=True)
            ),
            "share_of_peak": size * flop_of_step(spec) / median / peaks[way.precision],
            "seconds": seconds,
            "held_bytes": held.get(way),
        }
        _show(row)
        yield row


def layers_of(
    way: Way, spec: ModelSpec, size: int, device: torch.device, peaks: dict[str, float]
) -> Iterator[dict[str, Any]]:
    """Time each convolution by itself, forward and backward; print and return a row of each.

    Its inputs are noise in the layout and precision of the way. Backward is all gradients that a
    step needs: of the images there is none.
    """
    layout = torch.contiguous_format if way.plain else layout_of(way.precision, device.type)
    model = MotorVAE(spec).to(device).to(memory_format=layout)  # type: ignore[call-overload]  # torch's stub lacks it
    shapes: dict[nn.Module, tuple[int, ...]] = {}
    names = {
        name: layer
        for name, layer in model.named_modules()
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d))
    }

    def seen(layer: nn.Module, given: tuple[Tensor, ...], _: Tensor) -> None:
        shapes[layer] = tuple(given[0].shape[1:])

    for layer in names.values():
        layer.register_forward_hook(seen)
    model(torch.zeros(1, *spec.input_shape, device=device))
    dtype = torch.bfloat16 if way.precision == "bf16-mixed" else torch.float32
    for name, layer in names.items():
        layer.to(dtype)
        maps = torch.randn(size, *shapes[layer], device=device, dtype=dtype)
        maps = maps.contiguous(memory_format=layout).requires_grad_(name != "encoder.features.0")
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            layer(maps)
        flop = counter.get_total_flops()
        forward = _best(partial(layer, maps), device)
        made = layer(maps)
        wanted = [one for one in (maps, *layer.parameters()) if one.requires_grad]
        gradient = torch.randn_like(made)
        backward = _best(
            partial(torch.autograd.grad, made, wanted, gradient, retain_graph=True), device
        )
        products = 1 + maps.requires_grad  # as large as the forward one
        row = {
            "way": way.name,
            "layer": name,
            "batch": size,
            "threads": torch.get_num_threads(),
            "maps": list(shapes[layer]),
            "flop": flop,
            "forward_ms": forward * 1e3,
            "backward_ms": backward * 1e3,
            "forward_share": flop / forward / peaks[way.precision],
            "backward_share": products * flop / backward / peaks[way.precision],
        }
        _show(row)
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
    """Make the steps of motorvae-train; its images are bytes, and float32 on the device."""
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
            sent = input_of_batch(levels[order[at : at + size]].to(device))
            batch = sent.contiguous(memory_format=layout)
            optimizer.zero_grad(set_to_none=True)
            loss_of(batch).backward()  # type: ignore[no-untyped-call]  # untyped in torch
            optimizer.step()
            yield


def _memory_of(way: Way, size: int, threads: int, asked: argparse.Namespace) -> int:
    """Return by how many bytes steps let the resident memory of a process grow at most."""
    command = [sys.executable, "-m", "motorvae.benchmarks.training_rates"]
    command += ["--memory-of", way.name, "--batch", str(size), "--threads", str(threads)]
    command += ["--image-size", str(asked.image_size), "--channels", *map(str, asked.channels)]
    command += ["--compile"] * way.compiled
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _grown_by(way: Way, spec: ModelSpec, size: int, threads: int) -> int:
    torch.set_num_threads(threads)
    device, small = torch.device("cpu"), ModelSpec(image_size=32, channels=(4,))
    _seconds(_steps_of(way, small, 1, device), 2, device)  # which imports more of torch
    before = psutil.Process().memory_info().rss
    _seconds(_steps_of(way, spec, size, device), 2, device)
    # Not getrusage's, which a process has from the one that started it.
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    (peak_kib,) = (int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    return int(peak_kib * 1024 - before)


def _show(row: dict[str, Any]) -> None:
    shown = {
        name: round(value, 3) if isinstance(value, float) else value
        for name, value in row.items()
        if name != "seconds"
    }
    print(shown, flush=True)


def _best(call: Callable[[], object], device: torch.device) -> float:
    """Return the seconds of the fastest of five calls after a first one."""

    def calls() -> _Steps:
        while True:
            call()
            yield

    one = calls()
    return min([_seconds(one, 1, device) for _ in range(6)][1:])


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
