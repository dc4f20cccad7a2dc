from __future__ import annotations

import contextlib
import gc
import queue
import select
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from motorvae.runtime.core.errors import OutputError
from motorvae.runtime.core.row import Row, RunFacts
from motorvae.runtime.core.spec import ModelSpec
from motorvae.runtime.sinks import fanout as outlets_module
from motorvae.runtime.sinks.base import Sink
from motorvae.runtime.sinks.fanout import SinkFanout, SinkReport
from motorvae.runtime.sinks.open import open_sink

LIVE = RunFacts(
    ModelSpec(image_size=32, latent_size=4),
    ("front",),
    "ab" * 32,
    "onnxruntime cpu",
    lossless=False,
)
RECORDING = RunFacts(
    ModelSpec(image_size=32, latent_size=4), ("front",), "ab" * 32, "onnxruntime cpu", lossless=True
)
PATIENCE_S = 60
UNREAD = """
import sys
import numpy as np
from motorvae.runtime.sinks.fanout import SinkFanout
from motorvae.runtime.core.spec import ModelSpec
from motorvae.runtime.core.row import Row, RunFacts
from motorvae.runtime.sinks.open import open_sink
model = ModelSpec(image_size=32, latent_size=128)
facts = RunFacts(model, ("front",), "ab" * 32, "onnxruntime cpu", lossless=False)
sinks = SinkFanout([open_sink("-", facts)], facts)
mu = np.linspace(0, 1, 128, dtype=np.float32)
for index in range(int(sys.argv[1])):
    sinks.put(Row(index, index, 1.0, 0, "ok", mu, "front"))
print("put", file=sys.stderr, flush=True)
if sys.argv[2] == "wait":
    sys.stdin.readline()
sinks.put_last(Row(int(sys.argv[1]), 0, None, 0, "end"))
sinks.close(timeout_s=float(sys.argv[3]))
(report,) = sinks.reports
print(report.rows, report.dropped, report.failure, sep="|", file=sys.stderr, flush=True)
"""


class Gated(Sink):
    """A sink whose writes wait for a test, and which notes what it got."""

    def __init__(self, name: str = "gated", *, is_open: bool = False) -> None:
        self.name = name
        self.taken: list[Row] = []
        self.threads: set[str] = set()
        self.closed = 0
        self.fails_at: int | None = None
        self.error: Exception = OutputError(f"cannot write {name}: no room; make some")
        self.lost_in_the_network: set[int] = set()
        self.entered = threading.Semaphore(0)
        self.flushed = threading.Event()
        self.gate = threading.Event()
        if is_open:
            self.gate.set()

    def write(self, row: Row) -> None:
        self.entered.release()
        assert self.gate.wait(PATIENCE_S)
        self.threads.add(threading.current_thread().name)
        if row.index == self.fails_at:
            raise self.error
        if row.index in self.lost_in_the_network:
            return
        self.taken.append(row)
        self.rows += 1

    def flush(self) -> None:
        self.threads.add(threading.current_thread().name)
        self.flushed.set()

    def close(self) -> None:
        self.threads.add(threading.current_thread().name)
        self.closed += 1

    def wait_until_writing(self) -> None:
        assert self.entered.acquire(timeout=PATIENCE_S)


@pytest.fixture
def opened() -> Iterator[Callable[..., SinkFanout]]:
    """SinkFanout that end with the test, whatever their sinks wait for."""
    made: list[tuple[SinkFanout, list[Gated]]] = []

    def make(facts: RunFacts, *sinks: Gated, **more: Any) -> SinkFanout:
        made.append((SinkFanout(sinks, facts, **more), list(sinks)))
        return made[-1][0]

    yield make
    for fanout, sinks in made:
        fanout.interrupt()
        for sink in sinks:
            sink.gate.set()
        with contextlib.suppress(TypeError, queue.Empty):  # the mistake of a test
            fanout.close()


def row_at(index: int) -> Row:
    return Row(index, 100 + index, 0.5, 0, "ok", np.full(4, index, np.float32), "front")


def end_at(index: int) -> Row:
    return Row(index, 0, None, 0, "end")


def indexes(sink: Gated) -> list[int]:
    return [row.index for row in sink.taken]


