from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from motorvae.runtime.bundle.graph_key import GraphKey
from motorvae.runtime.bundle.load import load_bundle
from motorvae.runtime.cli import stream_main
from motorvae.runtime.core.atomic_files import sha256_of
from motorvae.runtime.core.errors import BackendError, ConfigError
from motorvae.runtime.core.row import Row
from motorvae.runtime.engines.base import Arrays, Backend, Batch
from motorvae.runtime.engines.open import open_engine
from motorvae.runtime.stream.encode_loop import Reconstruction
from motorvae.runtime.stream.options import StreamOptions, check_stream_options


@pytest.fixture
def decoder(small_bundle: Path) -> Iterator[Backend]:
    with open_engine(load_bundle(small_bundle), GraphKey("decoder")) as backend:
        yield backend


def row_of(index: int) -> Row:
    mu = np.random.default_rng(index).normal(size=8).astype(np.float32)
    return Row(index=index, captured_ns=1, age_ms=1.0, dropped=0, status="ok", mu=mu)


def luma_of(index: int) -> np.ndarray:
    return np.random.default_rng(100 + index).integers(0, 256, (32, 32), np.uint8)


def test_the_error_is_that_of_the_decoded_image(decoder: Backend) -> None:
    row, luma = row_of(0), luma_of(0)
    Reconstruction(decoder, 1, 8, None, pictures=True).complete(row, luma)
    assert row.mu is not None
    image = decoder.run(row.mu[None])["reconstruction"][0, 0].astype(np.float64)
    wanted = np.mean((luma / 255 - image) ** 2)
    assert row.reconstruction_error == pytest.approx(wanted, rel=1e-5)
    assert row.decode_ms is not None
    assert row.reconstruction is not None
    assert np.array_equal(row.reconstruction, image.astype(np.float32))


@pytest.mark.parametrize("every", [1, 3, 7])
def test_every_nth_latent_is_decoded_the_first_among_them(decoder: Backend, every: int) -> None:
    reconstruction = Reconstruction(decoder, every, 8, None, pictures=False)
    decoded = []
    for index in range(15):
        row = row_of(index)
        reconstruction.complete(row, luma_of(index))
        if row.reconstruction_error is not None:
            decoded.append(index)
        assert (row.decode_ms is None) == (row.reconstruction_error is None)
        assert row.reconstruction is None
    assert decoded == list(range(0, 15, every))


def test_every_camera_gets_its_share(decoder: Backend) -> None:
    """Two cameras take turns, and every second latent of each is decoded."""
    reconstruction = Reconstruction(decoder, 2, 8, None, pictures=False)
    decoded = {"left": 0, "right": 0}
    for index in range(20):
        row = row_of(index)
        row.camera = "left" if index % 2 else "right"
        reconstruction.complete(row, luma_of(index))
        decoded[row.camera] += row.reconstruction_error is not None
    assert decoded == {"left": 5, "right": 5}


@pytest.mark.parametrize(("text", "every"), [("every=1", 1), ("every=250", 250)])
def test_how_often_is_read_from_every_n(text: str, every: int) -> None:
    assert StreamOptions(reconstruct=text).every() == every


@pytest.mark.parametrize("text", ["", "10", "every=", "every=0", "every=-1", "every=1.5", "n=3"])
def test_anything_else_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--reconstruct .*write every=N .*such as every=10"):
        check_stream_options(StreamOptions(camera=("0",), reconstruct=text))


def put_nan_into_decoder(bundle: Path) -> None:
    """Alter a bundle's decoder: its image is NaN, and the manifest knows the file."""
    import onnx_ir as ir

    path = bundle / "decoder.onnx"
    model = ir.load(path)
    bias = next(node for node in model.graph if node.op_type == "Conv").inputs[2]
    assert bias is not None
    bias.const_value = ir.tensor(np.full(1, np.nan, np.float32), name=bias.name)
    ir.save(model, path)
    manifest = bundle / "manifest.json"
    content = json.loads(manifest.read_text(encoding="utf-8"))
    for entry in content["graphs"]:
        if entry["file"] == path.name:
            entry["sha256"], entry["size_bytes"] = sha256_of(path), path.stat().st_size
    # The decoder's leaner forms would be taken instead.
    for leaner in bundle.glob("decoder.*.onnx"):
        leaner.unlink()
    content["graphs"] = [
        entry
        for entry in content["graphs"]
        if entry["graph"] == "encoder" or entry["file"] == path.name
    ]
    manifest.write_text(json.dumps(content), encoding="utf-8")


def test_a_decoder_that_gives_nan_ends_the_stream_with_the_frame_and_the_next_step(
    bundle_copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put_nan_into_decoder(bundle_copy)
    rows = tmp_path / "rows.jsonl"
    args = [
        "--camera",
        "synthetic?frames=5&size=64",
        "--model",
        str(bundle_copy),
        "--output",
        str(rows),
    ]
    args += ["--backend", "onnx"]
    assert stream_main(args) == 0
    assert stream_main([*args, "--reconstruct", "every=3"]) == 1
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.fullmatch(
        r"motorvae-stream: the reconstruction of frame 0 of \S+ is not finite: export the bundle "
        r"again and read its verification, or stream without --reconstruct",
        last,
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_pixel_that_is_not_finite_is_refused(
    decoder: Backend, value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = decoder.run

    def holed(batch: Batch) -> Arrays:
        found = whole(batch)
        found["reconstruction"][0, 0, 3, 5] = value
        return found

    monkeypatch.setattr(decoder, "run", holed)
    row = row_of(7)
    row.camera = "cam0"
    with pytest.raises(BackendError, match="reconstruction of frame 7 of cam0 is not finite"):
        Reconstruction(decoder, 1, 8, None, pictures=True).complete(row, luma_of(0))
    assert row.reconstruction_error is None
    assert row.reconstruction is None
