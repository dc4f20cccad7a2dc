"""How both device layers begin and end on the stand-in driver: all of it, or nothing is left."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from motorvae.runtime.core.errors import BackendError

if TYPE_CHECKING:
    from .conftest import StandIn

NOT_PERMITTED, ILLEGAL_ADDRESS = 800, 700


@pytest.mark.parametrize(
    "function",
    ["cuInit", "cuDeviceGet", "cuDevicePrimaryCtxRetain", "cuCtxPushCurrent", "cuStreamCreate"],
)
def test_a_layer_that_cannot_be_opened_releases_everything(
    open_layer: Callable[..., Any], stand_in: StandIn, function: str
) -> None:
    stand_in.fail(function, NOT_PERMITTED)
    with pytest.raises(BackendError, match="failed with CUDA_ERROR_NOT_PERMITTED: "):
        open_layer()
    assert (stand_in.live(), stand_in.context_depth) == ({}, 0)
    open_layer().close()


def test_a_gpu_that_is_not_there_is_named(open_layer: Callable[..., Any]) -> None:
    message = "opening GPU 7 failed with CUDA_ERROR_INVALID_DEVICE: nvidia-smi lists the GPUs"
    with pytest.raises(BackendError, match=message):
        open_layer(7)


def test_after_close_every_call_says_so(layer: Any) -> None:
    with layer.current():
        host, memory, event = layer.pinned((1,)), layer.allocate(4), layer.event()
        view = np.zeros(1, np.float32)
        graph = layer.capture(lambda: layer.copy_in(memory, host))
    layer.close()
    calls: list[Callable[[], Any]] = [
        lambda: layer.current().__enter__(),
        lambda: layer.pinned((1,)),
        lambda: layer.allocate(4),
        lambda: layer.copy_in(memory, view),
        lambda: layer.copy_out(view, memory),
        layer.synchronize,
        layer.event,
        lambda: layer.record(event),
        lambda: layer.elapsed_ms(event, event),
        lambda: layer.capture(lambda: None),
    ]
    for call in calls:
        with pytest.raises(BackendError, match="device layer was closed: open it again"):
            call()
    with pytest.raises(BackendError, match="CUDA graph was closed: capture it again"):
        graph.launch()
    graph.close()
    layer.close()


def test_work_under_way_is_finished_before_memory_goes(layer: Any, stand_in: StandIn) -> None:
    with layer.current():
        host, memory = layer.pinned((8,)), layer.allocate(32)
        layer.copy_in(memory, host)
        layer.copy_out(host, memory)
    layer.close()
    assert stand_in.live() == {}


@pytest.mark.parametrize("function", ["cuStreamSynchronize", "cuMemFreeHost", "cuEventDestroy"])
def test_a_driver_that_fails_at_the_end_does_not_stop_it(
    open_layer: Callable[..., Any],
    stand_in: StandIn,
    function: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    stand_in.only("it does not fail when it is told to")
    layer = open_layer()
    with layer.current():
        layer.pinned((1,)), layer.allocate(4), layer.event()
    stand_in.fail(function, ILLEGAL_ADDRESS)
    layer.close()
    leaked = {"cuMemFreeHost": {"page-locked": 1}, "cuEventDestroy": {"event": 1}}
    assert stand_in.live() == leaked.get(function, {})
    capfd.readouterr()  # pycuda tells on standard error
    stand_in.sweep()
