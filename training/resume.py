"""Stopping and going on: Ctrl-C as a wish, and the file that a run continues from."""

from __future__ import annotations

import contextlib
import pickle
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from ..runtime.errors import CheckpointError
from ..runtime.files import replaced_file

RESUME_NAME = "resume.ckpt"


class StopWish:
    """Whether the user pressed Ctrl-C; only a third time stops at once, without saving.

    Args:
        tell: Prints a line for the user.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self.asked = False
        self._tell = tell
        self._presses = 0

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Take Ctrl-C as a wish within the block (in the main thread only)."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.getsignal(signal.SIGINT)

        def on_interrupt(_number: int, _frame: FrameType | None) -> None:
            self.asked = True
            self._presses += 1
            if self._presses == 1:
                self._tell("stopping after this step")
            else:
                self._tell(
                    "still saving; a third Ctrl-C drops what was learned since the last epoch"
                )
                signal.signal(signal.SIGINT, signal.default_int_handler)

        signal.signal(signal.SIGINT, on_interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)


class WholeFileIO(TorchCheckpointIO):
    """Writes a resume file whole or not at all, in its own folder, and never unpickles code."""

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | Path,
        storage_options: object = None,  # noqa: ARG002  # Lightning's signature
    ) -> None:
        """Write a file that takes the place of an earlier one in one step.

        Raises:
            OutputError: The disk is full or cannot be written; an earlier file stays whole.
        """
        with replaced_file(Path(path)) as temporary:
            torch.save(checkpoint, temporary)

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: object = None,  # noqa: ARG002  # as above
        weights_only: bool | None = None,  # noqa: ARG002  # as above
    ) -> dict[str, Any]:
        """Read numbers and tensors only.

        Raises:
            CheckpointError: The file is cut short, altered, or holds something else.
        """
        try:
            found: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, KeyError, pickle.UnpicklingError) as error:
            reason = str(error).partition("\n")[0]
            raise CheckpointError(
                f"cannot resume from {path}: {reason}; start a new run"
            ) from error
        return found
