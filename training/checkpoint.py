"""A training run on disk: config.json and its weights, written whole, read with suspicion."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from ..runtime.bundle.manifest import Origin
from ..runtime.core.atomic_files import replaced_file
from ..runtime.core.documents import bytes_of_file, document_from_json
from ..runtime.core.errors import CheckpointError
from ..runtime.core.spec import ModelSpec, StrictModel
from ..runtime.core.text import printable
from .dataset import DataSet, kind_of_data
from .model import MotorVAE
from .options import TrainOptions, resume_command

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"
"""Weights of the best epoch; in runs of versions that kept only one, of the last."""
LAST_WEIGHTS_NAME = "last.safetensors"
LATENTS_NAME = "latents.npz"
LAST_LATENTS_NAME = "latents.last.npz"
"""Statistics of the last epoch's latents; `latents.npz` belongs to the best."""
KEPT_NAME = "weights.json"
_MOST_NAMED = 20  # of tensors that some other model has
_MOST_HEADER = 1 << 20  # of a file of weights; one of eight layers takes 10 kB

WeightsChoice = Literal["best", "last"]
WeightsType = Literal["float32", "float16"]


class DataSummary(StrictModel):
    """What a run learned from: `source` as the user named it, and numbers of images."""

    kind: Literal["folder", "video", "vehicles", "shards"]
    source: str
    train: int
    held_out: int
    skipped: int

    @classmethod
    def of(cls, source: str, data: DataSet) -> DataSummary:
        """Return the summary of data that a user named so."""
        return cls(
            kind=kind_of_data(source),
            source=source,
            train=len(data.train),
            held_out=len(data.held_out),
            skipped=data.skipped,
        )


class KeptEpoch(StrictModel):
    """Which epoch a file of weights is of; facts as in `loop.module.EpochRow`."""

    file: str
    epoch: int
    stage: int
    steps: int
    train_total: float
    held_out_total: float


class KeptWeights(StrictModel):
    """What `weights.json` holds."""

    schema_version: Literal[1] = 1
    best: KeptEpoch  # the epoch of the smallest held-out loss in the last stage that was reached
    last: KeptEpoch  # the last epoch


class RunConfig(StrictModel):
    """Everything about a run that is not a weight or a measurement."""

    schema_version: Literal[1] = 1
    started: str  # when training began, ISO 8601 with the offset from UTC
    model: ModelSpec
    options: TrainOptions
    data: DataSummary
    precision: str  # the arithmetic that `--precision` came to
    versions: dict[str, str]  # version of each package that took part
    # of weights that were trained elsewhere, or from which training began
    origin: Origin | None = None
    # devices that the run was started on, whose batch in a step it keeps; None of earlier versions
    started_on: int | None = None
    # float16 says that all tensors but vectors and numbers are kept so, to be half as large
    weights_dtype: WeightsType = "float32"


def save_weights(folder: Path, weights: dict[str, Tensor], name: str = WEIGHTS_NAME) -> None:
    """Write weights on the CPU into a run's folder, whole or not at all.

    The presence of `model.safetensors` says that the run is finished, so it is written last.
    """
    with replaced_file(folder / name) as path:
        path.write_bytes(safetensors.torch.save(weights))  # save_file's errors are no OSErrors


def config_from_run(folder: Path) -> RunConfig:
    """Read a run's `config.json`; CheckpointError where it is missing or not valid."""
    if not (folder / CONFIG_NAME).exists():
        raise CheckpointError(
            f"{folder} is not a training run, it has no {CONFIG_NAME}: "
            "give a folder that motorvae-train wrote"
        )
    return document_from_json(
        folder / CONFIG_NAME, RunConfig, error=CheckpointError, again="restore it or train again"
    )


def weights_and_statistics(folder: Path, choice: WeightsChoice) -> tuple[Path, Path]:
    """Return the files of these weights and of their latents' statistics.

    A run of an earlier version has weights of its last epoch only.
    """
    if choice == "last" and (folder / LAST_WEIGHTS_NAME).is_file():
        return folder / LAST_WEIGHTS_NAME, folder / LAST_LATENTS_NAME
    return folder / WEIGHTS_NAME, folder / LATENTS_NAME


