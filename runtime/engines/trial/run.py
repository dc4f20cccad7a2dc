"""check_opening tries a graph in a process of its own, the first time an engine opens it here.

`bundle.graph_check` says what a graph may hold; what an engine makes of it is found out only by
opening it. An engine that crashes, hangs or fills memory does so there, under limits.
"""

from __future__ import annotations

import itertools
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from ...bundle.graph_check import budget_of
from ...bundle.load import Bundle
from ...bundle.manifest import GraphEntry
from ...core.errors import BackendError, BundleError
from ...core.spec import ModelSpec
from ...core.system.children import python_module
from ..base import CpuRunner
from ..open_graph import library_of
from .child import ALTERED, NO_MEMORY, NOT_OF_GRAPH, REFUSED, START_S
from .records import Opened

_MODULE = "motorvae.runtime.engines.trial.child"
_READY = b"ready\n"
_MOST_REPORT = 1 << 13
_TIME_LIMIT_S, _TIME_LIMIT_OF_OTHERS_S = 60.0, 300.0  # of the card's network, and of others
_BASE_MB, _FOR_CORE_MB = 256, 24  # an engine without a graph; the stack and heap of a thread
_COPIES = 8  # of a graph's file while an engine rearranges its weights
_NAMES: dict[CpuRunner, str] = {"onnx": "ONNX Runtime", "openvino": "OpenVINO"}
_running: dict[int, subprocess.Popen[bytes]] = {}  # by the thread that waits for it
_PASSED: set[Opened] = set()  # in this process: its cache folder may be one that cannot be written


@dataclass(frozen=True, slots=True)
class Limits:
    """What the opening of a graph and one run may take."""

    seconds: float
    megabytes: int  # private memory beyond that of the engine without a graph

    @classmethod
    def of(cls, entry: GraphEntry, spec: ModelSpec) -> Limits:
        """Return them for a graph that passed `check_graph`: several times what it takes."""
        most_bytes = _COPIES * entry.size_bytes + 4 * budget_of(spec, entry.frame).held
        cores = os.cpu_count() or 1  # engines start threads for all of them
        seconds = _TIME_LIMIT_S if spec.channels is not None else _TIME_LIMIT_OF_OTHERS_S
        return cls(seconds, _BASE_MB + _FOR_CORE_MB * cores + (most_bytes >> 20))


def remember_verified(bundle: Bundle, entries: Iterable[GraphEntry]) -> None:
    """Write down that these graphs were just opened and run here, by the engines in the reports."""
    for entry, (runner, name) in itertools.product(entries, _NAMES.items()):
        if bundle.verified_in(entry, name):
            Opened(entry.sha256, library_of(runner), entry.precision).remember()


def check_opening(
    path: Path,
    entry: GraphEntry,
    runner: CpuRunner,
    limits: Limits,
    *,
    threads: int | None = None,
) -> str | None:
    """Try a graph, unless that passed on this machine before; on the CPU, whatever the provider.

    Returns why it could not be tried, which is no fault of the graph, as a clause, or None. A
    BundleError where the engine crashed, hung or ran out of memory, or the file is another by now,
    a BackendError where it refused the graph, a MissingDependencyError where it is not installed.
    """
    opened = Opened(entry.sha256, library_of(runner), entry.precision)
    if opened in _PASSED or opened.is_known():
        return None
    numbers = threads or 0, limits.seconds, limits.megabytes
    words = (
        runner,
        str(path),
        entry.sha256,
        str(entry.size_bytes),
        entry.precision,
        *map(str, numbers),
    )
    try:
        code, report = _ended(python_module(_MODULE, *words), limits.seconds)
    except OSError as error:
        return f"{path.name} was not tried in a process of its own ({error.strerror or error})"
    if code == ALTERED:
        raise BundleError(f"{path} was altered while it was opened; copy the bundle again")
    if not report.startswith(_READY):
        return f"{path.name} was not tried in a process of its own, which did not start"
    if code == REFUSED:
        raise BackendError(report.removeprefix(_READY).decode("utf-8", "replace"))
    if code == NOT_OF_GRAPH:
        return None  # it is about to fail here, for the same reason
    if code != 0:
        raise BundleError(
            f"{path} is not opened: in a process of its own, {opened.library} "
            f"{_said_of(code, limits)}; do not use a bundle that you do not know, and give --trust "
            "if you know it"
        )
    _PASSED.add(opened)
    opened.remember()
    return None


def end_trial_of(thread: int) -> None:
    """End the trial that a thread (its `ident`) waits for, if it does, as nobody needs it now."""
    process = _running.get(thread)
    if process is not None:
        process.kill()


def _ended(command: list[str], seconds: float) -> tuple[int | None, bytes]:
    """Run a command; return its exit code, None where it was killed in the end, and its report."""
    if not sys.executable:
        raise OSError("this Python does not know its own program")
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
        start_new_session=True,  # Ctrl-C in a terminal is for us
    )
    stdout = cast("IO[bytes]", process.stdout)
    _running[threading.get_ident()] = process
    try:
        report = _read(stdout, seconds)
        return process.wait(timeout=1), report
    except subprocess.TimeoutExpired:
        return None, report
    finally:
        del _running[threading.get_ident()]
        process.kill()
        process.wait()
        stdout.close()


def _read(stdout: IO[bytes], seconds: float) -> bytes:
    """Return the start of what a process writes until it ends, or its time is over.

    That begins when the engine is loaded: how long that takes is not up to the graph.
    """
    found = b""
    deadline = time.monotonic() + START_S
    with selectors.DefaultSelector() as selector:
        handle = stdout.fileno()
        selector.register(handle, selectors.EVENT_READ)
        while selector.select(max(0.0, deadline - time.monotonic())):
            if not (block := os.read(handle, _MOST_REPORT)):
                break
            if found == b"":
                deadline = time.monotonic() + seconds
            found = (found + block)[:_MOST_REPORT]
    return found


def _said_of(code: int | None, limits: Limits) -> str:
    if code is None:
        return f"did not open and run it within {limits.seconds:g} s"
    if code == NO_MEMORY:
        return f"took more than {limits.megabytes} MB of memory for it"
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"was ended by {name}" + (" (too little memory)" if name == "SIGKILL" else "")
