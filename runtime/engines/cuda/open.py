"""open_cuda: the device layer of whichever package is installed."""

from __future__ import annotations

from ...core.errors import BackendError, missing_dependency
from .base import CudaLayer


def open_cuda(*, device: int = 0) -> CudaLayer:
    """Open a GPU (its number as CUDA counts) through pycuda, or else through cuda-bindings.

    Raises:
        MissingDependencyError: Neither package is installed.
        BackendError: There is no driver, it has no such device, or it refuses.
    """
    try:
        from .pycuda_layer import PycudaLayer  # noqa: PLC0415  # the optional device layer
    except ModuleNotFoundError:
        pass
    except ImportError as error:  # it is linked to the driver, or was built for another Python
        raise BackendError(
            f"pycuda is installed and does not load ({error}): install the NVIDIA driver, build "
            "pycuda again, or use --backend onnx"
        ) from error
    else:
        return PycudaLayer(device)
    try:
        from .bindings import BindingsLayer  # noqa: PLC0415  # the optional device layer
    except ModuleNotFoundError as error:
        raise missing_dependency(
            "running a TensorRT engine",
            "pycuda",
            extra="pycuda",
            instead="pip install cuda-bindings",
        ) from error
    return BindingsLayer(device)
