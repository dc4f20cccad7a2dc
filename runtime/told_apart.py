"""What `foreign` can tell for one model: the section of the manifest, and it in a few words."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import Field

from .spec import StrictModel

TOLD_SHARE, TOLD_AUROC = 0.9, 0.95
"""A kind is told where so many of its images are flagged; partly, where its AUROC is so high."""


class KindTold(StrictModel):
    """Generated images of one kind.

    Attributes:
        name: A group, or a group and what is special, as in "noise, white".
        auroc: The share of pairs of a held-out image and one of these in which this one has the
            higher `foreign_score`; a tie counts half.
        flagged: The share of these that is foreign.
    """

    name: str
    images: int = Field(ge=1)
    auroc: float = Field(ge=0, le=1)
    flagged: float = Field(ge=0, le=1)


class ToldApart(StrictModel):
    """How well `foreign` does, as the export measured it with the float32 graphs.

    Attributes:
        foreign_above: The percentile that it was measured at.
        false_alarms: The share of known images to expect past it, at most.
        images: Held-out images behind the limits.
        effective_images: How many independent ones tell as much.
        kinds: One by one.
    """

    foreign_above: float = Field(gt=0, le=100)
    false_alarms: float = Field(ge=0, le=1)
    images: int = Field(ge=1)
    effective_images: float = Field(ge=1)
    kinds: tuple[KindTold, ...]

    def groups(self) -> tuple[list[str], list[str], list[str]]:
        """Return the groups of kinds that are told, told in part, and not told.

        A group is as well told as its worst kind.
        """
        told: dict[str, int] = {}
        for kind in self.kinds:
            group = kind.name.partition(",")[0]
            told[group] = max(told.get(group, 0), _rank(kind))
        told_, partly, not_ = ([g for g, rank in told.items() if rank == r] for r in range(3))
        return told_, partly, not_

    @property
    def tells_nothing(self) -> bool:
        """Whether not one kind is told even in part."""
        return all(_rank(kind) == 2 for kind in self.kinds)

    def in_words(self) -> str:
        """Return such as "noise, covered; partly: blurred; not: shifted"."""
        told, partly, not_ = self.groups()
        parts = (("", told), ("partly: ", partly), ("not: ", not_))
        return "; ".join(f"{prefix}{_listed(names)}" for prefix, names in parts if names)


def _rank(kind: KindTold) -> int:
    if kind.flagged >= TOLD_SHARE:
        return 0
    return 1 if kind.auroc >= TOLD_AUROC else 2


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
