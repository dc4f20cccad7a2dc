"""What happens to an RTSP camera (H.264 over TCP), played by a GStreamer server process."""

from __future__ import annotations

import signal
import statistics
from collections.abc import Callable

import pytest

from .processes import Server, StreamRun

Watch = Callable[..., StreamRun]
Check = Callable[..., None]

# Opening takes half a second, in which FFmpeg finds out what the stream holds.
OPTIONS = ("--policy", "every", "--timeout", 3, "--freeze-after", 0)
PATIENT = (*OPTIONS, "--give-up-after", 60)
IMPATIENT = (*OPTIONS, "--give-up-after", 2)
CUT = "lost{1,2}"  # the connection, and the frame that was on its way
BACK = f"ok+ {CUT} ok(gap) ok+ end"
GROUP = 20


@pytest.fixture
def camera(rtsp: Callable[..., Server]) -> Server:
    """One RTSP camera."""
    return rtsp()


def finish(run: StreamRun, count: int = 5) -> None:
    """Let some more rows come, then end the run."""
    run.ok(count)
    run.signal(signal.SIGTERM)


def test_absent_at_start(watch: Watch, check_refused: Callable[..., None], camera: Server) -> None:
    camera.kill()
    check_refused(watch(camera.url, options=PATIENT), camera.url)


def test_refused_at_start(watch: Watch, check_refused: Callable[..., None], camera: Server) -> None:
    camera.tell("refuse")
    check_refused(watch(camera.url, options=PATIENT), camera.url)


def test_orderly_end(watch: Watch, check: Check, camera: Server) -> None:
    run = watch(camera.url, options=PATIENT)
    run.ok()
    camera.tell("close")
    run.next("lost")
    run.next("ok", gap=True)
    finish(run)
    check(run, rows=BACK, code=0)


def test_cut_short(watch: Watch, check: Check, camera: Server) -> None:
    """The server throws its clients out."""
    run = watch(camera.url, options=PATIENT)
    run.ok()
    camera.tell("cut")
    run.next("lost")
    run.next("ok", gap=True)
    finish(run)
    check(run, rows=BACK, code=0)


def test_killed_and_back(watch: Watch, check: Check, camera: Server) -> None:
    run = watch(camera.url, options=PATIENT)
    run.ok()
    camera.kill()
    run.next("lost")
    camera.start()
    run.next("ok", gap=True)
    finish(run)
    check(run, rows=BACK, code=0)


def test_killed_for_good(watch: Watch, check: Check, camera: Server) -> None:
    run = watch(camera.url, options=IMPATIENT)
    run.ok()
    camera.kill()
    check(run, rows=f"ok+ {CUT} given-up end", code=1)


def test_three_losses(watch: Watch, check: Check, camera: Server) -> None:
    run = watch(camera.url, options=PATIENT)
    for loss in ("cut", "close", "cut"):
        run.ok()
        camera.tell(loss)
        run.next("lost")
        run.next("ok", gap=True)
    finish(run)
    check(run, rows=f"{3 * f'ok+ {CUT} ok(gap) '} ok+ end", code=0)


def test_refused_for_a_while(watch: Watch, check: Check, camera: Server) -> None:
    run = watch(camera.url, options=PATIENT)
    run.ok()
    camera.tell("refuse")
    camera.tell("cut")
    run.next("lost")
    camera.tell("accept")
    run.next("ok", gap=True)
    finish(run)
    check(run, rows=BACK, code=0)


def test_stalled_and_back(watch: Watch, check: Check, camera: Server) -> None:
    run = watch(camera.url, options=PATIENT)
    run.ok()
    camera.tell("stall")
    run.next("lost")
    camera.tell("go")
    run.next("ok", gap=True)
    finish(run)
    check(run, rows="ok+ lost ok(gap) ok+ end", code=0, timeout_s=3)


def test_stalled_for_good(watch: Watch, check: Check, camera: Server) -> None:
    run = watch(camera.url, options=IMPATIENT)
    run.ok()
    camera.tell("stall")
    check(run, rows="ok+ lost given-up end", code=1)


def test_one_damaged_frame(watch: Watch, check: Check, rtsp: Callable[..., Server]) -> None:
    """What is predicted from it is damaged too, up to the next key frame."""
    camera = rtsp(GROUP)
    run = watch(camera.url, options=PATIENT)
    run.ok()
    camera.tell("damage 1")
    run.next("ok", gap=True)
    finish(run)
    check(run, rows=f"ok+ lost{{1,{GROUP}}} ok(gap) ok+ end", code=0)


