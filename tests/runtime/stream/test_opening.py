"""Encoder and camera opened beside each other: what fails is named, and nothing stays open."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from motorvae.runtime.bundle.load import load_bundle
from motorvae.runtime.core.errors import BundleError, SourceError
from motorvae.runtime.engines.base import Backend
from motorvae.runtime.engines.cpu_threads import default_threads
from motorvae.runtime.engines.open import BackendName, EngineRequest
from motorvae.runtime.engines.select import SelectedEngine, is_for_cpu
from motorvae.runtime.engines.trial.records import Faster, FasterThreads
from motorvae.runtime.sources.base import FrameSource
from motorvae.runtime.stream import opening, run
from motorvae.runtime.stream.opening import EncoderOpening, opens_beside
from motorvae.runtime.stream.options import StreamOptions
from motorvae.runtime.stream.run import Stream

NOBODY = "http://127.0.0.1:9/"
CPU = EngineRequest(backend="onnx")


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Any]:
    """All encoders and cameras that are opened, in order; no trial of threads is remembered."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    found: list[Any] = []
    select, source = opening.select_engine, run.open_source

    def selected(*args: Any, **facts: Any) -> SelectedEngine:
        assert threading.current_thread().name == "open encoder"
        one = select(*args, **facts)
        found.append(one.backend)
        return one

    def camera(*args: Any) -> FrameSource:
        found.append(source(*args))
        return found[-1]  # type: ignore[no-any-return]

    monkeypatch.setattr(opening, "select_engine", selected)
    monkeypatch.setattr(run, "open_source", camera)
    return found


def nothing_is_left(opened: list[Any]) -> bool:
    backends = [one for one in opened if isinstance(one, Backend)]
    threads = [one.name for one in threading.enumerate() if one.name == "open encoder"]
    return all(not one._is_open for one in backends) and threads == []


def test_a_camera_that_does_not_open_releases_the_encoder(
    small_bundle: Path, opened: list[Any]
) -> None:
    options = StreamOptions(camera=(NOBODY,), engine=CPU, timeout=1)
    with pytest.raises(SourceError, match=r"127\.0\.0\.1"):
        Stream(load_bundle(small_bundle), options)
    assert len(opened) == 2  # with all threads and with one: no camera
    assert nothing_is_left(opened)


def test_an_encoder_that_does_not_open_releases_the_camera(
    small_bundle: Path, opened: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    released = []
    close = run.CaptureThread.close
    monkeypatch.setattr(
        run.CaptureThread, "close", lambda self: (released.append(self), close(self))
    )
    options = StreamOptions(camera=("synthetic",), engine=EngineRequest("onnx", precision="int8"))
    with pytest.raises(BundleError, match="has no encoder int8"):
        Stream(load_bundle(small_bundle), options)
    assert len(opened) == len(released) == 1
    assert nothing_is_left(opened)


def test_of_two_errors_the_encoders_is_named(small_bundle: Path) -> None:
    engine = EngineRequest("onnx", precision="int8")
    options = StreamOptions(camera=(NOBODY,), engine=engine, timeout=1)
    with pytest.raises(BundleError, match="has no encoder int8"):
        Stream(load_bundle(small_bundle), options)


def test_what_is_opened_and_never_taken_is_released(small_bundle: Path, opened: list[Any]) -> None:
    options = StreamOptions(camera=("synthetic",), engine=CPU)
    specs = [options.source_spec("synthetic")]
    with EncoderOpening(load_bundle(small_bundle), options, specs) as pending:
        pending.check()
        assert len(opened) == 2
    pending.close()  # once more does nothing
    assert nothing_is_left(opened)


@pytest.mark.skipif(default_threads() < 2, reason="this machine has one core")
@pytest.mark.parametrize("threads", [1, default_threads()])
@pytest.mark.parametrize("backend", ["onnx", "openvino"])
def test_a_graph_is_compiled_once_for_as_many_threads_as_are_known_to_be_faster(
    small_bundle: Path,
    opened: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    backend: BackendName,
    threads: int,
) -> None:
    if backend == "openvino":
        pytest.importorskip("openvino")
    known = Faster(threads, "as it was")
    monkeypatch.setattr(FasterThreads, "known", lambda _: known)
    options = StreamOptions(camera=("synthetic",), engine=EngineRequest(backend=backend))
    specs = [options.source_spec("synthetic")]
    with (
        EncoderOpening(load_bundle(small_bundle), options, specs) as pending,
        pending.result().backend as chosen,
    ):
        assert (chosen.threads, chosen.notes[-1]) == (threads, "as it was")
        assert opened == [chosen]


def test_engines_that_may_use_a_gpu_are_opened_in_the_thread_that_runs_them() -> None:
    assert is_for_cpu(CPU)
    assert is_for_cpu(EngineRequest(backend="openvino"))
    assert is_for_cpu(EngineRequest(provider="CPUExecutionProvider"))
    assert not is_for_cpu(EngineRequest(provider="cuda"))
    assert not is_for_cpu(EngineRequest(backend="tensorrt"))
    assert opens_beside(StreamOptions(engine=CPU))
    assert not opens_beside(StreamOptions(engine=EngineRequest("tensorrt", rebuild=True)))
