"""A model in a folder of two files, config.json and model.safetensors: found, loaded, written."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from ...runtime.bundle.manifest import Origin
from ...runtime.core.atomic_files import sha256_of
from ...runtime.core.documents import document_from_json, save_document
from ...runtime.core.errors import (
    CheckpointError,
    ConfigError,
    OutputError,
    sentence_list,
    writing_output,
)
from ...runtime.core.spec import ModelSpec
from ...runtime.core.system.renames import rename_new
from ...runtime.core.system.temporaries import temporary_beside
from ...runtime.ood.detector import statistics_from_npz
from ..checkpoint import (
    CONFIG_NAME,
    KEPT_NAME,
    LATENTS_NAME,
    WEIGHTS_NAME,
    KeptWeights,
    RunConfig,
    WeightsType,
    config_from_run,
    model_from_checkpoint,
    save_weights,
    weights_as,
    weights_from_file,
)
from ..explore.verbs.runs import METRICS, metrics_from_csv
from ..model import MotorVAE, channels_of
from ..options import TrainOptions

_SHIPPED = Path(__file__).parent
START_NAME = "pretrained.safetensors"
"""What a run began with, among its prepared images until it is finished."""
_KEPT_AS_THEY_ARE: dict[str, Any] = {"start_log_var": None, "start_at_mean": False}
"""Options that say where weights start, and would overwrite some."""
_OF_THIS_MACHINE = (
    *("output", "resume", "pretrained", "config", "write_config"),
    # Code of the user's, which `--config` would import elsewhere.
    *("logger", "callback"),
)
"""Options that are left out of what others get."""
SMALL_FILES = (LATENTS_NAME, KEPT_NAME, METRICS)
"""Of a run, what goes with its weights where it is there; its images stay behind."""


class Pretrained(NamedTuple):
    """Weights that a run begins with."""

    spec: ModelSpec
    weights: dict[str, Tensor]  # float32 on the CPU
    origin: Origin  # what they are, for the config of the run


def shipped_models() -> tuple[str, ...]:
    """Return the names of the models that this package holds."""
    return tuple(sorted(path.parent.name for path in _SHIPPED.glob(f"*/{CONFIG_NAME}")))


def pretrained_folder(name: str) -> Path:
    """Return where the weights are that `--pretrained` names.

    A shipped model goes before a folder of the same name, which can be written `./NAME`.
    """
    if name in shipped_models():
        return _SHIPPED / name
    path = Path(name).expanduser()
    if name and path.exists():
        return path
    raise ConfigError(
        f"--pretrained={name}: there is no such folder, and no such model in this package, which "
        f"has {sentence_list(shipped_models())}: name a finished run, or a folder that motorvae "
        "hub pull made"
    )


def defaults_for_pretrained(name: str) -> dict[str, Any]:
    """Return the options that a run has by default which begins with what `--pretrained` names.

    The shape of the model is that of the weights, and nothing of these is set anew. A ConfigError
    where it is not the card's network.
    """
    folder = pretrained_folder(name)
    config = config_from_run(folder.parent if folder.name == WEIGHTS_NAME else folder)
    try:
        channels_of(config.model)
    except ConfigError as error:
        raise ConfigError(f"--pretrained={name}: {error}") from error
    return {**_sizes_of(config.model), **_KEPT_AS_THEY_ARE}


def pretrained_for(options: TrainOptions) -> Pretrained | None:
    """Load the weights that a run begins with, if any are named.

    Raises:
        ConfigError: There is nothing of that name, or an option contradicts the model's shape.
        CheckpointError: As of `model_from_checkpoint`.
    """
    if (name := options.pretrained) is None:
        return None
    folder = pretrained_folder(name)
    model, config = model_from_checkpoint(folder)
    _check_shape(options, config.model)
    if folder.name == WEIGHTS_NAME:
        folder = folder.parent
    data = config.data
    # In every manifest and card from here on: no path of this machine.
    seen = f"{data.train} of {_source_of(config)}"
    notes = [f"training went on from these weights, which had seen {seen}"]
    if config.origin is not None:
        notes.append(f"those had begun with {config.origin.name} ({config.origin.kind})")
    origin = Origin(
        kind="pretrained",
        name=name if name in shipped_models() else folder.resolve().name,
        files={WEIGHTS_NAME: sha256_of(folder / WEIGHTS_NAME)},
        notes=tuple(notes),
    )
    return Pretrained(config.model, model.state_dict(), origin)


def begin_from(start: Path, *models: MotorVAE) -> None:
    """Give a model, and its moving average, what its run was prepared with, if there is any."""
    if start.is_file():
        for model in models:
            model.load_state_dict(weights_from_file(start, model.state_dict()))


def _sizes_of(spec: ModelSpec) -> dict[str, Any]:
    """Return the options of a model's shape, as a spec has them."""
    return {name: getattr(spec, name) for name in TrainOptions.GROUPS["model"]}


