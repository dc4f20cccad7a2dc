from __future__ import annotations

import io
import threading

import pytest
from rich.console import Console

from motorvae.export import steps
from motorvae.export.steps import steps_shown


class Pipe(io.StringIO):
    """No terminal; says when a text has come through."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.came = threading.Event()
        self._text = text

    def write(self, text: str) -> int:
        written = super().write(text)
        if self._text in self.getvalue():
            self.came.set()
        return written


def test_a_long_step_is_not_silent_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(steps, "LINE_EVERY_S", 0.01)
    pipe = Pipe("encoder fp16 ...\n")
    before = threading.active_count()
    with steps_shown(Console(file=pipe), "loading torch") as show:
        show("encoder fp16")
        assert pipe.came.wait(30)
    assert threading.active_count() == before


def test_a_step_that_fails_at_once_is_not_named() -> None:
    pipe = Pipe("loading torch")
    with pytest.raises(ValueError, match="one line"), steps_shown(Console(file=pipe), "loading"):
        raise ValueError("one line")
    assert pipe.getvalue() == ""
