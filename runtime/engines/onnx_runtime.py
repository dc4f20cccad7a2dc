"""OnnxBackend: ONNX Runtime on the provider that was asked for, or not at all."""

from __future__ import annotations

import contextlib
import ctypes
import io
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..core.errors import BackendError, MissingDependencyError, ProviderError, sentence_list
from ..core.packages import ONNX_RUNTIME_PACKAGES, versions_of
from ..core.redaction import without_private
from .base import Arrays, Backend, Batch, Tensors
from .cpu_threads import checked_threads
from .import_onnxruntime import ort

_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_SHORT_NAMES = {"cpu": _CPU, "cuda": _CUDA, "tensorrt": "TensorrtExecutionProvider"}
_FATAL_ONLY = 4  # errors are raised; printing them as well on standard error helps nobody
_LIBRARIES = Path(ort.__file__).parent / "capi"
_DTYPES = {"tensor(float)": "float32", "tensor(uint8)": "uint8", "tensor(float16)": "float16"}

_MISSING = re.compile(r"(lib[\w+.-]+?\.so[\d.]*): cannot open shared object")
_FAILURE = re.compile(r"((\b\w{1,40}) failure (-?\d{1,9}): .{0,999}?)\s*; GPU=", re.DOTALL)
"""As in `... [with ERRTYPE = cudaError; ...] CUDA failure 35: CUDA driver version is insufficient
for CUDA runtime version ; GPU=0 ; hostname=... ; file=... ; line=66 ; expr=cudaSetDevice(...);`"""
_OF_DRIVER = {3, 34, 35, 36, 100, 101, 802, 803, 804, 999}
"""Of `cudaError_t`: no driver, no device, one that is too old, mismatched or not ready."""
_MEMORY = re.compile(
    r"out of memory|ALLOC_FAILED|Failed to allocate memory for requested buffer of size \d+"
)
_DRIVER = "install NVIDIA's driver (nvidia-smi shows whether it works)"
_FREE = "free memory on the GPU (nvidia-smi shows what holds it)"
_BUILD = "install an onnxruntime-gpu that is built for this GPU and CUDA"
_WHEELS = "pip install 'onnxruntime-gpu[cuda,cudnn]'"


class Cause(NamedTuple):
    """Why a provider did not load or run: a clause, and what to do about it."""

    clause: str
    step: str


