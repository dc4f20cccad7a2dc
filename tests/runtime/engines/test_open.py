from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from motorvae.runtime.bundle.graph_key import GraphKey, Tensor
from motorvae.runtime.bundle.load import load_bundle
from motorvae.runtime.core.errors import BackendError, BundleError, ConfigError, ProviderError
from motorvae.runtime.engines.base import Backend
from motorvae.runtime.engines.open import EngineRequest, open_engine, open_file

FAKE_PACKAGE = "Metadata-Version: 2.1\nName: {}\nVersion: 1.20.0\n"
OPEN = """
import sys
from pathlib import Path
from motorvae.runtime.engines.open import EngineRequest, open_file
from motorvae.runtime.core.errors import MotorVAEError
try:
    open_file(Path(sys.argv[1]))
except MotorVAEError as error:
    print(f"{type(error).__name__}: {error}")
"""
WITHOUT_ORT = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "onnxruntime":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocker())
"""


@pytest.fixture(scope="module")
def inputs() -> npt.NDArray[np.float32]:
    return np.random.default_rng(0).random((5, 1, 32, 32), np.float32)


@pytest.fixture(params=["onnx", "openvino"])
def encoder(small_bundle: Path, request: pytest.FixtureRequest) -> Backend:
    """The same verbs and the same promises, whichever engine."""
    bundle = load_bundle(small_bundle)
    return open_engine(bundle, GraphKey("encoder"), EngineRequest(backend=request.param))


def test_it_gives_the_reference_latents(small_bundle: Path, encoder: Backend) -> None:
    """The bundle keeps images and torch's own float32 latents of them."""
    with np.load(small_bundle / "verification.npz") as kept, encoder:
        images = kept["images"][:, None] * np.float32(1 / 255)
        found = encoder.run(images)
        assert np.abs(found["mu"] - kept["mu"]).max() < 1e-4
        assert np.abs(found["log_var"] - kept["log_var"]).max() < 1e-4


def test_a_batch_is_its_images_one_by_one(
    encoder: Backend, inputs: npt.NDArray[np.float32]
) -> None:
    whole = encoder.run(inputs)
    single = [encoder.run(inputs[index : index + 1]) for index in range(len(inputs))]
    for name in ("mu", "log_var"):
        assert whole[name].shape == (5, 8)
        assert whole[name].dtype == np.float32
        parts = np.concatenate([one[name] for one in single])
        assert np.allclose(parts, whole[name], rtol=1e-5, atol=1e-6)


def test_the_same_input_gives_the_same_bytes(
    small_bundle: Path, inputs: npt.NDArray[np.float32]
) -> None:
    bundle = load_bundle(small_bundle)
    with (
        open_engine(bundle, GraphKey("encoder")) as one,
        open_engine(bundle, GraphKey("encoder")) as other,
    ):
        first = one.run(inputs)["mu"].tobytes()
        assert one.run(inputs)["mu"].tobytes() == first
        assert other.run(inputs)["mu"].tobytes() == first


def test_results_belong_to_the_caller(encoder: Backend, inputs: npt.NDArray[np.float32]) -> None:
    first = encoder.run(inputs)["mu"]
    kept = first.copy()
    encoder.run(1 - inputs)
    assert np.array_equal(first, kept)


def test_threads_share_a_backend(encoder: Backend) -> None:
    """Many rounds: without its lock every other one or so mixes results up."""
    images = np.random.default_rng(2).random((8, 1, 1, 32, 32), np.float32)
    want = [encoder.run(image)["mu"] for image in images]

    def run_all(start: int) -> bool:
        order = [(start + n) % 8 for n in range(100)]
        return all(np.allclose(encoder.run(images[n])["mu"], want[n], atol=1e-5) for n in order)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(run_all, range(8)))


def test_memory_order_does_not_matter(encoder: Backend, inputs: npt.NDArray[np.float32]) -> None:
    wide = np.repeat(inputs, 2, axis=3)[:, :, :, ::2]
    assert not wide.flags.c_contiguous
    assert np.array_equal(encoder.run(wide)["mu"], encoder.run(inputs)["mu"])


