"""The bare motorvae-doctor: every check in a process of its own, on one screen or as one JSON."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import shlex
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Literal

from pydantic import ValidationError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..core.packages import own_version
from ..core.spec import StrictModel
from ..core.system.children import processor_s, python_module
from .finding import Finding, Verdict
from .run_check import CHECKS, FINDINGS

LIMIT_S = 20.0
"""By then a check must have answered; a first import of TensorRT from a memory card takes long."""

_LONGEST = 6
"""So many limits for a check that still computes: all at once they are slow on a slow machine."""
_COMPUTING_S = 0.05
"""Processor time in the last quarter of a limit, and in each quarter after it, from which a check
computes; one that hangs has none, whatever it had before."""

_GRACE_S = 1.0
"""Past the limit: for an answer that has been there while another one was waited for."""
_QUOTED = 200
_STYLES: dict[Verdict, str] = {
    "ok": "green",
    "optional": "dim",
    "warn": "yellow",
    "FAILED": "bold red",
}


class Screen(StrictModel):
    """Everything that the bare motorvae-doctor found; `--json` prints it."""

    schema_version: Literal[1] = 1
    producer: str
    created: str
    findings: tuple[Finding, ...]

    def titles(self, verdict: Verdict) -> tuple[str, ...]:
        """Return what was given a verdict, in order."""
        return tuple(finding.what for finding in self.findings if finding.verdict == verdict)


def examine_machine(model: Path, *, limit_s: float = LIMIT_S) -> Screen:
    """Make every check, and change nothing; those that hang for longer than the limit are given up.

    One that still computes then, as on a slow machine, has several times as long.
    """
    # Alone and first: the other checks take memory themselves.
    found = findings_of(("memory",), model, limit_s)
    found |= findings_of(tuple(name for name in CHECKS if name != "memory"), model, limit_s)
    return Screen(
        producer=f"motorvae {own_version()}",
        created=dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds"),
        findings=tuple(_without_home(finding) for name in CHECKS for finding in found[name]),
    )


def findings_of(
    names: tuple[str, ...], model: Path, limit_s: float
) -> dict[str, tuple[Finding, ...]]:
    """Make some of `CHECKS` at the same time; one that hung, crashed or broke off is a finding."""
    environment = os.environ | {
        "ORT_DISABLE_TELEMETRY": "1",  # else ONNX Runtime leaves a device id in the user's cache
    }
    running: dict[str, subprocess.Popen[bytes]] = {}
    deadline = time.monotonic() + limit_s
    try:
        for name in names:
            running[name] = subprocess.Popen(
                python_module(f"{__package__}.run_check", name, str(model)),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment,
            )
        return {
            name: _answer_of(name, process, model, deadline, limit_s)
            for name, process in running.items()
        }
    finally:
        for process in running.values():
            process.kill()
            for stream in filter(None, (process.stdout, process.stderr)):
                stream.close()
            # One that is stuck in a driver is left to the system.
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_GRACE_S)


def print_screen(console: Console, screen: Screen) -> None:
    """Print the rows, each next command below what it is about, and a verdict on all."""
    table = Table(box=None, show_header=False, pad_edge=False)
    for ratio in (None, None, 1):
        table.add_column(overflow="fold", ratio=ratio)
    console.print(screen.producer)
    for finding in screen.findings:
        style = _STYLES[finding.verdict]
        found = Text(finding.found, style="dim" if finding.verdict == "optional" else "")
        if finding.next_command:
            found.append(f"\nnext: {finding.next_command}", style="" if style == "dim" else "bold")
        table.add_row(Text(finding.verdict, style=style), finding.what, found)
    console.print(table)
    failed, warned = screen.titles("FAILED"), screen.titles("warn")
    if failed:
        console.print(f"FAILED: {', '.join(failed)}. Type the command after next:, topmost first.")
    elif warned:
        console.print(f"Nothing failed. To look at: {', '.join(warned)}.")
    else:
        console.print("Nothing failed.")


def _answer_of(
    name: str, process: subprocess.Popen[bytes], model: Path, deadline: float, limit_s: float
) -> tuple[Finding, ...]:
    try:
        output, errors = _said_by(process, deadline, limit_s)
        if process.returncode >= 0:
            return FINDINGS.validate_json(output)
        problem = f"the check crashed ({signal.Signals(-process.returncode).name})"
    except subprocess.TimeoutExpired:
        problem = f"no answer within {limit_s:g} s"
    except ValidationError:
        lines = errors.decode(errors="replace").strip().splitlines() or ["no message"]
        problem = f"the check broke off: {lines[-1][:_QUOTED]}"
    check = CHECKS[name]
    # The command shows where it stops.
    command = f"python -X faulthandler -m {__package__}.run_check {name} {shlex.quote(str(model))}"
    return (Finding(check.title, problem, "FAILED" if check.needed else "warn", command),)


def _said_by(
    process: subprocess.Popen[bytes], deadline: float, limit_s: float
) -> tuple[bytes, bytes]:
    """Wait for a check's output; a TimeoutExpired where it hangs, or computes for too long.

    One that computes up to its deadline has a quarter of a limit more, and so on. What it had three
    quarters before is no sign: every check imports.
    """
    last = deadline + (_LONGEST - 1) * limit_s
    until, had_s = deadline - limit_s / 4, None
    while True:
        try:
            return process.communicate(timeout=max(_GRACE_S, until - time.monotonic()))
        except subprocess.TimeoutExpired:  # noqa: PERF203  # a wait each time
            has_s, now = processor_s(process.pid), time.monotonic()
            if had_s is not None and (has_s - had_s < _COMPUTING_S or now >= last):
                raise
            had_s, until = has_s, min(last, now + limit_s / 4)


def _without_home(finding: Finding) -> Finding:
    """Return a finding without the path of the home folder, which holds the user's name."""
    try:
        home = str(Path.home())
    except RuntimeError:  # this user has none
        return finding
    if home == "/":
        return finding
    command = finding.next_command and finding.next_command.replace(home, "~")
    return replace(finding, found=finding.found.replace(home, "~"), next_command=command)
