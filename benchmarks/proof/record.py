"""The JSON of a proof: the machine, each step with how it ended, and each row with its evidence."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from ...runtime.core.documents import document_from_json
from ...runtime.core.errors import MeasurementError
from ...runtime.core.redaction import without_private
from ...runtime.core.spec import StrictModel
from ...runtime.core.text import printable
from ..measure.result import Environment

Status = Literal["proven", "failed", "unproven"]
_MOST_BYTES = 16 << 20
_LONGEST = 500


def public_text(text: str, *folders: Path) -> str:
    """Return a text in one line without what `without_private` hides, and not long.

    Of paths below `folders` only what comes after them is left.
    """
    for folder in folders:
        if len(str(folder)) > 1:
            text = re.sub(rf"{re.escape(str(folder))}(?=/|\b)/?", "", text)
    text = printable(" ".join(without_private(text).split()))
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


class GpuIdentity(StrictModel):
    """The GPU as its driver describes it; results of two that differ are never mixed."""

    name: str
    compute_capability: str
    cuda: str  # The newest version that the driver supports
    driver: str | None  # Version of the kernel module, where it is known
    memory_bytes: int
    integrated: bool
    machine: str | None  # The computer's product name, where the system shows one


class MachineFacts(StrictModel):
    """On what it ran. `no_gpu` says why nothing of it can be proof, as where the driver is fake."""

    gpu: GpuIdentity | None
    no_gpu: str | None = None
    environment: Environment | None  # None where the driver could not be asked at all
    power: tuple[dict[str, str], ...] = ()  # Each GPU's clocks and power, by nvidia-smi
    board: str | None = None  # The release of a Jetson's system

    @model_validator(mode="after")
    def _check_gpu(self) -> MachineFacts:
        if (self.gpu is None) and self.no_gpu is None:
            raise ValueError("a machine has a GPU or the reason why it has none")
        return self


class Row(StrictModel):
    """One thing that is to be proven, and whether it is.

    `figures` are numbers with the unit at the end of their names.
    """

    what: str
    status: Status
    reason: str | None = None  # Why it is not proven
    note: str | None = None  # What else the evidence says
    figures: dict[str, float] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check_reason(self) -> Row:
        if (self.status == "proven") == bool(self.reason):
            raise ValueError(
                f"{self.what!r} is {self.status}: only what is not proven has a reason"
            )
        return self


class StepRecord(StrictModel):
    """One step, and how it ended. One that was not started has neither seconds nor an end."""

    name: str
    proves: str
    limit_s: float
    command: str = ""  # Without paths of the machine
    commit: str | None = None  # Of the source that ran
    dirty: bool | None = None  # Whether that had changes which are not committed
    started: str | None = None  # When, in UTC
    seconds: float | None = None
    exit_code: int | None = None
    ended: str | None = None  # How, in a clause
    last_line: str = ""
    rows: tuple[Row, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _check_started(self) -> StepRecord:
        if self.seconds is None and any(row.status == "proven" for row in self.rows):
            raise ValueError(f"step {self.name} was not run, and has a row that is proven")
        return self

    @property
    def status(self) -> Status:
        """The worst that counts: failed; then proven, where anything is; else unproven."""
        found = {row.status for row in self.rows}
        return "failed" if "failed" in found else "proven" if "proven" in found else "unproven"


class Proof(StrictModel):
    """Everything that a run of `make gpu-proof` leaves, as JSON."""

    schema_version: Literal[1] = 1
    created: str  # When the first of its runs began, in UTC
    updated: str  # When it was written last, in UTC
    command: str
    machine: MachineFacts
    steps: tuple[StepRecord, ...]

    @model_validator(mode="after")
    def _check_gpu(self) -> Proof:
        counts = Counter(step.name for step in self.steps)
        if twice := sorted(name for name, count in counts.items() if count > 1):
            raise ValueError(f"two steps are called {twice[0]}")
        if self.machine.no_gpu and self.counts["proven"]:
            raise ValueError(f"a row is proven without a GPU: {self.machine.no_gpu}")
        return self

    @property
    def counts(self) -> Counter[Status]:
        """How many rows have each status."""
        return Counter(row.status for step in self.steps for row in step.rows)


def load_proof(path: Path) -> Proof:
    """Read a proof; a MeasurementError where it is no JSON of one, or of another version."""
    return document_from_json(
        path,
        Proof,
        error=MeasurementError,
        again="run make gpu-proof again",
        most_bytes=_MOST_BYTES,
    )
