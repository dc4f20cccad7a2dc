from __future__ import annotations

from dataclasses import asdict

import pytest

from motorvae.export.verify.limits import LIMITS, OTHER_NETWORKS


def test_limits_that_are_loosened_leave_room_for_errors_so_many_times_as_large() -> None:
    tight, loose = LIMITS["fp32"], LIMITS["fp32"].loosened(OTHER_NETWORKS)
    assert loose.max_spread == OTHER_NETWORKS * tight.max_spread
    assert loose.psnr_db == pytest.approx(tight.psnr_db - 6.02, abs=0.01)
    assert loose.probe_reach == tight.probe_reach
    assert loose.neighbours is None
    for name, value in asdict(tight).items():
        moved = getattr(loose, name)
        assert (moved is None) == (value is None), name
    assert tight.loosened(1) is tight
