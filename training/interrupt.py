"""Stopping: Ctrl-C, SIGTERM and SIGHUP as a request, and SLURM's signal that time is nearly up."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import FrameType

from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback

from ..runtime.core.lifecycle import ending_signals, signals_handled_by


class StopRequest(Callback):
    """Whether the user pressed Ctrl-C, or the system sent SIGTERM or SIGHUP.

    Only a third time stops at once, without saving. SIGHUP is never counted as such: a terminal
    that is closed sends it more than once. `say` prints a line for the user.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._times = 0
        self._signals = ending_signals()

    @property
    def asked(self) -> bool:
        """Whether training is to stop."""
        return self._times > 0

    def listening(self) -> AbstractContextManager[None]:
        """Take the signals as a request within the block (in the main thread only)."""
        return signals_handled_by(self._on_signal, self._signals)

    def on_train_start(self, *_: object) -> None:
        """Take SIGTERM back from Lightning, which would leave in the midst of an epoch."""
        if signal.getsignal(signal.SIGINT) == self._on_signal:
            for number in self._signals:
                signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self.asked and number == signal.SIGHUP:
            return
        self._times += 1
        if self._times == 1:
            line = "stopping after this step"
        else:
            line = "still saving; a third Ctrl-C drops what was learned since the last epoch"
            for ending in (signal.SIGINT, signal.SIGTERM):
                signal.signal(ending, signal.default_int_handler)
        # The signal may have come while a line was being printed, where printing is refused.
        with contextlib.suppress(RuntimeError):
            self._say(line)


class RequeueRequest(Callback):
    """Whether SLURM has sent SIGUSR1, as `sbatch --signal=SIGUSR1@300` asks it to before the end.

    Lightning answers it: it saves and has SLURM requeue the job. But it does so within the handler,
    amid a step, in which a file would hold half of it, and each process at another place, so that
    they would wait for each other (Lightning's issue 21406). Here the handler takes note only, and
    `answer` calls Lightning's between two steps, on all ranks.
    """

    def __init__(self) -> None:
        self.asked = False
        self._lightnings: Callable[[int, FrameType | None], object] | None = None

    def on_train_start(self, *_: object) -> None:
        """Put a handler that takes note in the place of Lightning's, where that has one."""
        handler = signal.getsignal(signal.SIGUSR1)
        if callable(handler) and type(handler).__module__.startswith("lightning."):
            self._lightnings = handler
            signal.signal(signal.SIGUSR1, self._on_signal)

    def answer(self) -> bool:
        """Save and ask SLURM to run the job again, by Lightning's own handler; whether it will.

        Where SLURM refuses, Lightning says so in a warning, and nowhere else.
        """
        if self._lightnings is None:
            return False
        warnings = list[str]()

        def noted(record: logging.LogRecord) -> bool:
            if record.levelno >= logging.WARNING:
                warnings.append(record.getMessage())
            return True

        logger = logging.getLogger(type(self._lightnings).__module__)
        logger.addFilter(noted)
        try:
            self._lightnings(signal.SIGUSR1, None)
        finally:
            logger.removeFilter(noted)
        return not warnings

    def ignoring(self) -> AbstractContextManager[None]:
        """Let the signal, which ends a process by default, pass in the block, under SLURM only."""
        numbers = [signal.SIGUSR1] if SLURMEnvironment.detect() else []
        return signals_handled_by(self._on_signal, numbers)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self.asked = True


class Leaving:
    """How the processes of a run leave training together, where any of them was asked to.

    Of several, each of which gets a signal or does not, the first one says what they have agreed
    on. With `requeues` a job of SLURM's that is run again goes on with this run.
    """

    def __init__(
        self, say: Callable[[str], None], *, ranks: int, leads: bool, requeues: bool
    ) -> None:
        self.stop = StopRequest(say if ranks == 1 else lambda _: None)
        self.slurm = RequeueRequest()
        self.job: str | None = None  # that SLURM will run again
        self._say_agreed = say if ranks > 1 and leads else lambda _: None
        self._requeues = requeues

    @property
    def asked(self) -> bool:
        """Whether this process was asked to leave."""
        return self.stop.asked or self.slurm.asked

    def requeue(self, trainer: Trainer) -> bool:
        """Save and requeue where SLURM's signal came to any process; whether it did.

        Where SLURM refuses, the run is saved all the same, and there is no `job`.
        """
        if not trainer.strategy.reduce_boolean_decision(self.slurm.asked, all=False):
            return False
        if not self._requeues:
            return False
        if self.slurm.answer():
            array = os.environ.get("SLURM_ARRAY_JOB_ID")
            one = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else None
            self.job = one or os.environ["SLURM_JOB_ID"]
        return True

    def save(self, trainer: Trainer, path: Path) -> None:
        """Write the resume file, on all processes."""
        self._say_agreed("stopping after this step")
        trainer.save_checkpoint(path)
