from __future__ import annotations

import math
from typing import Any

import pytest

from motorvae.runtime.core.errors import ConfigError
from motorvae.runtime.core.frame import Mode
from motorvae.runtime.engines.cpu_threads import default_threads
from motorvae.runtime.stream.options import StreamOptions, check_stream_options


def test_the_defaults_pass() -> None:
    options = StreamOptions(camera=("0",))
    check_stream_options(options)
    assert options.outputs == ("latents.jsonl",)
    assert options.every() is None
    assert options.capture_request.mode == Mode()
    assert not options.capture_request.accept_mode


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("max_frames", 0, "--max-frames=0: take 1 or more"),
        ("max_age_ms", 0.0, "--max-age-ms=0.0: take more than 0"),
        ("max_age_ms", math.nan, "--max-age-ms=nan: take more than 0"),
        ("timeout", 0.0, "--timeout=0.0: take seconds above 0"),
        ("timeout", math.inf, "--timeout=inf: take seconds above 0"),
        ("freeze_after", -1.0, "--freeze-after=-1.0: take 0 or more seconds"),
        ("give_up_after", 0.0, "--give-up-after=0.0: take seconds above 0, or inf"),
        ("give_up_after", math.nan, "--give-up-after=nan"),
        ("batch_wait_ms", -1.0, "--batch-wait-ms=-1.0: take 0 to 1000"),
        ("batch_wait_ms", math.nan, "--batch-wait-ms=nan"),
        ("width", 0, "--width=0: take pixels from 1"),
        ("height", -3, "--height=-3: take pixels from 1"),
        ("fps", 0.0, "--fps=0.0: take more than 0"),
        ("fourcc", "MJPEG", "--fourcc=MJPEG: take four letters"),
        ("ood_above", 0.0, "--ood-above=0.0: take more than 0 and at most 100"),
        ("ood_above", 100.1, "--ood-above=100.1"),
        ("output", ("-", "a.csv", "-"), "--output=.*: take each output once"),
        ("view", ("a.rrd", "b.rrd"), "--view=.*: take one file at most"),
        ("reconstruct", "10", "--reconstruct 10: write every=N"),
    ],
)
def test_a_value_that_makes_no_sense_is_named_with_what_it_takes(
    name: str, value: Any, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        check_stream_options(StreamOptions(camera=("0",), **{name: value}))


def test_trying_for_ever_is_allowed() -> None:
    check_stream_options(StreamOptions(camera=("0",), give_up_after=math.inf))


@pytest.mark.parametrize(
    ("given", "live", "recording"),
    [(None, 5.0, math.inf), (0.0, math.inf, math.inf), (2.5, 2.5, 2.5)],
)
def test_a_still_picture_is_a_loss_of_a_live_source_unless_told(
    given: float | None, live: float, recording: float
) -> None:
    options = StreamOptions(camera=("0",), freeze_after=given)
    assert options.freeze_after_s(can_reconnect=True) == live
    assert options.freeze_after_s(can_reconnect=False) == recording


def test_what_is_asked_of_a_camera() -> None:
    options = StreamOptions(
        camera=("0",), width=640, height=480, fps=60, fourcc="MJPG", accept_mode=True, timeout=2
    )
    assert options.capture_request.mode == Mode(640, 480, 60, "MJPG")
    assert options.capture_request.accept_mode
    assert options.capture_request.timeout_s == 2


def test_one_camera_is_decoded_on_all_cores_where_its_age_is_to_be_the_lowest() -> None:
    def cores(*camera: str, **options: Any) -> int:
        return StreamOptions(camera=camera, **options).capture_request.cores

    assert cores("0", latency="lowest") == default_threads()
    assert cores("0") == cores("0", latency="economy") == cores("0", "1", latency="lowest") == 1
