"""Stopping and going on: Ctrl-C as a wish, and the file that a run continues from."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from lightning.pytorch import Trainer

from ..runtime.errors import OutputError
from ..runtime.files import replaced_file

RESUME_NAME = "resume.ckpt"


class StopWish:
    """Whether the user pressed Ctrl-C once; a second time stops at once."""

    def __init__(self) -> None:
        self.asked = False

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Take Ctrl-C as a wish within the block (in the main thread only)."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.getsignal(signal.SIGINT)

        def on_interrupt(_number: int, _frame: FrameType | None) -> None:
            self.asked = True
            signal.signal(signal.SIGINT, signal.default_int_handler)

        signal.signal(signal.SIGINT, on_interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)


def save_resume_file(trainer: Trainer, folder: Path) -> None:
    """Write everything that a resumed run needs; call it on every rank.

    It is read with `weights_only=True`, so nothing in it can run.

    Raises:
        OutputError: The disk is full or cannot be written; an earlier file stays whole.
    """
    fresh = folder / f".next-{RESUME_NAME}"
    try:
        trainer.save_checkpoint(fresh)
        if trainer.is_global_zero:
            with replaced_file(folder / RESUME_NAME) as path:
                fresh.replace(path)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(
            f"cannot save {folder / RESUME_NAME}: {error.strerror or error}; make room there"
        ) from error
    finally:
        if trainer.is_global_zero:
            fresh.unlink(missing_ok=True)
