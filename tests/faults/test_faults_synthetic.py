"""What happens to the synthetic camera, by the faults that its address asks for."""

from __future__ import annotations

import re
import signal
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from motorvae.runtime.sources.synthetic.vehicles import MovingVehicles

from .pictures import Album, album_of
from .processes import Row, StreamRun

Watch = Callable[..., StreamRun]
Check = Callable[..., None]

FPS = 10  # slow, so that a busy machine does not miss a tick, which would miss its fault as well
SIZE = 64
LOOP = 16
CAMERA = f"synthetic?fps={FPS}&size={SIZE}&loop={LOOP}"

OPTIONS = ("--policy", "every", "--timeout", 0.5, "--freeze-after", 0)
PATIENT = (*OPTIONS, "--give-up-after", 60)
IMPATIENT = (*OPTIONS, "--give-up-after", 1)
UNTIL_20 = (*PATIENT, "--max-frames", 20)
FOR_GOOD = "8..1000000"


class Vehicles:
    """The pictures of the synthetic camera. Before a vehicle is in view, some are the same."""

    def __init__(self, bundle: Path) -> None:
        world = MovingVehicles(0, SIZE)
        images = [world.image(place / FPS) for place in range(LOOP)]
        different = {image.tobytes(): image for image in images}
        self.album: Album = album_of(bundle, [*different.values()], blanks=(0, 16, 128))
        self._kinds = [[*different].index(image.tobytes()) for image in images]

    def shown(self, freeze: str = "") -> Callable[[Row], int]:
        """Which picture a row is of, by the tick of its frame."""
        frozen = re.fullmatch(r"(\d+)\.\.(\d+)", freeze)

        def kind(row: Row) -> int:
            tick = round(row["media_s"] * FPS)
            if frozen and int(frozen[1]) <= tick <= int(frozen[2]):
                tick = int(frozen[1]) - 1
            return self._kinds[tick % LOOP]

        return kind


@pytest.fixture(scope="module")
def vehicles(small_bundle: Path) -> Vehicles:
    return Vehicles(small_bundle)


@pytest.fixture
def hold(check: Check, vehicles: Vehicles) -> Check:
    """`check`, knowing the picture of every tick."""

    def held(run: StreamRun, *, freeze: str = "", **expected: Any) -> None:
        check(run, album=vehicles.album, shown=vehicles.shown(freeze), **expected)

    return held


def test_absent_at_start(watch: Watch, check_refused: Callable[..., None]) -> None:
    check_refused(watch(f"{CAMERA}&lost=5"), "'lost' is unknown")


def test_lost_from_the_start(watch: Watch, hold: Check) -> None:
    run = watch(f"{CAMERA}&lose=0..8", options=UNTIL_20)
    hold(run, rows="lost ok+ end", code=0)


def test_orderly_end(watch: Watch, hold: Check) -> None:
    run = watch(f"{CAMERA}&frames=15", options=PATIENT)
    hold(run, rows="ok|duplicate+ end", code=0)


def test_frames_skipped(watch: Watch, hold: Check) -> None:
    run = watch(f"{CAMERA}&drop=8..10", options=UNTIL_20)
    hold(run, rows="ok|duplicate+ end", code=0)
    assert run.rows[-1]["summary"]["dropped"] >= 3
    assert not any(0.8 <= row["media_s"] <= 1.0 for row in run.rows[:-1])


def test_one_damaged_frame(watch: Watch, hold: Check) -> None:
    run = watch(f"{CAMERA}&damage=8", options=UNTIL_20)
    hold(run, rows="ok|duplicate+ lost ok(gap) ok|duplicate+ end", code=0)


def test_damaged_for_a_while(watch: Watch, hold: Check) -> None:
    run = watch(f"{CAMERA}&damage=8..15", options=(*UNTIL_20, "--timeout", 5))
    hold(run, rows="ok|duplicate+ lost{4,8} ok(gap) ok|duplicate+ end", code=0)


def test_damaged_for_good(watch: Watch, hold: Check) -> None:
    run = watch(f"{CAMERA}&damage={FOR_GOOD}", options=IMPATIENT)
    hold(run, rows="ok|duplicate+ lost+ given-up end", code=1)


def test_killed_and_back(watch: Watch, hold: Check) -> None:
    run = watch(f"{CAMERA}&lose=8..16", options=UNTIL_20)
    hold(run, rows="ok|duplicate+ lost ok(gap) ok|duplicate+ end", code=0)


