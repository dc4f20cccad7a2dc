"""The processes of a run: who started them, what they agree on, and what is said of a lost one."""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy
from rich.console import Console
from torch import distributed

from ...runtime.core.errors import ConfigError, MotorVAEError, OutputError, OutputLockedError
from ...runtime.core.lifecycle import ending_signals
from ...runtime.core.packages import versions_of
from ...runtime.core.system.locks import output_locked
from ..checkpoint import CONFIG_NAME
from ..options import TrainOptions, resume_command

RUN_VARIABLE = "MOTORVAE_RUN"
"""Names the run for the processes that Lightning starts for further devices."""
_WAIT = dt.timedelta(days=1)
"""For the first process, which prepares the images meanwhile; one that ends is noticed at once."""
_BY_HAND_S = 3600.0
_LOST = re.compile("gloo|nccl|closed by peer|reset by peer|broken pipe", re.IGNORECASE)
"""What torch says of a connection to a process that has ended: no class of its own."""
_OBSERVER = "lightning.fabric.strategies.launchers.subprocess_script"


class EndedElsewhereError(Exception):
    """This process ends because another one did; what there is to say of it has been said."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(f"another process of this run ended; exit code {exit_code}")
        self.exit_code = exit_code


class Launch(NamedTuple):
    """What has started the processes of a run: how many there are, and how many on this machine."""

    by: str
    ranks: int
    here: int


def launch() -> Launch | None:
    """Return what torchrun or srun says of the processes that it started; None without them.

    Their variables: https://docs.pytorch.org/docs/stable/elastic/run.html and
    https://slurm.schedmd.com/srun.html, as Lightning reads them.
    """
    if TorchElasticEnvironment.detect():
        ranks = int(os.environ["WORLD_SIZE"])
        return Launch("torchrun", ranks, int(os.environ.get("LOCAL_WORLD_SIZE", ranks)))
    if SLURMEnvironment.detect():
        ranks = int(os.environ["SLURM_NTASKS"])
        return Launch("srun", ranks, int(os.environ.get("SLURM_NTASKS_PER_NODE", ranks)))
    return None


class Ranks:
    """What the processes of a run tell each other before training begins.

    Lightning's own connection is opened, which it goes on with, and beside it one by gloo: NCCL's
    would not notice that a process has ended, and would not wait for long.
    """

    def __init__(self, machine: Trainer) -> None:
        self.rank, self.count = machine.global_rank, machine.world_size
        strategy = machine.strategy
        self.are_met = (
            self.count > 1
            and isinstance(strategy, DDPStrategy)
            and not isinstance(strategy.cluster_environment, LightningEnvironment)
        )
        if not self.are_met:
            return
        try:
            strategy.setup_environment()
            self._group = distributed.new_group(backend="gloo", timeout=_WAIT)
        except (RuntimeError, ValueError, OSError) as error:
            where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
            reason = str(error).partition("\n")[0]
            raise ConfigError(
                f"{self.count} processes cannot meet at {where}: {reason}; start them all, where "
                "they reach that address"
            ) from error

    @property
    def lead(self) -> bool:
        """Whether this process is the first, which prepares, writes and reports."""
        return self.rank == 0

    def check_alike(self, options: TrainOptions) -> None:
        """Raise a ConfigError, on the first rank, where ranks have other options or versions."""
        named = {f"--{name.replace('_', '-')}": value for name, value in asdict(options).items()}
        mine = named | versions_of(("motorvae", "torch", "lightning"))
        first, *others = self._gathered(mine)
        for rank, other in enumerate(others, 1):
            for name, value in first.items():
                if other[name] != value:
                    self._refuse(
                        ConfigError(
                            f"rank {rank} has {name}={other[name]}, and rank 0 has {value}: "
                            "start all processes of a run with the same command and packages"
                        )
                    )

    def check_seen(self, folder: Path) -> None:
        """Raise an OutputError, on the first rank, where another one does not see the run."""
        seen = (folder / CONFIG_NAME).is_file()
        for rank, blind in enumerate(self._gathered(None if seen else socket.gethostname())):
            if blind is not None:
                self._refuse(
                    OutputError(
                        f"rank {rank} on {blind} does not see {folder}: give an --output that all "
                        "machines share"
                    )
                )

    @contextlib.contextmanager
    def told(self, found: list[Any]) -> Iterator[None]:
        """Send the others what the block has appended, or that they end, where it raises."""
        try:
            yield
        except BaseException:
            with contextlib.suppress(ConfigError):  # they are gone: there is nobody to tell
                self._from_first(None)
            raise
        self._from_first(found)

    def hear(self) -> list[Any]:
        """Wait for what the first rank tells; EndedElsewhereError where it has raised."""
        found: list[Any] | None = self._from_first(None)
        if found is None:
            raise EndedElsewhereError(0)  # the first rank's code is the run's
        return found

    def _refuse(self, error: MotorVAEError) -> None:
        raise error if self.lead else EndedElsewhereError(0)

    def _gathered(self, mine: Any) -> list[Any]:
        if not self.are_met:
            return [mine]
        every: list[Any] = [None] * self.count
        with self._noticing():
            distributed.all_gather_object(every, mine, group=self._group)
        return every

    def _from_first(self, mine: Any) -> Any:
        if not self.are_met:
            return mine
        box = [mine]
        with self._noticing():
            distributed.broadcast_object_list(box, src=0, group=self._group)
        return box[0]

    @contextlib.contextmanager
    def _noticing(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            raise ConfigError(
                f"another process of this run ended before training began ({reason_of(error)}): "
                "look at what it said"
            ) from error


def run_of_first(options: TrainOptions) -> Path:
    """Return the folder of the run that the first rank prepares, of processes that have not met.

    One that Lightning started finds it in its environment; one on another machine, that was started
    there by hand, waits.
    """
    if (folder := os.environ.get(RUN_VARIABLE)) is not None:
        return Path(folder)
    if options.name is None:
        raise ConfigError("with several nodes, --name must say where all processes meet")
    config = options.output / options.name / CONFIG_NAME
    deadline = time.monotonic() + _BY_HAND_S
    while not config.exists():
        if time.monotonic() > deadline:
            raise ConfigError(
                f"{config.parent} was not prepared by the first rank: look at its output"
            )
        time.sleep(0.2)
    return config.parent


class LossOfRanks:
    """Says in one line, once, that a process of a run has ended, and how to go on.

    The first rank says it; where that is the one that has ended, another one does.
    """

    def __init__(self, folder: Path, console: Console, *, leads: bool) -> None:
        self._folder, self._console, self._leads, self._said = folder, console, leads, False

    def watch_children(self) -> None:
        """Say it as well where Lightning's observer of the processes that it started notices.

        It kills this process then: NCCL waits for a lost one for ever.
        """
        logger = logging.getLogger(_OBSERVER)
        logger.setLevel(logging.INFO)
        logger.addFilter(self._seen_by_observer)

    def error_for(self, error: BaseException) -> EndedElsewhereError | None:
        """Return what to raise for an error of a lost connection, which is said now, or None.

        From then on this process, which is about to end, takes no signals: what started the
        processes may send one to end them all, and would break off the message.
        """
        if isinstance(error, MotorVAEError) or not isinstance(error, RuntimeError):
            return None
        if not (isinstance(error, distributed.DistError) or _LOST.search(str(error))):
            return None
        signal.pthread_sigmask(signal.SIG_BLOCK, ending_signals())
        if self._leads or self._first_is_gone():
            self._say(f"another process of this run ended ({reason_of(error)}), and so does this")
            return EndedElsewhereError(1)
        return EndedElsewhereError(0)

    def _first_is_gone(self) -> bool:
        """Whether the run's lock is free, which the first rank holds as long as it lives."""
        try:
            with output_locked(self._folder):
                return True
        except OutputLockedError:
            return False

    def _seen_by_observer(self, record: logging.LogRecord) -> bool:
        lost = re.search(r"terminated with code (-?\d+)", record.getMessage())
        if lost is None:
            return record.levelno >= logging.WARNING
        self._say(f"a process of this run ended with code {lost[1]}, and so do the others")
        return False

    def _say(self, what: str) -> None:
        if not self._said:
            self._said = True
            go_on = f"go on with {resume_command(self._folder)}, started as before"
            self._console.print(f"motorvae-train: {what}; {go_on}", soft_wrap=True)


def reason_of(error: BaseException) -> str:
    """Return torch's reason without its source file, and its first line only."""
    line = str(error).partition("\n")[0]
    return re.sub(r"^\[[^\]]*\.\w+:\d+\]\s*", "", line)[:200].rstrip(". ")


def set_threads(count: int | None) -> None:
    """Let torch compute with so many threads: of several processes Lightning sets its own."""
    if count is not None:
        torch.set_num_threads(count)
