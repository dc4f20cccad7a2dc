from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import motorvae as mv
from motorvae.training.explore.live.atlas import SIDE, atlas_of
from motorvae.training.explore.space.collection import Collection
from motorvae.training.explore.space.originals import no_thumbnails

reading = pytest.importorskip("rerun.chunk")

Events = dict[str, list[dict[str, Any]]]


def events_of(path: Path) -> Events:
    """What was logged to each entity, in the order of frames; static data included."""
    events: Events = defaultdict(list)
    for chunk in reading.RrdReader(path).stream():
        batch = chunk.to_record_batch()
        names = [name for name in batch.schema.names if "RowId" in name or "_time" in name]
        events[chunk.entity_path] += batch.drop_columns(
            [*names, *({"captured"} & set(batch.schema.names))]
        ).to_pylist()
    for entity in events.values():
        entity.sort(key=lambda event: event.get("frame") or 0)
    return events


def value_of(event: dict[str, Any], component: str) -> Any:
    (found,) = (value for name, value in event.items() if name.endswith(component))
    return found


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Vehicles, as the bundle knows them, and then noise."""
    from motorvae.runtime.sources.synthetic.vehicles import vehicle

    folder = tmp_path_factory.mktemp("clip")
    rng = np.random.default_rng(0)
    for row in range(6):
        cv2.imwrite(str(folder / f"{row:02d}.png"), vehicle(1, row, 32)[0])
    for row in range(6, 9):
        cv2.imwrite(str(folder / f"{row:02d}.png"), rng.integers(0, 256, (32, 32), np.uint8))
    return folder


def test_the_point_moves_among_known_images_and_says_what_is_unknown(
    small_bundle: Path, clip: Path, tmp_path: Path
) -> None:
    recording = tmp_path / "live.rrd"
    found = mv.explore.live(clip, model=small_bundle, view=recording, output=tmp_path / "out")
    events = events_of(recording)
    (known,) = events["/map/known"]
    assert len(value_of(known, "Points2D:positions")) == 24
    assert len(value_of(known, "Points2D:labels")) == 24
    now = events["/camera-1/map/now"]
    assert len(now) == 9
    places = np.array([value_of(event, "Points2D:positions")[0] for event in now])
    assert places == pytest.approx(found.arrays["coordinates"], abs=1e-3)
    # Those of the clip that the bundle keeps lie where it has them.
    kept = found.arrays["known"]
    for place in places[:6]:
        assert np.linalg.norm(kept - place, axis=1).min() < 0.01 * SIDE
    colours = [value_of(event, "Points2D:colors")[0] for event in now]
    flags = found.arrays["is_ood"].tolist()
    assert flags == [0] * 6 + [1] * 3
    assert len(set(colours[:6])) == len(set(colours[6:])) == 1
    assert colours[0] != colours[-1]
    labels = [value_of(event, "Points2D:labels")[0] for event in now[6:]]
    assert labels == ["out of distribution"] * 3
    trails = events["/camera-1/map/trail"]
    assert [len(value_of(event, "LineStrips2D:strips")[0]) for event in trails] == [*range(2, 10)]
    assert "/camera-1/image" in events
    assert found.numbers["out_of_distribution"] == 3
    assert {path.name for path in found.files} == {"live.json", "live.npz"}


def test_known_images_may_be_those_of_a_file(
    small_bundle: Path, clip: Path, tmp_path: Path
) -> None:
    mv.encode(small_bundle, clip, tmp_path / "known.npz")
    found = mv.explore.live(
        clip,
        model=small_bundle,
        latents=tmp_path / "known.npz",
        view=tmp_path / "live.rrd",
        max_frames=4,
        output=tmp_path / "out",
    )
    assert found.arrays["known_names"].tolist() == [f"{row:02d}.png" for row in range(9)]
    assert found.arrays["coordinates"] == pytest.approx(found.arrays["known"][:4], abs=0.1)


def test_the_map_fills_a_square_and_up_is_up() -> None:
    mu = np.array([[0, 0], [10, 0], [0, 4], [10, 4]], np.float32)
    collection = Collection(("a", "b", "c", "d"), mu, None, no_thumbnails(4), "four")
    atlas = atlas_of(collection, "pca", seed=0)
    assert np.ptp(atlas.known, axis=0).max() == pytest.approx(SIDE)
    assert atlas.place(mu) == pytest.approx(atlas.known)
    assert atlas.known.min() >= -1e-3


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"method": "tsne"}, "t-SNE cannot place new points, take pca or umap"),
        ({"view": "live.txt"}, "name a file ending in .rrd"),
        ({"max_frames": 0}, "max_frames=0: take 1 or more"),
    ],
)
def test_what_cannot_be_is_one_line(
    given: dict[str, Any], message: str, small_bundle: Path, clip: Path, tmp_path: Path
) -> None:
    options = {"view": tmp_path / "live.rrd", **given}
    with pytest.raises(mv.MotorVAEError) as error:
        mv.explore.live(clip, model=small_bundle, output=tmp_path / "out", **options)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_run_is_refused_with_the_next_step(
    finished_run: Path, clip: Path, tmp_path: Path
) -> None:
    with pytest.raises(mv.MotorVAEError, match="is a training run, and a stream takes a bundle"):
        mv.explore.live(clip, model=finished_run, view=tmp_path / "a.rrd", output=tmp_path / "out")
