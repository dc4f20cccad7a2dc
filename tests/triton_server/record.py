"""Record what docs/examples/triton_client.py and a real Triton say to one another.

    python -m tests.triton_server.record

It writes tests/docs/triton_exchange.json, which tests/docs/test_triton_client.py replays: requests
and replies of both protocols, the picture, and the latents that the runtime gives for it.
"""

from __future__ import annotations

import base64
import http.client
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import cv2
import grpc
import numpy as np

import motorvae as mv
from motorvae.export.cli import main as export
from motorvae.runtime.core.spec import ModelSpec
from motorvae.runtime.sources.synthetic.vehicles import vehicle

from ..conftest import _bundle
from ..docs.exchange import HEADER_LENGTH, grpc_server, http_server
from .server import ROOT, WHEEL, serving

TARGET = ROOT / "tests" / "docs" / "triton_exchange.json"
CLIENT = ROOT / "docs" / "examples" / "triton_client.py"
SPEC = ModelSpec(image_size=32, channels=(4, 8, 8, 16, 16), latent_size=8, fit="crop")
KEPT = {"content-type", HEADER_LENGTH.lower()}


def text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def main() -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle = _bundle(folder, SPEC, [], image_count=24)
        words = ("--triton-device", "cpu", "--triton-version", "3")
        assert export(["--model", str(bundle), "--triton", str(folder / "models"), *words]) == 0
        picture = folder / "car.png"
        grey = vehicle(9, 1, 64)[0][:48]
        cv2.imwrite(str(picture), cv2.merge([grey, 255 - grey, grey // 2]))
        with mv.load(bundle).encoder(precision="fp32", backend="onnx") as encode:
            latent = encode(picture)
        with mv.load(bundle).decoder(precision="fp32", backend="onnx") as decode:
            levels = decode(latent.mu)
        recorded: dict[str, Any] = {
            "server": f"tritonserver of {WHEEL}, by {Path(__file__).relative_to(ROOT).as_posix()}",
            "weights_sha256": mv.load(bundle).weights_sha256,
            "picture": text(picture.read_bytes()),
            "mu": np.asarray(latent.mu, float).tolist(),
            "log_var": np.asarray(latent.log_var, float).tolist(),
            "levels": levels.tolist(),
        }
        with serving([folder / "models"], folder / "backends") as server:
            recorded |= _exchanged(server.http, server.grpc, picture)
    TARGET.write_text(json.dumps(recorded, indent=1) + "\n", encoding="utf-8")
    print(TARGET.relative_to(ROOT), TARGET.stat().st_size, "bytes")
    return 0


def _exchanged(http_address: str, grpc_address: str, picture: Path) -> dict[str, Any]:
    """Let the client run once by each protocol, through us."""
    by_http: list[dict[str, Any]] = []
    by_grpc: list[dict[str, Any]] = []

    def forward(
        method: str, path: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(http_address)
        connection.request(method, path, body, headers)
        found = connection.getresponse()
        reply = found.read()
        connection.close()
        said = {name: value for name, value in found.getheaders() if name.lower() in KEPT}
        by_http.append(
            {
                "method": method,
                "path": path,
                "headers": {one: it for one, it in headers.items() if one.lower() in KEPT},
                "body": text(body),
                "status": found.status,
                "reply_headers": said,
                "reply": text(reply),
            }
        )
        return found.status, said, reply

    with grpc.insecure_channel(grpc_address) as channel:

        def call(method: str, message: bytes) -> bytes:
            reply: bytes = channel.unary_unary(method)(message)
            by_grpc.append({"method": method, "message": text(message), "reply": text(reply)})
            return reply

        with http_server(forward) as one, grpc_server(call) as other:
            for words in (("--url", one), ("--grpc", "--url", other)):
                command = [sys.executable, str(CLIENT), str(picture), *words]
                subprocess.run(command, check=True)
    return {"http": by_http, "grpc": by_grpc}


if __name__ == "__main__":
    sys.exit(main())
