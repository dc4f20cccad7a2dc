from __future__ import annotations

import os
import pty
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from motorvae.runtime.bundle.graph_key import GraphKey
from motorvae.runtime.bundle.load import load_bundle
from motorvae.runtime.core.errors import BackendError, ConfigError, DataError, OutputError
from motorvae.runtime.core.spec import ModelSpec
from motorvae.runtime.engines.base import Backend
from motorvae.runtime.engines.open import EngineRequest, open_engine
from motorvae.runtime.pixels.convert import fitted, input_from_pixels, luma_from_image
from motorvae.runtime.pixels.files.image_files import luma_from_file
from motorvae.runtime.sources.open import open_source
from motorvae.runtime.stream.batch_encode import check_encoding, encode_source, opened_data


@pytest.fixture
def encoder(small_bundle: Path) -> Iterator[Backend]:
    with open_engine(load_bundle(small_bundle), GraphKey("encoder")) as backend:
        yield backend


@pytest.mark.parametrize("batch_size", [1, 5, 12, 64])
def test_rows_are_the_images_in_order_whatever_the_batch(
    image_folder: Path, encoder: Backend, small_spec: ModelSpec, tmp_path: Path, batch_size: int
) -> None:
    ticks: list[None] = []
    encoded = encode_source(
        open_source(str(image_folder)),
        encoder,
        small_spec,
        batch_size=batch_size,
        progress=lambda: ticks.append(None),
    )
    encoded.save(tmp_path / "latents.npz")
    with np.load(tmp_path / "latents.npz", allow_pickle=False) as saved:
        assert set(saved) == {"names", "mu", "log_var", "latent_shape"}
        assert saved["latent_shape"].tolist() == [8]
        names, mu, log_var = saved["names"], saved["mu"], saved["log_var"]
    assert names.tolist() == [f"frame{index}.png" for index in range(12)]
    assert mu.shape == log_var.shape == (12, 8)
    assert mu.dtype == log_var.dtype == np.float32
    assert len(ticks) == 12
    for name, row in zip(names, mu, strict=True):
        image = luma_from_file(image_folder / str(name))
        alone = encoder.run(
            input_from_pixels(fitted(luma_from_image(image), small_spec))[None, None]
        )["mu"][0]
        assert np.allclose(row, alone, rtol=1e-5, atol=1e-6)


def test_an_image_that_the_crop_box_takes_nothing_of_has_no_row(
    image_folder: Path, encoder: Backend, small_spec: ModelSpec
) -> None:
    cv2.imwrite(str(image_folder / "frame5.png"), np.zeros((4, 4), np.uint8))
    spec = small_spec.model_copy(update={"crop_box": (5, 0, -1, 0)})
    encoded = encode_source(open_source(str(image_folder)), encoder, spec, batch_size=4)
    assert len(encoded.names) == len(encoded.mu) == 11
    (gap,) = encoded.gaps
    assert (gap.name, gap.index) == ("frame5.png", 5)
    assert gap.reason == "the crop box (5, 0, -1, 0) takes nothing of 4 x 4 pixels"


@pytest.mark.parametrize("batch_size", [0, -1, 10**9])
def test_a_batch_out_of_range(batch_size: int) -> None:
    with pytest.raises(ConfigError, match=f"batch_size={batch_size} is out of range: take 1 to"):
        check_encoding(batch_size, None)


def test_a_live_source_has_no_end(small_bundle: Path) -> None:
    bundle = load_bundle(small_bundle)
    with (
        pytest.raises(ConfigError, match="synthetic is live and has no end: use motorvae-stream"),
        opened_data(bundle, "synthetic", EngineRequest()),
    ):
        pass


