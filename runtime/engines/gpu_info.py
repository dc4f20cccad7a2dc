"""The GPU that the NVIDIA driver reports, asked directly and before any TensorRT object."""

from __future__ import annotations

import contextlib
import ctypes
import re
from dataclasses import dataclass
from pathlib import Path

_LIBRARY = "libcuda.so.1"
_KERNEL_MODULE = Path("/proc/driver/nvidia/version")
_MAJOR, _MINOR, _INTEGRATED = 75, 76, 18
"""CUdevice_attribute: compute capability's two halves; whether GPU and CPU share their memory."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """The first GPU, as its driver describes it."""

    name: str
    compute_capability: str  # such as "8.7"
    cuda: str  # the newest version that the driver supports, such as "13.0"
    driver: str | None  # version of the kernel module, where it is known
    memory_bytes: int
    integrated: bool  # whether that memory is the computer's own, as on a Jetson


@dataclass(frozen=True, slots=True)
class NoGpu:
    """Why there is no GPU to use; `reason` is a clause for a sentence."""

    reason: str


def find_gpu() -> Gpu | NoGpu:
    """Ask the driver for its first GPU.

    Some inference runtimes crash the process where there is no driver, so this comes first, and
    through nothing but the driver's own library.
    """
    try:
        cuda = ctypes.CDLL(_LIBRARY)
    except OSError:
        return NoGpu(f"no NVIDIA driver ({_LIBRARY} is not on this machine)")
    version, device, memory = ctypes.c_int(), ctypes.c_int(), ctypes.c_size_t()
    name = ctypes.create_string_buffer(256)
    for function, arguments in (
        (cuda.cuInit, (0,)),
        (cuda.cuDriverGetVersion, (ctypes.byref(version),)),
        (cuda.cuDeviceGet, (ctypes.byref(device), 0)),
        (cuda.cuDeviceGetName, (name, len(name), device)),
        (cuda.cuDeviceTotalMem_v2, (ctypes.byref(memory), device)),
    ):
        if code := function(*arguments):
            text = ctypes.c_char_p()
            cuda.cuGetErrorName(code, ctypes.byref(text))
            answer = text.value.decode() if text.value else f"error {code}"
            return NoGpu(f"the NVIDIA driver answers {answer}")

    def attribute(number: int) -> int:
        value = ctypes.c_int()
        cuda.cuDeviceGetAttribute(ctypes.byref(value), number, device)
        return value.value

    module = None
    with contextlib.suppress(OSError):
        said = _KERNEL_MODULE.read_text(encoding="utf-8", errors="replace")
        module = re.search(r"\b\d+\.\d+(?:\.\d+)?\b", said)
    return Gpu(
        name=name.value.decode(errors="replace"),
        compute_capability=f"{attribute(_MAJOR)}.{attribute(_MINOR)}",
        cuda=f"{version.value // 1000}.{version.value % 1000 // 10}",
        driver=module and module[0],
        memory_bytes=memory.value,
        integrated=bool(attribute(_INTEGRATED)),
    )
