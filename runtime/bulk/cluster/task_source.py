"""TaskSource: what is listed here, as a data set of Ray Data, while workers are at it already."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

from ...core.lifecycle import Closing

_ENDS_WITHIN_S = 5.0
_LOOKS_EVERY_S = 2.0  # at which machines there are


class Task(NamedTuple):
    """Some batches for one worker, pickled."""

    content: bytes
    first: str  # name of the first image
    last: str


class TaskSource(Closing):
    """Tasks that a thread of this process lists, and a reading task of Ray Data takes from a queue.

    Queue and reading task run on this node, and take no core of it. No more tasks than `most` are
    without an answer at a time. Where machines join or are lost, nothing more is listed: what a
    lost worker had waits for room for another one, which is there once the others have ended, and
    a new source has workers on what there is then.
    """

    def __init__(self, ray: Any, tasks: Iterator[Task], most: int, nodes: Collection[str]) -> None:
        """Start listing for workers that were laid out on these `nodes`, as of `alive_nodes`."""
        from ray.util.queue import Queue  # noqa: PLC0415  # of an extra
        from ray.util.scheduling_strategies import (  # noqa: PLC0415
            NodeAffinitySchedulingStrategy,
        )

        node = ray.get_runtime_context().get_node_id()
        here = {"scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False)}
        self._ray, self._most = ray, most
        self._queue: Any = Queue(actor_options={"num_cpus": 0, **here})
        self.dataset = ray.data.read_datasource(
            _datasource(ray, partial(_taken, self._queue)),
            num_cpus=0,
            ray_remote_args={"max_retries": 0, **here},
            override_num_blocks=1,
        )
        self.waiting = deque[Task]()
        """What has no answer yet, without its content."""
        self.is_last = False
        """Whether all tasks are listed, once all have an answer."""
        self.problem: BaseException | None = None
        """What ended the listing before its end."""
        self._nodes = nodes
        self._is_closed, self._looked_s = False, time.monotonic()
        self._answered = threading.Event()
        self._thread = threading.Thread(target=self._list, args=(tasks,), daemon=True)
        self._thread.start()

    def took_answer(self) -> None:
        """Note that the first of those that wait has its answer."""
        self.waiting.popleft()
        self._answered.set()

    def _list(self, tasks: Iterator[Task]) -> None:
        try:
            while self._has_room():
                task = next(tasks, None)
                if task is None:
                    self.is_last = True
                    break
                self.waiting.append(task._replace(content=b""))
                self._queue.put(task.content)
        except BaseException as error:  # noqa: BLE001  # raised again by who iterates
            self.problem = error
        with contextlib.suppress(Exception):  # Ray has ended
            self._queue.put(None)

    def _has_room(self) -> bool:
        """Wait until a task can be listed; return False where none is to be."""
        while not self._is_closed:
            self._answered.clear()
            looked_s = time.monotonic()
            if looked_s - self._looked_s > _LOOKS_EVERY_S:
                self._looked_s = looked_s
                if alive_nodes(self._ray).keys() != self._nodes:
                    return False
            if len(self.waiting) < self._most:
                return True
            self._answered.wait(_LOOKS_EVERY_S)
        return False

    def close(self) -> None:
        """End the listing, as soon as it has the next task."""
        self._is_closed = True
        self._answered.set()
        with contextlib.suppress(Exception):  # of Ray, which may have ended
            self._queue.shutdown(force=True)
        self._thread.join(_ENDS_WITHIN_S)


def alive_nodes(ray: Any) -> dict[str, Mapping[str, float]]:
    """Return what each machine of the cluster has that is there now, by its number."""
    return {one["NodeID"]: one["Resources"] for one in ray.nodes() if one["Alive"]}


def _datasource(ray: Any, read: Any) -> Any:
    """Return what Ray Data reads by one task that calls this, and does not know how long."""
    from ray.data.block import BlockMetadata  # noqa: PLC0415  # of an extra

    class Source(ray.data.Datasource):  # type: ignore[misc]
        def get_read_tasks(self, *_: Any, **__: Any) -> list[Any]:
            return [ray.data.ReadTask(read, BlockMetadata(None, None, None, None))]

        def estimate_inmemory_data_size(self) -> None:
            return None

    return Source()


def _taken(queue: Any) -> Iterator[Any]:
    """Yield a table of one row for each task, `number` and `content`."""
    number = 0
    while (content := queue.get()) is not None:
        yield table_of(number, content)
        number += 1


def table_of(number: int, content: bytes) -> Any:
    """Return a table of one question."""
    import pyarrow as pa  # noqa: PLC0415  # Ray Data needs it

    return pa.table({"number": [number], "content": pa.array([content], pa.large_binary())})