def test_nothing_that_decodes_is_an_error_with_the_first_reason(
    encoder: Backend, small_spec: ModelSpec, tmp_path: Path
) -> None:
    (tmp_path / "bad.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"nothing in .* decodes \(first: cannot decode .*bad\.png"):
        encode_source(open_source(str(tmp_path)), encoder, small_spec, batch_size=4)


def test_a_latent_that_is_not_finite_is_named(
    image_folder: Path, encoder: Backend, small_spec: ModelSpec
) -> None:
    class Broken:
        input_dtype = np.dtype(np.float32)

        def run(self, batch: np.ndarray) -> dict[str, np.ndarray]:
            found = {name: values.copy() for name, values in encoder.run(batch).items()}
            found["log_var"][1, 0] = np.inf
            return found

    with pytest.raises(BackendError, match=r"the latent of frame1\.png is not finite"):
        encode_source(open_source(str(image_folder)), Broken(), small_spec, batch_size=4)  # type: ignore[arg-type]


def test_the_command_writes_a_folder(
    encode: Callable[..., Any], image_folder: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out" / "latents.npz"
    done = encode(image_folder, "--output", output)
    assert done.code == 0
    assert f"12 latents of {image_folder} in {output}" in done.stderr
    assert done.stdout == ""
    with np.load(output) as saved:
        assert len(saved["mu"]) == 12


def test_the_command_writes_a_video_named_by_frame(
    encode: Callable[..., Any], clips: dict[str, Path], tmp_path: Path
) -> None:
    output = tmp_path / "latents.npz"
    assert encode(clips["h264.mp4"], "--output", output).code == 0
    with np.load(output) as saved:
        assert saved["names"].tolist() == [f"{clips['h264.mp4']}#{i:06d}" for i in range(24)]


def test_the_command_goes_on_past_a_bad_file_and_counts_it(
    encode: Callable[..., Any], image_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("frame0.png", "frame2.png"):
        (folder / name).write_bytes((image_folder / name).read_bytes())
    (folder / "frame1.png").write_bytes(b"no picture")
    output = tmp_path / "latents.npz"
    done = encode(folder, "--output", output)
    assert done.code == 1
    assert "skipped frame1.png: cannot decode" in done.stderr
    assert done.stderr.splitlines()[-1] == (
        f"motorvae-encode: 1 of 3 did not decode and have no latent; the others are in {output}"
    )
    with np.load(output) as saved:
        assert saved["names"].tolist() == ["frame0.png", "frame2.png"]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--output", "latents.csv"], "output='latents.csv': name a file ending in .npz"),
        (["--batch-size", "0"], "--batch-size=0 is out of range"),
        (["--threads", "0"], "threads=0 is out of range"),
        (["--provider", "warp"], "provider 'warp' is not in this ONNX Runtime"),
        (["--model", "nowhere"], "no bundle at nowhere: run motorvae-export --output nowhere"),
        (["--output", "/proc/latents.npz"], "cannot write /proc/latents.npz"),
    ],
)
def test_the_command_refuses_in_one_line_and_writes_nothing(
    encode: Callable[..., Any],
    image_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    args: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert words in encode(image_folder, *args).error
    assert list(tmp_path.iterdir()) == []


def test_the_command_does_not_replace_a_folder(
    encode: Callable[..., Any], image_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "latents.npz").mkdir()
    done = encode(image_folder, "--output", tmp_path / "latents.npz")
    assert "exists and is not a file" in done.error


def test_a_failed_save_keeps_the_earlier_file(
    image_folder: Path,
    encoder: Backend,
    small_spec: ModelSpec,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encoded = encode_source(open_source(str(image_folder)), encoder, small_spec, batch_size=4)
    output = tmp_path / "latents.npz"
    encoded.save(output)
    before = output.read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OutputError, match="No space left on device"):
        encoded.save(output)
    assert output.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["latents.npz"]


def test_a_terminal_that_is_closed_fails_no_encoding(
    script: Callable[[str], str], small_bundle: Path, image_folder: Path, tmp_path: Path
) -> None:
    terminal, theirs = pty.openpty()
    output = tmp_path / "latents.npz"
    command = [script("motorvae-encode"), str(image_folder), "--model", str(small_bundle)]
    with subprocess.Popen(
        [*command, "--output", str(output)], stderr=theirs, start_new_session=True
    ) as process:
        os.close(theirs)
        os.close(terminal)
        assert process.wait(60) == 0
    with np.load(output) as saved:
        assert len(saved["mu"]) == 12
