"""Latents and a reconstruction of a picture, from a Triton server, over HTTP or gRPC.

    pip install motorvae "tritonclient[http,grpc]"
    python docs/examples/triton_client.py car.jpg [--grpc] [--url HOST:PORT] [--name motorvae]

Which model answers, and how a picture becomes its input, is read from the server: the export has
put both into the parameters of each model's configuration. With --weights, the sha256 that the
bundle's manifest has, a server that runs other weights is refused. --save keeps the results. Where
the bundle has no decoder, there are latents only.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

from motorvae.runtime.core.spec import ModelSpec
from motorvae.runtime.pixels.convert import batch_of, fitted_from_image, input_from_pixels

PORTS = {tritonclient.http: 8000, tritonclient.grpc: 8001}


class Remote:
    """A model of a server, and what the export says of it.

    Attributes:
        said: The parameters that begin with "motorvae.", without that.
        spec: How pictures become its input.
        dtype: Of its input: float32 in [0, 1], or uint8 levels.
        outputs: What it gives.
    """

    def __init__(self, api: Any, client: Any, name: str) -> None:
        self._api, self._client, self.name = api, client, name
        if api is tritonclient.http:
            config = client.get_model_config(name)
        else:
            config = client.get_model_config(name, as_json=True)["config"]
        said = {key: value["string_value"] for key, value in config["parameters"].items()}
        self.said = {
            key.removeprefix("motorvae."): text
            for key, text in said.items()
            if key.startswith("motorvae.")
        }
        self.version = config["version_policy"]["specific"]["versions"][0]
        self.spec = ModelSpec.model_validate_json(self.said["model"])
        self.dtype = {"TYPE_FP32": np.float32, "TYPE_UINT8": np.uint8}[
            config["input"][0]["data_type"]
        ]
        self.outputs = [one["name"] for one in config["output"]]

    def __call__(
        self, given: npt.NDArray[Any], *outputs: str, input_name: str = "image"
    ) -> list[npt.NDArray[np.float32]]:
        """Run a batch, (N, ...) float32 or uint8, and return these outputs, each (N, ...)."""
        kind = {"float32": "FP32", "uint8": "UINT8"}[given.dtype.name]
        taken = self._api.InferInput(input_name, given.shape, kind)
        taken.set_data_from_numpy(given)
        wanted = [self._api.InferRequestedOutput(name) for name in outputs]
        result = self._client.infer(
            self.name, [taken], model_version=str(self.version), outputs=wanted
        )
        return [result.as_numpy(name) for name in outputs]


def main() -> int:
    """Ask a server about one picture; return the exit code."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("picture", type=Path)
    parser.add_argument("--grpc", action="store_true")
    parser.add_argument("--url", help="HOST:PORT; by default localhost and Triton's own port")
    parser.add_argument("--name", default="motorvae", help="as --triton-name has it")
    parser.add_argument("--weights", help="sha256 of the weights that are to answer")
    parser.add_argument("--save", type=Path, help="an .npz file for mu, log_var, reconstruction")
    options = parser.parse_args()
    image = cv2.imread(str(options.picture))
    if image is None:
        print(f"{options.picture} cannot be read as a picture: name another", file=sys.stderr)
        return 1
    api = tritonclient.grpc if options.grpc else tritonclient.http
    url = options.url or f"localhost:{PORTS[api]}"
    try:
        with api.InferenceServerClient(url) as client:
            return ask(api, client, image, options)
    except (InferenceServerException, OSError) as error:
        print(f"{url}: {error}", file=sys.stderr)
        return 1


def model_of(api: Any, client: Any, name: str) -> Remote:
    """Return what reconstructs, or what encodes where the bundle has no decoder.

    An encoder takes float32, or uint8 levels where the bundle has no other one.
    """
    unknown: list[InferenceServerException] = []
    for form in ("reconstruct", "encoder", "encoder_luma"):
        try:
            return Remote(api, client, f"{name}_{form}")
        except InferenceServerException as error:  # noqa: PERF203  # three at most
            if "unknown model" not in str(error):
                raise
            unknown.append(error)
    raise unknown[0]


def ask(api: Any, client: Any, image: npt.NDArray[np.uint8], options: argparse.Namespace) -> int:
    """Encode and reconstruct an image, (H, W, 3) BGR, by an open client; return the exit code."""
    remote = model_of(api, client, options.name)
    found = remote.said["weights_sha256"]
    if options.weights not in {None, found}:
        print(f"{remote.name} has the weights {found}: serve others, or take these as they are")
        return 1
    levels = batch_of(fitted_from_image(image, remote.spec)[None])
    given = levels if remote.dtype == np.uint8 else input_from_pixels(levels)
    results = dict(zip(remote.outputs, remote(given, *remote.outputs), strict=True))
    print(f"{remote.name}, version {remote.version}: {remote.said['graph']}, weights {found[:12]}")
    for name, values in results.items():
        print(f"{name} {values.shape}: {values.min():.3f} to {values.max():.3f}")
    if options.save is not None:
        np.savez(options.save, **results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
