"""Stopping: Ctrl-C, SIGTERM and SIGHUP as a request."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import FrameType

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
