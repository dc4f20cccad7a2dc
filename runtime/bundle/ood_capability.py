"""What `is_ood` can tell for one model: the section of the manifest, and it in a few words."""

from __future__ import annotations

from pydantic import Field

from ..core.spec import StrictModel

TOLD_SHARE, PARTLY_SHARE = 0.9, 0.1
"""What is told is what rows will say at the default limit, so an AUROC earns no word: a group is
told where at least so many images of each of its kinds are flagged, and partly where so many of
one of them are, and in both cases more than known images may be."""


class KindCapability(StrictModel):
    """Generated images of one kind.

    Attributes:
        name: A group, or a group and what is special, as in "noise, white".
        auroc: The share of pairs of a held-out image and one of these in which this one has the
            higher `ood_score`; a tie counts half.
        flagged: The share of these with `is_ood`.
    """

    name: str
    images: int = Field(ge=1)
    auroc: float = Field(ge=0, le=1)
    flagged: float = Field(ge=0, le=1)


class OODCapability(StrictModel):
    """How well `is_ood` does, as the export measured it with the float32 graphs.

    Attributes:
        ood_above: The percentile that it was measured at.
        false_alarms: The share of known images to expect past it, at most.
        images: Held-out images behind the limits.
        effective_images: How many independent ones tell as much.
        kinds: One by one.
    """

    ood_above: float = Field(gt=0, le=100)
    false_alarms: float = Field(ge=0, le=1)
    images: int = Field(ge=1)
    effective_images: float = Field(ge=1)
    kinds: tuple[KindCapability, ...]

    def groups(self) -> tuple[list[str], list[str], list[str]]:
        """Return the groups of kinds that are told, told in part, and not told."""
        found: tuple[list[str], list[str], list[str]] = ([], [], [])
        for group, shares in self._shares().items():
            told = min(shares) >= TOLD_SHARE and min(shares) > self.false_alarms
            partly = max(shares) >= PARTLY_SHARE and max(shares) > self.false_alarms
            found[0 if told else 1 if partly else 2].append(group)
        return found

    @property
    def tells_nothing(self) -> bool:
        """Whether not one kind is told even in part."""
        told, partly, _ = self.groups()
        return not told and not partly

    def in_words(self) -> str:
        """Return such as "noise, covered; partly: overexposed (40 to 100 %); not: shifted"."""
        told, partly, not_ = self.groups()
        shares = self._shares()
        partly = [f"{group} ({_range(shares[group])})" for group in partly]
        parts = (("", told), ("partly: ", partly), ("not: ", not_))
        return "; ".join(f"{prefix}{', '.join(names)}" for prefix, names in parts if names)

    def _shares(self) -> dict[str, list[float]]:
        """Return how many images of each kind are flagged, by group."""
        shares: dict[str, list[float]] = {}
        for kind in self.kinds:
            shares.setdefault(kind.name.partition(",")[0], []).append(kind.flagged)
        return shares


def _range(shares: list[float]) -> str:
    least, most = (f"{100 * share:.0f}" for share in (min(shares), max(shares)))
    return f"{least} %" if least == most else f"{least} to {most} %"
