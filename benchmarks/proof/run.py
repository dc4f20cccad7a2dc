"""One run: each step in its own process, and the JSON and the page written anew after each."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from ...runtime.core.atomic_files import set_aside
from ...runtime.core.command import print_sentence
from ...runtime.core.documents import save_document
from ...runtime.core.errors import MeasurementError, OutputError
from ...runtime.core.lifecycle import interrupts_deferred
from ...runtime.core.system.children import python_module
from ..measure.case import NOT_REACHED
from .evidence import read_evidence
from .page import save_page
from .process import Ended, run_within
from .record import (
    MachineFacts,
    Proof,
    Row,
    Status,
    StepRecord,
    load_proof,
    public_text,
)
from .steps import Place, Step

MACHINE_LIMIT_S = 90.0
"""A driver that is loaded first takes seconds on some machines; one that is broken, for ever."""
LEAST_S = 10.0
"""A step that would get less time is not started."""
COMMIT_FILE = ".commit"
"""What a copy without git holds of the commit that it was made of; see tests/gpu/carry.py."""
_QUIET = {
    "PYTHONUNBUFFERED": "1",
    "NO_COLOR": "1",
    "COLUMNS": "120",
    "PYTHONFAULTHANDLER": "1",
}


@dataclass
class ProofRun:
    """A run of some steps, beside what earlier runs on this machine have left."""

    place: Place
    steps: Sequence[Step]
    asked: frozenset[str] | None  # Names of steps to run, proven or not; None for all not proven
    json: Path
    page: Path
    console: Console  # For progress
    command: str
    until_s: float | None = None  # On the monotonic clock: when everything must be over
    _records: dict[str, StepRecord] = field(default_factory=dict, init=False)
    _unsaved: OutputError | None = field(default=None, init=False)

    def run(self) -> Proof:
        """Run the steps; an interrupt leaves what was found so far, and what was not reached."""
        begin_s = time.monotonic()
        commit, dirty = commit_of(self.place.checkout)
        self._created = _now()
        self._machine = self._facts()
        earlier = self._earlier()
        kept = {record.name: record for record in earlier.steps} if earlier else {}
        if earlier:
            self._created = earlier.created
        for step in self.steps:
            self._records[step.name] = kept.get(step.name) or _not_run(step, NOT_REACHED)
        self._save()
        if self._unsaved:  # nothing was spent yet
            raise self._unsaved
        unforeseen: list[Exception] = []
        for step in self.steps:
            if not self._is_due(step):
                continue
            try:
                record = self._record_of(step)
            except KeyboardInterrupt:
                self._keep(step, _not_run(step, "interrupted"))
                raise
            except Exception as error:  # noqa: BLE001  # raised when the other steps are over
                unforeseen.append(error)
                reason = self._public(f"gpu-proof itself: {type(error).__name__}: {error}")
                record = _not_run(step, reason, status="failed")
            self._keep(step, record.model_copy(update={"commit": commit, "dirty": dirty}))
        proof = self._save()
        self.console.print(f"{time.monotonic() - begin_s:.0f} s")
        if unforeseen and self._unsaved:
            raise unforeseen[0] from self._unsaved
        if unforeseen:
            raise unforeseen[0]
        if self._unsaved:
            raise self._unsaved
        return proof

    def _is_due(self, step: Step) -> bool:
        if self.asked is not None:
            return step.name in self.asked
        record = self._records[step.name]
        # One that was ended at its limit may have proven a part: the rest is still to do.
        return record.status != "proven" or record.exit_code is None

    def _record_of(self, step: Step) -> StepRecord:
        if self._machine.no_gpu is not None:
            return _not_run(step, self._machine.no_gpu)
        if step.has_own_model:
            return _not_run(step, "not needed: a model was given with --model")
        if reason := step.why_not():
            return _not_run(step, self._public(reason))
        limit_s = step.limit_s
        if self.until_s is not None:
            left_s = self.until_s - time.monotonic()
            if left_s < LEAST_S:
                return _not_run(step, f"no time left: {max(0, left_s):.0f} s of --seconds")
            limit_s = min(limit_s, left_s)
        text = f"{step.name}: {step.proves} (at most {limit_s:.0f} s)"
        print_sentence(self.console, text)
        for path in step.leaves:
            _remove(path)
        started, command = _now(), step.due_command
        log = self.place.work / "logs" / f"{step.name}.log"
        folder = step.folder or self.place.work
        environment = {**_QUIET, **step.environment}
        ended = run_within(
            command, limit_s=limit_s, log=log, folder=folder, environment=environment
        )
        rows = self._rows_of(step, ended, was_cut=limit_s < step.limit_s)
        words = ended.words
        if ended.left_behind:
            words += f"; {ended.left_behind} processes that it left were ended"
        return StepRecord(
            name=step.name,
            proves=step.proves,
            limit_s=step.limit_s,
            command=self._public(shown_command(command)),
            started=started,
            seconds=round(ended.seconds, 3),
            exit_code=ended.exit_code,
            ended=self._public(words),
            last_line=self._public(ended.last_line),
            rows=rows,
        )

    def _rows_of(self, step: Step, ended: Ended, *, was_cut: bool) -> tuple[Row, ...]:
        rows = read_evidence(step.reader, step.proves, ended, self.place.work)
        if ended.at_limit and was_cut:  # that is no fault of the step
            cut = f"no time left: --seconds ended it after {ended.seconds:.0f} s"
            rows = tuple(
                row.model_copy(update={"status": "unproven", "reason": cut})
                if row.status == "failed"
                else row
                for row in rows
            )
        return tuple(
            Row(
                what=self._public(row.what),
                status=row.status,
                reason=row.reason and self._public(row.reason),
                note=row.note and self._public(row.note),
                figures=row.figures,
            )
            for row in rows
        )

    def _facts(self) -> MachineFacts:
        """Ask for this machine's facts in a process of its own."""
        file = self.place.work / "machine.json"
        file.unlink(missing_ok=True)
        ended = run_within(
            python_module("motorvae.benchmarks.proof.machine", str(file)),
            limit_s=MACHINE_LIMIT_S,
            log=self.place.work / "logs" / "machine.log",
            folder=self.place.work,
            environment=_QUIET,
        )
        if ended.exit_code == 0:
            try:
                return MachineFacts.model_validate_json(file.read_bytes())
            except (OSError, ValueError) as error:
                reason = f"what it wrote cannot be read: {type(error).__name__}"
        else:
            reason = f"{ended.words}: {ended.last_line or 'it said nothing'}"
        return MachineFacts(
            gpu=None,
            no_gpu=self._public(
                f"the process that asks the driver failed ({reason}); nvidia-smi and dmesg may "
                "say more"
            ),
            environment=None,
        )

    def _earlier(self) -> Proof | None:
        """Return what an earlier run on this machine left; anything else there is put aside."""
        if not self.json.exists():
            return None
        try:
            earlier = load_proof(self.json)
        except MeasurementError as error:
            why = str(error)
        else:
            here, there = self._machine, earlier.machine
            if (there.gpu, bool(there.no_gpu)) == (here.gpu, bool(here.no_gpu)):
                return earlier
            why = f"{self.json} is of another machine: {_name_of(there)}, and this is " + _name_of(
                here
            )
        kept = set_aside(self.json)
        set_aside(self.page)
        text = f"{why}; it is kept as {kept}, and every step begins anew"
        print_sentence(self.console, text)
        return None

    def _keep(self, step: Step, record: StepRecord) -> None:
        earlier = self._records[step.name]
        was_proven = any(row.status == "proven" for row in earlier.rows)
        if record.status == "unproven" and record.seconds is None and was_proven:  # not run again
            print_sentence(
                self.console,
                f"  proven earlier, and kept: {step.name}; not run again{_because(record.rows[0])}",
            )
            return
        with interrupts_deferred():
            self._records[step.name] = record
            if self._machine.no_gpu is not None:
                return  # one line says it of all
            self._save()
            for row in record.rows:
                what = step.name if row.what == step.proves else row.what
                print_sentence(self.console, f"  {row.status}: {what}{_because(row)}")

    def _save(self) -> Proof:
        """Write both files; where that fails the run goes on, since room may be made meanwhile."""
        proof = Proof(
            created=self._created,
            updated=_now(),
            command=self._public(self.command),
            machine=self._machine,
            steps=tuple(self._records.values()),
        )
        try:
            save_document(self.json, proof, indent=1)
            save_page(self.page, proof)
        except OutputError as error:
            if self._unsaved is None:
                print_sentence(self.console, f"not saved for now: {error}")
            self._unsaved = error
        else:
            self._unsaved = None
        return proof

    def _public(self, text: str) -> str:
        output = self.json.absolute().parent.parent  # leaves the last folder of --output
        folders = (self.place.work, self.place.checkout, Path.cwd(), Path(sys.prefix), output)
        return public_text(text, *(folder.absolute() for folder in folders if folder))


