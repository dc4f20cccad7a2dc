from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from motorvae.runtime.bundle.manifest import KindCapability, Manifest, OODCapability


def told(**kinds: tuple[float, float]) -> OODCapability:
    return OODCapability(
        ood_above=99.9,
        false_alarms=0.01,
        images=100,
        effective_images=50.0,
        kinds=tuple(
            KindCapability(name=name.replace("_", ", "), images=9, auroc=auroc, flagged=flagged)
            for name, (auroc, flagged) in kinds.items()
        ),
    )


def test_a_group_is_told_where_all_its_kinds_are_flagged() -> None:
    found = told(
        noise_white=(1.0, 1.0),
        noise_soft=(0.96, 0.2),
        covered_dark=(1.0, 0.95),
        blurred=(0.6, 0.0),
        patched=(0.9, 0.4),
        covered_finger=(1.0, 0.9),
    )
    assert found.groups() == (["covered"], ["noise", "patched"], ["blurred"])
    words = "covered; partly: noise (20 to 100 %), patched (40 %); not: blurred"
    assert found.in_words() == words
    assert not found.detects_nothing


def test_what_no_row_will_flag_is_not_told_however_high_its_auroc() -> None:
    found = told(noise_white=(0.999, 0.0), noise_soft=(0.99, 0.09), blurred=(0.5, 0.0))
    assert found.detects_nothing
    assert found.in_words() == "not: noise, blurred"
    assert told(noise_white=(0.1, 0.0), noise_soft=(0.96, 0.1)).detects_nothing is False


def test_what_is_flagged_no_more_than_known_images_may_be_is_not_told() -> None:
    found = told(noise_white=(1.0, 1.0), covered_dark=(0.99, 0.95), blurred=(0.6, 0.5))
    found = found.model_copy(update={"false_alarms": 0.5})
    assert found.groups() == (["noise", "covered"], [], ["blurred"])
    found = found.model_copy(update={"false_alarms": 1.0})
    assert found.detects_nothing


def test_a_decoder_of_a_model_without_one_is_refused() -> None:
    text = Path(__file__).with_name("golden").joinpath("manifest.json").read_text(encoding="utf-8")
    manifest = json.loads(text)
    manifest["model"] |= {"channels": None, "has_decoder": False}
    with pytest.raises(ValidationError, match="a decoder is listed, and the model has none"):
        Manifest.model_validate(manifest)
    manifest["graphs"] = [one for one in manifest["graphs"] if one["graph"] == "encoder"]
    Manifest.model_validate(manifest)
