"""Contexts and threads on the stand-in driver: what needs a context, and whose stays current."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from motorvae.runtime.core.errors import BackendError

if TYPE_CHECKING:
    from .conftest import StandIn


@pytest.fixture
def threads() -> Iterator[list[ThreadPoolExecutor]]:
    """Two threads, each of which lives through the test."""
    with ThreadPoolExecutor(1) as camera, ThreadPoolExecutor(1) as inference:
        yield [camera, inference]


@pytest.fixture
def foreign_context(stand_in: StandIn) -> Iterator[int]:
    """A context of somebody else's, current on this thread."""
    stand_in.only("nobody counts the contexts of others")
    driver, context = ctypes.CDLL("libcuda.so.1"), ctypes.c_void_p()
    assert not driver.cuInit(0)
    assert not driver.cuCtxCreate_v4(ctypes.byref(context), None, 0, 0)
    yield context.value or 0
    assert (current(), stand_in.context_depth) == (context.value, 1)
    assert not driver.cuCtxDestroy_v2(context)


def current() -> int:
    """The context that is current on this thread, or 0."""
    context = ctypes.c_void_p()
    assert not ctypes.CDLL("libcuda.so.1").cuCtxGetCurrent(ctypes.byref(context))
    return context.value or 0


def round_trip(layer: Any, value: float) -> float:
    with layer.current():
        sent, got, memory = layer.pinned((1,)), layer.pinned((1,)), layer.allocate(4)
        sent[0] = value
        layer.copy_in(memory, sent)
        layer.copy_out(got, memory)
        layer.synchronize()
        return float(got[0])


@pytest.mark.parametrize("strict", [True, False], ids=["strict driver", "lenient driver"])
def test_without_its_context_every_call_says_so(
    layer: Any, threads: list[ThreadPoolExecutor], stand_in: StandIn, *, strict: bool
) -> None:
    stand_in.take_contexts_from_handles(on=not strict)
    with layer.current():
        host, memory = layer.pinned((1,)), layer.allocate(4)
        event = layer.event()
        layer.record(event)
        graph = layer.capture(lambda: layer.copy_in(memory, host))
        calls: list[Callable[[], Any]] = [
            lambda: layer.pinned((1,)),
            lambda: layer.allocate(4),
            lambda: layer.copy_in(memory, host),
            lambda: layer.copy_out(host, memory),
            layer.synchronize,
            layer.event,
            lambda: layer.record(event),
            lambda: layer.elapsed_ms(event, event),
            lambda: layer.capture(lambda: None),
            graph.launch,
        ]
        before = stand_in.live()
        message = "CUDA_ERROR_INVALID_CONTEXT: its context is not current on this thread: call it"
        for call in calls:
            with pytest.raises(BackendError, match=message):
                threads[0].submit(call).result()
        layer.synchronize()
    for call in calls:
        with pytest.raises(BackendError, match=message):
            call()
    assert stand_in.live() == before


def test_a_layer_works_on_any_thread_that_enters_its_context(
    layer: Any, threads: list[ThreadPoolExecutor], stand_in: StandIn
) -> None:
    assert round_trip(layer, 1) == 1
    for number in range(50):
        thread = threads[number % 2]
        assert thread.submit(round_trip, layer, number).result() == number
        assert thread.submit(lambda: stand_in.context_depth).result() == 0
    assert round_trip(layer, 2) == 2


def test_a_layer_can_be_opened_used_and_closed_on_three_threads(
    open_layer: Callable[..., Any], threads: list[ThreadPoolExecutor], stand_in: StandIn
) -> None:
    layer = threads[0].submit(open_layer).result()
    assert threads[1].submit(round_trip, layer, 3).result() == 3
    layer.close()
    assert stand_in.live() == {}
    for thread in threads:
        assert thread.submit(lambda: stand_in.context_depth).result() == 0


def test_a_thread_that_opened_a_layer_may_end_before_it(
    open_layer: Callable[..., Any], stand_in: StandIn
) -> None:
    with ThreadPoolExecutor(1) as thread:
        layer = thread.submit(open_layer).result()
        assert thread.submit(round_trip, layer, 3).result() == 3
    assert round_trip(layer, 4) == 4
    layer.close()
    assert stand_in.live() == {}


def test_current_nests_and_ends_also_with_an_error(layer: Any, stand_in: StandIn) -> None:
    def fail() -> None:
        with layer.current():
            context = current()
            with layer.current():
                assert round_trip(layer, 5) == 5
            assert current() == context != 0
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert (current(), stand_in.context_depth) == (0, 0)


def test_a_context_that_cannot_be_entered_is_an_error(layer: Any, stand_in: StandIn) -> None:
    stand_in.fail("cuCtxPushCurrent", 700)
    with (
        pytest.raises(BackendError, match="entering the context failed with CUDA_ERROR_ILLEGAL"),
        layer.current(),
    ):
        pytest.fail("entered it all the same")
    assert stand_in.context_depth == 0
    assert round_trip(layer, 5) == 5


def test_closing_twice_and_within_current(
    open_layer: Callable[..., Any], stand_in: StandIn
) -> None:
    layer = open_layer()
    with layer.current(), layer.current():
        layer.close()
        layer.close()
        assert stand_in.live() == {}
    layer.close()
    assert stand_in.context_depth == 0


def test_a_with_block_closes_after_an_error(
    open_layer: Callable[..., Any], stand_in: StandIn
) -> None:
    def fail() -> None:
        with open_layer() as layer, layer.current():
            layer.pinned((1,))
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert (stand_in.live(), stand_in.context_depth) == ({}, 0)


def test_two_layers_share_the_primary_context(
    open_layer: Callable[..., Any], stand_in: StandIn
) -> None:
    one, other = open_layer(), open_layer()
    assert stand_in.live() == {"context": 1, "stream": 2}
    with one.current():
        round_trip(other, 6)
    one.close()
    assert round_trip(other, 7) == 7
    other.close()


def test_a_foreign_context_is_left_as_it_was(
    foreign_context: int, open_layer: Callable[..., Any], stand_in: StandIn
) -> None:
    layer = open_layer()
    assert current() == foreign_context
    assert round_trip(layer, 8) == 8
    assert current() == foreign_context
    with layer.current():
        assert current() != foreign_context
    message = "its context is not current on this thread"
    for call in (lambda: layer.allocate(4), lambda: layer.pinned((1,)), layer.event):
        with pytest.raises(BackendError, match=message):
            call()
    assert stand_in.live() == {"context": 2, "stream": 1, "device memory": 1, "page-locked": 2}
    layer.close()
    assert current() == foreign_context


def test_pycudas_own_contexts_are_left_as_they_were(
    open_layer: Callable[..., Any], stand_in: StandIn
) -> None:
    """As with pycuda.autoinit in the same program."""
    import pycuda.driver as cuda

    cuda.init()
    own = cuda.Device(0).make_context()
    try:
        layer = open_layer()
        assert round_trip(layer, 9) == 9
        assert cuda.Context.get_current() == own
        with layer.current(), layer.current():
            layer.close()
        assert current() == own.handle
        assert cuda.Context.get_current() == own
        with open_layer() as second:
            assert round_trip(second, 10) == 10
        assert current() == own.handle
        assert stand_in.context_depth == 1
    finally:
        own.pop()
        own.detach()
