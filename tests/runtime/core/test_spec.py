from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from motorvae.runtime.core.errors import ConfigError
from motorvae.runtime.core.spec import DEFAULT_CHANNELS, ModelSpec, problem_of, spec_from_options


def make(**changes: object) -> ModelSpec:
    options: dict[str, object] = {
        "image_size": 256,
        "channels": DEFAULT_CHANNELS,
        "latent_size": 128,
        "fit": "stretch",
    }
    return spec_from_options(**(options | changes))  # type: ignore[arg-type]


def test_the_defaults_are_the_model_card() -> None:
    spec = ModelSpec()
    assert (spec.image_size, spec.latent_size, spec.fit) == (256, 128, "stretch")
    assert spec.channels == (32, 64, 128, 256, 512)
    assert spec.feature_shape == (8, 8)
    assert spec.input_shape == (1, 256, 256)
    assert spec.picture_shape == (256, 256)
    assert not spec.scales
    assert spec.flat_size == 32768


@pytest.mark.parametrize(
    ("size", "nearest"), [(100, "96 or 112"), (33, "32 or 48"), (255, "240 or 256")]
)
def test_a_size_off_the_grid_is_refused_with_both_neighbours(size: int, nearest: str) -> None:
    with pytest.raises(
        ConfigError, match=f"image_size={size}: {size} is not a multiple of 16.*{nearest}"
    ):
        make(image_size=size)


def test_more_layers_need_a_coarser_grid() -> None:
    with pytest.raises(ConfigError, match="not a multiple of 32: take 64 or 96"):
        make(image_size=80, channels=(4, 4, 4, 4, 4, 4))
    assert make(image_size=128, channels=(4,) * 6).feature_shape == (2, 2)


def test_height_and_width_are_apart_and_the_last_side_is_rounded_up() -> None:
    spec = make(image_size=(80, 160), color="rgb")
    assert spec.map_shapes == ((80, 160), (40, 80), (20, 40), (10, 20), (5, 10), (3, 5))
    assert spec.flat_size == 512 * 3 * 5
    assert spec.input_shape == spec.picture_shape == (3, 80, 160)
    assert make(image_size=(64, 64)) == make(image_size=64)
    with pytest.raises(ConfigError, match="image_size=80 x 100: 100 is not a multiple of 16"):
        make(image_size=(80, 100))


@pytest.mark.parametrize(
    ("box", "found"),
    [
        (None, (0, 0, 100, 200)),
        ((0.25, 0.1, 0.75, 1), (10, 50, 90, 100)),
        ((5, 20, -25, -20), (20, 5, 60, 170)),
        ((0, 0, 300, 0), (0, 0, 100, 200)),
    ],
)
def test_a_crop_box_is_fractions_or_pixels(
    box: tuple[float, ...] | None, found: tuple[int, ...]
) -> None:
    assert make(crop_box=box).box_of((100, 200)) == found


@pytest.mark.parametrize(
    ("box", "words"),
    [
        ((0.5, 0, 0.5, 1), "left must be less than right"),
        ((0.5, 0, 20, 30), "whole pixels"),
        ((-1, 0, 20, 30), "left and top are 0 or more"),
        ((30, 0, 20, 30), "right and bottom beyond them"),
    ],
)
def test_a_crop_box_that_takes_nothing_is_refused(box: tuple[float, ...], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make(crop_box=box)
    with pytest.raises(ValueError, match="takes nothing of 20 x 30 pixels"):
        make(crop_box=(5, 20, -25, -20)).box_of((30, 20))


def test_ranges_and_deviations_become_one_gain_and_one_offset_a_channel() -> None:
    spec = make(color="rgb", value_range=(-1, 1), mean=(0, 0.5, 1), std=(1, 2, 0.5))
    assert spec.scaling == ((2, 1, 4), (-1, -0.75, -4))
    with pytest.raises(ConfigError, match="give 1, one a channel"):
        make(mean=(0.5, 0.5, 0.5))
    with pytest.raises(ConfigError, match="black unlike white"):
        make(value_range=(1, 1))
    with pytest.raises(ConfigError, match="all must be finite"):
        make(value_range=(-1e308, 1e308))


def test_a_latent_of_several_axes_holds_its_numbers() -> None:
    spec = make(channels=None, latent_size=4096, latent_shape=(4, 32, 32))
    assert spec.latent_shape == (4, 32, 32)
    with pytest.raises(ConfigError, match="does not hold latent_size=128"):
        make(channels=None, latent_shape=(4, 32, 32))
    with pytest.raises(ConfigError, match="flat latents"):
        make(latent_shape=(8, 16))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image_size": 0}, "image_size=0"),
        ({"image_size": 8192}, "image_size=8192"),
        ({"latent_size": 0}, "latent_size=0"),
        ({"latent_size": -1}, "latent_size=-1"),
        ({"channels": ()}, "channels"),
        ({"channels": (4, 0)}, r"channels=\(4, 0\)"),
        ({"fit": "squash"}, "fit=squash"),
    ],
)
def test_an_option_out_of_range_is_named_with_its_value(
    changes: dict[str, object], words: str
) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        make(**changes)
    assert "\n" not in str(caught.value)


@given(
    size=st.integers(1, 16).map(lambda n: 32 * n),
    channels=st.lists(st.integers(1, 64), min_size=1, max_size=5).map(tuple),
    latent=st.integers(1, 512),
    fit=st.sampled_from(["stretch", "crop", "pad"]),
)
def test_json_brings_back_the_same_spec(
    size: int, channels: tuple[int, ...], latent: int, fit: str
) -> None:
    spec = make(image_size=size, channels=channels, latent_size=latent, fit=fit)
    assert ModelSpec.model_validate_json(spec.model_dump_json()) == spec
    assert spec.feature_shape[0] * 2 ** len(channels) >= size


def test_an_unknown_key_is_refused_by_name() -> None:
    with pytest.raises(ValidationError) as caught:
        ModelSpec.model_validate({"image_sise": 64})
    assert problem_of(caught.value).startswith("image_sise: ")
