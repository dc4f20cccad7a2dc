from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from motorvae.runtime.bulk.encoded import Encoded
from motorvae.runtime.bulk.encoder_pool import EncoderPool, PoolRequest
from motorvae.runtime.bulk.inputs import Inputs
from motorvae.runtime.bulk.item import Item
from motorvae.runtime.bulk.run import encode_in_memory
from motorvae.runtime.bundle.graph_key import GraphKey
from motorvae.runtime.bundle.load import Bundle
from motorvae.runtime.core.errors import BackendError, ConfigError, DataError
from motorvae.runtime.engines.open import EngineRequest, open_engine
from motorvae.runtime.pixels.convert import fitted, input_from_pixels
from motorvae.runtime.pixels.files.image_files import luma_from_file
from motorvae.runtime.pixels.picture import USUAL_LIMIT


@pytest.mark.parametrize("batch_size", [1, 5, 12, 64])
def test_rows_are_the_images_in_order_whatever_the_batch(
    image_folder: Path,
    inputs_of: Callable[..., Inputs],
    pool: EncoderPool,
    bundle: Bundle,
    batch_size: int,
) -> None:
    encoded = encode_in_memory(inputs_of(image_folder), pool, batch_size, bundle)
    assert encoded.names == [f"frame{index}.png" for index in range(12)]
    assert encoded.log_var is not None
    assert encoded.mu.shape == encoded.log_var.shape == (12, 8)
    with open_engine(bundle, GraphKey("encoder")) as backend:
        for name, row in zip(encoded.names, encoded.mu, strict=True):
            pixels = fitted(luma_from_file(image_folder / name), bundle.spec)
            alone = backend.run(input_from_pixels(pixels)[None, None])["mu"][0]
            assert np.allclose(row, alone, rtol=1e-5, atol=1e-6)


def test_rows_stay_in_order_where_a_later_batch_is_ready_first(
    pool: EncoderPool, image_folder: Path
) -> None:
    """The first image can only be read after one of the second batch was."""
    import threading

    later = threading.Event()
    data = [(image_folder / f"frame{index}.png").read_bytes() for index in range(4)]

    def first() -> bytes:
        assert later.wait(60)
        return data[0]

    def third() -> bytes:
        later.set()
        return data[2]

    items = [
        Item("0", first),
        Item("1", lambda: data[1]),
        Item("2", third),
        Item("3", lambda: data[3]),
    ]
    rows = list(pool.rows([items[:2], items[2:]]))
    assert [one.texts["names"] for one in rows] == [["0", "1"], ["2", "3"]]


def test_what_is_taken_ahead_is_bounded(pool: EncoderPool, image_folder: Path) -> None:
    data = (image_folder / "frame0.png").read_bytes()
    taken = 0

    def batches() -> Iterator[Sequence[Item]]:
        nonlocal taken
        for number in range(100):
            taken = number + 1
            yield [Item(str(number), lambda: data)]

    rows = pool.rows(batches())
    for done in range(1, 50):
        next(rows)
        assert taken <= done + 2 * pool.workers
    rows.close()  # type: ignore[attr-defined]  # a generator


def test_an_image_that_the_crop_box_takes_nothing_of_has_no_row(
    image_folder: Path, pool: EncoderPool
) -> None:
    small = cv2.imencode(".png", np.zeros((4, 4), np.uint8))[1].tobytes()
    pool.spec = pool.spec.model_copy(update={"crop_box": (5, 0, -1, 0)})
    whole = (image_folder / "frame0.png").read_bytes()
    rows = pool.rows_of([Item("a", lambda: whole), Item("b", lambda: small)])
    assert rows.failures == [("b", "the crop box (5, 0, -1, 0) takes nothing of 4 x 4 pixels")]
    assert np.isfinite(rows.latents["mu"][0]).all()
    assert np.isnan(rows.latents["mu"][1]).all()


def test_rows_say_what_file_and_how_large_it_was(
    image_folder: Path, encoded_of: Callable[..., Encoded]
) -> None:
    import hashlib

    encoded = encoded_of([image_folder])
    for name, sha256, height, width in zip(
        encoded.names,
        encoded.sha256,
        encoded.numbers["height"],
        encoded.numbers["width"],
        strict=True,
    ):
        content = (image_folder / name).read_bytes()
        assert sha256 == hashlib.sha256(content).hexdigest()
        found = cv2.imread(str(image_folder / name), cv2.IMREAD_UNCHANGED)
        assert found is not None
        assert (height, width) == found.shape[:2]


def test_a_turned_photograph_has_the_size_that_is_seen(pool: EncoderPool, tmp_path: Path) -> None:
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("L", (64, 48), 90).save(tmp_path / "turned.jpg", exif=exif)
    rows = pool.rows_of([Item("a", (tmp_path / "turned.jpg").read_bytes)])
    assert (rows.numbers["height"][0], rows.numbers["width"][0]) == (64, 48)


def test_nothing_that_decodes_is_an_error_with_the_first_reason(
    encoded_of: Callable[..., Encoded], tmp_path: Path
) -> None:
    (tmp_path / "bad.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"nothing in .* decodes \(first: corrupt, cut short"):
        encoded_of([tmp_path])


def test_a_live_source_has_no_end(encoded_of: Callable[..., Encoded]) -> None:
    with pytest.raises(ConfigError, match="synthetic is live and has no end: use motorvae-stream"):
        encoded_of(["synthetic"])


def test_a_latent_that_is_not_finite_is_named(
    image_folder: Path, pool: EncoderPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for backend in pool._backends:
        run = backend.run

        def broken(batch: np.ndarray, run: Callable[..., dict[str, np.ndarray]] = run) -> object:
            found = {name: values.copy() for name, values in run(batch).items()}
            found["log_var"][1, 0] = np.inf
            return found

        monkeypatch.setattr(backend, "run", broken)
    items = [Item(f"frame{n}.png", (image_folder / f"frame{n}.png").read_bytes) for n in range(3)]
    with pytest.raises(BackendError, match=r"the latent of frame1\.png is not finite"):
        pool.rows_of(items)


def test_scores_are_the_detector_s(bundle: Bundle, image_folder: Path, pool: EncoderPool) -> None:
    from motorvae.runtime.ood.detector import usable_detector

    data = (image_folder / "frame3.png").read_bytes()
    assert np.isnan(pool.rows_of([Item("a", lambda: data)]).numbers["ood_score"][0])
    detector, _ = usable_detector(bundle, ood_above=99.0)
    request = PoolRequest(EngineRequest(), USUAL_LIMIT, workers=1, ood_above=99.0)
    with EncoderPool(bundle, request) as scoring:
        rows = scoring.rows_of([Item("a", lambda: data)])
    if detector is None:
        assert scoring.ood_remark
        assert rows.numbers["is_ood"][0] == -1
        return
    pixels = fitted(luma_from_file(image_folder / "frame3.png"), bundle.spec)
    found = detector.scored(rows.latents["mu"][0], None, detector.appearance(pixels))
    assert rows.numbers["ood_score"][0] == pytest.approx(found.ood_score, rel=1e-5)
    assert rows.numbers["is_ood"][0] == found.is_ood


def test_the_best_batch_size_is_one_that_was_tried(pool: EncoderPool) -> None:
    from motorvae.runtime.bulk.encoder_pool import BATCH_SIZES

    assert pool.best_batch_size() in BATCH_SIZES
