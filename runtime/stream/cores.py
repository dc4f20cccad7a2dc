"""Which cores the threads of a stream run on, and before whom; what the system refuses is left."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ..core.lifecycle import Closing
from ..core.system.other_core import REAL_TIME, calm_other_core, core_of, make_ordinary

_TASKS = Path("/proc/self/task")
_PRIORITY = 1
"""Of SCHED_FIFO: before every ordinary thread, behind every other one of that kind."""
_ENCODES = "the thread that encodes"
_AMONG_ALL = "threads run among all others"
_LOOK_S = 1.0
_MOST_SHARE = 0.7
"""Of the time. Who takes more of a core would leave too little to ordinary threads, such as those
of outputs."""


class Cores(Closing):
    """Places an encoder's worker threads on a core each, and the encoding thread on the others.

    Between two frames of a camera all threads sleep, and the system may wake a worker on the very
    core on which the encoding thread runs: one half of the work then waits for the other half, for
    longer than one thread would take for both (docs/speed.md). On a single core nothing is placed,
    nor on systems without `sched_setaffinity`, nor where an engine has fewer threads than there are
    cores: another process would take the same ones.

    The encoding thread is the caller's own, so it is bound only from `bind` to `release`: a thread
    that a caller starts would inherit it. With `first` the threads of the stream also run before
    ordinary ones (SCHED_FIFO of sched(7)), as far as this user may ask for it, and until any of
    them takes most of a core for a second: then none does any more. A thread of its own looks after
    them until `close`, so that an engine or a decoder that hangs does not keep a core from
    everybody else. (RLIMIT_RTTIME would end the whole program, and its signal reaches no Python
    code while the main thread hangs.)

    Attributes:
        note: Why threads do not run first, or do no longer, where that was asked for.
    """

    def __init__(self, *, first: bool = False) -> None:
        usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set[int]()
        self._cpus = sorted(usable)
        by_core: dict[str, list[int]] = {}
        for cpu in self._cpus:
            by_core.setdefault(core_of(cpu), []).append(cpu)
        self._cores = list(by_core.values())  # the numbers of each core's hardware threads
        self.note: str | None = None
        self._first = first and len(self._cpus) > 1
        self._raised: dict[int, str] = {}  # by native ids, what the threads do that run first
        self._turn = threading.Lock()  # of whoever changes which threads those are
        self._own: set[int] = set()
        self._bound_s = self._others_s = 0.0  # processor time, within `bind` to `release` or not
        self._before: tuple[set[int], int, os.sched_param] | None = None
        self._closed = threading.Event()
        self._watching: threading.Thread | None = None

    @contextlib.contextmanager
    def placing(self, are_placed: Callable[[], bool] = lambda: True) -> Iterator[None]:
        """Place the threads that the calling one begins within the block: an engine's workers.

        They are known by the name that they inherit, as others begin threads meanwhile. Where they
        are not `are_placed`, which is asked after the block, they only run first.
        """
        name = _Name(f"place {threading.get_native_id()}")
        try:
            yield
            workers = name.inherited()
        finally:
            name.restore()
        for worker in workers:
            self._raise("a worker of the encoder", worker)
        *taken, own = self._cores or [[]]
        if not workers or len(workers) != len(taken) or not are_placed():
            return
        self._own = set(own)
        for worker, cpus in zip(workers, taken, strict=True):
            with contextlib.suppress(OSError):  # it has ended, or a container forbids it
                os.sched_setaffinity(worker, cpus)

    def place_nothing(self) -> None:
        """Let the encoding thread run anywhere after all: its engine has no workers."""
        self._own = set()

    def bind(self) -> None:
        """Bind the calling thread to its cores, until `release`; it is about to wait for frames."""
        if not (self._own or self._first) or self._before is not None:
            return
        try:
            self._before = os.sched_getaffinity(0), os.sched_getscheduler(0), os.sched_getparam(0)
        except OSError:  # neither musl nor every container says it
            return
        if self._own:
            with contextlib.suppress(OSError):
                os.sched_setaffinity(0, self._own)
        if self._first:  # what the caller does by itself is not to count
            self._others_s = time.thread_time() - self._bound_s
            self._raise(_ENCODES)

    def release(self) -> None:
        """Let the calling thread run where and as it could before."""
        if self._before is None:
            return
        cpus, policy, priority = self._before
        with contextlib.suppress(OSError):
            if self._own:
                os.sched_setaffinity(0, cpus)
            if os.sched_getscheduler(0) != policy:
                # Who may not take that mark away would be refused the rest as well.
                os.sched_setscheduler(0, policy | os.SCHED_RESET_ON_FORK, priority)
        # Only then: Ctrl-C may come at any line, and `release` or `close` after it goes on.
        with self._turn:
            if self._raised.pop(threading.get_native_id(), None):
                self._bound_s = time.thread_time() - self._others_s
        self._before = None

    def begin_beside(self) -> None:
        """Let the calling thread run anywhere, which a bound one began, and before that one."""
        if self._own:
            with contextlib.suppress(OSError):
                os.sched_setaffinity(0, self._cpus)
        self._raise("what looks at frames beside the encoder", priority=_PRIORITY + 1)

    def begin_capture(self) -> None:
        """Let the calling thread, which captures frames, run first as well."""
        self._raise("the thread that captures frames")

    def _raise(self, what: str, thread: int = 0, *, priority: int = _PRIORITY) -> None:
        with self._turn:
            if not self._first:
                return
            try:
                if os.sched_getscheduler(thread) & ~os.SCHED_RESET_ON_FORK in REAL_TIME:
                    return  # whoever started this has given it more
                policy = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
                os.sched_setscheduler(thread, policy, os.sched_param(priority))
            except ProcessLookupError:  # it has ended
                return
            except OSError as error:
                reason = (error.strerror or "refused").lower()
                self._take_back(f"{_AMONG_ALL}, as SCHED_FIFO is not allowed ({reason})")
                return
            self._raised[thread or threading.get_native_id()] = what
            if self._watching is None:
                watching = threading.Thread(target=self._watch, name="watch cores", daemon=True)
                try:
                    watching.start()
                except RuntimeError as error:  # a limit of threads or of memory
                    self._take_back(f"{_AMONG_ALL}, as none can look after them ({error})")
                else:
                    self._watching = watching

    def _watch(self) -> None:
        """Make all threads ordinary once one of them takes most of a core, and at the end."""
        self.begin_beside()
        seen: dict[int, tuple[float, float]] = {}  # when, and the processor time until then
        hog = None
        while hog is None and not self._closed.wait(_LOOK_S):
            hog = self._hog(seen)
        with self._turn:  # here, as an ordinary thread might not come to do it
            most = f"took more than {100 * _MOST_SHARE:.0f} % of a core"
            self._take_back(hog and f"{_AMONG_ALL} by now, as {hog} {most}")

    def _hog(self, seen: dict[int, tuple[float, float]]) -> str | None:
        """Return what takes most of a core since it was seen last, and note what is seen now."""
        with self._turn:
            for thread in [one for one in self._raised if not _runs_first(one)]:
                del self._raised[thread]  # it has ended; its id may be another thread's by now
            raised = dict(self._raised)
            others_s = self._others_s
        for one in seen.keys() - raised.keys():
            if not (_TASKS / str(one)).exists():  # else it is a caller's, and will be back
                del seen[one]
        for thread, what in raised.items():
            taken_s = _taken_s(thread) - (others_s if what == _ENCODES else 0.0)
            now = time.monotonic(), taken_s
            since_s, before_s = seen.get(thread, now)
            seen[thread] = now
            if now[1] - before_s > _MOST_SHARE * (now[0] - since_s):
                return what
        return None

    def _take_back(self, note: str | None = None) -> None:
        """Let no thread run first any more, in one's turn; the calling one is the last."""
        self._first, self.note = False, self.note or note
        for thread in sorted(self._raised, key=threading.get_native_id().__eq__):
            if _runs_first(thread):
                make_ordinary(thread)
        self._raised.clear()
        calm_other_core()

    def close(self) -> None:
        """Let no thread run first any more: what hangs may never end. Nobody looks after them."""
        self._closed.set()
        if self._watching is not None:
            self._watching.join()
        with self._turn:
            self._take_back()


