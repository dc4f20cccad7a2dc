"""A training run on disk: config.json and model.safetensors, written whole, read with suspicion."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import safetensors
import safetensors.torch
import torch
from pydantic import ValidationError
from torch import Tensor

from ..runtime.errors import CheckpointError
from ..runtime.files import replaced_file
from ..runtime.spec import ModelSpec, StrictModel, problem_of
from .model import MotorVAE
from .options import TrainOptions

SCHEMA_VERSION = 1
CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"


class DataSummary(StrictModel):
    """What a run learned from.

    Attributes:
        kind: Where the images came from.
        source: The folder or file as the user named it, or "vehicles".
        train: Number of training images.
        held_out: Number of held-out images.
        skipped: Number of files or frames that could not be decoded.
    """

    kind: Literal["folder", "video", "vehicles"]
    source: str
    train: int
    held_out: int
    skipped: int


class RunConfig(StrictModel):
    """Everything about a run that is not a weight or a measurement.

    Attributes:
        schema_version: Version of this file's layout.
        started: When training began, ISO 8601 with the offset from UTC.
        model: Sizes of the model, and how frames become its input.
        options: Every option of the command.
        data: What was learned from.
        precision: The arithmetic that `--precision` came to.
        versions: Version of each package that took part.
    """

    schema_version: int = SCHEMA_VERSION
    started: str
    model: ModelSpec
    options: TrainOptions
    data: DataSummary
    precision: str
    versions: dict[str, str]


def save_config(folder: Path, config: RunConfig) -> None:
    """Write `config.json` into a run's folder, whole or not at all.

    Raises:
        OutputError: The folder cannot be written.
    """
    with replaced_file(folder / CONFIG_NAME) as path:
        path.write_text(config.model_dump_json(indent=2) + "\n", encoding="utf-8")


def save_weights(folder: Path, model: MotorVAE) -> None:
    """Write `model.safetensors` into a run's folder, whole or not at all.

    Its presence says that the run is finished, so it is written last.

    Raises:
        OutputError: The folder cannot be written.
    """
    state = {
        name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()
    }
    with replaced_file(folder / WEIGHTS_NAME) as path:
        safetensors.torch.save_file(state, path)


def config_from_run(folder: Path) -> RunConfig:
    """Read a run's `config.json`.

    Raises:
        CheckpointError: There is none, it is not valid, or another version wrote it.
    """
    path = folder / CONFIG_NAME
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{folder} is not a training run, it has no {CONFIG_NAME}: "
            "give a folder that motorvae-train wrote"
        ) from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {path}: {error}; train again") from error
    version = found.get("schema_version") if isinstance(found, dict) else None
    if version != SCHEMA_VERSION:
        raise CheckpointError(
            f"{path} has schema_version={version!r}, this motorvae reads {SCHEMA_VERSION}: "
            "install the motorvae that wrote it, or train again"
        )
    try:
        return RunConfig.model_validate(found)
    except ValidationError as error:
        raise CheckpointError(f"{path}: {problem_of(error)}; restore it or train again") from error


def model_from_checkpoint(path: Path) -> tuple[MotorVAE, RunConfig]:
    """Load a finished run; nothing is ever unpickled.

    Args:
        path: A run's folder, a link to one such as `runs/latest`, or its `model.safetensors`.

    Returns:
        The model on the CPU in evaluation mode, float32, and the run's facts.

    Raises:
        CheckpointError: There is no such run, it is not finished, or its weights do not fit;
            missing, unexpected, misshapen and non-finite tensors are all named.
    """
    folder = _run_folder(path)
    config = config_from_run(folder)
    weights = folder / WEIGHTS_NAME
    if not weights.is_file():
        raise CheckpointError(
            f"{folder} has no {WEIGHTS_NAME} because its training has not finished: "
            f"motorvae-train --resume {folder}"
        )
    try:
        found = safetensors.torch.load_file(weights)
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(
            f"cannot read {weights}: {error}; restore the file or train again"
        ) from error
    with torch.device("meta"):
        model = MotorVAE(config.model)
    _check_fit(weights, found, model.state_dict())
    model.load_state_dict(found, assign=True)
    return model.eval(), config


def _run_folder(path: Path) -> Path:
    if path.is_dir():
        return path
    if path.name == WEIGHTS_NAME and path.is_file():
        return path.parent
    if path.exists():
        raise CheckpointError(
            f"{path} is not loaded: only {WEIGHTS_NAME} beside its {CONFIG_NAME} is, because "
            "opening a pickle (.pt, .pth, .ckpt) can run foreign code; give the folder of a "
            "finished motorvae-train run"
        )
    raise CheckpointError(f"no training run at {path}: make one with motorvae-train")


def _check_fit(path: Path, found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    misshapen = [
        f"{name} is {_layout(found[name])}, expected {_layout(wanted[name])}"
        for name in sorted(found.keys() & wanted.keys())
        if _layout(found[name]) != _layout(wanted[name])
    ]
    problems = {
        "missing": sorted(wanted.keys() - found.keys()),
        "unexpected": sorted(found.keys() - wanted.keys()),
        "misshapen": misshapen,
        "not finite": [name for name in sorted(found) if not bool(found[name].isfinite().all())],
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
