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
    assert spec.feature_size == 8
    assert spec.flat_size == 32768


@pytest.mark.parametrize(
    ("size", "nearest"), [(100, "96 or 128"), (33, "32 or 64"), (255, "224 or 256")]
)
def test_a_size_off_the_grid_is_refused_with_both_neighbours(size: int, nearest: str) -> None:
    with pytest.raises(ConfigError, match=f"image_size={size} is not a multiple of 32.*{nearest}"):
        make(image_size=size)


def test_more_layers_need_a_coarser_grid() -> None:
    with pytest.raises(ConfigError, match="not a multiple of 64: take 64 or 128"):
        make(image_size=96, channels=(4, 4, 4, 4, 4, 4))
    assert make(image_size=128, channels=(4,) * 6).feature_size == 2


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
    assert spec.feature_size * 2 ** len(channels) == size


def test_an_unknown_key_is_refused_by_name() -> None:
    with pytest.raises(ValidationError) as caught:
        ModelSpec.model_validate({"image_sise": 64})
    assert problem_of(caught.value).startswith("image_sise: ")
