"""What happens to an MJPEG camera on the network, played by a server process."""

from __future__ import annotations

import signal
import statistics
from collections.abc import Callable

from .processes import Row, Server, StreamRun

Watch = Callable[..., StreamRun]
Check = Callable[..., None]

OPTIONS = ("--policy", "every", "--timeout", 1, "--freeze-after", 0)
PATIENT = (*OPTIONS, "--give-up-after", 60)
IMPATIENT = (*OPTIONS, "--give-up-after", 1.5)
BACK = "ok+ lost ok(gap) ok+ end"


def finish(run: StreamRun, count: int = 5) -> None:
    """Let some more rows come, then end the run."""
    run.ok(count)
    run.signal(signal.SIGTERM)


# At the start


def test_absent_at_start(watch: Watch, check_refused: Callable[..., None], camera: Server) -> None:
    camera.kill()
    check_refused(watch(camera.url, options=PATIENT), camera.url)


def test_refused_at_start(watch: Watch, check_refused: Callable[..., None], camera: Server) -> None:
    camera.tell("refuse")
    check_refused(watch(camera.url, options=PATIENT), camera.url)


def test_mute_at_start(watch: Watch, check_refused: Callable[..., None], camera: Server) -> None:
    """It takes the connection and says nothing."""
    camera.tell("mute")
    check_refused(watch(camera.url, options=PATIENT), camera.url)


# The connection goes


def test_orderly_end(watch: Watch, check: Check, camera: Server) -> None:
    run = watch(camera.url, options=PATIENT)
    run.ok()
    camera.tell("close")
    run.next("lost")
    run.next("ok", gap=True)
    finish(run)
    check(run, rows=BACK, code=0)


def test_cut_short(watch: Watch, check: Check, camera: Server) -> None:
    """In the middle of a JPEG."""
    run = watch(camera.url, options=PATIENT)
    run.ok()
    camera.tell("cut")
    run.next("lost")
    run.next("ok", gap=True)
    finish(run)
    check(run, rows="ok+ lost{1,2} ok(gap) ok+ end", code=0)


def test_reset(watch: Watch, check: Check, camera: Server) -> None:
    run = watch(camera.url, options=PATIENT)
    run.ok()
    camera.tell("reset")
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
    check(run, rows="ok+ lost{1,2} ok(gap) ok+ end", code=0)


def test_killed_for_good(watch: Watch, check: Check, camera: Server) -> None:
    run = watch(camera.url, options=IMPATIENT)
    run.ok()
    camera.kill()
    check(run, rows="ok+ lost{1,2} given-up end", code=1)


def test_three_losses(watch: Watch, check: Check, camera: Server) -> None:
    run = watch(camera.url, options=PATIENT)
    for loss in ("close", "reset", "close"):
        run.ok()
        camera.tell(loss)
        run.next("lost")
        run.next("ok", gap=True)
    finish(run)
    check(run, rows=f"{3 * 'ok+ lost ok(gap) '} ok+ end", code=0)


def test_refused_for_a_while(watch: Watch, check: Check, camera: Server) -> None:
    """The server runs again before the camera behind it does."""
    run = watch(camera.url, options=PATIENT)
    run.ok()
    camera.tell("refuse")
    camera.tell("close")
    run.next("lost")
    camera.tell("accept")
    run.next("ok", gap=True)
    finish(run)
    check(run, rows=BACK, code=0)


# The connection stays


def test_stalled_and_back(watch: Watch, check: Check, camera: Server) -> None:
    run = watch(camera.url, options=PATIENT)
    run.ok()
    camera.tell("stall")
    run.next("lost")
    camera.tell("go")
    run.next("ok", gap=True)
    finish(run)
    check(run, rows=BACK, code=0, timeout_s=1)


def test_stalled_for_good(watch: Watch, check: Check, camera: Server) -> None:
    run = watch(camera.url, options=IMPATIENT)
    run.ok()
    camera.tell("stall")
    check(run, rows="ok+ lost given-up end", code=1)