def test_killed_for_good(watch: Watch, hold: Check) -> None:
    run = watch(f"{CAMERA}&lose={FOR_GOOD}", options=IMPATIENT)
    hold(run, rows="ok|duplicate+ lost given-up end", code=1)


def test_three_losses(watch: Watch, hold: Check) -> None:
    # More latents than can come before the third loss.
    run = watch(f"{CAMERA}&lose=8..10,22..24,36..38", options=(*PATIENT, "--max-frames", 40))
    hold(run, rows=f"{3 * 'ok|duplicate+ lost ok(gap) '} ok|duplicate+ end", code=0)


def test_stalled_and_back(watch: Watch, hold: Check) -> None:
    run = watch(f"{CAMERA}&stall=8..20", options=UNTIL_20)
    hold(run, rows="ok|duplicate+ lost ok(gap) ok|duplicate+ end", code=0, timeout_s=0.5)


def test_stalled_for_good(watch: Watch, hold: Check) -> None:
    run = watch(f"{CAMERA}&stall={FOR_GOOD}", options=IMPATIENT)
    hold(run, rows="ok|duplicate+ lost given-up end", code=1)


def test_frozen_briefly(watch: Watch, hold: Check) -> None:
    run = watch(f"{CAMERA}&freeze=8..12", options=(*UNTIL_20, "--freeze-after", 10))
    hold(run, rows="ok|duplicate+ duplicate{4,} ok|duplicate+ end", code=0, freeze="8..12")


def test_frozen_then_thawed(watch: Watch, hold: Check) -> None:
    run = watch(f"{CAMERA}&freeze=8..25", options=(*UNTIL_20, "--freeze-after", 0.5))
    rows = "ok|duplicate+ duplicate{4,6} lost ok(gap) ok|duplicate+ end"
    hold(run, rows=rows, code=0, freeze="8..25")


def test_frozen_for_good(watch: Watch, hold: Check) -> None:
    run = watch(f"{CAMERA}&freeze={FOR_GOOD}", options=(*IMPATIENT, "--freeze-after", 0.5))
    rows = "ok|duplicate+ duplicate{4,6} lost given-up end"
    hold(run, rows=rows, code=1, freeze=FOR_GOOD)


def test_too_old(watch: Watch, hold: Check) -> None:
    run = watch(f"{CAMERA}&frames=10", options=(*PATIENT, "--max-age-ms", 0.001))
    hold(run, rows="stale+ end", code=1)


def test_every_fault_in_turn(watch: Watch, hold: Check) -> None:
    faults = "drop=6..7&damage=10&freeze=14..15&stall=18..27&lose=34..36"
    run = watch(f"{CAMERA}&{faults}", options=(*PATIENT, "--max-frames", 30))
    rows = f"{3 * 'ok|duplicate+ lost ok(gap) '} ok|duplicate+ end"
    hold(run, rows=rows, code=0, freeze="14..15")


def test_sigint_mid_stream(watch: Watch, hold: Check) -> None:
    run = watch(CAMERA, options=PATIENT)
    run.ok()
    run.signal(signal.SIGINT)
    hold(run, rows="ok|duplicate+ end", code=0)


def test_sigterm_while_lost(watch: Watch, hold: Check) -> None:
    run = watch(f"{CAMERA}&lose={FOR_GOOD}", options=PATIENT)
    run.next("lost")
    run.signal(signal.SIGTERM)
    hold(run, rows="ok|duplicate+ lost end", code=0)


def test_sigterm_while_stalled(watch: Watch, hold: Check) -> None:
    run = watch(f"{CAMERA}&stall={FOR_GOOD}", options=(*PATIENT, "--timeout", 30))
    run.ok(8)
    run.signal(signal.SIGTERM)
    hold(run, rows="ok|duplicate+ end", code=0)


def test_two_cameras_one_lost(watch: Watch, hold: Check) -> None:
    """The two have one name; a number tells them apart."""
    run = watch(f"{CAMERA}&lose=8..30", CAMERA, options=PATIENT)
    lost, other = "synthetic", "synthetic #2"
    run.next("lost", camera=lost)
    start = len(run.rows)
    run.next("ok", gap=True, camera=lost)
    meanwhile = [row for row in run.rows[start:] if row["camera"] == other]
    assert len(meanwhile) > 10
    assert statistics.median(row["age_ms"] for row in meanwhile) < 100
    run.signal(signal.SIGTERM)
    back = "ok|duplicate+ lost ok(gap) ok|duplicate* end"
    hold(run, rows={lost: back, other: "ok|duplicate+ end"}, code=0)
