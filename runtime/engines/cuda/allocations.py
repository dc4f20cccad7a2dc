"""What a device layer handed out, whether a copy keeps within it, and a driver's error as ours."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from ...core.errors import BackendError
from .base import HostArray

_DTYPES = (np.dtype(np.float32), np.dtype(np.uint8))

_NEXT_STEPS = {
    "CUDA_ERROR_OUT_OF_MEMORY": "close other programs that use the GPU, or take a smaller batch",
    "CUDA_ERROR_NO_DEVICE": "nvidia-smi lists the GPUs; CUDA_VISIBLE_DEVICES may hide them",
    "CUDA_ERROR_INVALID_DEVICE": "nvidia-smi lists the GPUs, which count from 0",
    "CUDA_ERROR_NOT_READY": "call synchronize first",
    "CUDA_ERROR_INVALID_HANDLE": "record both events on this layer's stream, and synchronize",
    "CUDA_ERROR_CAPTURED_EVENT": "record events outside of what is captured",
    "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED": "allocate and synchronize before what is captured",
    "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED": "allocate and synchronize before what is captured",
}
_ELSE = "open the device layer again, and see what dmesg says of the GPU"


def driver_error(layer: str, doing: str, answer: str, *, current: bool = True) -> BackendError:
    """Return the error for a call that the driver refused.

    Args:
        layer: Name of the device layer.
        doing: What was tried, with the values, such as "allocating 4096 bytes".
        answer: The driver's name of the error.
        current: Whether the layer's context was current on this thread.
    """
    if current:
        step = _NEXT_STEPS.get(answer, _ELSE)
    else:
        step = "its context is not current on this thread: call it inside `with layer.current():`"
    return BackendError(f"{layer}: {doing} failed with {answer}: {step}")


class Ledger:
    """The memory that a layer handed out; it refuses what it does not know.

    Args:
        layer: Name of the device layer, for errors.
    """

    def __init__(self, layer: str) -> None:
        self._layer = layer
        self._closed = False
        self._sizes: dict[int, int] = {}  # of device memory, by address
        self._pinned: list[tuple[int, int]] = []  # first address, and the one after the last

    def check_open(self) -> None:
        """Raise BackendError after `close`."""
        if self._closed:
            raise BackendError(f"{self._layer}: the device layer was closed: open it again")

    def close(self) -> bool:
        """Forget everything; return whether this was the first time."""
        first, self._closed = not self._closed, True
        self._sizes.clear()
        self._pinned.clear()
        return first

    def pinned_bytes(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> int:
        """Return the bytes of a new page-locked array.

        Raises:
            BackendError: It would hold nothing, or neither float32 nor uint8.
        """
        self.check_open()
        self._check_dtype(np.dtype(dtype))
        if not shape or min(shape) < 1:
            raise BackendError(
                f"a page-locked array of shape {shape} holds nothing: give sizes of 1 or more"
            )
        return math.prod(shape) * np.dtype(dtype).itemsize

    def add_pinned(self, array: HostArray) -> None:
        """Enter a page-locked array."""
        first = _address(array)
        self._pinned.append((first, first + array.nbytes))

    def check_device_bytes(self, size_bytes: int) -> None:
        """Raise BackendError for device memory that would hold nothing, or after `close`."""
        self.check_open()
        if size_bytes < 1:
            raise BackendError(f"{size_bytes} bytes of device memory hold nothing: give 1 or more")

    def add_device(self, address: int, size_bytes: int) -> None:
        """Enter device memory."""
        self._sizes[address] = size_bytes

    def span(self, device: int, host: HostArray, *, writes: bool = False) -> tuple[int, int]:
        """Return address and bytes of `host` for a copy between it and the start of `device`.

        Raises:
            BackendError: The layer is closed; `host` is not float32 or uint8, C-contiguous, or in
                page-locked memory of this layer, or may not be written; `device` is no memory of
                this layer, or too small.
        """
        self.check_open()
        self._check_dtype(host.dtype)
        if not host.flags.c_contiguous or (writes and not host.flags.writeable):
            problem = "read-only" if host.flags.c_contiguous else "not contiguous in memory"
            raise BackendError(
                f"an array of shape {host.shape} is {problem}: copy to and from arrays of pinned()"
            )
        size_bytes, room = host.nbytes, self._sizes.get(device)
        if room is None:
            raise BackendError(
                f"{device:#x} is no device memory of this layer: give an address from allocate()"
            )
        if size_bytes > room:
            raise BackendError(
                f"{size_bytes} bytes (shape {host.shape}) do not fit into the {room} bytes of "
                f"device memory at {device:#x}: allocate more"
            )
        first = _address(host)
        if not any(low <= first and first + size_bytes <= high for low, high in self._pinned):
            raise BackendError(
                f"an array of shape {host.shape} is not in page-locked memory of this layer, so "
                "that its copy could not be asynchronous: copy to and from arrays of pinned()"
            )
        return first, size_bytes

    @staticmethod
    def _check_dtype(dtype: npt.DTypeLike) -> None:
        if dtype not in _DTYPES:
            raise BackendError(f"a copy takes float32 or uint8, and was given {dtype}: convert it")


def _address(array: HostArray) -> int:
    address: int = array.__array_interface__["data"][0]
    return address
