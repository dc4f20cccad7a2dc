from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from motorvae.runtime.bundle.load import load_bundle
from motorvae.runtime.engines.cpu_threads import default_threads
from motorvae.runtime.engines.open import EngineRequest
from motorvae.runtime.stream import cores as module
from motorvae.runtime.stream.cores import Cores
from motorvae.runtime.stream.opening import EncoderOpening
from motorvae.runtime.stream.options import Latency, StreamOptions
from motorvae.runtime.stream.run import Stream

Runs = Callable[..., Any]
ReadRows = Callable[[Path], list[dict[str, Any]]]
ALL = os.sched_getaffinity(0)
several_cores = pytest.mark.skipif(len(ALL) < 2, reason="this machine has one core")


@contextmanager
def workers(count: int) -> Iterator[list[int]]:
    """Threads that wait, as an engine's do; their native ids."""
    over, begun = threading.Event(), threading.Barrier(count + 1)

    def wait() -> None:
        begun.wait()
        over.wait()

    threads = [threading.Thread(target=wait) for _ in range(count)]
    for thread in threads:
        thread.start()
    begun.wait()
    try:
        yield [thread.native_id or 0 for thread in threads]
    finally:
        over.set()
        for thread in threads:
            thread.join()


@contextmanager
def placed(count: int, **how: bool) -> Iterator[tuple[Cores, list[int]]]:
    """Workers that were placed, and what placed them."""
    cores = Cores(**how)
    block = cores.placing()
    block.__enter__()
    with cores, workers(count) as ids:
        block.__exit__(None, None, None)
        yield cores, ids


def in_a_thread(work: Callable[[], None]) -> None:
    """Run something in a thread whose cores and priority nobody else has; raise what it raises."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001  # raised below
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


@several_cores
def test_a_worker_never_shares_its_core_with_the_thread_that_encodes() -> None:
    def work() -> None:
        with placed(1) as (cores, (worker,)):
            its = os.sched_getaffinity(worker)
            assert len(its) == 1
            cores.bind()
            assert os.sched_getaffinity(0) == ALL - its
            cores.release()
            assert os.sched_getaffinity(0) == ALL

    in_a_thread(work)


@several_cores
def test_more_workers_than_cores_are_left_where_they_are() -> None:
    def work() -> None:
        with placed(len(ALL) + 1) as (cores, ids):
            cores.bind()
            assert all(os.sched_getaffinity(thread) == ALL for thread in (0, *ids))
            cores.release()

    in_a_thread(work)


def test_on_one_core_nothing_is_placed_and_nobody_runs_first() -> None:
    def work() -> None:
        one = {min(ALL)}
        os.sched_setaffinity(0, one)
        with placed(2, first=True) as (cores, ids):
            cores.bind()
            cores.begin_capture()
            for thread in (0, *ids):
                assert os.sched_getaffinity(thread) == one
                assert os.sched_getscheduler(thread) == os.SCHED_OTHER
            cores.release()

    in_a_thread(work)


def test_an_engine_without_workers_leaves_the_thread_alone() -> None:
    def work() -> None:
        with placed(0) as (cores, _):
            cores.bind()
            assert os.sched_getaffinity(0) == ALL

    in_a_thread(work)


@several_cores
def test_what_the_system_refuses_is_said_and_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(module.os, "sched_setscheduler", refused)

    def work() -> None:
        with placed(1, first=True) as (cores, (worker,)):
            assert len(os.sched_getaffinity(worker)) == 1
            cores.bind()
            cores.release()
            assert cores.note is not None
            assert "SCHED_FIFO is not allowed (operation not permitted)" in cores.note

    in_a_thread(work)


# Whole streams


@pytest.mark.parametrize("latency", ["lowest", "balanced", "economy"])
def test_no_frame_is_lost_or_repeated(
    stream: Runs, tmp_path: Path, read_rows: ReadRows, latency: Latency
) -> None:
    """Frames at an even pace, some of them missing."""
    output = tmp_path / "latents.jsonl"
    # Without an end of its own: what a camera drops is known by the frame that comes next.
    camera = "synthetic?fps=120&drop=20..25,40"
    words = ("--latency", latency, "--threads", 2, "--max-frames", 60)
    done = stream("--camera", camera, *words, "--output", output)
    assert done.code == 0
    *rows, end = read_rows(output)
    counted = 0
    for row in rows:
        counted += 1 + row["dropped"]
        assert row["index"] == counted - 1
        assert row["mu"] is not None
    assert len(rows) == 60
    assert counted >= 60 + 7  # those of `drop`, if no busy machine drops more
    assert end["summary"]["lost"] == 0


@several_cores
@pytest.mark.parametrize(
    ("camera", "latency", "bound"),
    [
        ("synthetic?fps=60", "balanced", True),
        ("synthetic?fps=60", "lowest", True),
        ("synthetic?fps=60", "economy", False),
        ("synthetic?fps=max&frames=40", "lowest", False),
    ],
)
def test_threads_are_placed_for_a_camera_alone_and_never_the_callers(
    small_bundle: Path, camera: str, latency: Latency, *, bound: bool
) -> None:
    options = StreamOptions(
        camera=(camera,),
        latency=latency,
        ood="none",
        max_frames=8,
        engine=EngineRequest(backend="onnx", threads=2),
    )
    with Stream(load_bundle(small_bundle), options) as rows:
        ids = [int(each.name) for each in Path("/proc/self/task").iterdir()]
        affinities = [os.sched_getaffinity(one) for one in ids]
        assert any(len(each) == 1 for each in affinities) == bound
        for _ in rows:
            assert os.sched_getaffinity(0) == ALL
            assert os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK == os.SCHED_OTHER


@several_cores
@pytest.mark.parametrize(
    ("camera", "threads"), [("synthetic?fps=60", 1), ("synthetic?fps=max", default_threads())]
)
def test_economy_encodes_a_camera_with_one_thread(
    small_bundle: Path, camera: str, threads: int
) -> None:
    request = EngineRequest(backend="onnx")
    options = StreamOptions(camera=(camera,), latency="economy", engine=request)
    specs = [options.source_spec(camera)]
    with EncoderOpening(load_bundle(small_bundle), options, specs) as opening:
        with opening.result().backend as backend:
            assert backend.threads == threads
        assert opening.cores.note is None
