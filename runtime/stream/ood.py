"""Whether a bundle's out-of-distribution detection is worth its verdicts, and what it finds."""

from __future__ import annotations

from ..bundle.load import Bundle
from ..ood.detector import OODDetector, ood_detector_from_bundle

FEW_IMAGES = 2
"""Where the images behind a limit are so few that false alarms may be this many times what is
asked for, the clause says how many there were."""
MOST_FALSE_ALARMS = 0.5
"""Where more known images than this may be flagged, though fewer were allowed, none is judged."""


def usable_detector(bundle: Bundle, *, ood_above: float) -> tuple[OODDetector | None, str]:
    """Return the detector of a bundle, and a clause on what it recognises for this model.

    There is none where the statistics are missing, recognise nothing, or would flag known images;
    the clause says which.
    """
    found = ood_detector_from_bundle(bundle, ood_above=ood_above)
    if isinstance(found, str):
        return None, f"out-of-distribution detection is off: {found}"
    capability = bundle.manifest.ood
    if capability is not None and capability.detects_nothing:
        return None, (
            "out-of-distribution detection is off: it detects nothing that the export tried "
            f"({capability.in_words()}): train longer or on more images, and export again"
        )
    images = f"{found.images} held-out images, worth {found.effective_images:.0f}"
    allowed = 1 - ood_above / 100
    if found.false_alarms > max(MOST_FALSE_ALARMS, FEW_IMAGES * allowed):
        return None, (
            f"out-of-distribution detection is off: by so few images ({images}) up to "
            f"{found.false_alarms:.0%} of known ones may be flagged: train on more images, "
            "and export again"
        )
    remark = "is_ood was not tried by the export"
    if capability is not None:
        remark = f"is_ood detects {capability.in_words()}"
        if capability.ood_above != ood_above:
            remark += f" (tried with --ood-above {capability.ood_above:g})"
    remark += f"; known images flagged: up to {100 * found.false_alarms:.2g} %"
    if found.false_alarms > FEW_IMAGES * allowed:
        remark += f" ({images})"
    return found, remark