def commit_of(checkout: Path | None) -> tuple[str | None, bool | None]:
    """Return the commit of a checkout, and whether it has changes that are not committed.

    Of a copy without git its file `.commit`, where there is one, and None for the changes.
    """
    if checkout is None:
        return None, None
    try:
        # The checkout's own repository, and no other that it happens to lie in.
        top = _git(checkout, "rev-parse", "--show-toplevel")
        if Path(top).resolve() == checkout.resolve():
            dirty = _git(checkout, "status", "--porcelain", "--untracked-files=no")
            return _git(checkout, "rev-parse", "HEAD"), bool(dirty)
    except (OSError, subprocess.SubprocessError):
        pass
    with contextlib.suppress(OSError):
        words = (checkout / COMMIT_FILE).read_text(encoding="utf-8", errors="replace").split()
        return (words[0][:64] if words else None), None
    return None, None


def shown_command(command: Sequence[str]) -> str:
    """Return a command as a user would type it."""
    words = list(command)
    start = python_module("")[:-1]
    if words[: len(start)] == start:
        name = words[3]
        words = [f"motorvae-{words[4]}", *words[5:]] if name == "motorvae" else words[3:]
    elif words[:2] == [sys.executable, "-m"]:
        words = words[2:]
    return shlex.join(words)


def _git(checkout: Path, *words: str) -> str:
    command = ("git", "-C", str(checkout), *words)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=30, check=True, env=environment
    )
    return done.stdout.strip()


def _not_run(step: Step, reason: str, *, status: Status = "unproven") -> StepRecord:
    row = Row(what=step.proves, status=status, reason=reason)
    return StepRecord(name=step.name, proves=step.proves, limit_s=step.limit_s, rows=(row,))


def _name_of(machine: MachineFacts) -> str:
    if machine.no_gpu:
        return f"one without a GPU ({machine.no_gpu})"
    gpu = machine.gpu
    return f"{gpu.name} with driver {gpu.driver}" if gpu else "an unknown one"


def _because(row: Row) -> str:
    said = row.reason or row.note
    return f": {said}" if said else ""


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def _now() -> str:
    return dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds")