class _Name:
    """A name of the calling thread as the kernel has it (comm of proc(5)), until `restore`."""

    def __init__(self, name: str) -> None:
        self._id, self._name, self._before = threading.get_native_id(), name, ""
        with contextlib.suppress(OSError):  # no such files here: then no thread has it
            own = _TASKS / str(self._id) / "comm"
            self._before = own.read_text(encoding="utf-8", errors="replace").strip()
            own.write_text(name, encoding="ascii")

    def inherited(self) -> list[int]:
        """Return the other threads that have the name, and give them the one before."""
        found = []
        for comm in sorted(_TASKS.glob("*/comm"), key=lambda path: int(path.parent.name)):
            with contextlib.suppress(OSError):  # it has ended
                has_it = comm.read_text(encoding="utf-8", errors="replace").strip() == self._name
                if has_it and int(comm.parent.name) != self._id:
                    found.append(int(comm.parent.name))
                    comm.write_text(self._before, encoding="utf-8")
        return found

    def restore(self) -> None:
        """Give the thread its name back."""
        if self._before:
            with contextlib.suppress(OSError):
                (_TASKS / str(self._id) / "comm").write_text(self._before, encoding="utf-8")


def _runs_first(thread: int) -> bool:
    """Whether a thread is as it was made here; a new one with the id of one that ended is not."""
    try:
        return os.sched_getscheduler(thread) == os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
    except OSError:
        return False


def _taken_s(thread: int) -> float:
    """Return the processor time of a thread so far (utime, stime of proc(5)); 0 once it ended."""
    try:
        stat = (_TASKS / str(thread) / "stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0.0
    return sum(map(int, stat.rpartition(") ")[2].split()[11:13])) / os.sysconf("SC_CLK_TCK")