def test_fp16_keeps_a_float32_face(small_bundle: Path, inputs: npt.NDArray[np.float32]) -> None:
    bundle = load_bundle(small_bundle)
    with (
        open_engine(bundle, GraphKey("encoder", "fp16")) as half,
        open_engine(bundle, GraphKey("encoder")) as full,
    ):
        found, wanted = half.run(inputs)["mu"], full.run(inputs)["mu"]
        assert found.dtype == np.float32
        assert not np.array_equal(found, wanted)
        assert np.allclose(found, wanted, atol=0.05 * wanted.std())


def test_the_decoder_runs_too(small_bundle: Path) -> None:
    with open_engine(load_bundle(small_bundle), GraphKey("decoder")) as decoder:
        image = decoder.run(np.zeros((2, 8), np.float32))["reconstruction"]
    assert image.shape == (2, 1, 32, 32)
    assert image.min() >= 0
    assert image.max() <= 1


@pytest.mark.parametrize(
    "batch",
    [
        np.zeros((1, 1, 32, 32), np.float64),
        np.zeros((1, 1, 32, 32), np.uint8),
        np.zeros((1, 1, 64, 64), np.float32),
        np.zeros((1, 3, 32, 32), np.float32),
        np.zeros((1, 32, 32), np.float32),
        np.zeros((32, 32), np.float32),
        np.zeros((0, 1, 32, 32), np.float32),
        np.zeros((), np.float32),
    ],
)
def test_another_shape_or_dtype_is_refused_and_quoted(
    encoder: Backend, batch: npt.NDArray[np.generic]
) -> None:
    with pytest.raises(BackendError) as caught:
        encoder.run(batch)  # type: ignore[arg-type]
    assert f"was given {batch.dtype} {batch.shape}" in str(caught.value)
    assert "takes float32 (N, 1, 32, 32)" in str(caught.value)


def test_a_closed_backend_says_so(encoder: Backend, inputs: npt.NDArray[np.float32]) -> None:
    encoder.close()
    encoder.close()
    with pytest.raises(BackendError, match=r"encoder\.onnx was closed: open it again"):
        encoder.run(inputs)
    with pytest.raises(BackendError, match="was closed"):
        encoder.check_tensors((), ())


def test_announced_tensors_are_held_against_the_graph(encoder: Backend) -> None:
    wrong = Tensor(name="picture", dtype="float32", shape=("batch", 1, 32, 32))
    with pytest.raises(BackendError, match=r"'image'.*the manifest announces.*'picture'"):
        encoder.check_tensors((wrong,), ())


@pytest.mark.parametrize("threads", [0, -3, 10**12])
def test_threads_out_of_range(small_bundle: Path, threads: int) -> None:
    with pytest.raises(ConfigError, match=f"threads={threads} is out of range: take 1 to"):
        open_file(small_bundle / "encoder.onnx", EngineRequest(backend="onnx", threads=threads))


def test_threads_do_not_change_the_latents(
    small_bundle: Path, encoder: Backend, inputs: npt.NDArray[np.float32]
) -> None:
    one_thread = EngineRequest(backend="onnx", threads=1)
    with open_file(small_bundle / "encoder.onnx", one_thread) as single:
        assert np.allclose(single.run(inputs)["mu"], encoder.run(inputs)["mu"], atol=1e-6)


@pytest.mark.parametrize("provider", ["warp", "WarpExecutionProvider"])
def test_an_unknown_provider_is_an_error_with_those_there_are(
    small_bundle: Path, provider: str
) -> None:
    with pytest.raises(ProviderError) as caught:
        open_file(small_bundle / "encoder.onnx", EngineRequest(provider=provider))
    assert f"provider {provider!r} is not in this ONNX Runtime" in str(caught.value)
    assert "CPUExecutionProvider" in str(caught.value)


