"""Capture on the stand-in driver: recorded copies are replayed, and a failed capture is over."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from motorvae.runtime.core.errors import BackendError

if TYPE_CHECKING:
    from .conftest import StandIn

NOT_PERMITTED = 800


def round_trip(layer: Any) -> None:
    """The stream records nothing more, and works."""
    sent, got, memory = layer.pinned((3,)), layer.pinned((3,)), layer.allocate(12)
    sent[:] = 1, 2, 3
    layer.copy_in(memory, sent)
    layer.copy_out(got, memory)
    layer.synchronize()
    assert got.tolist() == [1, 2, 3]


def test_a_graph_repeats_what_was_recorded_with_new_data(layer: Any, stand_in: StandIn) -> None:
    rng = np.random.default_rng(3)
    with layer.current():
        host, result, memory = layer.pinned((64,)), layer.pinned((64,)), layer.allocate(256)
        fresh = stand_in.peek(memory, 64).tobytes()

        def enqueue() -> None:
            layer.copy_in(memory, host)
            layer.copy_out(result, memory)

        graph = layer.capture(enqueue)
        layer.synchronize()
        assert stand_in.peek(memory, 64).tobytes() == fresh
        for _ in range(3):
            host[:] = rng.random(64)
            before = result.copy()
            graph.launch()
            if stand_in.waits:
                assert (result == before).all()
            layer.synchronize()
            assert (result == host).all()
        assert stand_in.live()["executable"] == 1
        assert "graph" not in stand_in.live()
        graph.close()
        graph.close()
        assert "executable" not in stand_in.live()
        with pytest.raises(BackendError, match="was closed: capture it again"):
            graph.launch()
        round_trip(layer)


def test_graphs_that_were_closed_are_forgotten(layer: Any) -> None:
    with layer.current():
        host, memory = layer.pinned((1,)), layer.allocate(4)
        kept = layer.capture(lambda: layer.copy_in(memory, host))
        for _ in range(5):
            layer.capture(lambda: layer.copy_in(memory, host)).close()
        kept.launch()
        assert len(layer._graphs) == 2  # the last one closed goes with the next capture


@pytest.mark.parametrize("verb", ["synchronize", "allocate", "pinned"])
def test_what_cannot_be_recorded_is_an_error(layer: Any, stand_in: StandIn, verb: str) -> None:
    with layer.current():
        host, memory = layer.pinned((1,)), layer.allocate(4)

        def enqueue() -> None:
            layer.copy_in(memory, host)
            arguments = {"allocate": (4,), "pinned": ((1,),)}.get(verb, ())
            getattr(layer, verb)(*arguments)

        message = "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED: allocate and synchronize before"
        with pytest.raises(BackendError, match=message):
            layer.capture(enqueue)
        round_trip(layer)
    assert not {"graph", "executable"} & stand_in.live().keys()


def test_an_error_that_enqueue_hides_spoils_the_capture_all_the_same(layer: Any) -> None:
    with layer.current():
        host, memory = layer.pinned((1,)), layer.allocate(4)

        def enqueue() -> None:
            with pytest.raises(BackendError):
                layer.synchronize()
            with pytest.raises(BackendError, match="CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"):
                layer.copy_in(memory, host)

        message = "recording a CUDA graph failed with CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"
        with pytest.raises(BackendError, match=message):
            layer.capture(enqueue)
        round_trip(layer)


@pytest.mark.parametrize("error", [KeyError, KeyboardInterrupt])
def test_any_error_in_enqueue_ends_the_capture(
    layer: Any, stand_in: StandIn, error: type[BaseException]
) -> None:
    with layer.current():
        host, memory = layer.pinned((1,)), layer.allocate(4)

        def enqueue() -> None:
            layer.copy_in(memory, host)
            raise error

        with pytest.raises(error):
            layer.capture(enqueue)
        round_trip(layer)
    assert not {"graph", "executable"} & stand_in.live().keys()


def test_recording_nothing_is_an_error(layer: Any, stand_in: StandIn) -> None:
    with layer.current():
        with pytest.raises(BackendError, match=r"nothing to replay.*enqueue on layer\.stream"):
            layer.capture(lambda: None)
        round_trip(layer)
    assert "graph" not in stand_in.live()


def test_an_event_of_a_capture_has_no_time(layer: Any) -> None:
    with layer.current():
        host, memory, event = layer.pinned((1,)), layer.allocate(4), layer.event()

        def enqueue() -> None:
            layer.copy_in(memory, host)
            layer.record(event)

        layer.capture(enqueue).launch()
        layer.synchronize()
        with pytest.raises(
            BackendError, match=r"_(INVALID_VALUE|CAPTURED_EVENT): record events ou"
        ):
            layer.elapsed_ms(event, event)


@pytest.mark.parametrize(
    ("function", "doing"),
    [
        ("cuStreamBeginCapture", "recording a CUDA graph"),
        ("cuStreamEndCapture", "recording a CUDA graph"),
        ("cuGraphGetNodes", "reading a CUDA graph"),
        ("cuGraphInstantiateWithFlags", "preparing a CUDA graph"),
        ("cuGraphLaunch", "starting a CUDA graph"),
    ],
)
def test_what_the_driver_refuses_leaves_no_graph(
    layer: Any, stand_in: StandIn, function: str, doing: str
) -> None:
    with layer.current():
        host, memory = layer.pinned((1,)), layer.allocate(4)
        stand_in.fail(function, NOT_PERMITTED)
        message = f"^{layer.name}: {doing} failed with CUDA_ERROR_NOT_PERMITTED: "
        with pytest.raises(BackendError, match=message):
            layer.capture(lambda: layer.copy_in(memory, host)).launch()
        assert "graph" not in stand_in.live()


CAPTURE = """
from motorvae.runtime.engines.cuda.pycuda_layer import PycudaLayer
with PycudaLayer() as layer, layer.current():
    host, memory = layer.pinned((1,)), layer.allocate(4)
    try:
        layer.capture(lambda: layer.copy_in(memory, host))
    except ImportError as error:
        print(error)
    layer.copy_in(memory, host)
    layer.synchronize()
"""


def test_pycuda_alone_has_no_capture_and_works(run_python: Callable[..., str]) -> None:
    assert run_python(CAPTURE, blocked=("cuda", "cuda.bindings")) == (
        "recording a CUDA graph needs the package cuda-bindings, which is not installed: "
        "pip install 'motorvae[pycuda]', or do without a CUDA graph"
    )
