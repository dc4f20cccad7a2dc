"""What `--triton` writes on a real Triton: loaded, asked by the example, batched, replaced."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

import motorvae as mv
from motorvae.export.cli import main
from motorvae.runtime.bundle.graph_key import GraphKey
from motorvae.runtime.bundle.load import load_bundle
from motorvae.runtime.core.atomic_files import sha256_of
from motorvae.runtime.engines.open import EngineRequest, open_engine
from motorvae.runtime.pixels.convert import input_from_pixels

from .server import ROOT, NotServedError, Server, serving

CLIENT = ROOT / "docs" / "examples" / "triton_client.py"
SAME = {"rtol": 1e-4, "atol": 1e-5}
"""Two runs of one graph: another number of threads rounds otherwise."""


def written(bundle: Path, folder: Path, *words: object) -> Path:
    assert main(["--model", str(bundle), "--triton", str(folder), *map(str, words)]) == 0
    return folder


@pytest.fixture(scope="module")
def server(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One that serves the bundle twice: by ONNX Runtime in float32, by OpenVINO as version 7."""
    folder = tmp_path_factory.mktemp("served")
    openvino = ("--triton-name", "ov", "--triton-platform", "openvino", "--triton-version", 7)
    onnx = ("--triton-batch", 2)  # each size is warmed up
    repositories = [written(bundle, folder / "a", *onnx), written(bundle, folder / "b", *openvino)]
    with serving(repositories, folder / "backends") as found:
        yield found