class OnnxBackend(Backend):
    """One ONNX graph in ONNX Runtime; its output buffers are allocated once for each batch size.

    The provider is `cpu`, `cuda`, `tensorrt`, or a full name: a ProviderError where it is not in
    this build or did not load. A MissingDependencyError where both ONNX Runtime packages are
    installed, which breaks them; a BackendError where ONNX Runtime refuses the file. Weights in
    files of their own are read where `external_data` allows it.
    """

    library = f"ONNX Runtime {ort.__version__}"

    def __init__(
        self,
        path: Path,
        content: bytes | None = None,
        *,
        provider: str = "cpu",
        threads: int | None = None,
        external_data: bool = False,
    ) -> None:
        cores = checked_threads(threads)
        installed = list(versions_of(ONNX_RUNTIME_PACKAGES))
        if len(installed) > 1:
            raise MissingDependencyError(
                f"{' and '.join(installed)} are both installed and overwrite each other: "
                f"pip uninstall -y {' '.join(installed)}, then install motorvae[cpu] or "
                "motorvae[gpu]"
            )
        wanted = _full_name(provider)
        if wanted not in (available := ort.get_available_providers()):
            raise ProviderError(
                f"provider {provider!r} is not in this ONNX Runtime (it has "
                f"{sentence_list(available)})",
                fix="use --provider cpu, or install motorvae[gpu] for cuda",
            )
        model: str | bytes | None = str(path) if external_data else content
        self._session = _opened_session(path, model, wanted, cores)
        super().__init__(
            f"{self.library} {wanted}",
            str(path),
            _tensors(self._session.get_inputs()),
            _tensors(self._session.get_outputs()),
            threads=cores if wanted == _CPU else None,
        )
        if wanted == _SHORT_NAMES["tensorrt"]:
            self.notes += ("TensorRT inside ONNX Runtime may round float32 to TF32",)
        # Results are written where they are wanted, unless the graph alone knows their size.
        ((_, taken),) = self._tensors[0].values()
        self._is_bound = all(
            dtype == "float32"
            and shape[:1] == taken[:1]
            and all(isinstance(size, int) for size in shape[1:])
            for dtype, shape in self._tensors[1].values()
        )
        self._bindings: dict[int, tuple[ort.IOBinding, dict[str, npt.NDArray[np.float32]]]] = {}
        self._is_cpu = wanted == _CPU
        self._planned: set[int] = set()  # the batch sizes that have run

    def _run(self, batch: Batch) -> Arrays:
        data = np.ascontiguousarray(batch)  # bound by its address
        if self._is_cpu or len(data) in self._planned:
            return self._ran(data)
        # At the first run of a size the CUDA provider asks cuDNN for a plan of each convolution
        # with what follows it, prints an error for each that has none, and takes another way.
        with _still_log():
            results = self._ran(data)
        self._planned.add(len(data))
        return results

    def _ran(self, data: Batch) -> Arrays:
        results: dict[str, npt.NDArray[np.float32]]
        try:
            if self._is_bound:
                binding, results = self._bound(len(data))
                binding.bind_input(
                    self._input_name, "cpu", 0, self.input_dtype, data.shape, data.ctypes.data
                )
                self._session.run_with_iobinding(binding)
            else:
                found = self._session.run(self.outputs, {self._input_name: data})
                return {
                    name: np.asarray(values).astype(np.float32)
                    for name, values in zip(self.outputs, found, strict=True)
                }
        except Exception as error:
            raise BackendError(
                said_by(error),
                context=f"{self.name} failed on {self._file}",
                fix="try --provider cpu, or export the bundle again",
            ) from error
        return {name: result.copy() for name, result in results.items()}

    def _bound(self, count: int) -> tuple[ort.IOBinding, dict[str, npt.NDArray[np.float32]]]:
        """Return a binding for so many images, and the arrays that it writes, allocated once."""
        if count not in self._bindings:
            binding = self._session.io_binding()
            results = {
                name: np.empty((count, *shape[1:]), np.float32)
                for name, (_, shape) in self._tensors[1].items()
            }
            for name, result in results.items():
                binding.bind_output(name, "cpu", 0, np.float32, result.shape, result.ctypes.data)
            self._bindings[count] = binding, results
        return self._bindings[count]

    def _release(self) -> None:
        self._session = None
        self._bindings.clear()


def is_cpu(provider: str) -> bool:
    """Whether a provider, by its short or its full name, is the CPU."""
    return _full_name(provider) == _CPU


def _full_name(provider: str) -> str:
    return _SHORT_NAMES.get(provider.lower(), provider)