def test_damaged_for_a_while(watch: Watch, check: Check, rtsp: Callable[..., Server]) -> None:
    camera = rtsp(GROUP)
    run = watch(camera.url, options=PATIENT)
    run.ok()
    camera.tell(f"damage {GROUP}")
    run.next("ok", gap=True)
    finish(run)
    check(run, rows=f"ok+ lost{{{GROUP},{2 * GROUP}}} ok(gap) ok+ end", code=0)


def test_frames_lost_on_the_way(watch: Watch, check: Check, rtsp: Callable[..., Server]) -> None:
    """Later frames are predicted from those that are missing."""
    camera = rtsp(GROUP)
    run = watch(camera.url, options=PATIENT)
    run.ok()
    camera.tell("lose 3")
    run.ok(2 * GROUP)
    run.signal(signal.SIGTERM)
    check(run, rows="ok+ lost* ok|ok(gap)+ end", code=0, sequence=False)


def test_frozen_briefly(watch: Watch, check: Check, camera: Server) -> None:
    run = watch(camera.url, options=(*PATIENT, "--freeze-after", 30))
    run.ok(20)
    camera.tell("freeze")
    while not run.ok(1)["duplicate"]:
        pass
    camera.tell("thaw")
    finish(run, 20)
    check(run, rows="ok+ duplicate+ ok+ end", code=0)


def test_frozen_then_thawed(watch: Watch, check: Check, camera: Server) -> None:
    run = watch(camera.url, options=(*PATIENT, "--freeze-after", 0.4))
    run.ok(20)
    camera.tell("freeze")
    run.next("lost")
    camera.tell("thaw")
    run.next("ok", gap=True)
    finish(run)
    check(run, rows="ok+ duplicate+ lost ok(gap) ok|duplicate+ end", code=0)


def test_frozen_for_good(watch: Watch, check: Check, camera: Server) -> None:
    run = watch(camera.url, options=(*IMPATIENT, "--freeze-after", 0.4))
    run.ok(20)
    camera.tell("freeze")
    check(run, rows="ok+ duplicate+ lost given-up end", code=1)


def test_frames_skipped(watch: Watch, check: Check, camera: Server) -> None:
    run = watch(camera.url, options=PATIENT)
    run.ok()
    camera.tell("skip 5")
    finish(run)
    check(run, rows="ok+ end", code=0, sequence=False)


def test_too_old(watch: Watch, check: Check, camera: Server) -> None:
    run = watch(camera.url, options=(*IMPATIENT, "--max-age-ms", 0.001))
    run.next("stale")
    camera.kill()
    check(run, rows=f"stale+ {CUT} given-up end", code=1)


def test_other_resolution(watch: Watch, check: Check, camera: Server) -> None:
    run = watch(camera.url, options=PATIENT)
    run.ok()
    camera.tell("resize")
    finish(run, 50)
    check(run, rows="ok+ end", code=0)


def test_sigint_mid_stream(watch: Watch, check: Check, camera: Server) -> None:
    run = watch(camera.url, options=PATIENT)
    run.ok()
    run.signal(signal.SIGINT)
    check(run, rows="ok+ end", code=0)


def test_sigterm_while_lost(watch: Watch, check: Check, camera: Server) -> None:
    run = watch(camera.url, options=PATIENT)
    run.ok()
    camera.kill()
    run.next("lost")
    run.signal(signal.SIGTERM)
    check(run, rows=f"ok+ {CUT} end", code=0)


def test_two_cameras_one_lost(watch: Watch, check: Check, rtsp: Callable[..., Server]) -> None:
    lost, other = rtsp(), rtsp()
    run = watch(lost.url, other.url, options=PATIENT)
    run.ok(camera=lost.url)
    run.ok(camera=other.url)
    lost.kill()
    run.next("lost", camera=lost.url)
    start = len(run.rows)
    run.ok(20, camera=other.url)
    meanwhile = [row for row in run.rows[start:] if row["camera"] == other.url]
    assert statistics.median(row["age_ms"] for row in meanwhile) < 1000
    lost.start()
    run.next("ok", gap=True, camera=lost.url)
    run.ok(camera=lost.url)
    run.signal(signal.SIGTERM)
    check(run, rows={lost.url: BACK, other.url: "ok+ end"}, code=0)
