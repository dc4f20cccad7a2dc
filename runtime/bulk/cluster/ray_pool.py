"""RayPool: what EncoderPool does, on the machines of a Ray cluster, by Ray Data."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib import metadata
from pathlib import Path
from subprocess import DEVNULL
from typing import Any, cast

from ...bundle.load import Bundle
from ...core.errors import BackendError, ConfigError, MotorVAEError, needed_for
from ...core.lifecycle import Closing
from ...core.packages import own_version
from ...engines.cpu_threads import default_threads
from ..encoder_pool import PoolRequest
from ..item import Item
from ..rows import Rows
from .layout import Layout, layout_of
from .task_source import Task, TaskSource, alive_nodes, table_of
from .worker import Answer, Facts, Worker, WorkerRequest

TASK_IMAGES = 1024
"""Of one task, at most: what a worker that dies has to be done again."""
_TASK_BYTES = 32 << 20
_REACHABLE_WITHIN_S, _ANSWERS_WITHIN_S = 5.0, 30.0
_THREADS_END_WITHIN_S = 30.0
_TASKS_AHEAD = 8
"""For each worker: what is listed and has no answer yet."""
_MOST_RETRIES = 8
"""Of a task whose worker died: Ray's own is to try for ever what kills each worker."""
_ADDRESS = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]+):(?P<port>\d{1,5})")
_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # else it warns that this will be so
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_ENABLE_AUTO_CONNECT": "0",  # no thread that is left over starts it again
}
_ON_PROCESSORS = {"cpu", "cpuexecutionprovider"}


@dataclass(frozen=True, slots=True)
class ClusterRequest:
    """Which cluster, and how much of a data set makes a task there."""

    address: str | None = None  # None: that of RAY_ADDRESS, else this machine alone
    task_images: int = TASK_IMAGES
    say: Callable[[str], None] = lambda _: None  # what is waited for


