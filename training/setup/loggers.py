"""Loggers of Lightning's: those with a name of their own, and any class of the user's."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger

from ...runtime.core.documents import document_from_json, save_document
from ...runtime.core.errors import (
    CheckpointError,
    ConfigError,
    MissingDependencyError,
    UserCodeError,
)
from ...runtime.core.spec import StrictModel
from ..checkpoint import RunConfig
from ..loop.module import VAETraining
from ..loop.resume_file import RESUME_NAME
from .user_code import errors_of_user, guard, object_from_name

LOGGERS_NAME = "loggers.json"
PROJECT = "motorvae"
"""What runs are gathered under, in services that gather them."""
_PACKAGES = {"wandb": "wandb", "mlflow": "mlflow"}
_CLASSES = {"wandb": "WandbLogger", "mlflow": "MLFlowLogger"}
_METHODS = ("log_metrics", "log_hyperparams", "log_graph", "save", "finalize")

Make = Callable[[Path, RunConfig, str | int | None], Logger]
"""Makes a logger for a run's folder; it goes on with a version, where one is given."""


class LoggerVersions(StrictModel):
    """What `loggers.json` holds: which version, by its own counting, each logger writes."""

    schema_version: Literal[1] = 1
    versions: dict[str, int | str]


def makers_of_loggers(names: Sequence[str]) -> dict[str, Make]:
    """Import what `--logger` names; nothing is made or written yet.

    Raises:
        ConfigError: A class cannot be imported, or is no logger.
        MissingDependencyError: The package of a service is not installed.
    """
    return {} if tuple(names) == ("none",) else {name: _maker(name) for name in names}


def loggers_for_run(
    makers: Mapping[str, Make], folder: Path, config: RunConfig
) -> dict[str, Logger]:
    """Make the loggers of a run, which go on with what they wrote before; see `LoggerDuties`.

    A UserCodeError where one cannot be made, or its service not be reached.
    """
    versions = _versions_in(folder)
    loggers = {}
    for name, make in makers.items():
        what = f"--logger {name} cannot be set up"
        with errors_of_user(what, error=UserCodeError, fix="mend it"):
            logger = make(folder, config, versions.get(name))
            getattr(logger, "experiment", None)  # of a service, where it is asked first
        if name != "tensorboard":
            guard(logger, f"--logger {name}", _METHODS, Logger)
        loggers[name] = logger
    return loggers


class LoggerDuties(Callback):
    """Tells loggers the options once, and keeps their versions, by which a resumed run finds them.

    Only the first rank does; TensorBoard's, which has one place in the run's folder, needs neither.
    """

    def __init__(self, loggers: Mapping[str, Logger], folder: Path, config: RunConfig) -> None:
        self._loggers = {name: one for name, one in loggers.items() if name != "tensorboard"}
        self._folder, self._config = folder, config

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Tell each logger the options, where the run begins, and write down their versions."""
        if not (self._loggers and trainer.is_global_zero):
            return
        if not (self._folder / RESUME_NAME).exists():
            for logger in self._loggers.values():
                logger.log_hyperparams(self._config.model_dump(mode="json")["options"])
        versions = _versions_in(self._folder)
        for name, logger in self._loggers.items():
            with errors_of_user(f"--logger {name} failed", error=UserCodeError, fix="mend it"):
                version = logger.version
            if isinstance(version, (int, str)):
                versions[name] = version
        save_document(self._folder / LOGGERS_NAME, LoggerVersions(versions=versions), indent=2)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write again the rows of a resumed run where a CSVLogger has deleted its file."""
        assert isinstance(pl_module, VAETraining)  # noqa: S101  # for the type checker
        for logger in self._loggers.values():
            if isinstance(logger, CSVLogger) and trainer.is_global_zero:
                for row in pl_module.history:
                    logger.log_metrics(asdict(row), step=row.epoch)


def _maker(name: str) -> Make:
    if name == "tensorboard":
        return lambda folder, *_: TensorBoardLogger(folder, name="", version=name)
    if name == "csv":
        # Each row is an epoch, and not many: written at once, so that none is lost.
        return lambda folder, *_: CSVLogger(
            folder, name="", version=name, flush_logs_every_n_steps=1
        )
    if (package := _PACKAGES.get(name)) is not None:
        if importlib.util.find_spec(package) is None:
            raise MissingDependencyError(
                f"--logger {name} needs the package {package}, which is not installed",
                fix=f"pip install {package}, or take --logger tensorboard or csv",
            )
        kind = object_from_name("--logger", f"lightning.pytorch.loggers:{_CLASSES[name]}")
        return _wandb(kind) if name == "wandb" else _mlflow(kind)
    kind = object_from_name("--logger", name, "Class")
    if not (inspect.isclass(kind) and issubclass(kind, Logger)):
        raise ConfigError(f"--logger {name}: it is no class of lightning.pytorch.loggers.Logger")
    return partial(_made_by_class, kind)


def _wandb(kind: type[Logger]) -> Make:
    def make(folder: Path, config: RunConfig, _: object) -> Logger:
        identity = f"{config.started} {config.options.name} {folder.name}"
        # The same for a resumed run, which goes on there.
        version = hashlib.sha256(identity.encode(errors="surrogateescape")).hexdigest()[:16]
        return kind(save_dir=folder, name=folder.name, version=version, project=PROJECT)  # type: ignore[call-arg]

    return make


def _mlflow(kind: type[Logger]) -> Make:
    def make(folder: Path, _: RunConfig, version: str | int | None) -> Logger:
        # The server that MLFLOW_TRACKING_URI names, or else files in the run's folder.
        return kind(  # type: ignore[call-arg]
            experiment_name=PROJECT,
            run_name=folder.name,
            save_dir=str(folder / "mlflow"),
            run_id=version,
        )

    return make


def _made_by_class(
    kind: type[Logger], folder: Path, _: RunConfig, version: str | int | None
) -> Logger:
    """Make a logger of a class, with those of our facts that its constructor takes."""
    facts: dict[str, Any] = {"save_dir": folder, "name": folder.name}
    if version is not None:
        facts |= {"version": version}
    taken = inspect.signature(kind).parameters
    return kind(**{name: value for name, value in facts.items() if name in taken})


def _versions_in(folder: Path) -> dict[str, int | str]:
    path = folder / LOGGERS_NAME
    if not path.exists():
        return {}
    again = "remove it, and the loggers begin anew"
    document = document_from_json(path, LoggerVersions, error=CheckpointError, again=again)
    return dict(document.versions)
