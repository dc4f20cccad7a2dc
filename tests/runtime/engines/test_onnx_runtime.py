from __future__ import annotations

import shutil
import subprocess
import warnings
from pathlib import Path

import numpy as np
import pytest

from motorvae.runtime.core.errors import BackendError, ProviderError
from motorvae.runtime.engines import onnx_runtime as backend_onnx
from motorvae.runtime.engines.onnx_runtime import cause_from_error, cause_from_library, said_by
from motorvae.runtime.engines.open import EngineRequest, open_file

CUDA = "CUDAExecutionProvider"
WITHOUT_DRIVER = (
    "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Exception during initialization: "
    "/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_call.cc:129 std::conditional_t<THRW, "
    "void, onnxruntime::common::Status> onnxruntime::CudaCall(ERRTYPE, const char*, const char*, "
    "SUCCTYPE, const char*, const char*, int) [with ERRTYPE = cudaError; bool THRW = true] \n"
    "CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version ; GPU=0 ; "
    "hostname=box7 ; file=/onnxruntime_src/onnxruntime/core/providers/cuda/"
    "cuda_execution_provider.cc ; line=66 ; expr=cudaSetDevice(info_.device_id); \n"
)


def library_that_needs(needed: str, folder: Path) -> Path:
    """Build a provider's library that needs another one, and take that one away."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("building a library needs a C compiler")
    absent, library = folder / needed, folder / "libonnxruntime_providers_cuda.so"
    for source, target, links in (("absent", absent, []), ("provider", library, [absent])):
        code = f"int {source}(void) {{ return 1; }}\n"
        (folder / "code.c").write_text(code, encoding="utf-8")
        flags = ["-shared", "-fPIC", "-Wl,--no-as-needed", f"-Wl,-soname,{target.name}"]
        command = [compiler, *flags, "-o", target, folder / "code.c", *links]
        subprocess.run(command, check=True)
    absent.unlink()
    return library


@pytest.mark.parametrize(
    ("needed", "clause", "step"),
    [
        (
            "libcublasLt.so.99",
            "there is no libcublasLt.so.99, which libonnxruntime_providers_cuda.so needs",
            "pip install 'onnxruntime-gpu[cuda,cudnn]'",
        ),
        (
            "libcuda.so.99",
            "there is no libcuda.so.99, which NVIDIA's driver brings",
            "install NVIDIA's driver (nvidia-smi shows whether it works)",
        ),
    ],
)
def test_a_missing_library_is_named_with_what_brings_it(
    needed: str, clause: str, step: str, tmp_path: Path
) -> None:
    library_that_needs(needed, tmp_path)
    cause = cause_from_library(CUDA, tmp_path)
    assert cause is not None
    assert (cause.clause, cause.step) == (clause, step)


def test_a_library_that_loads_or_is_not_there_is_no_cause(tmp_path: Path) -> None:
    assert cause_from_library(CUDA, tmp_path) is None
    library = library_that_needs("libneeded.so.1", tmp_path)
    assert cause_from_library(CUDA, tmp_path) is not None
    (tmp_path / "code.c").write_text("int whole(void) { return 1; }\n", encoding="utf-8")
    compiler = shutil.which("cc") or shutil.which("gcc") or ""
    command = [compiler, "-shared", "-fPIC", "-o", library, tmp_path / "code.c"]
    library.unlink()
    subprocess.run(command, check=True)
    assert cause_from_library(CUDA, tmp_path) is None


def test_a_file_that_is_no_library_is_told(tmp_path: Path) -> None:
    (tmp_path / "libonnxruntime_providers_cuda.so").write_bytes(b"not a library")
    cause = cause_from_library(CUDA, tmp_path)
    assert cause is not None
    assert cause.clause.startswith("libonnxruntime_providers_cuda.so does not load (")


def test_a_failure_of_cuda_is_its_number_and_text() -> None:
    error = RuntimeError(WITHOUT_DRIVER)
    wanted = "CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version"
    cause = cause_from_error(error)
    assert cause is not None
    assert cause.clause == said_by(error) == wanted
    assert "nvidia-smi" in cause.step


@pytest.mark.parametrize(
    ("said", "step"),
    [
        ("CUDA failure 2: out of memory", "free memory on the GPU"),
        ("CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED", "free memory on the GPU"),
        ("CUDA failure 209: no kernel image is available", "built for this GPU and CUDA"),
        ("CUDA failure 100: no CUDA-capable device is detected", "install NVIDIA's driver"),
    ],
)
def test_only_what_is_of_the_driver_asks_for_one(said: str, step: str) -> None:
    code, _, text = WITHOUT_DRIVER.partition("CUDA failure 35: ")
    cause = cause_from_error(RuntimeError(f"{code}{said}{text[text.index(' ; GPU=') :]}"))
    assert cause is not None
    assert cause.clause == said
    assert step in cause.step
    assert ("driver" in step) is ("driver" in cause.step)


def test_an_arena_that_is_full_asks_for_memory() -> None:
    said = "Failed to allocate memory for requested buffer of size 67108864"
    error = RuntimeError(
        "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Exception during initialization: "
        f"/onnxruntime_src/bfc_arena.cc:376 void* AllocateRawInternal(size_t, bool) {said}\n"
    )
    cause = cause_from_error(error)
    assert cause is not None
    assert cause.clause == said
    assert "free memory on the GPU" in cause.step


def test_any_other_error_is_its_first_line_without_the_host() -> None:
    error = RuntimeError("[ONNXRuntimeError] : 1 : FAIL : hostname=box7 said no\nand more")
    assert cause_from_error(error) is None
    assert said_by(error) == "[ONNXRuntimeError] : 1 : FAIL : hostname=... said no"
    assert said_by(RuntimeError()) == "RuntimeError"


def test_a_cuda_provider_that_does_not_load_says_why_in_one_line(
    small_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime itself goes on without the provider and calls that a fall-back to the CPU."""
    if CUDA in backend_onnx.ort.get_available_providers():
        pytest.skip("this ONNX Runtime has a CUDA provider of its own")
    library_that_needs("libcudnn.so.99", tmp_path)
    monkeypatch.setattr(backend_onnx.ort, "get_available_providers", lambda: [CUDA, "CPU"])
    monkeypatch.setattr(backend_onnx, "_LIBRARIES", tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ONNX Runtime's own, of a provider that it has not
        with pytest.raises(ProviderError) as refused:
            open_file(small_bundle / "encoder.onnx", EngineRequest(provider="cuda"))
    assert str(refused.value) == (
        "provider CUDAExecutionProvider did not load: there is no libcudnn.so.99, which "
        "libonnxruntime_providers_cuda.so needs; pip install 'onnxruntime-gpu[cuda,cudnn]', or "
        "use --provider cpu"
    )
    assert refused.value.clause().startswith("there is no libcudnn.so.99")


@pytest.mark.parametrize(
    ("provider", "options"), [("cuda", {"use_tf32": "0"}), ("cpu", {}), ("tensorrt", {})]
)
def test_cuda_is_told_not_to_round_float32_to_tf32(
    provider: str,
    options: dict[str, str],
    small_bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What ONNX Runtime is given, at its own door: no machine without a GPU shows the rounding."""
    asked = []

    class Door:
        def __init__(self, *_: object, providers: list[tuple[str, dict[str, str]]], **__: object):
            asked.append(providers)
            raise RuntimeError("no further")

    names = backend_onnx._SHORT_NAMES
    monkeypatch.setattr(backend_onnx.ort, "get_available_providers", lambda: [*names.values()])
    monkeypatch.setattr(backend_onnx.ort, "InferenceSession", Door)
    with pytest.raises(BackendError):
        open_file(small_bundle / "encoder.onnx", EngineRequest(provider=provider))
    assert asked == [[(names[provider], options)]]


def test_what_cuda_logs_at_the_first_run_of_a_size_is_not_printed(
    small_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """145 lines of `No execution plans support the graph` on an H200, and none of it an error."""
    levels: list[int] = []
    graph = small_bundle / "encoder.onnx"
    with backend_onnx.OnnxBackend(graph, graph.read_bytes(), threads=1) as engine:
        monkeypatch.setattr(backend_onnx.ort, "set_default_logger_severity", levels.append)
        one, two = (np.zeros((count, *engine.image_shape), np.float32) for count in (1, 2))
        engine.run(one)
        assert levels == []
        monkeypatch.setattr(engine, "_is_cpu", False)
        for batch in (one, two, one, two):
            engine.run(batch)
        assert levels == [4, 2] * 2
        monkeypatch.setattr(engine, "_ran", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            engine.run(np.zeros((3, *one.shape[1:]), np.float32))
    assert levels == [4, 2] * 3
