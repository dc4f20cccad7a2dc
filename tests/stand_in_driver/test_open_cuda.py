"""open_cuda on the stand-in driver: which package is taken, and what is said where none works."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from motorvae.runtime.core.errors import BackendError
from motorvae.runtime.engines.open import open_cuda

OPEN = """
from motorvae.runtime.engines.open import open_cuda
try:
    with open_cuda() as layer, layer.current():
        host, memory = layer.pinned((2,)), layer.allocate(8)
        host[:] = 1, 2
        layer.copy_in(memory, host)
        layer.synchronize()
        host[:] = 0
        layer.copy_out(host, memory)
        layer.synchronize()
        print(layer.name.split()[0], host.tolist())
except Exception as error:
    print(type(error).__name__, error)
"""


def test_pycuda_comes_first_and_cuda_bindings_where_it_is_missing(
    run_python: Callable[..., str],
) -> None:
    assert run_python(OPEN) == "pycuda [1.0, 2.0]"
    assert run_python(OPEN, blocked=("pycuda",)) == "cuda-bindings [1.0, 2.0]"
    assert run_python(OPEN, blocked=("cuda", "cuda.bindings")) == "pycuda [1.0, 2.0]"


def test_without_either_package_the_error_names_both(run_python: Callable[..., str]) -> None:
    assert run_python(OPEN, blocked=("pycuda", "cuda", "cuda.bindings")) == (
        "MissingDependencyError running a TensorRT engine needs the package pycuda, which is not "
        "installed: pip install 'motorvae[pycuda]', or pip install cuda-bindings"
    )


@pytest.mark.parametrize(
    ("blocked", "message"),
    [
        ((), r"pycuda is installed and does not load \(libcuda\.so\.1: .*\): install the NVIDIA"),
        (("pycuda",), r"cuda-bindings \S+ finds no NVIDIA driver \(.*\): install it"),
    ],
)
def test_without_a_driver_the_error_says_so(
    run_python: Callable[..., str], blocked: tuple[str, ...], message: str
) -> None:
    said = run_python(OPEN, blocked=blocked, driver=False)
    assert re.fullmatch(f"BackendError {message}.* or use --backend onnx", said)


def test_the_device_is_handed_on() -> None:
    with pytest.raises(BackendError, match="opening GPU 3 failed with CUDA_ERROR_INVALID_DEVICE"):
        open_cuda(device=3)
