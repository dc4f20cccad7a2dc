from __future__ import annotations

import hashlib
import itertools
import subprocess
import sys
from dataclasses import fields, replace

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from motorvae.runtime.sources.synthetic.bodies import BODIES, sketch_from_factors
from motorvae.runtime.sources.synthetic.sketch import VehicleFactors
from motorvae.runtime.sources.synthetic.vehicles import (
    _CROSSING_S,
    RANGES,
    MovingVehicles,
    factors_from_seed,
    vehicle,
    vehicle_picture,
)

CONTINUOUS = [field.name for field in fields(VehicleFactors)][2:]  # all but body and heading
FRAME_S = 1 / 30
LIMITS = {
    "length": (0.1, 2.0),
    "height": (0.1, 2.0),
    "cabin": (0.0, 1.0),
    "nose": (0.0, 1.0),
    "wheel": (0.01, 0.5),
    "shade": (0.0, 1.0),
    "x": (-4.0, 4.0),
    "y": (-4.0, 4.0),
    "perspective": (-1.0, 1.0),
    "shadow": (0.0, 1.0),
}
"""What can be drawn at all. A vehicle may be out of view, as a moving one is at times."""

seeds = st.integers(0, 2**63)
bodies = st.sampled_from(BODIES)


def test_a_painted_vehicle_is_the_grey_one_in_a_colour_of_its_own() -> None:
    hues = set()
    for index in range(8):
        grey, painted = (vehicle_picture(0, index, 256, color) for color in ("grey", "rgb"))
        luma = cv2.cvtColor(painted, cv2.COLOR_BGR2GRAY).astype(int)
        assert np.abs(luma - grey).max() <= 2
        spread = painted.max(axis=2).astype(int) - painted.min(axis=2)
        assert (spread[grey == 255] <= 2).all()  # the ground stays white
        assert spread.max() >= 10
        down, across = np.unravel_index(spread.argmax(), spread.shape)
        hues.add(int(cv2.cvtColor(painted, cv2.COLOR_BGR2HSV)[down, across, 0]) // 10)
    assert len(hues) >= 4


def typical(body: str, **changed: float) -> VehicleFactors:
    middle = {name: (low + high) / 2 for name, (low, high) in RANGES[body].items()}
    return VehicleFactors(body=body, heading=1.0, **{**middle, **changed})


def image_from_factors(factors: VehicleFactors, size: int = 256) -> npt.NDArray[np.uint8]:
    return sketch_from_factors(factors).image(size)


def digest(images: list[npt.NDArray[np.uint8]]) -> str:
    return hashlib.sha256(b"".join(image.tobytes() for image in images)).hexdigest()


def ink(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    return 255 - image.astype(np.float64)


@given(seeds, seeds)
def test_factors_lie_in_the_documented_ranges(seed: int, index: int) -> None:
    factors = factors_from_seed(seed, index)
    assert factors.heading in {-1.0, 1.0}
    for name, (low, high) in RANGES[factors.body].items():
        assert type(getattr(factors, name)) is float
        assert low <= getattr(factors, name) <= high
        assert LIMITS[name][0] <= low < high <= LIMITS[name][1]


def test_ranges_and_limits_cover_every_factor() -> None:
    assert set(LIMITS) == set(CONTINUOUS)
    for body in BODIES:
        assert set(RANGES[body]) == set(CONTINUOUS)


def test_every_body_and_heading_is_drawn_and_indices_differ() -> None:
    drawn = [factors_from_seed(0, index) for index in range(200)]
    assert len(set(drawn)) == 200
    assert {(factors.body, factors.heading) for factors in drawn} == {
        (body, heading) for body in BODIES for heading in (-1.0, 1.0)
    }
    assert factors_from_seed(1, 0) != drawn[0]


def test_an_index_needs_no_other_drawn_before_it() -> None:
    in_order = [factors_from_seed(9, index) for index in range(20)]
    backwards = [factors_from_seed(9, index) for index in reversed(range(20))]
    assert in_order == backwards[::-1]


@pytest.mark.parametrize("size", [32, 64, 96, 160, 256, 512, 544])
def test_any_multiple_of_32_is_a_size(size: int) -> None:
    for index in range(6):
        image, factors = vehicle(4, index, size)
        assert image.shape == (size, size)
        assert image.dtype == np.uint8
        shrunk = cv2.resize(
            image_from_factors(factors, 1088), (32, 32), interpolation=cv2.INTER_AREA
        )
        small = cv2.resize(image, (32, 32), interpolation=cv2.INTER_AREA)
        assert np.abs(ink(small) - ink(shrunk)).mean() < 2


def test_the_background_is_exactly_white() -> None:
    for index in range(50):
        image, factors = vehicle(5, index)
        roof = round((factors.y - factors.height - 0.05) * 256)
        ground = round((factors.y + 0.12) * 256)
        assert (image[:roof] == 255).all()
        assert (image[ground:] == 255).all()
        assert image.min() < 50


def test_a_vehicle_out_of_view_leaves_a_white_image() -> None:
    for place in ({"x": 3.0}, {"x": -3.0}, {"y": 3.0}, {"y": -3.0}):
        assert (image_from_factors(typical("bus", **place)) == 255).all()


@given(bodies, st.fixed_dictionaries({name: st.floats(*LIMITS[name]) for name in CONTINUOUS}))
@settings(max_examples=60, deadline=None)
def test_anything_within_the_limits_can_be_drawn(body: str, values: dict[str, float]) -> None:
    image = image_from_factors(VehicleFactors(body=body, heading=-1.0, **values), 64)
    assert image.shape == (64, 64)


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("name", CONTINUOUS)
def test_each_factor_changes_the_image(body: str, name: str) -> None:
    low, high = RANGES[body][name]
    images = [
        image_from_factors(typical(body, **{name: low + (high - low) * step / 4}))
        for step in range(5)
    ]
    for one, other in itertools.pairwise(images):
        assert np.abs(ink(one) - ink(other)).mean() > 0.02
    ends = np.abs(ink(images[0]) - ink(images[-1]))
    assert ends.max() > 20


@pytest.mark.parametrize("body", BODIES)
def test_heading_mirrors_the_vehicle(body: str) -> None:
    right = typical(body, x=0.5)
    left = replace(right, heading=-1.0)
    # The wheels have rolled the same way on the screen, so their holes may differ.
    flipped = image_from_factors(left)[:, ::-1]
    different = np.abs(ink(image_from_factors(right)) - ink(flipped))
    assert different.mean() < 0.5
    assert np.abs(ink(image_from_factors(right)) - ink(image_from_factors(left))).mean() > 1


def test_place_and_shade_mean_what_they_say() -> None:
    columns = np.arange(256)
    for body in BODIES:
        here, there = (
            ink(image_from_factors(typical(body, x=x, perspective=0.0))) for x in (0.5, 0.53125)
        )
        middles = [(image.sum(axis=0) * columns).sum() / image.sum() for image in (here, there)]
        assert middles[1] - middles[0] == pytest.approx(8, abs=0.1)
        image = image_from_factors(typical(body, shade=0.62))
        assert np.count_nonzero(image == round(0.62 * 255)) > 500


def test_the_same_seed_draws_the_same_bytes_in_every_process() -> None:
    here = digest([vehicle(11, index)[0] for index in range(8)] + [MovingVehicles(2).image(1.7)])
    again = digest([vehicle(11, index)[0] for index in range(8)] + [MovingVehicles(2).image(1.7)])
    assert here == again
    program = (
        "import hashlib\n"
        "from motorvae.runtime.sources.synthetic.vehicles import MovingVehicles, vehicle\n"
        "images = [vehicle(11, i)[0] for i in range(8)] + [MovingVehicles(2).image(1.7)]\n"
        "print(hashlib.sha256(b''.join(i.tobytes() for i in images)).hexdigest())\n"
    )
    other = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert other.stdout.strip() == here
    assert digest([vehicle(12, index)[0] for index in range(8)]) != here


def test_a_nearest_mean_tells_the_bodies_apart() -> None:
    # Side by side in the middle: how a body looks, not where it stands or what it is painted.
    def thumbnails(seed: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int_]]:
        drawn = [factors_from_seed(seed, index) for index in range(160)]
        placed = [replace(factors, heading=1.0, x=0.5, y=0.7) for factors in drawn]
        pixels = np.array([ink(image_from_factors(factors, 32)).ravel() for factors in placed])
        return pixels, np.array([BODIES.index(factors.body) for factors in drawn])

    known, known_bodies = thumbnails(21)
    means = np.array([known[known_bodies == body].mean(axis=0) for body in range(len(BODIES))])
    unknown, unknown_bodies = thumbnails(22)
    distances = np.linalg.norm(unknown[:, None] - means, axis=2)
    assert (distances.argmin(axis=1) == unknown_bodies).mean() > 0.8


def test_moving_vehicles_are_a_pure_function_of_time() -> None:
    times = [0.0, 1.31, 2.0, 3.99, 4.0, 17.23, 86_400.5]
    world = MovingVehicles(7, 64)
    forwards = [world.image(time_s) for time_s in times]
    backwards = [MovingVehicles(7, 64).image(time_s) for time_s in reversed(times)]
    assert digest(forwards) == digest(backwards[::-1])
    assert digest(forwards) != digest([MovingVehicles(8, 64).image(time_s) for time_s in times])
    assert forwards[0].shape == (64, 64)
    assert forwards[0].dtype == np.uint8


@pytest.mark.parametrize("seed", [0, 1])
def test_frames_follow_each_other_without_a_jump(seed: int) -> None:
    world = MovingVehicles(seed)
    before = world.image(0.0)
    changed = 0
    for frame in range(1, 300):
        image = world.image(frame * FRAME_S)
        step = np.abs(ink(image) - ink(before)).mean()
        assert step < 8
        changed += step > 0
        before = image
    assert changed > 270


def test_a_vehicle_crosses_the_view() -> None:
    world = MovingVehicles(3)
    columns = np.arange(256)
    places = []
    for time_s in np.linspace(1.2, 2.8, 9).tolist():
        column_ink = ink(world.image(time_s)).sum(axis=0)
        places.append((column_ink * columns).sum() / column_ink.sum())
    steps = np.diff(places) * world.factors(2.0).heading
    assert (steps > 1).all()


@given(st.integers(0, 1000), st.integers(0, 10_000))
@settings(max_examples=50, deadline=None)
def test_neighbours_differ_in_body_and_shade(seed: int, turn: int) -> None:
    world = MovingVehicles(seed)
    one, other = (world.factors((turn + step + 0.5) * _CROSSING_S) for step in range(2))
    assert one.body != other.body
    assert one.shade != other.shade
    first = turn // 4 * 4
    round_ = {world.factors((first + step + 0.5) * _CROSSING_S).body for step in range(4)}
    assert round_ == set(BODIES)


def test_most_frames_look_like_training_images() -> None:
    low, high = RANGES["car"]["x"]
    world = MovingVehicles(1)
    seen = [world.factors(time_s) for time_s in np.arange(0, 80, 0.25).tolist()]
    for factors in seen:
        for name in set(CONTINUOUS) - {"x"}:
            assert RANGES[factors.body][name][0] <= getattr(factors, name)
            assert getattr(factors, name) <= RANGES[factors.body][name][1]
    assert np.mean([low <= factors.x <= high for factors in seen]) > 0.5
    blank = [(world.image(time_s) == 255).all() for time_s in np.arange(0, 20, 0.1).tolist()]
    assert np.mean(blank) < 0.15