def test_one_damaged_frame(watch: Watch, check: Check, camera: Server) -> None:
    run = watch(camera.url, options=PATIENT)
    run.ok()
    camera.tell("damage 1")
    run.next("ok", gap=True)
    finish(run)
    check(run, rows=BACK, code=0)


def test_damaged_for_a_while(watch: Watch, check: Check, camera: Server) -> None:
    run = watch(camera.url, options=(*PATIENT, "--timeout", 5))
    run.ok()
    camera.tell("damage 12")
    run.next("ok", gap=True)
    finish(run)
    check(run, rows="ok+ lost{12} ok(gap) ok+ end", code=0)


def test_damaged_for_good(watch: Watch, check: Check, camera: Server) -> None:
    """It sends, and not one whole frame: silence, as far as latents go."""
    run = watch(camera.url, options=IMPATIENT)
    run.ok()
    camera.tell("damage 1000000")
    check(run, rows="ok+ lost+ given-up end", code=1)


def test_damaged_from_the_start(watch: Watch, check: Check, camera: Server) -> None:
    """Its rows do not wait for a whole frame, and it is reconnected while nothing else comes."""
    camera.tell("damage 1000000")
    run = watch(camera.url, options=IMPATIENT)
    run.next("lost")
    check(run, rows="lost+ given-up end", code=1)


def test_garbage(watch: Watch, check: Check, camera: Server) -> None:
    run = watch(camera.url, options=PATIENT)
    run.ok()
    camera.tell("garbage 3")
    run.next("ok", gap=True)
    finish(run)
    check(run, rows="ok+ lost+ ok(gap) ok+ end", code=0)


def test_scan_missing(watch: Watch, check: Check, camera: Server) -> None:
    """All of a JPEG but its picture: FFmpeg then gives out what its memory last held."""
    run = watch(camera.url, options=PATIENT)
    run.ok()
    camera.tell("headless 3")
    run.next("lost")  # as rows that came before it may be waiting to be read
    run.next("ok", gap=True)
    finish(run)
    check(run, rows="ok+ lost{3} ok(gap) ok+ end", code=0)


def test_frozen_briefly(watch: Watch, check: Check, camera: Server) -> None:
    run = watch(camera.url, options=(*PATIENT, "--freeze-after", 30))
    run.ok()
    frozen = camera.tell("freeze")
    camera.tell(f"reach {frozen + 6}")
    camera.tell("thaw")
    finish(run, 20)
    check(run, rows="ok+ duplicate+ ok+ end", code=0)


def test_frozen_then_thawed(watch: Watch, check: Check, camera: Server) -> None:
    run = watch(camera.url, options=(*PATIENT, "--freeze-after", 0.4))
    run.ok()
    camera.tell("freeze")
    run.next("lost")
    camera.tell("thaw")
    run.next("ok", gap=True)
    finish(run)
    check(run, rows="ok+ duplicate+ lost ok(gap) ok|duplicate+ end", code=0)


def test_frozen_for_good(watch: Watch, check: Check, camera: Server) -> None:
    """Opening it again shows the same picture, which is no frame that is new."""
    run = watch(camera.url, options=(*IMPATIENT, "--freeze-after", 2))
    run.ok()
    camera.tell("freeze")
    check(run, rows="ok+ duplicate+ lost given-up end", code=1)


def test_frames_skipped(watch: Watch, check: Check, camera: Server) -> None:
    """The camera says nothing of it, so nothing can be said."""
    run = watch(camera.url, options=PATIENT)
    run.ok()
    camera.tell("skip 5")
    finish(run)
    check(run, rows="ok+ end", code=0, sequence=False)


def test_too_old(watch: Watch, check: Check, camera: Server) -> None:
    run = watch(camera.url, options=(*IMPATIENT, "--max-age-ms", 0.001))
    run.next("stale")
    camera.kill()
    check(run, rows="stale+ lost{1,2} given-up end", code=1)


def test_other_resolution(watch: Watch, check: Check, camera: Server) -> None:
    run = watch(camera.url, options=PATIENT)
    run.ok()
    camera.tell("resize")
    run.ok(10)
    camera.tell("resize")
    finish(run, 10)
    check(run, rows="ok+ end", code=0)


