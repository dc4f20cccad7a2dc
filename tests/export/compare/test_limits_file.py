from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from motorvae.export.compare.limits_file import limits_from
from motorvae.export.verify.limits import LIMITS
from motorvae.runtime.core.errors import ConfigError


def test_a_file_replaces_the_limits_that_it_names(tmp_path: Path) -> None:
    path = tmp_path / "limits.json"
    path.write_text('{"max_spread": 0.5, "psnr_db": 30, "max_pixel": null}')
    found = limits_from(path, "fp16")
    assert (found.max_spread, found.psnr_db, found.max_pixel) == (0.5, 30, None)
    assert found.rms_spread == LIMITS["fp16"].rms_spread
    assert limits_from(None, "bf16") is LIMITS["bf16"]
    # Of INT8, which saturates on probes, the bundle's limit is for latents near the data alone.
    assert limits_from(None, "int8") == replace(LIMITS["int8"], probe_psnr_db=None)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"max_spreads": 1}', "'max_spreads' is no limit, take max_spread, rms_spread,"),
        ('{"max_spread": "much"}', "max_spread=much: give a number from 0"),
        ('{"max_spread": true}', "max_spread=True: give a number from 0"),
        ('{"max_spread": -1}', "max_spread=-1: give a number from 0"),
        ('{"max_spread": null}', "max_spread=None: give a number from 0"),
        ('{"max_pixel": []}', "max_pixel=[]: give a number from 0, or null for none"),
        ('{"probe_reach": 1}', "'probe_reach' is no limit"),
        ('{"neighbours": 2}', "neighbours=2: give a number from 0 to 1, or null for none"),
        ("[1]", "holds no object: give an object of limits by name"),
        ("{", "is not JSON"),
        ('{"max_spread": 1, "max_spread": 2}', "is not JSON"),
    ],
)
def test_any_other_file_is_refused(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "limits.json"
    path.write_text(text)
    with pytest.raises(ConfigError) as raised:
        limits_from(path, "fp32")
    assert words in str(raised.value)
    assert "limits.json" in str(raised.value)