def test_every_sink_gets_every_row_in_a_thread_of_its_own(
    opened: Callable[..., SinkFanout],
) -> None:
    sinks = [Gated("one", is_open=True), Gated("two", is_open=True)]
    fanout = opened(RECORDING, *sinks, depth=4)
    rows = [row_at(index) for index in range(100)]
    for row in rows:
        fanout.put(row)
    fanout.put_last(end_at(100))
    fanout.close()
    fanout.close()
    for sink in sinks:
        assert indexes(sink) == list(range(101))
        assert all(taken is given for taken, given in zip(sink.taken, rows, strict=False))
        assert sink.threads == {f"sink {sink.name}"}
        assert sink.closed == 1
    assert fanout.reports == [
        SinkReport("one", 101, 0, None),
        SinkReport("two", 101, 0, None),
    ]


def test_a_slow_sink_of_a_live_source_drops_counts_and_says_so(
    opened: Callable[..., SinkFanout],
) -> None:
    slow, quick = Gated("slow"), Gated("quick", is_open=True)
    fanout = opened(LIVE, slow, quick, depth=8)
    fanout.put(row_at(0))
    slow.wait_until_writing()
    rows = [row_at(index) for index in range(1, 31)]
    for row in rows:
        fanout.put(row)
        quick.wait_until_writing()
    assert fanout.reports[0] == SinkReport("slow", 0, 22, None)
    fanout.put_last(end_at(31))
    slow.gate.set()
    fanout.close()
    assert indexes(slow) == [*range(9), 31]
    assert [row.unwritten for row in slow.taken] == [None] * 9 + [22]
    assert len(slow.taken) + 22 == 32
    assert fanout.reports == [
        SinkReport("slow", 10, 22, None),
        SinkReport("quick", 32, 0, None),
    ]
    assert all(row.unwritten is None for row in [*rows, *quick.taken])  # rows are shared


def test_the_row_after_each_drop_says_how_many(opened: Callable[..., SinkFanout]) -> None:
    sink = Gated()
    fanout = opened(LIVE, sink, depth=1)
    for start in (0, 10):
        sink.gate.clear()
        fanout.put(row_at(start))
        sink.wait_until_writing()
        for index in range(start + 1, start + 4):
            fanout.put(row_at(index))
        sink.gate.set()
        sink.wait_until_writing()  # the one that waited
    fanout.put_last(end_at(20))
    fanout.close()
    assert [(row.index, row.unwritten) for row in sink.taken] == [
        *[(0, None), (1, None), (10, 2), (11, None), (20, 2)]
    ]


def test_a_recording_waits_for_room_and_loses_nothing(opened: Callable[..., SinkFanout]) -> None:
    sink = Gated()
    fanout = opened(RECORDING, sink, depth=2)
    fanout.put(row_at(0))
    sink.wait_until_writing()
    putting = threading.Thread(target=lambda: [fanout.put(row_at(index)) for index in range(1, 20)])
    putting.start()
    assert fanout.reports[0].dropped == 0
    assert putting.is_alive()
    sink.gate.set()
    putting.join(PATIENCE_S)
    fanout.put_last(end_at(20))
    fanout.close()
    assert indexes(sink) == list(range(21))


def test_interrupt_lets_a_waiting_put_drop_its_row(opened: Callable[..., SinkFanout]) -> None:
    sink = Gated()
    fanout = opened(RECORDING, sink, depth=2)
    fanout.put(row_at(0))
    sink.wait_until_writing()
    putting = threading.Thread(target=lambda: [fanout.put(row_at(i)) for i in range(1, 6)])
    putting.start()
    fanout.interrupt()
    putting.join(PATIENCE_S)
    assert not putting.is_alive()
    fanout.put_last(end_at(6))
    sink.gate.set()
    fanout.close()
    assert indexes(sink) == [0, 1, 2, 6]
    assert sink.taken[-1].unwritten == 3


def test_a_sink_that_fails_is_dead_and_the_others_go_on(opened: Callable[..., SinkFanout]) -> None:
    failing, other = Gated("failing"), Gated("other", is_open=True)
    failing.fails_at = 1
    fanout = opened(LIVE, failing, other)
    for index in range(4):
        fanout.put(row_at(index))
        other.wait_until_writing()
    failing.gate.set()
    fanout.close()
    assert failing.closed == 1
    assert fanout.reports == [
        SinkReport("failing", 1, 3, "cannot write failing: no room; make some"),
        SinkReport("other", 4, 0, None),
    ]


