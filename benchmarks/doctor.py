"""motorvae-doctor: what this machine has, what its cameras deliver, what its GPU can do."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from rich.console import Console

from ..runtime.bundle.load import load_bundle
from ..runtime.core.atomic_files import set_aside
from ..runtime.core.command import Command, CommandGroup, PlainConsole, stderr_console
from ..runtime.core.documents import json_from_document
from ..runtime.core.errors import (
    ConfigError,
    MeasurementError,
    MissingDependencyError,
    needed_for,
)
from ..runtime.core.system.locks import output_locked
from ..runtime.doctor.screen import examine_machine, print_screen
from ..runtime.engines.gpu_info import NoGpu, find_gpu
from .options import GpuEngine, check_least, check_output

_MOST_SECONDS = 60


@dataclass(frozen=True)
class ScreenOptions:
    """Show on one screen what this machine has and what is missing, with the next command.

    This is what motorvae-doctor does by itself. Exit code 1 where something FAILED that
    motorvae-stream needs; that no camera is plugged in is a warning. It names no host, user or
    serial number, so that it can be pasted into an issue.
    """

    model: Path = Path("bundle")
    """The bundle to look at."""
    json: bool = False
    """Print the same as one JSON document."""


@dataclass(frozen=True)
class CamerasOptions:
    """List the cameras with the modes that they really deliver, measured."""

    seconds: float = 1.0
    """How long each mode is watched."""


@dataclass(frozen=True)
class GpuOptions:
    """Build engines for this machine's GPU, verify them, time them, and write one JSON result."""

    model: Path = Path("bundle")
    """The bundle that motorvae-export wrote; it stays as it is, engines are built in a copy."""
    checkpoint: Path | None = None
    """The training run that the bundle came from; with it and torch for CUDA, torch's FP16 encoder
    is measured, too."""
    output: Path = Path("doctor-gpu.json")
    """Where the result goes, a .json file; an earlier one is kept under a number."""
    frames: int = 1000
    """Images through each engine, one at a time."""
    only: tuple[GpuEngine, ...] = get_args(GpuEngine)
    """What to measure the encoder on; by default all of these."""
    energy: bool = False
    """Also measure joules for each latent, 15 s for each engine; refused without a sensor."""
    gpu_energy: bool = False
    """The same by the sensors that cover the GPU alone; without one the engines are only timed."""
    rates: Path | None = None
    """The rates of this GPU that `python -m motorvae.benchmarks.measure.gpu_rates` wrote, for the
    roofline; by default they are measured."""

    def __post_init__(self) -> None:
        check_least(self, frames=1)
        if self.energy and self.gpu_energy:
            raise ConfigError("--energy has the sensors of --gpu-energy, too: leave out one")


def _screen(options: ScreenOptions, *_: object) -> int:
    with stderr_console().status("looking at this machine"):
        screen = examine_machine(options.model)
    if options.json:
        sys.stdout.write(json_from_document(screen, indent=2))
    else:
        print_screen(_stdout_console(), screen)
    return 1 if screen.titles("FAILED") else 0


def _cameras(options: CamerasOptions, *_: object) -> int:
    if not 0 < options.seconds <= _MOST_SECONDS:
        raise ConfigError(
            f"--seconds {options.seconds:g}: take more than 0 and at most {_MOST_SECONDS}"
        )
    try:
        from ..runtime.doctor.cameras import examine_cameras  # noqa: PLC0415  # with OpenCV
    except ImportError as error:
        raise MissingDependencyError(
            f"examining cameras needs OpenCV, and it does not load ({error}): run motorvae-doctor"
        ) from error
    return examine_cameras(_stdout_console(), seconds=options.seconds)


def _stdout_console() -> Console:
    """Return a console for what the doctor was asked for: unlike rows, it is all there is."""
    return PlainConsole()


def _gpu(options: GpuOptions, *_: object) -> int:
    check_output(options.output, ".json")
    gpu = find_gpu()
    if isinstance(gpu, NoGpu):
        raise MeasurementError(
            f"no GPU to examine: {gpu.reason}; run motorvae-doctor gpu on the machine that has "
            "one, or motorvae-bench to measure this processor"
        )
    if not options.model.exists():
        raise MeasurementError(
            f"no bundle at {options.model}: run motorvae-train and then motorvae-export --fp16, or "
            "name a bundle with --model"
        )
    bundle = load_bundle(options.model)
    with needed_for("examining a GPU", extra="bench"):
        from .examine_gpu import Examination  # noqa: PLC0415  # with psutil: --help must not need it
        from .measure.energy import IDLE_S, WINDOW_S  # noqa: PLC0415
        from .measure.gpu_roofline import load_rates  # noqa: PLC0415
        from .report.energy import print_energy  # noqa: PLC0415
        from .report.tables import print_gpu_cases  # noqa: PLC0415
        from .sensors.find import gpu_sensors, require_sensors  # noqa: PLC0415
        from .sensors.meter import Meter  # noqa: PLC0415
    console = stderr_console()
    rates = load_rates(options.rates) if options.rates is not None else None
    sensors, energy = None, ""
    if options.energy:
        sensors, energy = require_sensors(), "--energy"
    elif options.gpu_energy:
        sensors, energy = gpu_sensors(), "--gpu-energy"
    with (
        output_locked(options.output),
        Meter(sensors, window_s=WINDOW_S, idle_s=IDLE_S) as meter,
    ):
        if (kept := set_aside(options.output)) is not None:
            console.print(f"the earlier {options.output} is kept as {kept}")
        result = Examination(
            bundle=bundle,
            gpu=gpu,
            frames=options.frames,
            checkpoint=options.checkpoint,
            output=options.output,
            console=console,
            only=options.only,
            meter=meter,
            energy=energy,
            rates=rates,
        ).run()
    print_gpu_cases(console, result)
    print_energy(console, result)
    counts = Counter(case.status for case in result.cases)
    console.print(
        f"result in {options.output}: {counts['measured']} of {len(result.cases)} cases measured; "
        "share that file as it is"
    )
    return 0 if counts["measured"] and not counts["drifted"] else 1


main = CommandGroup(
    "motorvae-doctor",
    "Show what this machine has and what it can do.",
    {
        "screen": Command(
            ScreenOptions, _screen, "Show what this machine has and what is missing."
        ),
        "cameras": Command(
            CamerasOptions, _cameras, "List the cameras with the modes that they really deliver."
        ),
        "gpu": Command(GpuOptions, _gpu, "Build engines for this GPU, verify and time them."),
    },
    hints={
        "--bundle": "the bundle is --model in every command",
        "--device": "motorvae-doctor gpu and motorvae-doctor cameras look at each",
    },
)

if __name__ == "__main__":
    sys.exit(main())
