"""Stopping and going on: Ctrl-C and SIGTERM as a request, and the file a run continues from."""

from __future__ import annotations

import contextlib
import pickle
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins.io import TorchCheckpointIO

from ..runtime.core.atomic_files import replaced_file
from ..runtime.core.errors import CheckpointError
from ..runtime.core.lifecycle import ending_signals, signals_handled_by

RESUME_NAME = "resume.ckpt"


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


class WholeFileIO(TorchCheckpointIO):
    """Writes a resume file whole or not at all, in its own folder, and never unpickles code."""

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | Path,
        storage_options: object = None,  # noqa: ARG002  # Lightning's signature
    ) -> None:
        """Write a file in place of an earlier one, which stays whole on an OutputError."""
        with replaced_file(Path(path)) as temporary:
            torch.save(checkpoint, temporary)

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: object = None,  # noqa: ARG002  # as above
        weights_only: bool | None = None,  # noqa: ARG002  # as above
    ) -> dict[str, Any]:
        """Read numbers and tensors only; CheckpointError where the file is damaged."""
        try:
            found: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, KeyError, pickle.UnpicklingError) as error:
            reason = str(error).partition("\n")[0]
            raise CheckpointError(
                f"cannot resume from {path}: {reason}; start a new run"
            ) from error
        return found


def steps_saved(folder: Path) -> int:
    """Return how many optimizer steps a run's resume file has; 0 where there is none."""
    path, steps = folder / RESUME_NAME, 0
    if path.exists():
        steps = WholeFileIO().load_checkpoint(path)["motorvae"]["schedule"]["step"]
    return steps
