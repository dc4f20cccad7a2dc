r"""The process in which a graph is tried: opens it, runs it once on zeros, and ends.

    python -m motorvae.runtime.engines.trial.child ENGINE PATH SHA256 SIZE PRECISION \
        THREADS SECONDS MEGABYTES

It writes "ready" once the engine is loaded, and after that at most one line, why it failed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np

from ...bundle.graph_key import Precision
from ...bundle.weights import whole_graph
from ...core.documents import opened_regular
from ...core.errors import BundleError, ConfigError, MissingDependencyError, MotorVAEError
from ..base import CpuRunner
from ..open_graph import library_of, open_graph

REFUSED = 3  # exit codes beside 0 and signals: the engine refused the graph and said why,
NO_MEMORY = 4
NOT_OF_GRAPH = 5  # and it would fail for any graph
ALTERED = 6  # the file is no longer the one that was checked
_MEMORY = re.compile(
    r"bad.alloc|out of memory|[Rr]esource temporarily unavailable|[Ff]ailed to allocate"
    r"|[Cc]annot allocate memory"
)
_GRACE_S = 5.0
START_S = 60.0  # until the engine is loaded, which no graph has a part in


def main(words: Sequence[str]) -> int:
    """Try a graph; returns the exit code. Threads of 0 are the default."""
    engine, path, sha256, size, precision, threads, seconds, megabytes = words
    report = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what engines print is no report
    _end_in(START_S)
    runner = cast("CpuRunner", engine)
    library_of(runner)
    try:
        # Opened from memory: the file may be swapped at any time, and what passes is remembered.
        with opened_regular(Path(path), most_bytes=int(size), error=BundleError, again="") as file:
            content = file.read(int(size))
        with contextlib.suppress(ValueError):  # no ONNX file: the engine says what it thinks of it
            content = whole_graph(content, Path(path).parent, int(size))
    except (BundleError, OSError):
        return ALTERED
    if hashlib.sha256(content).hexdigest() != sha256:
        return ALTERED
    _limit_memory(int(megabytes))
    _end_in(float(seconds))
    os.write(report, b"ready\n")
    try:
        opened = open_graph(
            Path(path),
            runner,
            content=content,
            precision=cast("Precision", precision),
            threads=int(threads) or None,
        )
        opened.run(np.zeros((1, *opened.image_shape), opened.input_dtype))
    except (ConfigError, MissingDependencyError):
        return NOT_OF_GRAPH
    except (MotorVAEError, MemoryError) as error:
        said = error.__cause__ or error
        if isinstance(said, MemoryError) or _MEMORY.search(str(said)):
            return NO_MEMORY
        os.write(report, str(error).encode("utf-8", "backslashreplace")[:4000])
        return REFUSED
    return 0


def _end_in(seconds: float) -> None:
    """Let the system end this process, should it outlive the one that would kill it by then."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds + _GRACE_S)


def _limit_memory(megabytes: int) -> None:
    """Let this process take so much more than it has now, and leave nothing if it crashes."""
    try:
        import resource  # noqa: PLC0415  # of Unix

        taken = re.search(rb"VmData:\s+(\d+) kB", Path("/proc/self/status").read_bytes())
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        # Where the machine itself runs out of memory, this process is the one to end.
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
        if taken:
            # Private writable memory: RLIMIT_AS would count files and address space never used.
            most = (int(taken[1]) << 10) + (megabytes << 20)
            allowed = resource.getrlimit(resource.RLIMIT_DATA)[1]
            most = most if allowed == resource.RLIM_INFINITY else min(most, allowed)
            resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    except (ImportError, OSError, ValueError):  # a system without one of them: the time limit stays
        pass


if __name__ == "__main__":
    code = main(sys.argv[1:])
    os._exit(code)  # no teardown of engines, which can take long or crash
