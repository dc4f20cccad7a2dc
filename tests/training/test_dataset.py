from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt
import pytest

from motorvae.runtime.core.errors import DataError, OutputError, SourceError
from motorvae.runtime.core.frame import Frame
from motorvae.runtime.core.spec import Matrix, ModelSpec
from motorvae.runtime.pixels.convert import luma_from_image
from motorvae.runtime.pixels.reference import reference_picture
from motorvae.runtime.sources.open import open_source
from motorvae.runtime.sources.synthetic.vehicles import vehicle
from motorvae.runtime.stream.options import StreamOptions
from motorvae.training import dataset as data_module
from motorvae.training.dataset import (
    DataRequest,
    DataSet,
    data_from_cache,
    digests_by_block,
    kind_of_data,
    prepare_data,
    split_by_content,
)
from motorvae.training.options import TrainOptions, spec_from_train_options

Prepare = Callable[..., tuple[DataSet, list[str]]]


@pytest.fixture
def prepare(spec: ModelSpec, tmp_path: Path) -> Prepare:
    request = DataRequest("vehicles", tmp_path / "runs", held_out=0.2, vehicles_count=48)

    def prepared(
        data: Path | str, other: ModelSpec | None = None, **change: object
    ) -> tuple[DataSet, list[str]]:
        warnings: list[str] = []
        prepare_data(
            replace(request, data=str(data), **change),  # type: ignore[arg-type]
            other or spec,
            tmp_path / "cache",
            progress=lambda _done, _expected: None,
            warn=warnings.append,
        )
        return data_from_cache(tmp_path / "cache"), warnings

    return prepared


