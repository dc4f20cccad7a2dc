"""With one thread or with all: engines whose runs take a set time, and a real one."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from motorvae.runtime.bundle.graph_key import GraphKey
from motorvae.runtime.bundle.load import load_bundle
from motorvae.runtime.core.lifecycle import Closing
from motorvae.runtime.engines.base import Arrays, Batch
from motorvae.runtime.engines.open import EngineRequest, open_engine
from motorvae.runtime.engines.select import SelectedEngine
from motorvae.runtime.engines.trial import records, threads
from motorvae.runtime.engines.trial.threads import EarlierTrial, ThreadTrial, autotuned_engine


class Timed(Closing):
    """An engine whose run takes so many seconds: the trial's verdict follows the clock."""

    input_dtype = np.dtype(np.uint8)
    outputs = ("mu",)

    def __init__(self, threads: int | None, run_s: float) -> None:
        self.name, self.notes, self.threads = "timed", (), threads
        self.run_s, self.closed, self.runs = run_s, False, 0

    def run(self, batch: Batch) -> Arrays:
        assert batch.shape[1:] == (1, 32, 32)
        assert batch.dtype == np.uint8
        self.runs += 1
        until = time.monotonic() + self.run_s
        while time.monotonic() < until:
            pass
        return {}

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize("one_is_faster", [True, False])
def test_the_faster_one_stays_open_and_says_why(*, one_is_faster: bool) -> None:
    slow_s, fast_s = 0.03, 0.002
    opened = {
        None: Timed(4, slow_s if one_is_faster else fast_s),
        1: Timed(1, fast_s if one_is_faster else slow_s),
    }
    kept = autotuned_engine(lambda n: SelectedEngine(opened[n], "fp32"), (1, 1, 32, 32))  # type: ignore[arg-type]
    faster, slower = (opened[1], opened[None]) if one_is_faster else (opened[None], opened[1])
    assert kept.backend is faster
    assert (faster.closed, slower.closed) == (False, True)
    assert faster.runs == slower.runs > 4
    assert kept.backend.notes[-1].startswith("1 thread, as" if one_is_faster else "4 threads, as")


@pytest.mark.parametrize("threads", [None, 1])
def test_without_a_choice_nothing_is_tried(threads: int | None) -> None:
    only = Timed(threads, 0.0)
    kept = autotuned_engine(lambda _: SelectedEngine(only, "fp32"), (1, 1, 32, 32))  # type: ignore[arg-type]
    assert kept.backend is only
    assert (only.runs, only.closed, only.notes) == (0, False, ())


def test_a_real_engine_still_gives_its_latents(small_bundle: Path) -> None:
    bundle = load_bundle(small_bundle)

    def open_with(threads: int | None) -> SelectedEngine:
        request = EngineRequest(backend="onnx", threads=threads or 2)
        return SelectedEngine(open_engine(bundle, GraphKey("encoder"), request), "fp32")

    with autotuned_engine(open_with, (1, 1, 32, 32)).backend as backend:
        assert backend.run(np.zeros((1, 1, 32, 32), np.float32))["mu"].shape == (1, 8)
        assert len(backend.notes) == 1


@pytest.fixture(autouse=True)
def cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "default_threads", lambda: 4)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "motorvae" / "threads"


def streamed(slow_s: float, fast_s: float, *, images: int = 1) -> tuple[SelectedEngine, int]:
    """What a stream would run of an engine of 4 threads, and how often it was tried with them."""
    engines = {4: Timed(4, slow_s), 1: Timed(1, fast_s)}
    earlier, opened = EarlierTrial(images), list[Timed]()

    def open_with(threads: int | None) -> SelectedEngine:
        """As `select_engine`, which asks before it opens."""
        threads = threads or earlier("ab" * 32, "timed", "int8") or 4
        opened.append(engines[threads])
        return SelectedEngine(opened[-1], "int8")  # type: ignore[arg-type]

    with ThreadTrial.opened(open_with, (images, 1, 32, 32), earlier) as trial:
        kept = trial.faster()
        assert [one.closed for one in opened if one is not kept.backend] == [True] * (
            len(opened) - 1
        )
        assert not kept.backend.closed  # type: ignore[attr-defined]
    assert len(opened) == (1 if earlier.found else 2)  # what is known is compiled once
    return kept, engines[4].runs


@pytest.mark.usefixtures("folder")
def test_what_was_plain_is_not_tried_again_and_says_when_it_was() -> None:
    first, runs = streamed(0.02, 0.002)
    assert runs > 4
    again, runs = streamed(0.02, 0.002)
    assert runs == 0
    assert again.backend.threads == first.backend.threads == 1
    day = time.strftime("%Y-%m-%d")
    assert again.backend.notes == (f"{first.backend.notes[0]} when that was tried on {day}",)
    slower_now, runs = streamed(0.002, 0.02)  # it is believed, as its trial was plain
    assert (slower_now.backend.threads, runs) == (1, 0)


@pytest.mark.usefixtures("folder")
def test_another_number_of_cameras_is_tried_by_itself() -> None:
    streamed(0.02, 0.002)
    _, runs = streamed(0.02, 0.002, images=2)
    assert runs > 4


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(("slow_s", "days"), [(0.0205, 1), (0.2, 7)])
def test_a_close_call_is_believed_for_a_day_and_a_plain_one_for_a_week(
    slow_s: float, days: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    streamed(slow_s, 0.02)
    now_s = time.time()
    for later_s, is_tried in ((days * 86400 - 60, False), (days * 86400 + 60, True), (-60, True)):
        monkeypatch.setattr(records.time, "time", lambda later_s=later_s: now_s + later_s)
        with monkeypatch.context() as patch:
            patch.setattr(records, "_write", lambda *_: None)
            assert (streamed(slow_s, 0.02)[1] > 4) == is_tried


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-30]),
        lambda path: path.write_bytes(path.read_bytes().replace(b"\n1\n", b"\n3\n")),
        lambda path: path.write_bytes(path.read_bytes().replace(b" took", b" \x1b[31m")),
        lambda path: path.write_bytes(b"\xff" * 100),
        lambda path: path.write_bytes(b""),
        lambda path: path.chmod(0o666),
        lambda path: path.parent.chmod(0o777),
        lambda path: (path.rename(path.with_name("other")), path.symlink_to("other")),
    ],
)
def test_a_record_that_is_damaged_or_could_be_anothers_is_not_believed(
    folder: Path, damage: object
) -> None:
    streamed(0.02, 0.002)
    (path,) = folder.iterdir()
    damage(path)  # type: ignore[operator]
    _, runs = streamed(0.02, 0.002)
    assert runs > 4


@pytest.mark.usefixtures("folder")
def test_a_record_is_of_one_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    streamed(0.02, 0.002)
    monkeypatch.setattr(records, "cpu_of_machine", lambda: "another machine")
    assert streamed(0.02, 0.002)[1] > 4


def test_where_nothing_can_be_written_it_is_tried_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert streamed(0.02, 0.002)[1] > 4
    assert streamed(0.02, 0.002)[1] > 4
