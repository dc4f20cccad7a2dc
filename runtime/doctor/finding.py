"""Finding: one row of the doctor's screen, with the next command where something is wrong."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator
from typing_extensions import Self

from ..core.spec import StrictModel

Verdict = Literal["ok", "optional", "warn", "FAILED"]
"""FAILED: `motorvae-stream --camera 0` cannot work like this. warn: something that it may come to
need is wrong. optional: something is absent, and nothing is wrong."""


class Finding(StrictModel):
    """What one check found.

    Attributes:
        what: The thing that was looked at.
        found: What it is like; no host names, user names or serial numbers, as people share this.
        verdict: What that means for the stream.
        next_command: What to type now; never absent after FAILED or warn.
    """

    what: str
    found: str
    verdict: Verdict = "ok"
    next_command: str | None = None

    @model_validator(mode="after")
    def _helpful(self) -> Self:
        if self.verdict in {"warn", "FAILED"} and not self.next_command:
            raise ValueError(f"{self.what}: {self.verdict} needs a next_command")
        return self

    @classmethod
    def ok(cls, what: str, found: str) -> Self:
        """Return one with which nothing is wrong."""
        return cls(what=what, found=found)

    @classmethod
    def optional(cls, what: str, found: str, next_command: str | None = None) -> Self:
        """Return one of something that is absent, and nothing is wrong."""
        return cls(what=what, found=found, verdict="optional", next_command=next_command)

    @classmethod
    def warn(cls, what: str, found: str, next_command: str) -> Self:
        """Return one of something wrong that a stream may come to need."""
        return cls(what=what, found=found, verdict="warn", next_command=next_command)

    @classmethod
    def failed(cls, what: str, found: str, next_command: str) -> Self:
        """Return one of something wrong without which no camera is streamed."""
        return cls(what=what, found=found, verdict="FAILED", next_command=next_command)
