from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import pytest
import torch

from motorvae.training.loop.augmentation import augmented
from motorvae.training.options import Augmentation

KINDS: tuple[Augmentation, ...] = get_args(Augmentation)


def _images(count: int = 64, channels: int = 1, height: int = 32, width: int = 48) -> torch.Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.rand((count, channels, height, width), generator=generator)


def _changed(
    kinds: Sequence[Augmentation], images: torch.Tensor, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    before = images.clone()
    found = augmented(images, kinds, torch.Generator().manual_seed(seed))
    assert torch.equal(images, before)  # the data set's own images stay
    return found


@pytest.mark.parametrize("channels", [1, 3])
def test_flip_mirrors_about_half_left_to_right(channels: int) -> None:
    images = _images(channels=channels)
    target, seen = _changed(["flip"], images)
    assert seen is target
    flipped = [torch.equal(one, image.flip(-1)) for one, image in zip(target, images, strict=True)]
    same = [torch.equal(one, image) for one, image in zip(target, images, strict=True)]
    assert all(a != b for a, b in zip(flipped, same, strict=True))
    assert 16 < sum(flipped) < 48


def test_shift_moves_by_whole_pixels_and_repeats_the_edge() -> None:
    images = _images(channels=3)
    target, seen = _changed(["shift"], images)
    assert seen is target
    moves = set()
    for one, image in zip(target, images, strict=True):
        for down in range(-2, 3):
            for right in range(-3, 4):
                rows = (torch.arange(32) + down).clamp(0, 31)
                columns = (torch.arange(48) + right).clamp(0, 47)
                if torch.equal(one, image[:, rows][:, :, columns]):
                    moves.add((down, right))
                    break
            else:
                continue
            break
        else:
            pytest.fail("moved by more than a sixteenth, or changed otherwise")
    assert {down for down, _ in moves} == {-2, -1, 0, 1, 2}
    assert {right for _, right in moves} == {-3, -2, -1, 0, 1, 2, 3}


def test_brightness_multiplies_an_image_by_one_factor() -> None:
    images = _images() * 0.8 + 0.01
    target, _ = _changed(["brightness"], images)
    factors = (target / images).flatten(1)
    assert (factors.std(1) < 1e-4).all()
    assert 0.8 <= factors.min() < 0.85
    assert 1.15 < factors.max() <= 1.2001
    bright, _ = _changed(["brightness"], torch.ones_like(images))
    assert bright.max() == 1


def test_erase_hides_a_rectangle_from_the_encoder_only() -> None:
    images = _images(count=200)
    target, seen = _changed(["erase"], images)
    assert torch.equal(target, images)
    changed = (seen != images)[:, 0]
    hidden = [mask for mask in changed if mask.any()]
    assert 60 < len(hidden) < 140
    for mask in hidden:
        rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
        box = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert box.float().mean() > 0.99  # random pixels equal those below almost never
        assert 0.01 < mask.float().mean() < 0.45
    assert seen.min() >= 0
    assert seen.max() <= 1


@pytest.mark.parametrize("kinds", [*[(one,) for one in KINDS], KINDS])
def test_the_same_seed_changes_alike_and_others_do_not(kinds: tuple[Augmentation, ...]) -> None:
    images = _images(count=8)
    once, again, other = (_changed(kinds, images, seed)[1] for seed in (1, 1, 2))
    assert torch.equal(once, again)
    assert not torch.equal(once, other)
    assert once.shape == images.shape
    assert once.dtype == torch.float32


@pytest.mark.parametrize("kinds", [*[(one,) for one in KINDS], KINDS])
def test_processes_that_share_a_batch_change_it_as_one_does(
    kinds: tuple[Augmentation, ...],
) -> None:
    images = _images(count=8)
    whole = _changed(kinds, images, 1)
    for begin, end in ((0, 3), (3, 8)):
        generator = torch.Generator().manual_seed(1)
        part = augmented(images[begin:end], kinds, generator, begin=begin, whole=8)
        for one, other in zip(part, whole, strict=True):
            assert torch.equal(one, other[begin:end])
