"""Which GPU is here, and whether it is one at all; a process of its own, as a driver may hang."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from ...runtime.core.documents import save_document
from ...runtime.core.system.small_files import text_of_small_file
from ...runtime.engines.gpu_info import NoGpu, find_gpu
from ..measure.result import environment_now, load_now, power_state, product_name
from .record import GpuIdentity, MachineFacts

_STAND_IN_NAME = "stand_in_live"
"""What the stand-in driver of tests/stand_in_driver has, and no driver of NVIDIA's."""
_DEVICE_NODES = ("nvidiactl", "nvidia0", "nvmap", "nvgpu", "nvhost-gpu", "nvhost-ctrl-gpu", "dxg")
"""What the kernel's part of a driver puts into /dev: of NVIDIA's driver for desktops and servers
(nvidiactl, nvidia0), of Jetsons (nvmap, and nvgpu or nvhost-*), and of WSL 2 (dxg)."""
_BOARD = Path("/etc/nv_tegra_release")
_PACKAGES = (
    *("pycuda", "cuda-bindings", "cuda-python", "onnx", "onnx-ir", "lightning", "pytest"),
    *("tensorrt-cu12", "tensorrt-cu13", "tensorrt-rtx-cu13"),
)


def why_no_proof(devices: Path = Path("/dev")) -> str | None:
    """Return why what runs on this driver proves nothing of a GPU, or None where it does.

    A library that answers to the name of the driver is not enough: the tests' own does, without a
    GPU. The kernel must have a driver, too.
    """
    if isinstance(found := find_gpu(), NoGpu):
        return found.reason
    cuda = ctypes.CDLL("libcuda.so.1")
    if hasattr(cuda, _STAND_IN_NAME):
        return f"libcuda.so.1 is the tests' stand-in driver ({found.name}), and no GPU"
    if not any((devices / name).exists() for name in _DEVICE_NODES):
        return (
            f"libcuda.so.1 answers ({found.name}), and the kernel has no NVIDIA device: none of "
            f"{', '.join(_DEVICE_NODES)} is in {devices}"
        )
    return None


def machine_facts() -> MachineFacts:
    """Describe this machine."""
    load_start = load_now()
    reason, found = why_no_proof(), find_gpu()
    gpu = None
    if not isinstance(found, NoGpu):
        gpu = GpuIdentity(**asdict(found), machine=product_name())
    board = text_of_small_file(_BOARD).splitlines()
    return MachineFacts(
        gpu=gpu,
        no_gpu=reason,
        environment=environment_now(threads={}, load_start=load_start, packages=_PACKAGES),
        power=power_state() if reason is None else (),
        board=board[0] if board else None,
    )


def main(args: Sequence[str]) -> int:
    """Write this machine's facts to the file that the one argument names."""
    facts = machine_facts()
    save_document(Path(args[0]), facts)
    print(facts.no_gpu or f"{facts.gpu and facts.gpu.name}: a GPU")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