def test_cuda_is_never_replaced_by_the_cpu(
    small_bundle: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime is built with CUDA")
    with pytest.raises(ProviderError, match="provider 'cuda' is not in this ONNX Runtime"):
        open_file(small_bundle / "encoder.onnx", EngineRequest(provider="cuda"))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("provider", ["cpu", "CPU", "CPUExecutionProvider"])
def test_a_provider_has_a_short_and_a_full_name(small_bundle: Path, provider: str) -> None:
    with open_file(small_bundle / "encoder.onnx", EngineRequest(provider=provider)) as backend:
        assert backend.name.endswith("CPUExecutionProvider")
        assert backend.name.startswith("ONNX Runtime 1.")


def test_nothing_is_printed_when_a_file_is_no_graph(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"no protobuf")
    for name in ("bad.onnx", "gone.onnx"):
        with pytest.raises(BackendError, match=f"cannot open .*{name}"):
            open_file(tmp_path / name)
    assert capfd.readouterr() == ("", "")


def test_a_run_that_fails_is_not_repeated_elsewhere(small_bundle: Path) -> None:
    """ONNX Runtime would by itself go on with another provider, and print that it does."""
    with open_file(small_bundle / "encoder.onnx") as backend:
        assert backend._session._enable_fallback is False  # type: ignore[attr-defined]


def test_a_precision_that_is_absent(bundle_copy: Path, change_manifest: Callable) -> None:
    def drop(content: dict) -> None:
        content["graphs"] = [g for g in content["graphs"] if g["graph"] == "decoder"]

    change_manifest(bundle_copy, drop)
    for path in bundle_copy.glob("encoder.*"):
        path.unlink()
    with pytest.raises(BundleError, match=r"has no encoder fp32 .*: export it again"):
        open_engine(load_bundle(bundle_copy), GraphKey("encoder"))


def test_both_runtime_packages_at_once_are_refused(
    small_bundle: Path, tmp_path: Path, python: Callable
) -> None:
    for name in ("onnxruntime", "onnxruntime_gpu"):
        folder = tmp_path / f"{name}-1.20.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(FAKE_PACKAGE.format(name.replace("_", "-")))
    source = f"import sys; sys.path.append({str(tmp_path)!r})\n{OPEN}"
    done = python(source, small_bundle / "encoder.onnx")
    assert done.stderr == ""
    assert done.stdout.startswith(
        "MissingDependencyError: onnxruntime and onnxruntime-gpu are both installed"
    )
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in done.stdout


def test_no_runtime_package_is_an_error_with_the_command(
    small_bundle: Path, python: Callable
) -> None:
    done = python(WITHOUT_ORT + OPEN, small_bundle / "encoder.onnx")
    assert done.stderr == ""
    assert done.stdout.startswith("MissingDependencyError: running a model needs the package")
    assert "pip install 'motorvae[cpu]'" in done.stdout


def test_a_provider_that_would_leave_nodes_to_the_cpu_is_refused(small_bundle: Path) -> None:
    """The Azure provider loads everywhere and runs nothing itself."""
    import onnxruntime

    name = "AzureExecutionProvider"
    if name not in onnxruntime.get_available_providers():
        pytest.skip(f"this ONNX Runtime has no {name}")
    with pytest.raises(ProviderError, match=rf"provider {name} does not run all of encoder\.onnx"):
        open_file(small_bundle / "encoder.onnx", EngineRequest(provider=name))


@pytest.mark.parametrize("told", [False, True])
def test_onnx_runtime_leaves_no_device_id_and_no_report_of_what_runs(
    told: bool, tmp_path: Path
) -> None:
    """The first case shows that the second would be noticed, where this build has telemetry."""
    name = "motorvae.runtime.engines.onnx_runtime" if told else "onnxruntime"
    without = ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")
    environment = {key: value for key, value in os.environ.items() if key not in without}
    subprocess.run(
        [sys.executable, "-c", f"import {name}"],
        env=environment | {"HOME": str(tmp_path)},
        check=True,
        timeout=120,
    )
    found = [path for path in tmp_path.rglob("*") if path.is_file()]
    if told:
        assert found == []
    elif not found:
        pytest.skip("this ONNX Runtime writes nothing on import")
