"""The client of docs/serving.md, held to what a real Triton replied.

tests/triton_server/record.py made the recording; make test-triton runs the client on the server.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from .exchange import grpc_server, http_server, meaning_of

ROOT = Path(__file__).parents[2]
CLIENT = ROOT / "docs" / "examples" / "triton_client.py"
RECORDED = json.loads(Path(__file__).with_name("triton_exchange.json").read_text("utf-8"))
LATENTS = ["mu", "log_var"]
NOT_RECORDED = b'{"error": "this request was not recorded"}'


def by_http(
    method: str, path: str, headers: dict[str, str], body: bytes
) -> tuple[int, dict[str, str], bytes]:
    """Reply what Triton replied to a request that means the same."""
    for one in RECORDED["http"]:
        known = meaning_of(one["headers"], base64.b64decode(one["body"]))
        if (method, path) == (one["method"], one["path"]) and meaning_of(headers, body) == known:
            return one["status"], one["reply_headers"], base64.b64decode(one["reply"])
    return 400, {"Content-Type": "application/json"}, NOT_RECORDED


def message_of(method: str, data: bytes) -> Any:
    kind = method.rpartition("/")[2]
    return getattr(service_pb2, f"{kind}Request").FromString(data)


def by_grpc(method: str, data: bytes) -> bytes:
    for one in RECORDED["grpc"]:
        known = base64.b64decode(one["message"])
        if method == one["method"] and message_of(method, data) == message_of(method, known):
            return base64.b64decode(one["reply"])
    raise LookupError("this call was not recorded")


@pytest.fixture(scope="module", params=["http", "grpc"])
def way(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    """The client's words for a server that replies what was recorded."""
    if request.param == "http":
        with http_server(by_http) as address:
            yield ["--url", address]
    else:
        with grpc_server(by_grpc) as address:
            yield ["--grpc", "--url", address]


def ask(picture: Path, *words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(CLIENT), str(picture), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "car.png"
    path.write_bytes(base64.b64decode(RECORDED["picture"]))
    return path


def test_its_results_are_those_of_the_runtime(
    way: list[str], picture: Path, tmp_path: Path
) -> None:
    saved = tmp_path / "found.npz"
    weights = RECORDED["weights_sha256"]
    done = ask(picture, *way, "--weights", weights, "--save", saved)
    assert done.returncode == 0, done.stderr
    first, mu, *_ = done.stdout.splitlines()
    assert first == f"motorvae_reconstruct, version 3: encoder fp32, weights {weights[:12]}"
    assert mu.startswith("mu (1, 8): ")
    with np.load(saved) as found:
        for name in ("mu", "log_var"):
            np.testing.assert_allclose(found[name][0], RECORDED[name], rtol=1e-4, atol=1e-5)
        levels = found["reconstruction"][0, 0] * 255
    assert np.abs(levels - RECORDED["levels"]).max() <= 0.51


def test_it_refuses_other_weights(way: list[str], picture: Path) -> None:
    done = ask(picture, *way, "--weights", "0" * 64)
    assert done.returncode == 1
    assert done.stdout == (
        f"motorvae_reconstruct has the weights {RECORDED['weights_sha256']}: serve others, or take "
        "these as they are\n"
    )


def test_what_the_server_refuses_is_one_line(way: list[str], picture: Path) -> None:
    done = ask(picture, *way, "--name", "nobody")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "not recorded" in done.stderr


def test_a_picture_that_is_none_is_one_line(way: list[str], tmp_path: Path) -> None:
    done = ask(tmp_path / "no.png", *way)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith("cannot be read as a picture: name another")


def alone(path: str) -> str:
    """What a recorded model is asked for as where there is an encoder and no decoder."""
    return path.replace("motorvae_reconstruct", "motorvae_encoder")


@pytest.fixture(scope="module", params=["http", "grpc"])
def encoder_alone(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    """As `way`, of a server that has no model which reconstructs.

    How it says so is in FindModelIdentifier of Triton's core (src/model_repository_manager.cc).
    """
    unknown = "Request for unknown model: 'motorvae_reconstruct' is not found"

    def http(
        method: str, path: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        if path == alone(path):
            ((found, said, reply),) = {
                (one["status"], tuple(one["reply_headers"].items()), base64.b64decode(one["reply"]))
                for one in RECORDED["http"]
                if (method, path) == (one["method"], alone(one["path"]))
            } or {(400, (), b'{"error": "no such path"}')}
            if path.endswith("/config"):
                config = json.loads(reply)
                config["output"] = [it for it in config["output"] if it["name"] in LATENTS]
                reply = json.dumps(config).encode()
            else:
                asked, _ = meaning_of(headers, body)
                assert [one["name"] for one in asked["outputs"]] == LATENTS
            return found, dict(said), reply
        return 400, {"Content-Type": "application/json"}, json.dumps({"error": unknown}).encode()

    def grpc(method: str, data: bytes) -> bytes:
        message = message_of(method, data)
        name = getattr(message, "name", "") or message.model_name
        if name != "motorvae_encoder":
            raise LookupError(unknown)
        (recorded,) = (one for one in RECORDED["grpc"] if one["method"] == method)
        reply = base64.b64decode(recorded["reply"])
        if method.endswith("/ModelConfig"):
            found = service_pb2.ModelConfigResponse.FromString(reply)
            kept = [one for one in found.config.output if one.name in LATENTS]
            del found.config.output[:]
            found.config.output.extend(kept)
            return bytes(found.SerializeToString())
        assert [one.name for one in message.outputs] == LATENTS
        return reply

    opened = http_server(http) if request.param == "http" else grpc_server(grpc)
    with opened as address:
        yield ["--url", address, *(["--grpc"] if request.param == "grpc" else [])]


def test_of_an_encoder_alone_there_are_latents(
    encoder_alone: list[str], picture: Path, tmp_path: Path
) -> None:
    saved = tmp_path / "found.npz"
    done = ask(picture, *encoder_alone, "--save", saved)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("motorvae_encoder, version 3: encoder fp32")
    with np.load(saved) as found:
        assert sorted(found) == sorted(LATENTS)
        np.testing.assert_allclose(found["mu"][0], RECORDED["mu"], rtol=1e-4, atol=1e-5)