class RayPool(Closing):
    """Workers on a Ray cluster; each has an EncoderPool on a group of cores, or on a GPU.

    Ray Data hands tasks of some batches to workers, starts workers again that died, and does again
    what they had; answers come in the order of the questions. Of a node only Ray, motorVAE and the
    data under the same paths are needed: the bundle is sent there. ConfigError where the cluster
    cannot be reached, MissingDependencyError without Ray, and whatever a node says of the bundle.
    """

    def __init__(self, bundle: Bundle, request: PoolRequest, cluster: ClusterRequest) -> None:
        if request.engine.rebuild:
            raise ConfigError("--rebuild builds for this machine: leave it out, or --engine ray")
        self._cluster = cluster
        os.environ |= _SETTINGS  # read at the import
        with needed_for("encoding on a cluster", extra="ray", package="ray"):
            import ray  # noqa: PLC0415  # optional
            import ray.data  # noqa: PLC0415
        self._ray: Any = ray
        self._cores, self._notes = request.workers, dict[str, None]()
        engine = request.engine
        provider = (engine.provider or "").lower()
        self._uses_gpus = provider not in _ON_PROCESSORS and engine.backend != "openvino"
        _connect(ray, cluster.address)
        try:
            files = ray.put(_files_of(bundle.folder))
            self.layout = self._layout_on(alive_nodes(ray))
            pool = replace(request, workers=self.layout.cores)
            self._request = WorkerRequest(
                own_version(), str(Path.cwd()), partial(self._ray.get, files), pool
            )
            self._say_what_is_waited_for()
            asked = ray.data.from_arrow(table_of(0, pickle.dumps(None)))
            (facts,) = self._answers(asked, 1)
            self.choice = cast("Facts", facts)
            # Else a node with a GPU could take another precision than one without.
            precise = replace(engine, precision=cast("Any", self.choice.precision))
            self._request = replace(self._request, pool=replace(pool, engine=precise))
        except BaseException:
            self.close()
            raise

    def _say_what_is_waited_for(self) -> None:
        """Other jobs of the cluster may have its cores for hours; Ray waits without a word."""
        free, layout = self._ray.available_resources(), self.layout
        if free.get("CPU", 0) >= layout.cores and free.get("GPU", 0) >= layout.gpus:
            return
        self._cluster.say(
            f"waiting for room for {layout}: other jobs have the cluster, of which "
            f"{free.get('CPU', 0):.0f} cores and {free.get('GPU', 0):.0f} GPUs are free"
        )

    @property
    def engine(self) -> str:
        """Which engine the first worker has, with its version."""
        return self.choice.engine

    @property
    def ood_remark(self) -> str:
        """Why there are no out-of-distribution scores; empty where there are."""
        return self.choice.ood_remark

    @property
    def notes(self) -> tuple[str, ...]:
        """What there is to know of how the workers run, by now."""
        return tuple(self._notes)

    def best_batch_size(self) -> int:
        """Return what a trial on one of the workers found."""
        return self.choice.batch_size

    def rows(self, batches: Iterable[Sequence[Item]]) -> Iterator[Rows]:
        """Decode and encode batches on the workers; yield the rows of each, in the order given.

        BackendError where an encoder fails, a latent is not finite, or Ray gives up.
        """
        tasks, is_last = self._tasks(batches), False
        while not is_last:
            before = alive_nodes(self._ray)
            self.layout = self._layout_on(before)
            most = _TASKS_AHEAD * self.layout.count
            with TaskSource(self._ray, tasks, most, before.keys()) as source:
                for found in self._answers(source.dataset, self.layout.count, source.waiting):
                    answer = cast("Answer", found)
                    source.took_answer()
                    if answer.chosen != self.choice.chosen:
                        self._notes[f"some workers run on {answer.chosen}"] = None
                    self._notes |= dict.fromkeys(answer.notes)
                    yield from answer.rows
            if source.problem is not None:
                raise source.problem
            if source.waiting:
                raise BackendError(
                    f"Ray gave no answer for {len(source.waiting)} tasks: run the same command "
                    "again, and report it"
                )
            if lost := len(before.keys() - alive_nodes(self._ray).keys()):
                nodes = "1 node was" if lost == 1 else f"{lost} nodes were"
                self._notes[f"{nodes} lost; what it had was done on others"] = None
            is_last = source.is_last

    def _tasks(self, batches: Iterable[Sequence[Item]]) -> Iterator[Task]:
        """Put batches together."""
        task, count, held = list[Sequence[Item]](), 0, 0
        for batch in batches:
            task.append(batch)
            count += len(batch)
            held += sum(item.held_bytes for item in batch)
            if count >= self._cluster.task_images or held >= _TASK_BYTES:
                yield _task_of(task)
                task, count, held = [], 0, 0
        if task:
            yield _task_of(task)

    def _answers(
        self, dataset: Any, workers: int, waiting: Sequence[Task] = ()
    ) -> Iterator[Answer | Facts]:
        """Let Ray Data ask workers; yield their answers in the order of the questions."""
        ray = self._ray
        mapped = dataset.map_batches(
            Worker,
            fn_constructor_args=(self._request,),
            batch_size=1,
            batch_format="pyarrow",
            num_cpus=self.layout.cores,
            num_gpus=self.layout.gpus or None,
            compute=ray.data.ActorPoolStrategy(size=workers),
            max_task_retries=_MOST_RETRIES,
        )
        expected = 0
        with _threads_ended(), _ray_errors(ray, waiting):
            for table in _blocks(ray, mapped):
                pairs = zip(*(table.column(name) for name in ("number", "content")), strict=True)
                for number, content in pairs:
                    if number.as_py() != expected:
                        raise BackendError(
                            f"Ray gave the answer of task {number} in the place of {expected}: "
                            "run the same command again, and report it"
                        )
                    expected += 1
                    answer = pickle.loads(content.as_py())  # noqa: S301  # a worker's of this run
                    if isinstance(answer, MotorVAEError):
                        raise answer
                    yield answer

    def _layout_on(self, nodes: Mapping[str, Mapping[str, float]]) -> Layout:
        return layout_of(list(nodes.values()), self._cores, uses_gpus=self._uses_gpus)

    def close(self) -> None:
        """Leave the cluster; one that was started for this run ends."""
        self._ray.shutdown()


def _task_of(batches: Sequence[Sequence[Item]]) -> Task:
    names = [item.name for batch in batches for item in batch] or [""]
    return Task(pickle.dumps(batches, protocol=5), names[0], names[-1])


def _blocks(ray: Any, dataset: Any) -> Iterator[Any]:
    """Let Ray Data run, and yield the tables that come out, in order.

    What runs for it ends with the last reference to the bundles, which nothing but this frame has.
    """
    bundles = dataset.iter_internal_ref_bundles()
    try:
        for bundle in bundles:
            for block, _ in bundle.blocks:
                yield ray.get(block)
    finally:
        del bundles  # the frame itself may last, in the traceback of an interrupt