def ask(server: Server, picture: Path, *words: str) -> subprocess.CompletedProcess[str]:
    url = server.grpc if "--grpc" in words else server.http
    command = [sys.executable, str(CLIENT), str(picture), "--url", url, *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_every_model_of_both_repositories_is_ready(server: Server) -> None:
    with tritonclient.http.InferenceServerClient(server.http) as client:
        found = {one["name"]: one for one in client.get_model_repository_index()}
    forms = ("encoder", "encoder_mu", "encoder_bgr", "decoder", "reconstruct", "reconstruct_bgr")
    assert set(found) == {f"{name}_{form}" for name in ("motorvae", "ov") for form in forms}
    assert {one["state"] for one in found.values()} == {"READY"}
    versions = {name.partition("_")[0]: one["version"] for name, one in found.items()}
    assert versions == {"motorvae": "1", "ov": "7"}


@pytest.mark.parametrize("name", ["motorvae", "ov"])
@pytest.mark.parametrize("way", [(), ("--grpc",)], ids=["http", "grpc"])
def test_the_examples_latents_are_the_runtimes_own(
    server: Server, bundle: Path, picture: Path, tmp_path: Path, name: str, way: tuple[str, ...]
) -> None:
    saved = tmp_path / "found.npz"
    found = mv.load(bundle)
    words = (*way, "--name", name, "--weights", found.weights_sha256, "--save", str(saved))
    done = ask(server, picture, *words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{name}_reconstruct, version {1 if name == 'motorvae' else 7}")
    backend: Any = "onnx" if name == "motorvae" else "openvino"
    with found.encoder(precision="fp32", backend=backend) as encode:
        latent = encode(picture)
    with found.decoder(precision="fp32", backend=backend) as decode:
        expected = decode(latent.mu)
    with np.load(saved) as results:
        np.testing.assert_allclose(results["mu"][0], latent.mu, **SAME)
        np.testing.assert_allclose(results["log_var"][0], latent.log_var, **SAME)
        levels = results["reconstruction"][0, 0] * 255
    assert np.abs(levels - expected).max() <= 0.51


def test_other_weights_are_refused_and_a_server_that_is_not_there_is_one_line(
    server: Server, picture: Path
) -> None:
    done = ask(server, picture, "--weights", "0" * 64)
    assert done.returncode == 1
    assert done.stdout.startswith("motorvae_reconstruct has the weights abab")
    for way in ((), ("--grpc",)):
        done = ask(server, picture, "--name", "nobody", *way)
        assert done.returncode == 1
        assert "nobody_reconstruct" in done.stderr
        assert "Traceback" not in done.stderr


def test_a_whole_frame_goes_in_and_latent_and_picture_come_out(
    server: Server, bundle: Path, picture: Path
) -> None:
    frame = cv2.imread(str(picture))
    taken = tritonclient.http.InferInput("frame", (1, 48, 64, 3), "UINT8")
    taken.set_data_from_numpy(frame[None])
    key = GraphKey("encoder", "fp32", "bgr")
    with open_engine(load_bundle(bundle), key, EngineRequest(backend="onnx")) as engine:
        expected = engine.run(frame[None])["mu"]
    with tritonclient.http.InferenceServerClient(server.http) as client:
        for model in ("motorvae_encoder_bgr", "motorvae_reconstruct_bgr"):
            np.testing.assert_allclose(
                client.infer(model, [taken]).as_numpy("mu"), expected, **SAME
            )


def test_a_client_without_our_code_needs_json_alone(
    server: Server, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The block of docs/serving.md, with this server's address and this model's size."""
    page = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"(?ms)^```python\n(.*?)^```", page)
    changes = {"localhost:8000": server.http, "256, 256": "32, 32"}
    for old, new in changes.items():
        assert old in block
        block = block.replace(old, new)
    exec(compile(block, "serving.md", "exec"), {})  # noqa: S102
    grey = np.full((1, 32, 32), 128, np.uint8)
    with open_engine(
        load_bundle(bundle), GraphKey("encoder", "fp32"), EngineRequest(backend="onnx")
    ) as engine:
        expected = engine.run(input_from_pixels(grey))["mu"][0, :4]
    np.testing.assert_allclose(ast.literal_eval(capsys.readouterr().out), expected, **SAME)


def test_the_server_says_what_it_was_given(server: Server, bundle: Path) -> None:
    with tritonclient.http.InferenceServerClient(server.http) as client:
        config = client.get_model_config("motorvae_encoder")
        said = config["parameters"]["motorvae.manifest_sha256"]["string_value"]
        assert said == sha256_of(bundle / "manifest.json")
        assert config["max_batch_size"] == 2
        facts = client.get_model_metadata("motorvae_encoder")
        assert facts["inputs"] == [{"name": "image", "datatype": "FP32", "shape": [-1, 1, 32, 32]}]


def counts_of(client: Any, model: str) -> tuple[int, int]:
    """How many images a model was given so far, and in how many runs."""
    (facts,) = client.get_inference_statistics(model)["model_stats"]
    return facts["inference_count"], facts["execution_count"]


def test_requests_that_wait_are_run_together(bundle: Path, tmp_path: Path) -> None:
    """Four at once, within two seconds, fill a batch of four."""
    words = ("--triton-batch", 4, "--triton-delay-us", 2_000_000)
    folder = written(bundle, tmp_path / "models", *words)
    images = np.random.default_rng(2).random((4, 1, 1, 32, 32), np.float32)
    with (
        serving([folder], tmp_path / "backends") as server,
        tritonclient.http.InferenceServerClient(server.http, concurrency=4) as client,
    ):
        before = counts_of(client, "motorvae_encoder")  # the warm-up's
        pending = []
        for image in images:
            taken = tritonclient.http.InferInput("image", image.shape, "FP32")
            taken.set_data_from_numpy(image)
            pending.append(client.async_infer("motorvae_encoder", [taken]))
        found = np.concatenate([one.get_result().as_numpy("mu") for one in pending])
        after = counts_of(client, "motorvae_encoder")
    assert [now - then for now, then in zip(after, before, strict=True)] == [4, 1]
    with open_engine(
        load_bundle(bundle), GraphKey("encoder", "fp32"), EngineRequest(backend="onnx")
    ) as engine:
        np.testing.assert_allclose(found, engine.run(images[:, 0])["mu"], **SAME)


def test_a_repository_is_replaced_while_it_is_served(bundle: Path, tmp_path: Path) -> None:
    folder = written(bundle, tmp_path / "models", "--triton-device", "cpu")
    explicit = ("--model-control-mode=explicit", "--load-model=motorvae_encoder_mu")
    with (
        serving([folder], tmp_path / "backends", *explicit) as server,
        tritonclient.grpc.InferenceServerClient(server.grpc) as client,
    ):
        assert client.is_model_ready("motorvae_encoder_mu", "1")
        written(bundle, folder, "--triton-version", 2)
        assert client.is_model_ready("motorvae_encoder_mu", "1")  # until it is told
        client.load_model("motorvae_encoder_mu")
        assert client.is_model_ready("motorvae_encoder_mu", "2")
        assert not client.is_model_ready("motorvae_encoder_mu", "1")


def in_config(model: str, old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / f"motorvae_{model}" / "config.pbtxt"
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new, 1), encoding="utf-8")

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (in_config("reconstruct", "dims: [8]", "dims: [9]"), "inconsistent shape"),
        (in_config("reconstruct", "model_version: 1", "model_version: 2"), "reconstruct"),
        (in_config("encoder", "max_batch_size: 16", "max_batch: 16"), "max_batch"),
        (in_config("decoder", "TYPE_FP32 dims: [8]", "TYPE_FP32 dims: [9]"), "motorvae_decoder"),
        (in_config("encoder", "versions: [1]", "versions: [3]"), "motorvae_encoder"),
    ],
)
def test_a_planted_fault_keeps_the_server_from_starting(
    bundle: Path, tmp_path: Path, change: Callable[[Path], None], said: str
) -> None:
    """So that READY says something."""
    folder = written(bundle, tmp_path / "models", "--triton-device", "cpu")
    shutil.rmtree(folder / "motorvae_reconstruct_bgr")
    change(folder)
    with pytest.raises(NotServedError) as caught, serving([folder], tmp_path / "backends"):
        pass
    assert re.search(said, str(caught.value))


def test_a_request_of_another_shape_is_refused_by_the_server(server: Server) -> None:
    taken = tritonclient.http.InferInput("image", (1, 1, 32, 31), "FP32")
    taken.set_data_from_numpy(np.zeros((1, 1, 32, 31), np.float32))
    with (
        tritonclient.http.InferenceServerClient(server.http) as client,
        pytest.raises(InferenceServerException, match=r"unexpected shape.*\[-1,1,32,32\]"),
    ):
        client.infer("motorvae_encoder", [taken])
