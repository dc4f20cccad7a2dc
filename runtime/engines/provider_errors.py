"""Why an execution provider of ONNX Runtime did not load or run: the cause, and the next step."""

from __future__ import annotations

import ctypes
import re
from dataclasses import dataclass
from pathlib import Path

from ..core.redaction import without_private

_MISSING = re.compile(r"(lib[\w+.-]+?\.so[\d.]*): cannot open shared object")
_FAILURE = re.compile(r"(\w+ failure -?\d+: .*?)\s*; GPU=", re.DOTALL)
"""As in `... [with ERRTYPE = cudaError; ...] CUDA failure 35: CUDA driver version is insufficient
for CUDA runtime version ; GPU=0 ; hostname=... ; file=... ; line=66 ; expr=cudaSetDevice(...);`"""
_OF_CUDA = ("CUDAExecutionProvider", "TensorrtExecutionProvider")
_NUMBER = re.compile(r"CUDA failure (\d+):")
_OF_DRIVER = {3, 34, 35, 36, 100, 101, 802, 803, 804, 999}
"""Of `cudaError_t`: no driver, no device, one that is too old, mismatched or not ready."""
_MEMORY = re.compile(
    r"out of memory|ALLOC_FAILED|Failed to allocate memory for requested buffer of size \d+"
)
_DRIVER = "install NVIDIA's driver (nvidia-smi tells whether it works)"
_FREE = "free memory on the GPU (nvidia-smi tells what holds it)"
_BUILD = "install an onnxruntime-gpu that is built for this GPU and CUDA"
_WHEELS = "pip install 'onnxruntime-gpu[cuda,cudnn]'"
_MOST_CHARACTERS = 400


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a provider is not there.

    Attributes:
        clause: What is wrong.
        step: What to do about it.
    """

    clause: str
    step: str


def cause_from_library(provider: str, libraries: Path) -> Cause | None:
    """Load a provider's library as ONNX Runtime did, which keeps the loader's answer to its log.

    Args:
        provider: Its full name, such as `CUDAExecutionProvider`.
        libraries: The folder of ONNX Runtime's libraries.

    Returns:
        What the loader says, or None where the library loads or has no file of its own.
    """
    stem = provider.removesuffix("ExecutionProvider").lower()
    path = libraries / f"libonnxruntime_providers_{stem}.so"
    if not path.exists():
        return None
    try:
        ctypes.CDLL(str(path))
    except OSError as error:
        said = " ".join(str(error).split())
    else:
        return None
    found = _MISSING.search(said)
    if found is None:
        return Cause(f"{path.name} does not load ({without_private(said)})", _WHEELS)
    if found[1].startswith("libcuda.so"):
        return Cause(f"there is no {found[1]}, which NVIDIA's driver brings", _DRIVER)
    step = _WHEELS if provider in _OF_CUDA[:1] else f"install the package that has {found[1]}"
    return Cause(f"there is no {found[1]}, which {path.name} needs", step)


def cause_from_error(error: Exception) -> Cause | None:
    """Return the cause where CUDA, cuDNN or cuBLAS refused or a GPU's memory ran out, or None."""
    said = str(error)
    memory, failure = _MEMORY.search(said), _FAILURE.search(said)
    if failure is None:
        return Cause(memory[0], _FREE) if memory else None
    number = _NUMBER.match(failure[1])
    step = _DRIVER if number and int(number[1]) in _OF_DRIVER else _BUILD
    step = _FREE if memory else step
    return Cause(without_private(" ".join(failure[1].split())), step)


def said_by(error: Exception) -> str:
    """Return what an exception of ONNX Runtime says, in one line that names no host or user.

    Of a failure in CUDA that is its number and text; the rest are places in ONNX Runtime's source.
    """
    cause = cause_from_error(error)
    if cause is not None:
        return cause.clause
    lines = str(error).strip().splitlines()
    return without_private(lines[0][:_MOST_CHARACTERS]) if lines else type(error).__name__