@contextlib.contextmanager
def _threads_ended() -> Iterator[None]:
    """Wait for the threads that were started in the block, as long as they use Ray.

    Where Ray ends under one, it ends the process, with code 1 and without a word.
    """
    before = set(threading.enumerate())
    try:
        yield
    finally:
        for thread in set(threading.enumerate()) - before:
            thread.join(_THREADS_END_WITHIN_S)


def _files_of(folder: Path) -> dict[str, bytes]:
    """Read a bundle's files; workers check their hashes."""
    paths = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def _connect(ray: Any, address: str | None) -> None:
    """Join a cluster, or start one on this machine; ConfigError where there is none.

    Nothing but errors of ours is to be seen of it: no progress of Ray's own, no log of workers.
    """
    asked = address or os.environ.get("RAY_ADDRESS") or "local"
    _check_address(asked)
    own = {"num_cpus": default_threads(), "include_dashboard": False} if asked == "local" else {}
    before = signal.getsignal(signal.SIGTERM)
    try:
        with _standard_error_closed():
            ray.init(address=asked, logging_level=logging.CRITICAL, log_to_driver=False, **own)
    except (ConnectionError, RuntimeError, ValueError, OSError, TimeoutError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ConfigError(
            f"address={asked!r}: no Ray cluster answers there ({reason}): run `ray status` on this "
            "machine, which must be a node of the cluster"
        ) from error
    finally:
        signal.signal(signal.SIGTERM, before)  # Ray has one that ends without closing anything
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    # What the cluster reports of tasks that it does again would go to standard output.
    ray._private.worker._worker_logs_enabled = False  # noqa: SLF001  # there is no other switch
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_options.preserve_order = True
    context.target_max_block_size = 1  # else tasks are put together, up to 128 MB of them


@contextlib.contextmanager
def _standard_error_closed() -> Iterator[None]:
    """Drop what is written to standard error: Ray's core says there how much it is going to log."""
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _check_address(address: str) -> None:
    """Refuse what is no address, or where no Ray answers: Ray would wait, without a limit."""
    if address == "local":
        return
    option = f"--address={address}"
    if address == "auto":
        option = "--verbose"  # it finds the one of this machine itself
    else:
        _check_reachable(address)
    # Asked in a process of its own: joining what is no cluster has no time limit.
    asked = [sys.executable, "-m", "ray.scripts.scripts", "status", option]
    quiet: Any = {"stdin": DEVNULL, "stdout": DEVNULL, "stderr": DEVNULL}
    try:
        subprocess.run(asked, check=True, timeout=_ANSWERS_WITHIN_S, **quiet)
    except (subprocess.SubprocessError, OSError) as error:
        raise ConfigError(
            f"address={address!r}: no Ray cluster of version {metadata.version('ray')} answers "
            f"there within {_ANSWERS_WITHIN_S:.0f} s: see what `ray status {option}` says"
        ) from error


def _check_reachable(address: str) -> None:
    found = _ADDRESS.fullmatch(address)
    if found is None or int(found["port"]) > 65535:
        raise ConfigError(
            f"address={address[:80]!r}: give HOST:PORT of the cluster's head, as `ray start` "
            "printed it, or auto for the cluster that this machine is a node of"
        )
    host = found["host"].strip("[]")
    try:
        socket.create_connection((host, int(found["port"])), _REACHABLE_WITHIN_S).close()
    except OSError as error:
        raise ConfigError(
            f"address={address!r}: cannot be reached ({error.strerror or error}): start the "
            "cluster's head with `ray start --head`, and give the address that it prints"
        ) from error


@contextlib.contextmanager
def _ray_errors(ray: Any, waiting: Sequence[Task]) -> Iterator[None]:
    """Turn what Ray raises into a BackendError of one line."""
    try:
        yield
    except MotorVAEError:
        raise
    except (ray.exceptions.RayError, ray.data.exceptions.SystemException) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = lines[-1][:300] if lines else type(error).__name__
        at = "see that each node has the same motorVAE and Ray"
        if waiting:
            at = f"the first images without an answer are {waiting[0].first} to {waiting[0].last}"
        raise BackendError(f"Ray gave up: {reason}; {at}; run the same command again") from error
