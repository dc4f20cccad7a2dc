"""The public functions of images and latents, against the production path that they stand on."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

import motorvae as mv
from motorvae.runtime.bundle.graph_key import GraphKey
from motorvae.runtime.bundle.load import load_bundle
from motorvae.runtime.core.errors import BackendError, BundleError, ConfigError, ImageError
from motorvae.runtime.engines.open import open_engine
from motorvae.runtime.ood.detector import OODDetector, ood_detector_from_bundle
from motorvae.runtime.pixels.convert import fitted, input_from_pixels, luma_from_image
from motorvae.runtime.sources.synthetic.vehicles import vehicle


@pytest.fixture(scope="module")
def bundle(small_bundle: Path) -> mv.Bundle:
    return mv.load(small_bundle)


def colour(index: int) -> npt.NDArray[np.uint8]:
    image = np.random.default_rng(index).integers(0, 256, (48, 64, 3), np.uint8)
    return cv2.GaussianBlur(image, (9, 9), 0).astype(np.uint8, copy=False)


def expected(small_bundle: Path, images: list[Any]) -> Any:
    loaded = load_bundle(small_bundle)
    batch = np.stack(
        [input_from_pixels(fitted(luma_from_image(image), loaded.spec))[None] for image in images]
    )
    with open_engine(loaded, GraphKey("encoder")) as backend:
        return backend.run(batch)


def test_a_bundle_says_what_it_is(bundle: mv.Bundle, small_bundle: Path) -> None:
    assert bundle.folder == small_bundle
    assert bundle.spec.latent_size == 8
    assert set(bundle.precisions) == {"fp32", "fp16"}
    assert bundle.weights_sha256 == "ab" * 32
    assert "fp16" in repr(bundle)
    assert "latent_size=8" in repr(bundle)


def test_a_path_and_arrays_give_what_the_engine_gives(
    bundle: mv.Bundle, small_bundle: Path, tmp_path: Path
) -> None:
    bgr = colour(1)
    path = tmp_path / "car.png"
    assert cv2.imwrite(str(path), bgr)
    grey = cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY)
    want = expected(small_bundle, [bgr])
    with bundle.encoder() as encode:
        opaque = np.dstack([bgr, np.full(grey.shape, 255, np.uint8)])
        for image in (path, str(path), bgr, grey, opaque):
            latent = encode(image)
            assert latent.mu.shape == latent.log_var.shape == (8,)
            assert np.allclose(latent.mu, want["mu"][0], atol=1e-5)
            assert np.allclose(latent.log_var, want["log_var"][0], atol=1e-5)
            assert isinstance(latent.is_ood, bool)


def test_three_channels_are_bgr(bundle: mv.Bundle) -> None:
    """As OpenCV gives them: red read as blue is another luma."""
    red = np.zeros((32, 32, 3), np.uint8)
    red[:, :, 2] = 255
    grey = cv2.cvtColor(red, cv2.COLOR_BGR2GRAY)
    assert 70 < grey[0, 0] < 80
    with bundle.encoder() as encode:
        assert np.array_equal(encode(red).mu, encode(grey).mu)
        assert not np.allclose(encode(red[:, :, ::-1]).mu, encode(grey).mu, atol=1e-3)


def test_a_list_gives_one_row_an_image_in_order(bundle: mv.Bundle, small_bundle: Path) -> None:
    images = [colour(index) for index in range(35)]  # more than one run of the engine
    want = expected(small_bundle, images)
    with bundle.encoder(threads=1) as encode:
        found = encode(images)
        assert len(found) == 35
        assert found.mu.shape == (35, 8)
        assert np.allclose(found.mu, want["mu"], atol=1e-5)
        assert found.is_ood is not None
        assert found.is_ood.shape == (35,)
        assert found.is_ood.dtype == np.bool_
        assert encode([]).mu.shape == (0, 8)
        assert encode((images[3],)).mu.shape == (1, 8)


def test_out_of_distribution_is_what_the_detector_says(
    bundle: mv.Bundle, small_bundle: Path
) -> None:
    detector = ood_detector_from_bundle(load_bundle(small_bundle), ood_above=99)
    assert isinstance(detector, OODDetector)
    known = [vehicle(1, index, 32)[0] for index in range(12)]
    noise = [np.random.default_rng(n).integers(0, 256, (32, 32), np.uint8) for n in range(4)]
    with bundle.encoder(ood_above=99) as encode:
        found = encode([*known, *noise])
        assert any("is_ood detects" in note for note in encode.notes)
    assert found.is_ood is not None
    assert found.is_ood[12:].all()
    for row, image in enumerate([*known, *noise]):
        scored = detector.scored(found.mu[row], found.log_var[row], detector.appearance(image))
        assert found.is_ood[row] == scored.is_ood


def test_a_latent_is_decoded_to_a_picture(bundle: mv.Bundle, small_bundle: Path) -> None:
    z = np.random.default_rng(0).normal(size=(20, 8)).astype(np.float32)
    with open_engine(load_bundle(small_bundle), GraphKey("decoder")) as backend:
        want = np.rint(backend.run(z)["reconstruction"][:, 0] * 255).astype(np.uint8)
    with bundle.decoder() as decode:
        assert np.abs(decode(z).astype(int) - want).max() <= 1
        one = decode(z[3])
        assert one.shape == (32, 32)
        assert one.dtype == np.uint8
        assert np.abs(one.astype(int) - want[3]).max() <= 1
        assert decode(np.empty((0, 8))).shape == (0, 32, 32)
        assert np.array_equal(decode(z[3].tolist()), one)


def test_the_engine_is_the_one_asked_for(bundle: mv.Bundle) -> None:
    with bundle.encoder(precision="fp16", backend="onnx") as half:
        assert half.engine.startswith("fp16 ONNX Runtime")
        assert half(colour(0)).mu.dtype == np.float32
    with pytest.raises(BundleError, match="has no encoder int8"):
        bundle.encoder(precision="int8", backend="onnx")
    with pytest.raises(ConfigError, match="leave one of them out"):
        bundle.decoder(backend="openvino", provider="cpu")
    with pytest.raises(ConfigError, match=r"ood_above=0 is out of range"):
        bundle.encoder(ood_above=0)


def test_what_is_no_image_is_refused_in_a_line(bundle: mv.Bundle, tmp_path: Path) -> None:
    torn = tmp_path / "torn.png"
    torn.write_bytes(b"\x89PNG\r\n\x1a\n")
    with bundle.encoder() as encode:
        for image, words in (
            (torn, "cut short"),
            (tmp_path / "none.jpg", "No such file"),
            (tmp_path, r"is a folder: encode it with motorvae\.encode"),
            (np.zeros((2, 3, 4, 5), np.uint8), "expected 8- or 16-bit grey, BGR or BGRA"),
            (np.zeros((8, 8), np.float32), "dtype float32"),
            (7, "int is no image"),
        ):
            with pytest.raises(ImageError, match=words):
                encode(image)  # type: ignore[call-overload]
    with bundle.decoder() as decode:
        for latents, words in ((np.zeros(7), "shape"), (np.full(8, np.nan), "a NaN"), (1, "D=8")):
            with pytest.raises(ConfigError, match=words):
                decode(latents)


def test_what_is_closed_says_so(bundle: mv.Bundle) -> None:
    with bundle.encoder() as encode, bundle.decoder() as decode:
        pass
    encode.close()
    with pytest.raises(
        BackendError, match=r"this encoder is closed: open another with bundle\.enc"
    ):
        encode(colour(0))
    with pytest.raises(BackendError, match="this decoder is closed"):
        decode(np.zeros(8))


def test_threads_share_an_encoder(bundle: mv.Bundle) -> None:
    """Many rounds: without the lock about every other one mixes latents up."""
    images = [colour(index) for index in range(8)]
    with bundle.encoder(threads=1) as encode:
        want = [encode(image).mu for image in images]

        def encode_all(start: int) -> bool:
            order = [(start + n) % 8 for n in range(64)]
            return all(np.allclose(encode(images[n]).mu, want[n], atol=1e-5) for n in order)

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(encode_all, range(8)))


def test_a_file_that_changed_since_is_not_opened(bundle_copy: Path) -> None:
    bundle = mv.load(bundle_copy)
    path = bundle_copy / "encoder.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(BundleError, match=r"encoder\.onnx was altered"):
        bundle.encoder(backend="onnx")


def test_what_is_no_latent_is_one_line(bundle: mv.Bundle) -> None:
    with bundle.encoder() as encode, bundle.decoder() as decode:
        latent = encode(colour(0))
        for wrong in (latent, "abc", [[1.0], [1.0, 2.0]]):
            with pytest.raises(ConfigError, match="is no latent: give an array"):
                decode(wrong)


def test_an_altered_bundle_is_not_loaded(bundle_copy: Path, tmp_path: Path) -> None:
    path = bundle_copy / "decoder.fp16.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(BundleError, match=r"decoder\.fp16\.onnx was altered"):
        mv.load(str(bundle_copy))
    with pytest.raises(mv.MotorVAEError, match="no bundle at"):
        mv.load(tmp_path / "nowhere")


def test_importing_motorvae_does_no_work() -> None:
    source = (
        "import sys; before = set(sys.modules); import motorvae; "
        "loaded = set(sys.modules) - before; dir(motorvae); "
        "print(sorted(n for n in loaded if n.split('.')[0] in "
        "{'numpy', 'cv2', 'av', 'pydantic', 'rich', 'tyro', 'torch', 'motorvae'}))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", source], capture_output=True, text=True, check=True
    )
    assert done.stdout == "['motorvae']\n"


def test_decoding_and_encoding_need_no_torch(small_bundle: Path) -> None:
    source = (
        "import sys\n"
        "for name in ('torch', 'lightning', 'onnx', 'onnx_ir'): sys.modules[name] = None\n"
        "import numpy as np, motorvae as mv\n"
        "bundle = mv.load(sys.argv[1])\n"
        "with bundle.encoder() as encode, bundle.decoder() as decode:\n"
        "    print(decode(encode(np.zeros((9, 9), np.uint8)).mu).shape)"
    )
    done = subprocess.run(
        [sys.executable, "-c", source, os.fspath(small_bundle)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "(32, 32)\n"), done.stderr


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        mv.nonsense  # type: ignore[attr-defined]  # noqa: B018
    assert set(mv.__all__) <= set(dir(mv))