def save_model(run: Path, folder: Path, *, dtype: WeightsType = "float32") -> RunConfig:
    """Write a finished run's model to a new folder, whole or not at all; see `write_model`.

    Raises:
        CheckpointError: There is no such run, or FP16 cannot hold its weights.
        OutputError: The folder exists, or cannot be written.
    """
    if folder.exists():
        raise OutputError(f"{folder} exists: name another folder, or move it away")
    with writing_output(folder), temporary_beside(folder) as made:
        made.mkdir()
        saved = write_model(run, made, dtype=dtype)
        rename_new(made, folder)
    return saved


def write_model(run: Path, folder: Path, *, dtype: WeightsType) -> RunConfig:
    """Write what a finished run's model is, its weights and latent statistics into a folder.

    That is the form that Hugging Face Hub and this package's own models have. It holds no image;
    of what the run was trained on it has the name alone, and no path.
    """
    model, config = model_from_checkpoint(run)
    source = run.parent if run.name == WEIGHTS_NAME else run
    copy_small_files(source, folder, config.model)
    return write_weights(config, model.state_dict(), folder, dtype=dtype)


def write_weights(
    config: RunConfig, weights: dict[str, Tensor], folder: Path, *, dtype: WeightsType
) -> RunConfig:
    """Write config and weights as `write_model` does, and read them again; return the config."""
    saved = without_paths(config).model_copy(update={"weights_dtype": dtype})
    save_document(folder / CONFIG_NAME, saved, indent=2)
    save_weights(folder, weights_as(weights, dtype))
    model_from_checkpoint(folder)
    return saved


def copy_small_files(run: Path, folder: Path, spec: ModelSpec) -> None:
    """Copy what goes with a run's weights, where it is there; see `check_small_files`."""
    check_small_files(run, spec)
    for name in SMALL_FILES:
        if (run / name).is_file():
            shutil.copyfile(run / name, folder / name)
    check_small_files(folder, spec)


def check_small_files(run: Path, spec: ModelSpec) -> None:
    """Raise a CheckpointError where one that is there is not what its name says.

    What is not ours, such as a link to some other file of whoever publishes, goes no further.
    """
    again = "remove it, or get the run again"
    if (path := run / LATENTS_NAME).is_file():
        statistics_from_npz(path, spec, error=CheckpointError, again=again)
    if (path := run / KEPT_NAME).is_file():
        document_from_json(path, KeptWeights, error=CheckpointError, again=again)
    if (path := run / METRICS).is_file():
        metrics_from_csv(path, needed=("epoch",))


def without_paths(config: RunConfig) -> RunConfig:
    """Return a config as others may see it: of places of this machine it has the names alone."""
    source, plain = _source_of(config), TrainOptions()
    kept: dict[str, Any] = {name: getattr(plain, name) for name in _OF_THIS_MACHINE}
    name = config.options.name and Path(config.options.name).name
    return config.model_copy(
        update={
            "data": config.data.model_copy(update={"source": source}),
            "options": replace(config.options, data=source, name=name, **kept),
        }
    )


def _source_of(config: RunConfig) -> str:
    """Return the name of what a run was trained on, without the path to it."""
    data = config.data
    return data.source if data.kind == "vehicles" else Path(data.source).name


def _check_shape(options: TrainOptions, spec: ModelSpec) -> None:
    """Raise a ConfigError with the first option that contradicts the weights to begin with."""
    for name, has in _sizes_of(spec).items():
        if (asked := getattr(options, name)) != has:
            flag = f"--{name.replace('_', '-')}"
            raise ConfigError(
                f"{flag}={asked} contradicts the weights of --pretrained={options.pretrained}, "
                f"which have {has}: leave {flag} out"
            )
    for name, kept in _KEPT_AS_THEY_ARE.items():
        if getattr(options, name) != kept:
            raise ConfigError(
                f"--{name.replace('_', '-')} is about weights that are drawn: leave it out beside "
                f"--pretrained={options.pretrained}"
            )
