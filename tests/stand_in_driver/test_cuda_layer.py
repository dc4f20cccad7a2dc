"""Both device layers on the stand-in driver: memory, copies, events, and errors."""

from __future__ import annotations

import gc
import re
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from motorvae.runtime.core.errors import BackendError

if TYPE_CHECKING:
    from .conftest import StandIn

FRAMES = 10_000
ILLEGAL_ADDRESS = 700


def any_bits(shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Floats of every kind: the smallest, infinities, and NaNs that differ in their bits."""
    bits = np.random.default_rng(7).integers(0, 1 << 32, shape, dtype=np.uint32)
    return bits.view(np.float32)


def execute(layer: Any, to: int, source: int, size_bytes: int) -> None:
    """Start what an engine would: work on the layer's stream, known by its handle alone."""
    from cuda.bindings import driver

    assert driver.cuMemcpyDtoDAsync(to, source, size_bytes, layer.stream) == (0,)


def test_a_round_trip_is_bit_exact_and_asynchronous(layer: Any, stand_in: StandIn) -> None:
    sent = any_bits((3, 1, 32, 32))
    with layer.current():
        first, last = layer.pinned(sent.shape), layer.pinned(sent.shape)
        to, source = layer.allocate(sent.nbytes), layer.allocate(sent.nbytes)
        fresh = stand_in.peek(to, sent.size).tobytes()
        first[:] = sent
        layer.copy_in(to, first)
        execute(layer, source, to, sent.nbytes)
        layer.copy_out(last, source)
        if stand_in.waits:
            assert stand_in.peek(to, sent.size).tobytes() == fresh
            assert not last.view(np.uint32).any()
        layer.synchronize()
    assert stand_in.peek(source, sent.size).tobytes() == sent.tobytes()
    assert last.tobytes() == sent.tobytes()


def test_a_part_of_a_page_locked_array_can_be_copied(layer: Any, stand_in: StandIn) -> None:
    with layer.current():
        host, memory = layer.pinned((4, 5)), layer.allocate(80)
        host[:] = 1
        layer.copy_in(memory, host)
        host[:2] = 2
        layer.copy_in(memory, host[:2])
        layer.copy_in(memory, host[:0])
        layer.synchronize()
        host[:] = 0
        layer.copy_out(host[2:], memory)
        layer.synchronize()
    assert stand_in.peek(memory, 20).tolist() == [2] * 10 + [1] * 10
    assert host.ravel().tolist() == [0] * 10 + [2] * 10


def test_pinned_arrays_are_page_locked_by_the_driver(layer: Any, stand_in: StandIn) -> None:
    with layer.current():
        arrays = [layer.pinned(shape) for shape in ((1,), (2, 3), (1, 1, 64, 64))]
    for array in arrays:
        assert stand_in.is_page_locked(array)
        assert array.dtype == np.float32
        assert array.flags.c_contiguous
        assert array.flags.writeable
        assert not array.any()
    assert [array.shape for array in arrays] == [(1,), (2, 3), (1, 1, 64, 64)]
    assert stand_in.live()["page-locked"] == 3
    layer.close()
    assert stand_in.live() == {}


def test_bytes_take_a_byte_each(layer: Any, stand_in: StandIn) -> None:
    sent = np.arange(256, dtype=np.uint8).reshape(4, 64)
    stand_in.limit(2 * sent.nbytes)
    with layer.current():
        host, memory = layer.pinned(sent.shape, np.uint8), layer.allocate(sent.nbytes)
        assert (host.dtype, stand_in.is_page_locked(host)) == (np.uint8, True)
        host[:] = sent
        layer.copy_in(memory, host)
        layer.synchronize()
        host[:] = 0
        layer.copy_out(host, memory)
        layer.synchronize()
    np.testing.assert_array_equal(host, sent)


@pytest.mark.parametrize("dtype", [np.float64, np.int8, np.float16])
def test_page_locked_arrays_are_of_what_engines_take(layer: Any, dtype: type[np.generic]) -> None:
    named = f"takes float32 or uint8, and was given {np.dtype(dtype)}: convert"
    with layer.current(), pytest.raises(BackendError, match=named):
        layer.pinned((4,), dtype)


def test_a_layer_says_what_it_is(layer: Any) -> None:
    assert re.fullmatch(r"(pycuda|cuda-bindings) \d+\.\d+(\.\d+)?", layer.name)
    assert isinstance(layer.stream, int)
    assert layer.stream


REFUSED: dict[str, tuple[Callable[[Any], Any], int, str]] = {
    "another type": (lambda a: a.view(np.int32), 0, "takes float32 or uint8, and was given int32"),
    "a double": (lambda a: a.view(np.float64), 0, "takes float32 or uint8, and was given float64"),
    "columns": (lambda a: a[:, :2], 0, r"shape \(4, 2\) is not contiguous"),
    "transposed": (lambda a: a.T, 0, r"shape \(4, 4\) is not contiguous"),
    "too large": (lambda a: a, 8, r"64 bytes \(shape \(4, 4\)\) do not fit into the 56 bytes"),
    "foreign": (lambda a: a.copy(), 0, "is not in page-locked memory of this layer"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_copy_that_would_go_wrong_is_refused(layer: Any, stand_in: StandIn, case: str) -> None:
    part, lacking, message = REFUSED[case]
    with layer.current():
        host, memory = layer.pinned((4, 4)), layer.allocate(64 - lacking)
        before = stand_in.peek(memory, 14).tobytes()
        with pytest.raises(BackendError, match=message):
            layer.copy_in(memory, part(host))
        with pytest.raises(BackendError, match=message):
            layer.copy_out(part(host), memory)
        layer.synchronize()
    assert stand_in.peek(memory, 14).tobytes() == before
    assert not host.any()


def test_a_read_only_array_is_only_read(layer: Any) -> None:
    with layer.current():
        host, memory = layer.pinned((4,)), layer.allocate(16)
        host.flags.writeable = False
        layer.copy_in(memory, host)
        with pytest.raises(BackendError, match=r"shape \(4,\) is read-only"):
            layer.copy_out(host, memory)


@pytest.mark.parametrize("offset", [4, -4, 1 << 20])
def test_an_address_that_was_not_handed_out_is_refused(layer: Any, offset: int) -> None:
    with layer.current():
        host, memory = layer.pinned((1,)), layer.allocate(64)
        with pytest.raises(BackendError, match=f"{memory + offset:#x} is no device memory"):
            layer.copy_in(memory + offset, host)
        with pytest.raises(BackendError, match=f"{memory + offset:#x} is no device memory"):
            layer.copy_out(host, memory + offset)


def test_memory_of_another_layer_is_refused(open_layer: Callable[..., Any]) -> None:
    with open_layer() as one, open_layer() as other, one.current():
        with pytest.raises(BackendError, match="is no device memory of this layer"):
            other.copy_in(one.allocate(4), one.pinned((1,)))
        with pytest.raises(BackendError, match="is not in page-locked memory of this layer"):
            other.copy_in(other.allocate(4), one.pinned((1,)))


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (-1, 2)])
def test_a_page_locked_array_holds_something(layer: Any, shape: tuple[int, ...]) -> None:
    with layer.current(), pytest.raises(BackendError, match="holds nothing: give sizes of 1"):
        layer.pinned(shape)


@pytest.mark.parametrize("size_bytes", [0, -4])
def test_device_memory_holds_something(layer: Any, size_bytes: int) -> None:
    with layer.current(), pytest.raises(BackendError, match=f"{size_bytes} bytes of device"):
        layer.allocate(size_bytes)


def test_events_keep_time(layer: Any, stand_in: StandIn) -> None:
    with layer.current():
        host, memory = layer.pinned((1 << 20,)), layer.allocate(4 << 20)
        start, end = layer.event(), layer.event()
        layer.record(start)
        layer.copy_in(memory, host)
        layer.record(end)
        if stand_in.waits:  # a GPU may be done by now
            with pytest.raises(BackendError, match="CUDA_ERROR_NOT_READY: call synchronize first"):
                layer.elapsed_ms(start, end)
        layer.synchronize()
        elapsed_ms = layer.elapsed_ms(start, end)
        assert isinstance(elapsed_ms, float)
        assert elapsed_ms > 0 > layer.elapsed_ms(end, start)
        assert layer.elapsed_ms(end, end) == 0
        with pytest.raises(BackendError, match="CUDA_ERROR_INVALID_HANDLE: record both events"):
            layer.elapsed_ms(start, layer.event())


def test_ten_thousand_frames_leave_nothing_behind(layer: Any, stand_in: StandIn) -> None:
    with layer.current():
        host, result = layer.pinned((1, 64)), layer.pinned((1, 64))
        to, source = layer.allocate(256), layer.allocate(256)
        start, end = layer.event(), layer.event()
        replay = layer.capture(lambda: layer.copy_in(to, host))
    live = {"context": 1, "device memory": 2, "page-locked": 2, "stream": 1, "event": 2}
    counts = []
    for frame in range(1, FRAMES + 1):
        with layer.current():
            host[:] = frame
            layer.record(start)
            replay.launch()
            execute(layer, source, to, 256)
            layer.copy_out(result[:1], source)
            layer.record(end)
            layer.synchronize()
            assert layer.elapsed_ms(start, end) >= 0
        assert result[0, 0] == result[0, -1] == frame
        if frame in {100, FRAMES}:
            gc.collect()
            counts.append((stand_in.live(), stand_in.created(), sys.getallocatedblocks()))
    (early, made, blocks), (late, made_since, blocks_since) = counts
    assert early == late == {**live, "executable": 1}
    assert made == made_since
    assert blocks_since - blocks < FRAMES / 100
    layer.close()
    assert stand_in.live() == {}


def test_the_memory_limit_is_an_error_that_says_what_to_do(layer: Any, stand_in: StandIn) -> None:
    stand_in.limit(4096)
    answer = "CUDA_ERROR_OUT_OF_MEMORY"
    step = "close other programs that use the GPU, or take a smaller batch"
    with layer.current():
        with pytest.raises(
            BackendError,
            match=f"allocating 5000 bytes of device memory failed with {answer}: {step}",
        ):
            layer.allocate(5000)
        with pytest.raises(
            BackendError,
            match=f"allocating 8192 page-locked bytes failed with {answer}: {step}",
        ):
            layer.pinned((2, 1024))
        assert stand_in.live() == {"context": 1, "stream": 1}
        host, memory = layer.pinned((8,)), layer.allocate(32)
        layer.copy_in(memory, host)
        layer.synchronize()


REFUSALS: dict[str, tuple[Callable[[Any, Any, int, Any], Any], str]] = {
    "cuMemcpyHtoDAsync": (lambda la, h, m, _: la.copy_in(m, h), "copying 32 bytes to the GPU"),
    "cuMemcpyDtoHAsync": (lambda la, h, m, _: la.copy_out(h, m), "copying 32 bytes from the GPU"),
    "cuStreamSynchronize": (lambda la, *_: la.synchronize(), "waiting for the GPU"),
    "cuMemAlloc": (lambda la, *_: la.allocate(5), "allocating 5 bytes of device memory"),
    "cuMemHostAlloc": (lambda la, *_: la.pinned((2, 3)), "allocating 24 page-locked bytes"),
    "cuEventCreate": (lambda la, *_: la.event(), "creating an event"),
    "cuEventRecord": (lambda la, _, __, event: la.record(event), "recording an event"),
    "cuEventElapsedTime": (lambda la, _, __, e: la.elapsed_ms(e, e), "reading two events"),
}


@pytest.mark.parametrize("function", REFUSALS)
def test_what_the_driver_refuses_is_named(layer: Any, stand_in: StandIn, function: str) -> None:
    call, doing = REFUSALS[function]
    with layer.current():
        host, memory, event = layer.pinned((8,)), layer.allocate(32), layer.event()
        layer.record(event)
        layer.synchronize()
        before = stand_in.live()
        stand_in.fail(function, ILLEGAL_ADDRESS)
        message = f"^{layer.name}: {doing} failed with CUDA_ERROR_ILLEGAL_ADDRESS: open the device"
        with pytest.raises(BackendError, match=message):
            call(layer, host, memory, event)
        call(layer, host, memory, event)
    assert stand_in.live().keys() == before.keys()