def test_slow_camera(watch: Watch, check: Check, camera: Server) -> None:
    """Its frames are far apart, and not as far as a silence that is a loss."""
    run = watch(camera.url, options=(*PATIENT, "--timeout", 3))
    run.ok()
    camera.tell("fps 1")
    finish(run, 3)
    check(run, rows="ok+ end", code=0)


# The run is ended


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
    check(run, rows="ok+ lost{1,2} end", code=0)


def test_sigterm_while_stalled(watch: Watch, check: Check, camera: Server) -> None:
    """The reader waits in FFmpeg for bytes that do not come."""
    run = watch(camera.url, options=(*PATIENT, "--timeout", 3))
    run.ok()
    camera.tell("stall")
    run.signal(signal.SIGTERM)
    check(run, rows="ok+ end", code=0)


def test_max_frames_after_a_loss(watch: Watch, check: Check, camera: Server) -> None:
    """A camera that came back is no failure."""
    run = watch(camera.url, options=(*PATIENT, "--max-frames", 30))
    run.ok()
    camera.tell("close")
    run.next("ok", gap=True)
    check(run, rows=BACK, code=0)
    assert run.rows[-1]["summary"]["frames"] == 30


# Others are not held up


def test_two_cameras_one_lost(watch: Watch, check: Check, mjpeg: Callable[[], Server]) -> None:
    lost, other = mjpeg(), mjpeg()
    run = watch(lost.url, other.url, options=(*PATIENT, "--timeout", 2))
    run.ok(camera=lost.url)
    run.ok(camera=other.url)
    lost.kill()
    run.next("lost", camera=lost.url)
    start = len(run.rows)
    meanwhile: list[Row] = []
    while len(meanwhile) < 20:
        run.ok(1, camera=other.url)
        meanwhile = [row for row in run.rows[start:] if row["camera"] == other.url]
    assert statistics.median(row["age_ms"] for row in meanwhile) < 500
    lost.start()
    run.next("ok", gap=True, camera=lost.url)
    run.ok(camera=lost.url)
    run.signal(signal.SIGTERM)
    rows = {lost.url: "ok+ lost{1,2} ok(gap) ok+ end", other.url: "ok+ end"}
    check(run, rows=rows, code=0)


def test_two_cameras_one_stalled(watch: Watch, check: Check, mjpeg: Callable[[], Server]) -> None:
    lost, other = mjpeg(), mjpeg()
    run = watch(lost.url, other.url, options=IMPATIENT)
    run.ok(camera=lost.url)
    run.ok(camera=other.url)
    lost.tell("stall")
    run.next("lost", reason="given up", camera=lost.url)
    run.ok(10, camera=other.url)
    other.kill()
    rows = {
        lost.url: "ok+ lost given-up end",
        other.url: "ok+ lost{1,2} given-up end",
    }
    check(run, rows=rows, code=1)


def test_slow_sink(watch: Watch, check: Check, camera: Server) -> None:
    """Nobody reads the rows for a while. The camera goes on, and the rows say what is missing."""
    camera.tell("fps 400")
    run = watch(camera.url, options=PATIENT, reading=False)
    run.wait_for_stderr(camera.url)
    camera.tell("reach 1000")
    run.read()
    camera.tell("fps 20")
    run.ok()
    while not any(row.get("unwritten") for row in run.rows):
        run.ok(1)
    finish(run)
    check(run, rows="ok+ end", code=0)


def test_dead_sink(watch: Watch, camera: Server, note: Callable[..., None]) -> None:
    """Nobody will ever read: the first signal may wait for that, a second does not."""
    camera.tell("fps 400")
    run = watch(camera.url, options=PATIENT, reading=False)
    run.wait_for_stderr(camera.url)
    camera.tell("reach 1000")
    run.signal(signal.SIGINT)
    run.insist(signal.SIGTERM)
    assert run.code in {0, -signal.SIGTERM}
    note("not read", run.code)