def _picture(seed: int, *shape: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def test_every_format_and_depth_arrives_as_the_runtime_sees_it(
    prepare: Prepare, spec: ModelSpec, tmp_path: Path
) -> None:
    folder = tmp_path / "images"
    (folder / "deep" / "er").mkdir(parents=True)
    pictures: dict[str, npt.NDArray[np.generic]] = {
        "a.png": _picture(1, 40, 60),
        "b.bmp": _picture(2, 32, 32, 3),
        "deep/c.tif": _picture(3, 64, 33, 3),
        "deep/d.png": (_picture(4, 50, 50).astype(np.uint16) * 257),
        "deep/er/e.png": _picture(5, 50, 50, 4),
    }
    for name, picture in pictures.items():
        assert cv2.imwrite(str(folder / name), picture)
    lossy = {"f.jpg": [], "g.JPEG": [], "h.webp": [cv2.IMWRITE_WEBP_QUALITY, 90]}
    for name, quality in lossy.items():
        done, encoded = cv2.imencode(Path(name).suffix.lower(), _picture(6, 40, 40, 3), quality)
        assert done
        (folder / name).write_bytes(encoded.tobytes())
    (folder / "notes.txt").write_text("no image")
    found, warnings = prepare(folder)
    assert warnings == [f"{folder}: 1 not taken: 1 no picture (.txt)"]
    assert sorted(found.names) == sorted([*pictures, *lossy])
    for name, picture in pictures.items():
        expected = reference_picture(luma_from_image(picture), spec)
        np.testing.assert_array_equal(found.images[list(found.names).index(name)], expected)
    assert len(found.train) + len(found.held_out) == len(found.names)


def test_corrupt_files_are_skipped_named_and_counted(prepare: Prepare, tmp_path: Path) -> None:
    for number in range(6):
        cv2.imwrite(str(tmp_path / f"{number}.png"), _picture(number, 32, 32))
    whole = (tmp_path / "0.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 3])
    (tmp_path / "text.jpg").write_text("not an image")
    found, warnings = prepare(tmp_path)
    assert found.skipped == 2
    assert len(found.names) == 6
    assert len(warnings) == 2
    assert "cut.png" in warnings[0]
    assert "text.jpg" in warnings[1]


def test_nothing_to_learn_from_is_an_error(prepare: Prepare, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    with pytest.raises(DataError, match="no image in"):
        prepare(folder)
    (folder / "bad.png").write_bytes(b"bad")
    with pytest.raises(DataError, match=r"nothing in --data=.*could be decoded \(1 skipped\)"):
        prepare(folder)


def test_images_that_are_all_the_same_are_an_error(prepare: Prepare, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "0.png"), _picture(0, 32, 32))
    with pytest.raises(DataError, match="there is one image only: give at least two different"):
        prepare(tmp_path)
    for number in range(3):
        cv2.imwrite(str(tmp_path / f"{number}.png"), _picture(0, 32, 32))
    with pytest.raises(DataError, match="all 3 images are the same"):
        prepare(tmp_path)


def test_missing_data_is_a_source_error() -> None:
    with pytest.raises(SourceError, match="--data=/nowhere/at/all does not exist"):
        kind_of_data("/nowhere/at/all")


def test_vehicles_are_the_renderers(
    prepare: Prepare, options: TrainOptions, spec: ModelSpec
) -> None:
    found, _ = prepare("vehicles", seed=7)
    assert found.images.shape == (options.vehicles_count, 32, 32)
    expected = [vehicle(7, row, spec.image_size)[0] for row in range(options.vehicles_count)]
    np.testing.assert_array_equal(found.images, np.stack(expected))


def test_video_frames_become_images(prepare: Prepare, tmp_path: Path) -> None:
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for number in range(12):
        writer.write(np.full((48, 64, 3), 20 * number, np.uint8))
    writer.release()
    found, warnings = prepare(path)
    assert warnings == []
    assert list(found.names) == [f"frame-{number:06d}" for number in range(12)]
    means = found.images.reshape(12, -1).mean(1)
    np.testing.assert_allclose(means, 20 * np.arange(12), atol=4)


@pytest.mark.parametrize(("width", "height"), [(640, 480), (1280, 720)])
@pytest.mark.parametrize("matrix", ["auto", "bt601", "bt709"])
def test_a_clip_is_the_same_in_training_and_in_a_stream(
    prepare: Prepare, tmp_path: Path, spec: ModelSpec, width: int, height: int, matrix: Matrix
) -> None:
    """Saturated bars that name no matrix, 0 levels apart."""
    path = tmp_path / "bars.mp4"
    colours = np.array([[0, 0, 255], [0, 255, 0], [255, 0, 0], [0, 255, 255]], np.uint8)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", 25)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(2):
            bars = np.roll(colours, number, axis=0)[np.arange(width) * 4 // width]
            image = np.broadcast_to(bars, (height, width, 3)).copy()
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        container.mux(stream.encode(None))
    trained = spec_from_train_options(
        TrainOptions(image_size=spec.image_size, channels=spec.channels, matrix=matrix)
    )
    assert trained.matrix == matrix
    found, _ = prepare(path, trained)
    request = StreamOptions(camera=(str(path),)).capture_request
    with open_source(str(path), replace(request, spec=trained)) as source:
        streamed = [item.image for item in iter(source.read, None) if isinstance(item, Frame)]
    assert np.array_equal(found.images, streamed)
    other = replace(request, spec=trained, matrix="bt709" if matrix == "bt601" else "bt601")
    with open_source(str(path), other) as source:
        item = source.read()
    assert isinstance(item, Frame)
    apart = np.abs(item.image.astype(int) - streamed[0]).max()
    assert (apart > 10) == (matrix != "auto" or height > 576)


def test_a_file_that_is_no_video_is_refused(prepare: Prepare, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"no video")
    with pytest.raises(SourceError, match=r"clip\.mp4"):
        prepare(path)


def test_a_disk_without_room_is_refused_before_decoding(
    prepare: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_module, "_SPARE_BYTES", 1 << 62)
    with pytest.raises(OutputError, match=r"needs about .* GB, .* GB are free"):
        prepare("vehicles")
    assert not (tmp_path / "cache").exists()


def test_a_cache_that_was_cut_short_is_refused(prepare: Prepare, tmp_path: Path) -> None:
    prepare("vehicles")
    images = tmp_path / "cache" / "images.u8"
    images.write_bytes(images.read_bytes()[:-1])
    with pytest.raises(DataError, match="start a new run"):
        data_from_cache(tmp_path / "cache")


def _digests(count: int) -> list[str]:
    return [
        hashlib.sha256(bytes([number % 256, number // 256])).hexdigest() for number in range(count)
    ]


def test_equal_images_stay_together_and_growth_moves_nobody() -> None:
    digests = _digests(400)
    train, held_out = split_by_content(digests * 2, 0.1)
    assert len(train) + len(held_out) == 800
    assert not {row % 400 for row in train} & {row % 400 for row in held_out}
    assert 40 < len(held_out) < 120
    more_train, more_held_out = split_by_content(_digests(1000), 0.1)
    assert {row for row in more_train if row < 400} == {row for row in train if row < 400}
    assert {row for row in more_held_out if row < 400} == {row for row in held_out if row < 400}


@pytest.mark.parametrize("fraction", [1e-9, 1 - 1e-9])
def test_neither_side_is_empty(fraction: float) -> None:
    train, held_out = split_by_content(_digests(2), fraction)
    assert len(train) == len(held_out) == 1


def test_neighbouring_frames_of_a_video_are_held_out_together() -> None:
    digests = [f"{frame:064x}" for frame in range(100)]
    blocks = digests_by_block(digests)
    assert [blocks.index(block) for block in dict.fromkeys(blocks)] == list(range(0, 100, 5))
    assert digests_by_block(digests[:7]) == digests[:7]
    long = digests_by_block([f"{frame:064x}" for frame in range(6000)])
    assert len(set(long)) == 100
    short = digests_by_block([f"{frame:064x}" for frame in range(795)])
    assert len(set(short)) == 100  # with the 40 frames of a twentieth, two would be held out