def _opened_session(
    path: Path, model: str | bytes | None, provider: str, threads: int
) -> ort.InferenceSession:
    """Open a file on one provider (its full name) only; see `OnnxBackend`.

    The model is its content, or, with what lies beside it, its path; None is the content alone.
    """
    options = ort.SessionOptions()
    options.log_severity_level = _FATAL_ONLY
    options.intra_op_num_threads = threads
    # Threads that spin on after a run take the core on which the next frame is decoded.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if provider != _CPU:
        # Else nodes that the provider does not take would run on the CPU without a word.
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    # The CUDA provider would multiply float32 numbers as TF32, which has FP16's ten bits, unasked.
    configured = provider, {"use_tf32": "0"} if provider == _CUDA else {}
    try:
        if provider != _CPU and hasattr(ort, "preload_dlls"):
            # Wheels of CUDA lie where the system does not look for libraries. It prints each that
            # it does not find; the one that matters is in an error.
            with contextlib.redirect_stdout(io.StringIO()):
                ort.preload_dlls(directory="")
        # With its own fall-back on, ONNX Runtime would go on without the provider, and print.
        data = path.read_bytes() if model is None else model
        # While a provider loads, whose library may be missing, all logs are still.
        with contextlib.nullcontext() if provider == _CPU else _still_log():
            session = ort.InferenceSession(data, options, providers=[configured], enable_fallback=0)
        session.disable_fallback()
        session._model_bytes = None  # noqa: SLF001  # else kept for a fall-back that is off
    except Exception as error:
        # ONNX Runtime's exception classes share no base that can be imported.
        cause = cause_from_error(error) if provider != _CPU else None
        lacks_nodes = re.search("disable_cpu_ep_fallback|fallback to CPU", str(error)) is not None
        if cause is None and lacks_nodes:
            # The same words stand for a provider that is not there at all.
            cause = cause_from_library(provider, _LIBRARIES)
        if cause is not None:
            raise _did_not_load(provider, cause) from error
        if lacks_nodes:
            raise ProviderError(
                f"provider {provider} does not run all of {path.name}, and going on with the CPU "
                "unasked is refused: use another --precision, or --provider cpu"
            ) from error
        raise BackendError(
            said_by(error),
            context=f"ONNX Runtime cannot open {path}",
            fix="export the bundle again",
        ) from error
    loaded = session.get_providers()
    if loaded[0] != provider:
        raise _did_not_load(
            provider,
            cause_from_library(provider, _LIBRARIES)
            or Cause(f"ONNX Runtime took {sentence_list(loaded)}", "run motorvae-doctor"),
        )
    return session


@contextlib.contextmanager
def _still_log() -> Iterator[None]:
    """Keep what ONNX Runtime logs of no session off standard error, but for what is fatal."""
    ort.set_default_logger_severity(_FATAL_ONLY)
    try:
        yield
    finally:
        ort.set_default_logger_severity(2)  # warnings, its own default


def _tensors(found: Iterable[ort.NodeArg]) -> Tensors:
    return {t.name: (_DTYPES.get(t.type, t.type), tuple(t.shape)) for t in found}


def _did_not_load(provider: str, cause: Cause) -> ProviderError:
    return ProviderError(
        cause.clause,
        context=f"provider {provider} did not load",
        fix=f"{cause.step}, or use --provider cpu",
    )


def cause_from_library(provider: str, libraries: Path) -> Cause | None:
    """Load a provider's library as ONNX Runtime did, which only logs what the loader answers.

    None where the library loads or has no file of its own.
    """
    name = provider.removesuffix("ExecutionProvider").lower()
    path = libraries / f"libonnxruntime_providers_{name}.so"
    if not path.exists():
        return None
    try:
        ctypes.CDLL(str(path))
    except OSError as error:
        answer = " ".join(str(error).split())
    else:
        return None
    found = _MISSING.search(answer)
    if found is None:
        return Cause(f"{path.name} does not load ({without_private(answer)})", _WHEELS)
    if found[1].startswith("libcuda.so"):
        return Cause(f"there is no {found[1]}, which NVIDIA's driver brings", _DRIVER)
    step = _WHEELS if provider == _CUDA else f"install the package that has {found[1]}"
    return Cause(f"there is no {found[1]}, which {path.name} needs", step)


def cause_from_error(error: Exception) -> Cause | None:
    """Return the cause where CUDA, cuDNN or cuBLAS refused or a GPU's memory ran out, or None."""
    text = str(error)
    memory, failure = _MEMORY.search(text), _FAILURE.search(text)
    if failure is None:
        return Cause(memory[0], _FREE) if memory else None
    of_driver = failure[2] == "CUDA" and int(failure[3]) in _OF_DRIVER
    step = _FREE if memory else _DRIVER if of_driver else _BUILD
    return Cause(without_private(" ".join(failure[1].split())), step)


def said_by(error: Exception) -> str:
    """Return the message of an exception of ONNX Runtime in one line that names no host or user.

    Of a failure in CUDA that is its number and text; the rest are places in ONNX Runtime's source.
    """
    cause = cause_from_error(error)
    if cause is not None:
        return cause.clause
    lines = str(error).strip().splitlines()
    return without_private(lines[0][:400]) if lines else type(error).__name__
