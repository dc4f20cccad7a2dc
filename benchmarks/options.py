"""Options of motorvae-bench run, and checks that other commands share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import tyro

from ..runtime.core.atomic_files import check_writable
from ..runtime.core.errors import ConfigError
from ..runtime.core.spec import Color, ModelSpec, Size, spec_from_options

RunGroup = Literal["encoder", "decoder", "path", "threads", "start-up", "import", "stream", "gpu"]
"""Groups of cases that can be asked for; "stream" measures memory as well."""

GpuEngine = Literal["onnx", "tensorrt", "tensorrt-rtx", "torch"]
"""What motorvae-doctor gpu measures the encoder on."""

_BATCHES, _QUICK_BATCHES = (1, 8, 32), (1,)
_SAMPLES, _QUICK_SAMPLES = 120, 20
"""Turns differ more than calls: with 200 calls in as many turns, medians were no better known."""
_LOADGEN_S, _QUICK_LOADGEN_S = 60.0, 2.0


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
    untrained_int8: bool = False
    """With --untrained: INT8 encoders as well. Their ranges are those of a few images, so that they
    are timed and say nothing of exactness."""
    samples: int | None = None
    """Timed calls of each case; by default 120, which is the least, or 20 with --quick."""
    quick: bool = False
    """Show that everything works with few calls; the result is marked as not to be quoted."""
    only: tuple[RunGroup, ...] = get_args(RunGroup)
    """Which groups of cases to measure; by default all of these."""
    batches: tuple[int, ...] | None = None
    """Images in one call of the encoder or decoder; by default 1 8 32, or 1 with --quick.
    Every engine runs the first of these, and the leading ones run all."""
    threads: int | None = None
    """Threads of torch, ONNX Runtime, OpenVINO and OpenCV; by default what each chooses, and for
    motorVAE's own engines what motorvae-stream takes."""
    trust: bool = False
    """Time TensorRT engines, too, that neither this machine built nor a trusted key signed."""
    skip_compile: bool = False
    """Leave torch.compile out, as --quick does; it takes a C++ compiler and up to minutes."""
    energy: bool = False
    """Also measure joules for each latent, by RAPL, a Jetson's power monitors and NVML, as far as
    they are there; refused where none is."""
    energy_seconds: float | None = None
    """How long each case runs for its energy, in three parts; by default 15, or 3 with --quick."""
    loadgen: bool = False
    """Also let MLPerf's LoadGen time each encoder that motorvae-stream would take, in its scenarios
    SingleStream and Offline, in turns with our own loop; its logs are kept beside the result."""
    loadgen_seconds: float | None = None
    """How long LoadGen's runs last at least; by default 60, or 2 with --quick. MLPerf asks for
    600: shorter ones are marked as not to be quoted."""
    training: bool = False
    """Also time a training step, in float32 and in bf16 with channels last."""
    training_batch: int = 64
    """Images in one training step."""
    training_steps: int = 20
    """Timed training steps each way; each follows one that is not timed."""
    seed: int = 0
    """Seed of the inputs, and of the weights with --untrained."""
    image_size: Annotated[Size | None, tyro.conf.arg(metavar="SIDE|HEIGHT WIDTH")] = None
    """Side of the model's input with --untrained, or its height and width; by default 256."""
    color: Color | None = None
    """What it sees with --untrained; by default grey."""
    channels: tuple[int, ...] | None = None
    """Channels of the encoder with --untrained; by default 32 64 128 256 512."""
    latent_size: int | None = None
    """Latent dimensions with --untrained; by default 128."""

    def __post_init__(self) -> None:
        least = 1 if self.quick else _SAMPLES
        if self.samples is not None and self.samples < least:
            raise ConfigError(
                f"--samples {self.samples}: take {least} or more"
                + ("" if self.quick else ", or --quick for a result that is not to be quoted")
            )
        check_least(self, batches=1, threads=1, training_batch=1, training_steps=1)
        if self.energy_seconds is not None and not self.energy:
            raise ConfigError("--energy-seconds belongs to --energy: add that, or leave both out")
        if self.energy_seconds is not None and not 1 <= self.energy_seconds <= 180:
            raise ConfigError(f"--energy-seconds {self.energy_seconds:g}: take 1 to 180")
        if self.loadgen_seconds is not None and not self.loadgen:
            raise ConfigError("--loadgen-seconds belongs to --loadgen: add that, or leave both out")
        if self.loadgen_seconds is not None and not 1 <= self.loadgen_seconds <= 3600:
            raise ConfigError(f"--loadgen-seconds {self.loadgen_seconds:g}: take 1 to 3600")
        if not 0 <= self.seed < 2**32:
            raise ConfigError(f"--seed {self.seed}: take 0 to 4294967295")
        if self.untrained and (self.model, self.checkpoint) != (None, None):
            raise ConfigError(
                "--untrained measures random weights: leave out --model and --checkpoint, or leave "
                "out --untrained"
            )
        if self.untrained_int8 and not self.untrained:
            raise ConfigError("--untrained-int8 is of random weights: add --untrained")
        if not self.untrained and self._sizes:
            raise ConfigError(
                "--image-size, --color, --channels and --latent-size choose a random model: add "
                "--untrained, or leave them out to measure the bundle's"
            )

    @property
    def spec(self) -> ModelSpec:
        """The sizes of an untrained model."""
        return spec_from_options(**(ModelSpec().model_dump() | self._sizes))

    @property
    def batches_to_measure(self) -> tuple[int, ...]:
        """What was asked for, or the default."""
        return self.batches or (_QUICK_BATCHES if self.quick else _BATCHES)

    @property
    def samples_to_take(self) -> int:
        """What was asked for, or the default."""
        return self.samples or (_QUICK_SAMPLES if self.quick else _SAMPLES)

    @property
    def loadgen_s(self) -> float:
        """How long LoadGen's runs last at least."""
        return self.loadgen_seconds or (_QUICK_LOADGEN_S if self.quick else _LOADGEN_S)

    @property
    def _sizes(self) -> dict[str, Any]:
        names = ("image_size", "color", "channels", "latent_size")
        return {name: size for name in names if (size := getattr(self, name)) is not None}


def check_least(options: object, **least: int) -> None:
    """Refuse an option, or one of its several values, that is below what is given for its field."""
    for name, number in least.items():
        value = getattr(options, name)
        values = value if isinstance(value, tuple) else (value,)
        if value is not None and min(values, default=0) < number:
            flag = name.replace("_", "-")
            raise ConfigError(f"--{flag} {value}: take {number} or more")


def check_output(path: Path, suffix: str) -> None:
    """Refuse a result's path before work is spent on it."""
    if path.suffix != suffix or path.is_dir():
        raise ConfigError(f"--output {path}: name a file that ends in {suffix}")
    check_writable(path)
