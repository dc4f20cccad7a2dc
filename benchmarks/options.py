"""Options of motorvae-bench run, held to their ranges."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from ..runtime.core.errors import ConfigError
from ..runtime.core.spec import ModelSpec, spec_from_options

RunGroup = Literal["encoder", "decoder", "path", "threads", "start-up", "import", "stream", "gpu"]
"""Groups of cases that can be asked for; "stream" measures memory as well."""

_BATCHES, _QUICK_BATCHES = (1, 2, 4, 8, 16, 32), (1,)
_SAMPLES = 200
_QUICK_SAMPLES = 20


@dataclass(frozen=True)
class RunOptions:
    """Time every engine on the same input, in turns, beside what the machine could do at best.

    This is what motorvae-bench does by itself.
    """

    model: Path | None = None
    """The bundle that motorvae-export wrote; by default bundle."""
    checkpoint: Path | None = None
    """The training run that the bundle was exported from; by default runs/latest."""
    output: Path = Path("bench.json")
    """Where the result goes, a .json file; a picture of it goes beside it, as .png. Earlier ones
    are kept under a number, such as bench.1.json."""
    untrained: bool = False
    """Measure random weights, exported on the spot; needs neither a bundle nor a checkpoint."""
    samples: int | None = None
    """Timed calls of each case; by default 200, which is the least, or 20 with --quick."""
    quick: bool = False
    """Show that everything works with few calls; the result is marked as not to be quoted."""
    only: tuple[RunGroup, ...] = get_args(RunGroup)
    """Which groups of cases to measure; by default all of these."""
    batches: tuple[int, ...] | None = None
    """Images in one call of the encoder or decoder; by default 1 2 4 8 16 32, or 1 with --quick.
    Every engine runs the first of these, and the leading ones run all."""
    threads: int | None = None
    """Threads of torch, ONNX Runtime, OpenVINO and OpenCV; by default what each chooses, and for
    motorVAE's own engines what motorvae-stream takes."""
    skip_compile: bool = False
    """Leave torch.compile out, as --quick does; it takes a C++ compiler and up to minutes."""
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


def batches_of_run(options: RunOptions) -> tuple[int, ...]:
    """Return the batches to measure."""
    return options.batches or (_QUICK_BATCHES if options.quick else _BATCHES)


def checked_samples(options: RunOptions) -> int:
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
        "--batches": options.batches is not None and min(options.batches, default=0) < 1,
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


def spec_of_run(options: RunOptions) -> ModelSpec | None:
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
