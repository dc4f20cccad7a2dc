"""motorvae-bench."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..runtime.command import run_command, stderr_console
from ..runtime.errors import ConfigError, missing_dependency
from ..runtime.files import check_writable
from ..runtime.spec import ModelSpec, spec_from_options

_SAMPLES = 200
_QUICK_SAMPLES = 20
_MACHINE_SAMPLES = 30
_QUICK_MACHINE_SAMPLES = 5


@dataclass(frozen=True)
class BenchOptions:
    """Options of motorvae-bench."""

    model: Path | None = None
    """The bundle that motorvae-export wrote; by default bundle."""
    checkpoint: Path | None = None
    """The training run that the bundle was exported from; by default runs/latest."""
    output: Path = Path("bench.json")
    """Where the result goes, a .json file; a picture of it goes beside it, as .png."""
    untrained: bool = False
    """Measure random weights, exported on the spot; needs neither a bundle nor a checkpoint."""
    samples: int | None = None
    """Timed calls of each case; by default 200, which is the least, or 20 with --quick."""
    quick: bool = False
    """Show that everything works with few calls; the result is marked as not to be quoted."""
    batches: tuple[int, ...] = (1, 8)
    """Images in one call of the encoder or decoder."""
    threads: int | None = None
    """Threads of torch, ONNX Runtime and OpenCV; by default torch's own choice for all three."""
    skip_compile: bool = False
    """Leave torch.compile out; it takes a C++ compiler and up to minutes."""
    training: bool = False
    """Also time a training step, in float32 and in bf16 with channels last."""
    training_batch: int = 64
    """Images in one training step."""
    training_steps: int = 20
    """Timed training steps each way; each follows one that is not timed."""
    seed: int = 0
    """Seed of the inputs, and of the weights with --untrained."""
    image_size: int | None = None
    """Side of the model's input with --untrained; by default 256."""
    channels: tuple[int, ...] | None = None
    """Channels of the encoder with --untrained; by default 32 64 128 256 512."""
    latent_size: int | None = None
    """Latent dimensions with --untrained; by default 128."""


def main(args: Sequence[str] | None = None) -> int:
    """Run motorvae-bench; return its exit code."""
    return run_command(
        BenchOptions,
        _bench,
        prog="motorvae-bench",
        description="Time torch, torch.compile and ONNX Runtime on the same input, and the whole "
        "path from a frame to its latent, beside what the machine could do at best.",
        args=args,
    )


def _bench(options: BenchOptions) -> None:
    samples = _checked_samples(options)
    spec = _spec(options)
    check_writable(options.output)
    try:
        from .measure import Schedule  # noqa: PLC0415  # with torch: --help must not need it
        from .report import save_picture  # noqa: PLC0415
        from .results import save_result  # noqa: PLC0415
        from .run import Plan, run_benchmark  # noqa: PLC0415
        from .subject import subject_from_files, untrained_subject  # noqa: PLC0415
        from .table import print_result  # noqa: PLC0415
    except ModuleNotFoundError as error:
        package = (error.name or "a package").partition(".")[0].replace("_", "-")
        raise missing_dependency("benchmarking", package, extra="train,export,bench,cpu") from error

    console = stderr_console()
    plan = Plan(
        schedule=Schedule(samples=samples, warmup=3 if options.quick else 10),
        batches=options.batches,
        machine_samples=_QUICK_MACHINE_SAMPLES if options.quick else _MACHINE_SAMPLES,
        quick=options.quick,
        seed=options.seed,
        threads=options.threads,
        skip_compile=options.skip_compile,
        training=(
            Schedule(samples=options.training_steps, warmup=0, settle=0, turn=1),
            options.training_batch,
        )
        if options.training
        else None,
    )
    with contextlib.ExitStack() as stack:
        if spec is not None:
            subject = stack.enter_context(untrained_subject(spec, options.seed))
        else:
            subject = subject_from_files(
                options.model or Path("bundle"), options.checkpoint or Path("runs/latest")
            )
        # Plain lines: a progress bar's thread would run beside what is timed.
        result = run_benchmark(subject, plan, lambda text: console.print(f"measuring: {text}"))
    save_result(options.output, result)
    picture = options.output.with_suffix(".png")
    save_picture(picture, result)
    print_result(console, result)
    console.print(f"samples in {options.output}, their distributions in {picture}", soft_wrap=True)


def _checked_samples(options: BenchOptions) -> int:
    """Return the number of samples, having held every other number to its range."""
    if options.output.suffix != ".json" or options.output.is_dir():
        raise ConfigError(f"--output {options.output}: name a file that ends in .json")
    samples = options.samples or (_QUICK_SAMPLES if options.quick else _SAMPLES)
    least = 1 if options.quick else _SAMPLES
    if options.samples is not None and options.samples < least:
        raise ConfigError(
            f"--samples {options.samples}: take {least} or more"
            + ("" if options.quick else ", or --quick for a result that is not to be quoted")
        )
    problems = {
        "--batches": not options.batches or min(options.batches) < 1,
        "--threads": options.threads is not None and options.threads < 1,
        "--training-batch": options.training_batch < 1,
        "--training-steps": options.training_steps < 1,
    }
    for flag, is_wrong in problems.items():
        if is_wrong:
            value = getattr(options, flag[2:].replace("-", "_"))
            raise ConfigError(f"{flag} {value}: take 1 or more")
    if not 0 <= options.seed < 2**32:
        raise ConfigError(f"--seed {options.seed}: take 0 to 4294967295")
    return samples


def _spec(options: BenchOptions) -> ModelSpec | None:
    """Return the sizes of an untrained model, or None where files are to be measured."""
    sizes = (options.image_size, options.channels, options.latent_size)
    files = (options.model, options.checkpoint)
    if not options.untrained:
        if any(size is not None for size in sizes):
            raise ConfigError(
                "--image-size, --channels and --latent-size choose a random model: add "
                "--untrained, or leave them out to measure the bundle's"
            )
        return None
    if any(path is not None for path in files):
        raise ConfigError(
            "--untrained measures random weights: leave out --model and --checkpoint, or leave "
            "out --untrained"
        )
    default = ModelSpec()
    return spec_from_options(
        image_size=default.image_size if options.image_size is None else options.image_size,
        channels=default.channels if options.channels is None else options.channels,
        latent_size=default.latent_size if options.latent_size is None else options.latent_size,
        fit="stretch",
    )
