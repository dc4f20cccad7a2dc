"""A GPU's own driver in the stand-in's place: MOTORVAE_TEST_DRIVER=real, as `make gpu-proof` sets.

What the tests ask the stand-in is here asked of the driver, or counted where it is called. What
only a stand-in can do, such as failing when it is told to, skips the test with the reason.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

REAL = os.environ.get("MOTORVAE_TEST_DRIVER") == "real"
KINDS = ("context", "device memory", "page-locked", "stream", "event", "graph", "executable")
_MADE = {
    "cuMemAlloc": "device memory",
    "cuMemHostAlloc": "page-locked",
    "cuStreamCreate": "stream",
    "cuEventCreate": "event",
    "cuStreamEndCapture": "graph",
    "cuGraphInstantiate": "executable",
}
_FREED = {
    "cuMemFree": "device memory",
    "cuMemFreeHost": "page-locked",
    "cuStreamDestroy": "stream",
    "cuEventDestroy": "event",
    "cuGraphDestroy": "graph",
    "cuGraphExecDestroy": "executable",
}
_MADE_BY_PYCUDA = {
    "mem_alloc": "device memory",
    "pagelocked_empty": "page-locked",
    "Stream": "stream",
    "Event": "event",
}
"""It destroys them in its own code, where nobody counts: they are gone with the context."""

SKIPPED = "not on a real driver: "

_live = dict.fromkeys(KINDS, 0)
_created = dict.fromkeys(KINDS, 0)


def _counted(call: Callable[..., Any], kind: str, step: int, *, has_code: bool) -> Any:
    def counting(*arguments: Any) -> Any:
        answer = call(*arguments)
        if not has_code or not answer[0]:
            _live[kind] += step
            _created[kind] += step > 0
        return answer

    # What is looked up on the class that this takes the place of.
    if hasattr(call, "time_till"):
        counting.time_till = call.time_till  # type: ignore[attr-defined]
    return counting


def count_calls() -> None:
    """Count what both packages make and free; before our layers are imported, which keep names."""
    with contextlib.suppress(ImportError):
        from cuda.bindings import driver

        for names, step in ((_MADE, 1), (_FREED, -1)):
            for name, kind in names.items():
                counting = _counted(getattr(driver, name), kind, step, has_code=True)
                setattr(driver, name, counting)
    with contextlib.suppress(ImportError):
        import pycuda.driver

        for name, kind in _MADE_BY_PYCUDA.items():
            counting = _counted(getattr(pycuda.driver, name), kind, 1, has_code=False)
            setattr(pycuda.driver, name, counting)


class RealDriver:
    """As `StandIn` in conftest.py."""

    waits = False  # work may be done before anybody has waited for it
    pageable_copies = abandoned = 0  # nobody counts them

    def __init__(self) -> None:
        self._cuda = ctypes.CDLL("libcuda.so.1")
        assert not self._cuda.cuInit(0)

    def live(self) -> dict[str, int]:
        active = ctypes.c_int()
        flags = ctypes.byref(ctypes.c_uint())
        self._cuda.cuDevicePrimaryCtxGetState(0, flags, ctypes.byref(active))
        if not active.value:
            _live.update(dict.fromkeys(KINDS, 0))  # all that was in it went with it
        _live["context"] = active.value
        return {kind: count for kind, count in _live.items() if count}

    def created(self) -> int:
        return sum(_created.values())

    def fail(self, _function: str, _code: int) -> None:
        self.only("it does not fail when it is told to")

    def limit(self, _size_bytes: int) -> None:
        self.only("its memory cannot be limited")

    def take_contexts_from_handles(self, *, on: bool = True) -> None:
        """Nothing: it does so or not."""

    def only(self, reason: str) -> None:
        """Skip what only the stand-in can show."""
        pytest.skip(f"{SKIPPED}{reason}")

    def is_page_locked(self, array: npt.NDArray[Any]) -> bool:
        first = array.__array_interface__["data"][0]
        flags = ctypes.byref(ctypes.c_uint())
        with self._primary():
            return not any(
                self._cuda.cuMemHostGetFlags(flags, ctypes.c_void_p(address))
                for address in (first, first + array.nbytes - 1)
            )

    def peek(self, address: int, floats: int) -> npt.NDArray[np.float32]:
        out = np.zeros(floats, np.float32)
        memory = ctypes.c_void_p(out.__array_interface__["data"][0])
        size = ctypes.c_size_t(out.nbytes)
        with self._primary():
            assert not self._cuda.cuMemcpyDtoH_v2(memory, ctypes.c_uint64(address), size)
        return out

    def sweep(self) -> None:
        """Nothing was leaked on purpose."""

    @property
    def context_depth(self) -> int:
        """How many contexts lie on this thread's stack: taken off, counted, and put back."""
        taken: list[ctypes.c_void_p] = []
        while True:
            top = ctypes.c_void_p()
            if self._cuda.cuCtxGetCurrent(ctypes.byref(top)) or not top.value:
                break
            assert not self._cuda.cuCtxPopCurrent_v2(ctypes.byref(top))
            taken.append(top)
        for context in reversed(taken):
            self._cuda.cuCtxPushCurrent_v2(context)  # one that is destroyed cannot come back
        return len(taken)

    @contextlib.contextmanager
    def _primary(self) -> Iterator[None]:
        context = ctypes.c_void_p()
        assert not self._cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0)
        self._cuda.cuCtxPushCurrent_v2(context)
        try:
            yield
        finally:
            self._cuda.cuCtxPopCurrent_v2(ctypes.byref(ctypes.c_void_p()))
            self._cuda.cuDevicePrimaryCtxRelease_v2(0)
