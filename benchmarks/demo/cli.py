"""The main job in one go: train, export, stream a video, and draw what came out."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from rich.console import Console

from ...export.steps import run_process, steps_shown
from ...runtime.core.atomic_files import replaced_file
from ...runtime.core.command import Command, stderr_console
from ...runtime.core.errors import ConfigError, OutputError, StepFailedError, next_command
from ...runtime.sources.synthetic.vehicles import MovingVehicles

VIDEO_SIZE = 512
VIDEO_FPS = 30
VIDEO_SECONDS = 15
VIDEO_SEED = 2026
MARKER = "README.txt"
GRACE_S = 5.0
"""How long a step may take to end when the demo is interrupted."""
FEW = ("--recipe", "fast", "--vehicles-count", "1500")
GOING_ON = ("--pretrained", "vehicles", *FEW, "--learning-rate", "0.004")
"""From the model that comes with the package, a quarter of the card's arithmetic, at a tenth of the
recipe's rate: a larger one first undoes what the model has learned."""
FROM_SCRATCH = ("--channels", "16", "32", "64", "128", "256", *FEW)
"""The same network with random weights."""


@dataclass(frozen=True)
class DemoOptions:
    """Options of the demo."""

    steps: int = 700
    """Optimizer steps of training: about two minutes on two cores that are free."""
    from_scratch: bool = False
    """Begin with random weights, not with the model that comes with the package."""
    minutes: float = 20.0
    """Most minutes of training, should the machine be so busy that the steps take longer."""
    seed: int = 0
    """Seed of the vehicles, the weights and the order of the images."""
    output: Path = Path("demo")
    """Where everything goes; what an earlier demo left there is replaced."""


def video_of_vehicles(path: Path, *, seconds: float = VIDEO_SECONDS) -> None:
    """Encode a video of vehicles driving by: H.264, 512 x 512, 30 frames a second."""
    vehicles = MovingVehicles(VIDEO_SEED, VIDEO_SIZE)
    with replaced_file(path) as temporary, av.open(temporary, "w") as container:
        # As cameras encode: no frame refers to a later one, so none waits for another.
        options = {"crf": "18", "tune": "zerolatency"}
        stream = container.add_stream("libx264", rate=VIDEO_FPS, options=options)
        stream.width = stream.height = VIDEO_SIZE
        stream.pix_fmt = "yuv420p"
        stream.time_base = Fraction(1, VIDEO_FPS)
        for index in range(round(seconds * VIDEO_FPS)):
            frame = av.VideoFrame.from_ndarray(vehicles.image(index / VIDEO_FPS), "gray")
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _demo(options: DemoOptions, *_: object) -> None:
    if not 0 < options.minutes <= 600:
        raise ConfigError(f"minutes={options.minutes}: take more than 0 and at most 600")
    if options.steps < 2:
        raise ConfigError(f"steps={options.steps}: take at least 2, one for each stage")
    console = stderr_console()
    folder = options.output
    run, bundle, video = folder / "run", folder / "bundle", folder / "vehicles.mp4"
    rows, report = folder / "latents.jsonl", folder / "report.png"
    _clear(folder)

    _step(
        console,
        "motorvae-train",
        *("vehicles", "--steps", f"{options.steps}"),
        *("--minutes", f"{options.minutes:g}", "--seed", f"{options.seed}"),
        *(
            "--output",
            str(folder),
            "--name",
            run.name,
            *(FROM_SCRATCH if options.from_scratch else GOING_ON),
        ),
    )
    _step(console, "motorvae-export", str(run), "--output", str(bundle), "--fp16")
    with steps_shown(console, f"rendering {video}"):
        video_of_vehicles(video)
    _step(
        console,
        "motorvae-stream",
        *(str(video), "--realtime", "--model", str(bundle), "--output", str(rows)),
    )
    with steps_shown(console, f"drawing {report}"):
        from .report import draw_report  # noqa: PLC0415  # matplotlib loads slowly

        draw_report(report, bundle=bundle, video=video, rows=rows)
    console.print("\nThe demo wrote", style="bold")
    for path, what in (
        (run, "the training run: weights, metrics, reconstructions, loss curve"),
        (bundle, "encoder and decoder as verified ONNX graphs, float32 and FP16"),
        (video, "the video that was streamed"),
        (
            rows,
            "one latent row a frame, with its age; out of distribution are mostly those in which "
            "a vehicle enters or leaves the view, as training images have it nearer the middle",
        ),
        (report, "originals and reconstructions, latents over time, latencies"),
    ):
        console.print(f"  {path}: {what}")
    scripts = Path(os.path.relpath(Path(sys.executable).parent))
    command = ("synthetic", "--max-frames", 300, "--model", bundle)
    console.print(
        f"next: {next_command(scripts / 'motorvae-stream', *command)} (or 0 in place of synthetic, "
        "with a camera)"
    )


def _clear(folder: Path) -> None:
    """Remove what an earlier demo left, and nothing else."""
    marker = folder / MARKER
    if folder.exists() and any(folder.iterdir()) and not marker.exists():
        raise OutputError(f"{folder} is not the folder of a demo: name another --output")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    marker.write_text("Made by the demo, which replaces this folder.\n", encoding="utf-8")


def _step(console: Console, command: str, *args: str) -> None:
    """Show and run one of our commands, as a user would type it."""
    console.print(f"\n$ {next_command(command, *args)}", style="bold")
    script = Path(sys.executable).parent / command
    if code := run_process([str(script), *args], grace_s=GRACE_S):
        raise StepFailedError(f"{command} ended with exit code {code}; see above")


main = Command(
    DemoOptions,
    _demo,
    "Train, export and stream on this machine, and draw a report.",
    prog="motorvae demo",
)