def model_from_checkpoint(path: Path, choice: WeightsChoice = "best") -> tuple[MotorVAE, RunConfig]:
    """Load a finished run; nothing is ever unpickled.

    `path` is a run's folder, a link to one such as `runs/latest`, or its `model.safetensors`. The
    model is float32 on the CPU in evaluation mode; FP16 weights are read where its config declares
    them.

    Raises:
        CheckpointError: There is no such run, it is not finished, or its weights do not fit;
            missing, misshapen and non-finite tensors are all named, and some unexpected ones.
    """
    folder = _run_folder(path)
    config = config_from_run(folder)
    if not (folder / WEIGHTS_NAME).is_file():
        resume = resume_command(folder)
        raise CheckpointError(
            f"{folder} has no {WEIGHTS_NAME} because its training has not finished: go on with "
            f"{resume}, or keep what it has learned with {resume} --finish"
        )
    weights, _ = weights_and_statistics(folder, choice)
    with torch.device("meta"):
        model = MotorVAE(config.model)
    found = weights_from_file(weights, model.state_dict(), config.weights_dtype)
    model.load_state_dict(found, assign=True)
    return model.eval(), config


def weights_from_file(
    path: Path, wanted: dict[str, Tensor], dtype: WeightsType = "float32"
) -> dict[str, Tensor]:
    """Read weights that are laid out as those `wanted`, which may be on the meta device.

    A CheckpointError names all that is missing, unexpected, misshapen, of another type, or not
    finite.
    """
    again = "restore the file or train again"
    # Twice: what does not fit shall be named, such as a layer too many.
    size = 2 * sum(tensor.nbytes for tensor in wanted.values()) + _MOST_HEADER
    data = bytes_of_file(path, most_bytes=size, error=CheckpointError, again=again)
    try:
        if int.from_bytes(data[:8], "little") > _MOST_HEADER:
            raise CheckpointError(f"{path} has a header of over {_MOST_HEADER} bytes: {again}")
        found = safetensors.torch.load(data)
    except (KeyError, RuntimeError, TypeError, OverflowError, safetensors.SafetensorError) as error:
        reason = printable(str(error).partition("\n")[0])  # torch's have a stack below it
        raise CheckpointError(f"cannot read {path}: {reason}; {again}") from error
    _check_fit(path, found, weights_as(wanted, dtype))
    return {name: value.to(wanted[name].dtype) for name, value in found.items()}


def weights_as(weights: dict[str, Tensor], dtype: WeightsType) -> dict[str, Tensor]:
    """Return weights as `RunConfig.weights_dtype` has them; a CheckpointError beyond its range.

    Biases and the statistics of batch norm stay float32: they are few, and a small variance would
    become 0.
    """
    if dtype == "float32":
        return weights
    halved = {
        name: value.half() if value.is_floating_point() and value.ndim > 1 else value
        for name, value in weights.items()
    }
    for name, value in halved.items():
        if not value.is_meta and not bool(value.isfinite().all()):
            raise CheckpointError(f"{name} has values that FP16 cannot hold: keep it in float32")
    return halved


def _run_folder(path: Path) -> Path:
    folder = path.parent if path.name == WEIGHTS_NAME and path.is_file() else path
    if folder.is_dir():
        return folder
    if path.exists():
        raise CheckpointError(
            f"{path} is not loaded: only {WEIGHTS_NAME} beside its {CONFIG_NAME} is, because "
            "opening a pickle (.pt, .pth, .ckpt) can run foreign code; give the folder of a "
            "finished motorvae-train run, or import the file with motorvae import"
        )
    raise CheckpointError(f"no training run at {path}: make one with motorvae-train")


def _check_fit(path: Path, found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    both = sorted(found.keys() & wanted.keys())
    misshapen = [name for name in both if _layout(found[name]) != _layout(wanted[name])]
    # Nothing is computed with what does not fit: there are types that torch only keeps.
    fitting = [name for name in both if name not in misshapen]
    unexpected = [printable(name) for name in sorted(found.keys() - wanted.keys())]
    if len(unexpected) > _MOST_NAMED:
        unexpected[_MOST_NAMED:] = [f"and {len(unexpected) - _MOST_NAMED} more"]
    problems = {
        "missing": sorted(wanted.keys() - found.keys()),
        "unexpected": unexpected,
        "misshapen": [
            f"{name} is {_layout(found[name])}, expected {_layout(wanted[name])}"
            for name in misshapen
        ],
        "not finite": [name for name in fitting if not bool(found[name].isfinite().all())],
    }
    if any(problems.values()):
        named = "; ".join(
            f"{what}: {', '.join(names)}" for what, names in problems.items() if names
        )
        raise CheckpointError(
            f"{path} does not fit the model in its {CONFIG_NAME}: {named}; "
            "restore both files of one run, or train again"
        )


def _layout(tensor: Tensor) -> str:
    shape = "x".join(str(size) for size in tensor.shape) or "scalar"
    return f"{shape} {str(tensor.dtype).removeprefix('torch.')}"
