"""Every option of `motorvae-train` with its default and help, and the checks on them."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, ClassVar, Literal, get_args

import tyro
from pydantic import ConfigDict

from ..runtime.core.command import ValuesLike
from ..runtime.core.errors import ConfigError, next_command
from ..runtime.core.spec import (
    DEFAULT_CHANNELS,
    Box,
    Color,
    Fit,
    Interpolation,
    Matrix,
    ModelSpec,
    Size,
    spec_from_options,
)
from ..runtime.engines.cpu_threads import MOST_THREADS
from ..runtime.pixels.picture import MAX_PICTURE

Precision = Literal["auto", "32-true", "bf16-mixed", "16-mixed"]
Recipe = Literal["card", "fast", "original-linear-kl"]
Optimizer = Literal["adam", "muon"]
RateSchedule = Literal["stages", "constant", "cosine", "linear"]
KLSchedule = Literal["constant", "linear", "cyclical"]
ReconstructionLoss = Literal["mse", "bce", "l1", "mse+ssim"]
Augmentation = Literal["flip", "shift", "brightness", "erase"]
LOGGERS = ("tensorboard", "csv", "none", "wandb", "mlflow")
"""Loggers with a name; none is none at all."""
_MOST: dict[type, float] = {int: 2**32 - 1, float: 3e38}
"""Largest numbers that an option takes: what float32 holds, and more than anything is counted."""
_SHOWN = 24
_OF_USER = r"[A-Za-z_][\w.]*:[A-Za-z_]\w*"


@dataclass(frozen=True)
class TrainOptions:
    """Train a VAE; everything a run needs is kept in its folder."""

    # For pydantic, which reads these options back from config.json.
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    GROUPS: ClassVar[dict[str, tuple[str, ...]]] = {
        "model": (
            *("image_size", "color", "channels", "latent_size"),
            *("crop_box", "fit", "interpolation", "matrix"),
        ),
        "images": ("vehicles_count", "held_out", "workers", "track", "max_picture"),
        "schedule": (
            *("recipe", "batch_size", "optimizer", "learning_rate", "lr_schedule", "warmup"),
            *("heads_rate", "weight_decay", "clip_norm", "ema", "epochs", "steps", "minutes"),
            *("patience", "seed"),
        ),
        "loss": (
            *("reconstruction_loss", "betas", "kl_schedule", "kl_span", "kl_cycles", "free_bits"),
            *("start_log_var", "start_at_mean"),
        ),
        "augmentation": ("augment",),
        "run": ("pretrained", "config", "write_config", "logger", "callback", "limit_steps"),
        "hardware": ("threads", "precision", "accelerator", "devices", "num_nodes", "strategy"),
    }

    data: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")] = "vehicles"
    """A folder of images (read recursively), a pattern of images in quotes, a folder or a pattern
    of tar shards such as 'train-{000..123}.tar', which are read again in each epoch, one video
    file, or the word vehicles for the built-in renderer."""
    output: Path = Path("runs")
    """Folder that holds the runs, each with everything that it needs; latest in it leads to the
    newest."""
    name: str | None = None
    """Name of the run's folder; the time of the start where left out."""
    resume: Path | None = None
    """Continue this interrupted run with its own options. Beside it, only the goal may be given
    anew (--epochs, --steps, --minutes), and --threads, --logger, --callback, --devices, --num-nodes
    and --strategy; each step has as many images as before, on however many devices."""
    finish: bool = False
    """With --resume: train no further, and complete the run with what it has learned so far."""
    pretrained: Annotated[str | None, tyro.conf.arg(metavar="NAME|FOLDER")] = None
    """Begin with these weights, whose shape the model then has: a shipped model by its name, such
    as vehicles, a finished run, or a folder in Hugging Face form."""
    config: Path | None = None
    """Take options from this .yaml or .json file, by their names; a run's config.json is one, too.
    What is given here wins over the file, and the file over --recipe."""
    write_config: Annotated[Path | None, tyro.conf.arg(metavar="FILE|-")] = None
    """Write all options as they are now to this .yaml or .json file, or print them, and train
    nothing."""
    logger: Annotated[
        tuple[str, ...],
        tyro.conf.arg(metavar="[tensorboard|csv|none|wandb|mlflow|MODULE:CLASS ...]"),
        ValuesLike(rf"{'|'.join(LOGGERS)}|{_OF_USER}"),
    ] = ("tensorboard",)
    """What else writes down each epoch: loggers of Lightning's by name, or any class of one."""
    callback: Annotated[
        tuple[str, ...],
        tyro.conf.arg(metavar="[MODULE:FACTORY ...]"),
        ValuesLike(_OF_USER),
    ] = ()
    """Functions without arguments, or classes, that give a Lightning Callback each."""
    limit_steps: int | None = None
    """Make at most so many steps in an epoch, of other images each time, for a quick look at
    everything."""
    image_size: Annotated[
        Size, tyro.conf.arg(aliases=("--imgsz",), metavar="SIDE|HEIGHT WIDTH")
    ] = 256
    """Side of the model's square input in pixels, or its height and width; each a multiple of
    16."""
    color: Color = "grey"
    """What the model sees: grey is luma, rgb and bgr are colours in that order of planes."""
    channels: tuple[int, ...] = DEFAULT_CHANNELS
    """Channels of the encoder's convolutions, first to last."""
    latent_size: int = 128
    """Number of latent dimensions."""
    crop_box: Annotated[
        Box | None, tyro.conf.arg(aliases=("--crop",), metavar="LEFT TOP RIGHT BOTTOM")
    ] = None
    """What is taken of each image before it is fitted: fractions from 0 to 1, or whole pixels,
    where a right or bottom of 0 and below counts from the far edge. All of it where left out."""
    fit: Fit = "stretch"
    """How an image of another shape becomes that of the input: stretch ignores the aspect ratio,
    crop keeps the centre, pad adds white and resizes then, letterbox resizes to whole pixels and
    adds white then."""
    interpolation: Interpolation = "area"
    """How it is resized: area averages over areas; bilinear, bicubic and lanczos widen their
    filters where an image shrinks, as Pillow's do; bilinear-no-antialias is
    OpenCV's INTER_LINEAR."""
    matrix: Matrix = "auto"
    """Which matrix video has that names none, here and wherever the model is used. auto: BT.709
    from 1280 pixels across or more than 576 down, and BT.601 below, as players choose."""
    recipe: Recipe = "card"
    """Named defaults; what else is given wins. card: the model card's, as they stand here. fast:
    what learns soonest. original-linear-kl: the original project's later schedule of the KL
    weight."""
    batch_size: Annotated[int | None, tyro.conf.arg(aliases=("--batch",))] = None
    """Images in one step, on each device, at most: a step has this times the number of devices.
    Where left out, 64 as in the model card; for a small set the largest power of two from 4 on that
    gives an epoch 16 steps."""
    optimizer: Optimizer = "adam"
    """adam: steps of one size in every weight. muon: steps of one size in every direction of a
    layer's matrix, which learn sooner, and Adam for vectors and the ends; its learning rate is
    another, such as 0.05."""
    learning_rate: Annotated[float, tyro.conf.arg(aliases=("--lr",))] = 1e-4
    """The optimizer's learning rate, before --lr-schedule and --warmup change it."""
    lr_schedule: RateSchedule = "stages"
    """How it goes on. stages: the second stage has a fresh Adam at half the rate, as the model card
    says. The others keep one optimizer through both: constant, or falling to 0 along half a cosine
    or a line."""
    warmup: float = 0.0
    """Fraction of the run in which the learning rate rises along a line."""
    heads_rate: float = 1.0
    """With adam, learning rate of the layers that give mu and log_var, times that of the rest; they
    add up thousands of inputs each."""
    weight_decay: float = 0.0
    """Multiply the weights of inner layers by 1 - learning rate * this in each step, such as 0.1
    with muon, so that they do not grow without end; biases, batch norm and the layers at the image
    are left alone."""
    clip_norm: float | None = None
    """Scale the gradient of a step down to this norm where it is longer; not at all where left
    out."""
    ema: float | None = None
    """Validate and keep an exponential moving average of the weights with this decay, such as 0.999
    (the first steps decay faster), instead of the last weights."""
    epochs: Annotated[tuple[int, ...], tyro.conf.arg(metavar="ALL|FIRST SECOND")] = (100, 100)
    """Epochs of the two stages; of a single number, each stage gets half."""
    betas: tuple[float, float] = (0.001, 0.05)
    """Weight of the KL term in the two stages, or at the two ends of --kl-schedule."""
    kl_schedule: KLSchedule = "constant"
    """How the weight goes from one to the other. constant: with the stages. linear: along a line,
    once. cyclical: along a line, again and again."""
    kl_span: Annotated[tuple[float, float] | None, tyro.conf.arg(metavar="BEGIN END")] = None
    """Fractions of the run, or of a cycle, between which it rises. Where left out, 0 and 1 for
    linear, 0 and 0.5 for cyclical."""
    kl_cycles: int = 4
    """Number of cycles of --kl-schedule cyclical."""
    free_bits: float = 0.0
    """Nats that each latent dimension may hold, on average over a batch, at no cost."""
    reconstruction_loss: ReconstructionLoss = "mse"
    """What a reconstruction costs, summed over pixels: squared error, binary cross-entropy,
    absolute error, or squared error and structural similarity."""
    start_log_var: float | None = None
    """Begin with this log variance for every latent dimension, such as -4, so that the decoder sees
    little noise at first; about 0 where left out."""
    start_at_mean: bool = False
    """Begin with an image whose level is the mean of the training images, not middle grey."""
    augment: Annotated[
        tuple[Augmentation, ...],
        tyro.conf.arg(metavar="{flip,shift,brightness,erase} ..."),
        ValuesLike("|".join(get_args(Augmentation))),
    ] = ()
    """Change the training images at random in every step: mirror them, move them by up to a
    sixteenth, scale their brightness by 0.8 to 1.2, or hide a rectangle of what the encoder sees,
    which it then has to fill in. None of these where left out, and never a held-out image."""
    steps: int | None = None
    """Make exactly this many optimizer steps, split between the stages in proportion to their
    epochs, whose number then matters for nothing else."""
    minutes: float | None = None
    """Stop after this many minutes of training, split between the stages in proportion to
    their epochs, even where epochs or steps are left; no limit where left out."""
    patience: int | None = None
    """Stop when the held-out loss has not become smaller for so many epochs of the second stage.
    The best epoch's weights are kept anyway."""
    threads: int | None = None
    """Threads that compute on the CPU. Where left out, one and all cores are tried before the
    first step and now and then after it, and the faster is taken. Bytes of the result are the
    same only with the same number, so give one to repeat a run exactly."""
    vehicles_count: int = 8000
    """How many images to render for vehicles."""
    held_out: float = 0.1
    """Fraction of the images that is never trained on."""
    seed: int = 0
    """Seed of the weights, the order of the images, the noise and the vehicles; the split depends
    on the images alone."""
    precision: Precision = "auto"
    """Arithmetic of training; auto takes bf16-mixed where the hardware is fast at it."""
    accelerator: str = "auto"
    """Lightning's accelerator: auto, cpu, gpu, mps, ..."""
    devices: str = "auto"
    """Lightning's devices: a number, a list such as 0,2, or auto, which is one for each process
    that torchrun or srun has started."""
    num_nodes: int = 1
    """Number of machines, which share the output folder; torchrun and srun say it themselves."""
    strategy: Literal["auto", "ddp"] = "auto"
    """Lightning's strategy: auto, or ddp for several devices."""
    workers: int = 0
    """Threads that decode images while the data is prepared, and those of tar shards while the
    model is trained; 0 takes one per core."""
    track: int | None = None
    """Read this video track of a file or stream, counted from 1 without covers and thumbnails. By
    default the default one; of several, or without one, that of the largest picture."""
    max_picture: float = MAX_PICTURE
    """Megapixels that an image may have; a larger one is skipped before it is decoded."""

    def __post_init__(self) -> None:
        if len(self.epochs) == 1:
            (epochs,) = self.epochs
            object.__setattr__(self, "epochs", (epochs - epochs // 2, epochs // 2))


PROCESSES = ("devices", "num_nodes", "strategy")
"""What says how many processes share a run."""
GOAL = ("epochs", "steps", "minutes", "threads", "logger", "callback", *PROCESSES)
"""What may be given anew when a run is resumed."""


def resume_command(run: Path) -> str:
    """Return the command that goes on with an interrupted run."""
    return next_command("motorvae-train", "--resume", run)


def spec_from_train_options(options: TrainOptions) -> ModelSpec:
    """Return the model's spec, or raise ConfigError with the first option that is out of range."""
    name = options.name
    checks = {
        "--batch-size": (_within(options.batch_size, 1), "at least 1"),
        "--learning-rate": (0 < options.learning_rate < 1, "between 0 and 1"),
        "--epochs": (
            len(options.epochs) == 2 and min(options.epochs) >= 1,
            "at least 1 for each stage",
        ),
        "--warmup": (0 <= options.warmup < 1, "a fraction of the run from 0 to below 1"),
        "--heads-rate": (
            _within(options.heads_rate, 1e-6, 1e6)
            and (options.heads_rate == 1 or options.optimizer == "adam"),
            "above 0, such as 0.1, and 1 with --optimizer muon",
        ),
        "--weight-decay": (
            _within(options.weight_decay, 0)
            and options.weight_decay * options.learning_rate * max(options.heads_rate, 1) < 1,
            "0 or more, and below 1 / --learning-rate (/ --heads-rate, where that is above 1)",
        ),
        "--clip-norm": (_within(options.clip_norm, 1e-9), "above 0"),
        "--ema": (
            options.ema is None or 0 < options.ema < 1,
            "a decay between 0 and 1, such as 0.999",
        ),
        "--patience": (_within(options.patience, 1), "at least 1 epoch"),
        "--kl-span": (
            options.kl_span is None or 0 <= options.kl_span[0] < options.kl_span[1] <= 1,
            "two fractions, the first below the second, such as 0 0.5",
        ),
        "--kl-cycles": (options.kl_cycles >= 1, "at least 1"),
        "--free-bits": (_within(options.free_bits, 0), "0 nats or more"),
        "--start-log-var": (_within(options.start_log_var, -20, 5), "between -20 and 5"),
        "--augment": (
            len(set(options.augment)) == len(options.augment),
            "each at most once",
        ),
        "--betas": (all(_within(beta, 0) for beta in options.betas), "0 or more for each stage"),
        "--minutes": (options.minutes != 0 and _within(options.minutes, 0), "more than 0"),
        "--steps": (_within(options.steps, 2), "at least 2, one for each stage"),
        "--limit-steps": (_within(options.limit_steps, 1), "at least 1"),
        "--logger": (
            _are_loggers(options.logger),
            f"some of {', '.join(LOGGERS)}, or MODULE:CLASS, each once, and none by itself",
        ),
        "--threads": (_within(options.threads, 1, MOST_THREADS), f"between 1 and {MOST_THREADS}"),
        "--finish": (not options.finish or options.resume is not None, "beside --resume RUN"),
        "--vehicles-count": (options.vehicles_count >= 2, "at least 2"),
        "--held-out": (0 < options.held_out < 1, "between 0 and 1, such as 0.1"),
        "--seed": (0 <= options.seed < 2**32, "between 0 and 4294967295"),
        "--num-nodes": (options.num_nodes >= 1, "at least 1"),
        "--track": (_within(options.track, 1), "a number from 1"),
        "--max-picture": (_within(options.max_picture, 0.001), "megapixels above 0"),
        "--workers": (options.workers >= 0, "0 or more"),
        "--data": (bool(options.data), "a folder, a video file, or vehicles"),
        "--name": (
            name is None or (name not in {"", ".", "..", "latest"} and "/" not in name),
            "a plain folder name other than latest",
        ),
    }
    for flag, (is_fine, allowed) in checks.items():
        if not is_fine:
            value = getattr(options, flag[2:].replace("-", "_"))
            raise ConfigError(f"{flag}={value}: it must be {allowed}")
    _check_sizes_of_numbers(options)
    spec = spec_from_options(
        **{name: getattr(options, name) for name in TrainOptions.GROUPS["model"]}
    )
    if options.batch_size == 1 and spec.feature_shape == (1, 1):
        raise ConfigError(
            "--batch-size=1 gives batch norm a single value a channel in this model: take 2 or more"
        )
    return spec


def _are_loggers(names: tuple[str, ...]) -> bool:
    known = all(name in LOGGERS or re.fullmatch(_OF_USER, name) for name in names)
    return 0 < len(names) == len({*names}) and known and ("none" not in names or len(names) == 1)


def _check_sizes_of_numbers(options: TrainOptions) -> None:
    """Raise ConfigError for a number that arithmetic on it would overflow."""
    for field in fields(options):
        given = getattr(options, field.name)
        for value in given if isinstance(given, tuple) else (given,):
            kind = type(value)
            if field.name in TrainOptions.GROUPS["model"] or kind not in _MOST:
                continue  # the model's are checked as such
            if not -_MOST[kind] <= value <= _MOST[kind]:
                flag, shown = f"--{field.name.replace('_', '-')}", str(value)
                short = shown if len(shown) <= _SHOWN else f"a number of {len(shown)} digits"
                raise ConfigError(f"{flag}={short}: it must be at most {_MOST[kind]:.10g}")


def _within(value: float | None, least: float, most: float = sys.float_info.max) -> bool:
    """Return whether a value is in its finite range, or left out."""
    return value is None or least <= value <= most
