"""What this machine is fast at: precision, memory layout, allocator, number of threads."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch

from ..runtime.core.errors import ConfigError
from ..runtime.core.spec import ModelSpec
from ..runtime.engines.cpu_threads import default_threads
from .loop.averaging import optimizer_of, set_rate
from .model import MotorVAE, sample_latent, vae_loss
from .options import Optimizer, Precision

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_NEVER = 2**31 - 1
_ROUNDS = 4
_CLEAR_ROUNDS, _CLEAR = 2, 1.5
"""Rounds that are enough where one number of threads is so many times faster."""
_PAUSE, _LEAST_PAUSE_S = 50, 30.0
"""Trials while training take at most one part in so many of its time."""
_GAIN = 1.2
"""A choice that was made is changed only for a number so many times faster; less is noise."""
_MOST_IMAGES = 16
"""A trial of larger batches would take a minute; the time of a step is in proportion to them."""


def precision_from_options(precision: Precision, *, on_cuda: bool, on_cpu: bool) -> str:
    """Return the arithmetic to train in: what was asked for, or the fastest that is safe.

    bf16 keeps float32's range, so nothing else has to change; without hardware for it, it is
    emulated and many times slower than float32.
    """
    if precision == "16-mixed" and not on_cuda:  # Lightning would take bf16
        raise ConfigError("--precision=16-mixed needs an NVIDIA GPU: take bf16-mixed or 32-true")
    if precision != "auto":
        return precision
    if on_cuda:
        return "bf16-mixed" if torch.cuda.get_device_capability() >= (8, 0) else "32-true"
    return "bf16-mixed" if on_cpu and cpu_has_bf16() else "32-true"


def cpu_has_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Return whether the processor multiplies bf16 by itself (AVX-512, AMX or Arm)."""
    with contextlib.suppress(OSError):
        text = cpuinfo.read_text(encoding="utf-8")
        return re.search(r"\b(avx512_bf16|amx_bf16|bf16)\b", text) is not None
    return False


def layout_of(precision: str, device: str = "cpu") -> torch.memory_format:
    """Return the faster memory layout: channels last on a CPU, and where convolutions are 16-bit.

    Of a GPU float32 was not tried in it.
    """
    is_last = device == "cpu" or precision != "32-true"
    return torch.channels_last if is_last else torch.contiguous_format


@contextlib.contextmanager
def threads_restored() -> Iterator[None]:
    """Give torch back the number of threads that it had before the block or decorated function."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


def keep_freed_memory() -> None:
    """Tell glibc to keep the memory that a step frees for the next one.

    Activations are tens of megabytes each. By default every one is mapped from the kernel and
    given back within a step, and faulting its pages in costs more than the arithmetic on it.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    # An older glibc refuses the first, and the second alone would make matters worse.
    if mallopt is not None and mallopt(_M_MMAP_THRESHOLD, _NEVER):
        mallopt(_M_TRIM_THRESHOLD, _NEVER)


def release_freed_memory() -> None:
    """Give back to the system what `keep_freed_memory` hoarded."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)


def timed_steps(
    spec: ModelSpec, *, precision: str, batch_size: int, optimizer: Optimizer = "adam"
) -> Iterator[float]:
    """Make training steps on the CPU (forward, loss, backward, update), one each time it is asked.

    The model is a fresh one of the same sizes, as the time of a step does not depend on what was
    learned. The precision is "32-true" or "bf16-mixed". The global random state is left alone.
    Yields wall-clock seconds of the step; the first ones are warm-up.
    """
    keep_freed_memory()
    layout, generator = layout_of(precision), torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        model = MotorVAE(spec).to(memory_format=layout)  # type: ignore[call-overload]  # torch's stub lacks it
    update = optimizer_of(model, torch.device("cpu"), name=optimizer, precision=precision)
    set_rate(update, 1e-3)
    shape = (batch_size, *spec.input_shape)
    images = torch.rand(shape, generator=generator).to(memory_format=layout)
    while True:
        start = time.perf_counter()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16-mixed"):
            mu, log_var = model.encode(images)
            reconstruction = model.decode(sample_latent(mu, log_var, generator))
            loss = vae_loss(images, reconstruction, mu, log_var, beta=0.05)
        update.zero_grad()
        loss.total.backward()  # type: ignore[no-untyped-call]  # untyped in torch
        update.step()
        yield time.perf_counter() - start


class StepTime(NamedTuple):
    """How training steps are made here: `threads`, and a step's seconds at the run's batch size.

    `note` is a clause for the user; `gain`, how many times longer a step took with the other
    number of threads, is None without a choice.
    """

    threads: int
    step_s: float
    note: str
    gain: float | None


def threads_by_trial(
    spec: ModelSpec,
    *,
    precision: str,
    batch_size: int,
    asked: int | None,
    optimizer: Optimizer = "adam",
) -> StepTime:
    """Set the number of threads that torch computes with on the CPU, the faster of one and all.

    On a machine that is busy otherwise, threads that share a step wait for each other, and one
    that works alone can be several times faster. Steps of both take turns, so that a change of
    the load hits them alike; the first of all warms up and is not counted. Nothing is compared
    where the number was asked for, by `asked` or `OMP_NUM_THREADS`, or is one anyway. The other
    arguments are as of `timed_steps`.
    """
    if asked is None and os.environ.get("OMP_NUM_THREADS"):
        asked = torch.get_num_threads()
    every = asked or default_threads()
    images = min(batch_size, _MOST_IMAGES)
    steps = timed_steps(spec, precision=precision, batch_size=images, optimizer=optimizer)
    torch.set_num_threads(every)
    next(steps)
    taken: dict[int, float] = dict.fromkeys([every] if asked or every == 1 else [1, every], 0.0)
    for number in range(1, _ROUNDS + 1):
        for threads, mean in taken.items():
            torch.set_num_threads(threads)
            seconds = next(steps) * batch_size / images
            taken[threads] = mean + (seconds - mean) / number
        if number >= _CLEAR_ROUNDS and max(taken.values()) > _CLEAR * min(taken.values()):
            break
    threads = min(taken, key=lambda count: taken[count])
    torch.set_num_threads(threads)
    note, gain = f"{threads} thread{'' if threads == 1 else 's'}", None
    if len(taken) > 1:
        gain = max(taken.values()) / taken[threads]
        times = []
        for count, seconds in taken.items():
            shown = f"{seconds * 1e3:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
            times.append(f"{shown} with {count}")
        note += f", as a step of training took {' and '.join(times)}"
    return StepTime(threads, taken[threads], note, gain)


class ThreadTrials:
    """Chooses before the first step, and again now and then, as a load may begin or end.

    `trial` is `threads_by_trial`; a later choice that differs is printed by `say`.
    """

    def __init__(self, trial: Callable[[], StepTime], say: Callable[[str], None]) -> None:
        self._trial, self._say = trial, say
        self._next_s = float("inf")

    def choose(self) -> StepTime:
        """Try, and let torch compute with the faster number of threads from now on."""
        start = time.monotonic()
        found = self._trial()
        end = time.monotonic()
        if found.gain is not None:
            self._next_s = end + max(_PAUSE * (end - start), _LEAST_PAUSE_S)
        return found

    def try_again(self, *_: object) -> None:
        """Choose again where the last trial is long enough ago; called before each step."""
        if time.monotonic() < self._next_s:
            return
        before = torch.get_num_threads()
        found = self.choose()
        if found.threads == before:
            return
        if (found.gain or 0) < _GAIN:
            torch.set_num_threads(before)
        else:
            self._say(f"from this step on {found.note}")
