"""find_gpu on the stand-in driver, and where there is no driver at all."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from motorvae.runtime.engines.gpu_info import Gpu, NoGpu, find_gpu

if TYPE_CHECKING:
    from .conftest import StandIn


def test_the_gpu_is_described_as_its_driver_does(stand_in: StandIn) -> None:
    stand_in.only("a GPU has another name")
    version = ctypes.c_int()
    assert not ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(version))
    gpu = find_gpu()
    assert isinstance(gpu, Gpu)
    assert (gpu.name, gpu.compute_capability) == ("Stand-in GPU", "8.9")
    assert gpu.cuda == f"{version.value // 1000}.{version.value % 1000 // 10}"
    assert (gpu.memory_bytes, gpu.integrated) == (1 << 28, False)


@pytest.mark.parametrize(
    "function",
    [
        "cuInit",
        "cuDriverGetVersion",
        "cuDeviceGet",
        "cuDeviceGetName",
        "cuDeviceTotalMem",
    ],
)
def test_a_driver_that_refuses_is_no_gpu(stand_in: StandIn, function: str) -> None:
    stand_in.fail(function, 100)
    assert find_gpu() == NoGpu("the NVIDIA driver answers CUDA_ERROR_NO_DEVICE")


def test_an_error_that_the_driver_cannot_name_is_a_number(stand_in: StandIn) -> None:
    stand_in.fail("cuInit", 12345)
    assert find_gpu() == NoGpu("the NVIDIA driver answers error 12345")


def test_without_a_driver_there_is_no_gpu(run_python: Callable[..., str]) -> None:
    code = "from motorvae.runtime.engines.gpu_info import find_gpu\nprint(find_gpu())"
    assert run_python(code, driver=False) == (
        "NoGpu(reason='no NVIDIA driver (libcuda.so.1 is not on this machine)')"
    )
