from __future__ import annotations

from motorvae.runtime.told_apart import KindTold, ToldApart


def told(**kinds: tuple[float, float]) -> ToldApart:
    return ToldApart(
        foreign_above=99.9,
        false_alarms=0.01,
        images=100,
        effective_images=50.0,
        kinds=tuple(
            KindTold(name=name.replace("_", ", "), images=9, auroc=auroc, flagged=flagged)
            for name, (auroc, flagged) in kinds.items()
        ),
    )


def test_a_group_is_as_well_told_as_its_worst_kind() -> None:
    found = told(
        noise_white=(1.0, 1.0),
        noise_soft=(0.96, 0.2),
        covered_dark=(1.0, 0.95),
        blurred=(0.6, 0.0),
        covered_finger=(1.0, 0.9),
    )
    assert found.groups() == (["covered"], ["noise"], ["blurred"])
    assert found.in_words() == "covered; partly: noise; not: blurred"
    assert not found.tells_nothing


def test_a_meter_of_chance_tells_nothing() -> None:
    found = told(noise_white=(0.1, 0.0), noise_soft=(0.94, 0.3), blurred=(0.5, 0.0))
    assert found.tells_nothing
    assert found.in_words() == "not: noise, blurred"
    assert told(noise_white=(0.1, 0.0), noise_soft=(0.96, 0.3)).tells_nothing is False