def put_watched(fanout: SinkFanout, index: int) -> weakref.ref[Any]:
    """Put a row, and return what is known of its latent while anything holds the row."""
    row = row_at(index)
    fanout.put(row)
    assert row.mu is not None
    return weakref.ref(row.mu)


def test_rows_that_wait_for_a_sink_that_fails_are_let_go(opened: Callable[..., SinkFanout]) -> None:
    sink = Gated()
    sink.fails_at = 0
    fanout = opened(LIVE, sink)
    fanout.put(row_at(0))
    sink.wait_until_writing()
    waiting = [put_watched(fanout, index) for index in range(1, 251)]
    sink.gate.set()
    fanout._threads[0]._thread.join(PATIENCE_S)
    gc.collect()
    assert [one() for one in waiting if one() is not None] == []
    assert fanout.reports == [SinkReport("gated", 0, 251, str(sink.error))]


def test_a_row_put_while_its_sink_fails_is_let_go_too(
    opened: Callable[..., SinkFanout], monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = Gated()
    sink.fails_at = 0

    class Slow(queue.SimpleQueue[Any]):
        def put(self, item: Any, *_: Any) -> None:
            if item is not None and item[0].index == 1:
                sink.gate.set()
                fanout._threads[0]._thread.join(0.2)  # it ends only where nothing holds it back
            super().put(item)

    monkeypatch.setattr(queue, "SimpleQueue", Slow)
    fanout = opened(LIVE, sink)
    fanout.put(row_at(0))
    sink.wait_until_writing()
    late = put_watched(fanout, 1)
    fanout._threads[0]._thread.join(PATIENCE_S)
    gc.collect()
    assert late() is None
    assert fanout.reports == [SinkReport("gated", 0, 2, str(sink.error))]


def put_for_long(fanout: SinkFanout) -> None:
    until_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < until_s:
        fanout.put(row_at(5))


@pytest.mark.parametrize("facts", [LIVE, RECORDING])
def test_put_raises_the_first_failure_once_no_sink_works(
    opened: Callable[..., SinkFanout], facts: RunFacts
) -> None:
    first, second = Gated("first", is_open=True), Gated("second")
    first.fails_at = second.fails_at = 0
    fanout = opened(facts, first, second, depth=2)
    fanout.put(row_at(0))
    second.wait_until_writing()
    while fanout.reports[0].failure is None:
        fanout.reports  # noqa: B018  # its thread is about to say so
    fanout.put(row_at(1))  # the second may still work
    second.gate.set()
    with pytest.raises(OutputError) as caught:
        put_for_long(fanout)
    assert caught.value is first.error
    fanout.put_last(end_at(9))
    fanout.close()
    assert [report.rows for report in fanout.reports] == [0, 0]


@pytest.mark.parametrize("kind", [TypeError, queue.Empty])
def test_a_mistake_in_a_sink_is_raised_where_rows_are_put(
    opened: Callable[..., SinkFanout], kind: type[Exception]
) -> None:
    sink, other = Gated("mistaken"), Gated("other", is_open=True)
    sink.error, sink.fails_at = kind("not an output error"), 0
    fanout = opened(LIVE, sink, other)
    fanout.put(row_at(0))
    sink.gate.set()
    with pytest.raises(kind, match="not an output error"):
        fanout.close()


def test_what_waits_is_flushed_although_no_row_comes(opened: Callable[..., SinkFanout]) -> None:
    sink = Gated(is_open=True)
    opened(LIVE, sink)
    assert sink.flushed.wait(PATIENCE_S)
    assert sink.rows == 0
    assert outlets_module.FLUSH_S <= 0.5


def test_a_row_that_the_network_lost_is_not_counted_as_written(
    opened: Callable[..., SinkFanout],
) -> None:
    sink = Gated(is_open=True)
    sink.lost_in_the_network = {1, 2}
    fanout = opened(LIVE, sink)
    for index in range(4):
        fanout.put(row_at(index))
    fanout.close()
    assert [(row.index, row.unwritten) for row in sink.taken] == [(0, None), (3, 2)]
    assert fanout.reports == [SinkReport("gated", 2, 2, None)]


def test_a_sink_that_takes_nothing_is_given_up_and_stays_given_up(
    opened: Callable[..., SinkFanout],
) -> None:
    sink = Gated("standard output")
    fanout = opened(LIVE, sink, depth=4)
    fanout.put(row_at(0))
    sink.wait_until_writing()
    for index in range(1, 8):
        fanout.put(row_at(index))
    fanout.close(timeout_s=0.05)
    expected = SinkReport(
        "standard output",
        0,
        8,
        "standard output took no rows for 0.05 s: 5 rows are not written; "
        "make its reader faster or choose another --output",
    )
    assert fanout.reports == [expected]
    sink.gate.set()
    fanout.close(timeout_s=0.05)
    assert fanout.reports == [expected]


def test_the_end_of_a_slow_sink_is_waited_for_as_long_as_it_takes_rows(
    opened: Callable[..., SinkFanout], monkeypatch: pytest.MonkeyPatch
) -> None:
    closing, may_close = threading.Event(), threading.Event()

    class SlowToClose(Gated):
        def close(self) -> None:
            closing.set()
            assert may_close.wait(PATIENCE_S)
            super().close()

    monkeypatch.setattr(outlets_module, "CLOSE_TIMEOUT_S", PATIENCE_S)
    sink = SlowToClose(is_open=True)
    fanout = opened(LIVE, sink)
    fanout.put(row_at(0))
    timeout_s = 1.0  # for the row that waits; a busy machine may take a part of it
    ending = threading.Thread(target=fanout.close, args=(timeout_s,))
    ending.start()
    assert closing.wait(PATIENCE_S)
    ending.join(1.5 * timeout_s)
    assert ending.is_alive()
    may_close.set()
    ending.join(PATIENCE_S)
    assert sink.closed == 1


def test_a_pipe_that_nobody_reads_blocks_neither_put_nor_the_end_of_the_process() -> None:
    count = 3000
    with subprocess.Popen(
        [sys.executable, "-c", UNREAD, str(count), "go", "0.2"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert select.select([process.stderr], [], [], PATIENCE_S)[0]
        assert process.stderr.readline() == b"put\n"
        rows, dropped, failure = process.stderr.readline().decode().rstrip().split("|")
        assert process.wait(PATIENCE_S) == 0  # and only now is the pipe read
        lines = process.stdout.read().split(b"\n")
    assert len(lines) - 1 == int(rows)
    assert int(rows) + int(dropped) == count + 1
    assert failure.startswith("standard output took no rows for 0.2 s: ")


def test_a_reader_that_comes_late_gets_the_end_row_and_the_exact_count_of_drops() -> None:
    count = 3000
    with subprocess.Popen(
        [sys.executable, "-c", UNREAD, str(count), "wait", "60"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == b"put\n"
        out, err = process.communicate(b"\n", timeout=PATIENCE_S)
    rows = [orjson.loads(line) for line in out.splitlines()]
    dropped = sum(row.get("unwritten", 0) for row in rows)
    assert rows[-1]["status"] == "end"
    assert dropped > 0
    assert len(rows) + dropped == count + 1
    assert err.decode() == f"{len(rows)}|{dropped}|None\n"


def test_real_sinks_side_by_side(tmp_path: Path) -> None:
    names = ["latents.jsonl", "latents.csv", "latents.npz"]
    sinks = [open_sink(str(tmp_path / name), RECORDING) for name in names]
    with SinkFanout(sinks, RECORDING) as fanout:
        for index in range(1000):
            fanout.put(row_at(index))
        fanout.put_last(end_at(1000))
    assert [(report.rows, report.dropped) for report in fanout.reports] == [(1001, 0)] * 3
    assert (tmp_path / "latents.jsonl").read_bytes().count(b"\n") == 1001
    assert (tmp_path / "latents.csv").read_bytes().count(b"\n") == 1002
    with np.load(tmp_path / "latents.npz") as data:
        assert np.array_equal(data["index"], np.arange(1001))
