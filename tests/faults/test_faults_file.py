"""What happens to recordings, and to a FIFO, which is a file that is live."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import pytest

from .pictures import KINDS, headless_jpeg, jpeg, picture
from .processes import StreamRun
from .recordings import FPS, FifoWriter, cut_in_half, fifo_at, jpegs_of, write_clip

Watch = Callable[..., StreamRun]
Check = Callable[..., None]

FRAMES = 24
LIVE = ("--timeout", 1, "--give-up-after", 3, "--policy", "every")


@pytest.fixture
def writers() -> Iterator[Callable[[Path], FifoWriter]]:
    """Start a writer of a FIFO."""
    started = []

    def start(path: Path) -> FifoWriter:
        started.append(FifoWriter(path))
        return started[-1]

    yield start
    for writer in started:
        writer.stop()


def test_absent_at_start(watch: Watch, check_refused: Callable[..., None], tmp_path: Path) -> None:
    check_refused(watch(tmp_path / "gone.avi"), "gone.avi")


def test_empty(watch: Watch, check_refused: Callable[..., None], tmp_path: Path) -> None:
    path = tmp_path / "empty.avi"
    path.touch()
    check_refused(watch(path), "empty.avi")


def test_garbage(watch: Watch, check_refused: Callable[..., None], tmp_path: Path) -> None:
    path = tmp_path / "garbage.avi"
    path.write_bytes(b"this is no video " * 4000)
    check_refused(watch(path), "garbage.avi")


def test_head_missing(watch: Watch, check_refused: Callable[..., None], tmp_path: Path) -> None:
    """An MP4 that was not finished has no index."""
    path = write_clip(tmp_path / "clip.mp4", range(FRAMES), codec="libx264")
    path.write_bytes(path.read_bytes()[:-600])
    check_refused(watch(path), "clip.mp4")


def test_orderly_end(watch: Watch, check: Check, tmp_path: Path) -> None:
    run = watch(write_clip(tmp_path / "clip.avi", range(FRAMES)))
    check(run, rows=f"ok{{{FRAMES}}} end", code=0)


def test_cut_short(watch: Watch, check: Check, tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.avi", range(FRAMES))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    run = watch(path)
    check(run, rows="ok+ lost+ end", code=1)
    assert 0 < run.rows[-1]["summary"]["frames"] < FRAMES


def test_one_damaged_frame(watch: Watch, check: Check, tmp_path: Path) -> None:
    run = watch(write_clip(tmp_path / "clip.avi", range(FRAMES), damaged=[9]))
    check(run, rows="ok{9} lost ok(gap) ok{13} end", code=1)


def test_damaged_for_a_while(watch: Watch, check: Check, tmp_path: Path) -> None:
    run = watch(write_clip(tmp_path / "clip.avi", range(FRAMES), damaged=range(8, 16)))
    check(run, rows="ok{8} lost{8} ok(gap) ok{7} end", code=1)


def test_scan_missing(watch: Watch, check: Check, tmp_path: Path) -> None:
    """All of a JPEG but its picture: FFmpeg then gives out what its memory last held."""
    path = write_clip(tmp_path / "clip.avi", range(FRAMES), damaged=[9], spoil=headless_jpeg)
    check(watch(path), rows="ok{9} lost ok(gap) ok{13} end", code=1)


def test_predicted_from_damage(watch: Watch, check: Check, tmp_path: Path) -> None:
    """Nothing is known until the next key frame."""
    path = write_clip(
        tmp_path / "clip.mp4", range(FRAMES), codec="libx264", damaged=[10], spoil=cut_in_half
    )
    check(watch(path), rows="ok{10} lost{6} ok(gap) ok{7} end", code=1)


def test_frozen_briefly(watch: Watch, check: Check, tmp_path: Path) -> None:
    kinds = [*range(8), *[7] * 4, *range(8, 16)]
    run = watch(write_clip(tmp_path / "clip.avi", kinds), options=("--freeze-after", 0.4))
    check(run, rows="ok{8} duplicate{4} ok{8} end", code=0, sequence=False)


def test_frozen_then_thawed(watch: Watch, check: Check, tmp_path: Path) -> None:
    kinds = [*range(8), *[7] * 20, *range(8, 16)]
    run = watch(write_clip(tmp_path / "clip.avi", kinds), options=("--freeze-after", 0.4))
    check(run, rows="ok{8} duplicate{7,9} lost ok(gap) ok{7} end", code=1, sequence=False)


def test_frozen_for_good(watch: Watch, check: Check, tmp_path: Path) -> None:
    kinds = [*range(8), *[7] * 20]
    run = watch(write_clip(tmp_path / "clip.avi", kinds), options=("--freeze-after", 0.4))
    check(run, rows="ok{8} duplicate{7,9} lost end", code=1, sequence=False)


def test_too_old(watch: Watch, check: Check, tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.avi", range(FRAMES))
    run = watch(path, options=("--realtime", "--policy", "every", "--max-age-ms", 0.001))
    check(run, rows="stale+ end", code=1)


def test_other_resolution(watch: Watch, check: Check, tmp_path: Path) -> None:
    path = tmp_path / "clip.mjpeg"
    path.write_bytes(jpegs_of(range(12)) + jpegs_of(range(12, FRAMES), 160, 128))
    check(watch(path), rows=f"ok{{{FRAMES}}} end", code=0)


def test_cut_short_while_read(watch: Watch, check: Check, tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.avi", range(400), fps=100)
    run = watch(path, options=("--realtime", "--policy", "every"))
    run.ok(3)
    os.truncate(path, path.stat().st_size // 2)  # FFmpeg reads a little ahead
    check(run, rows="ok+ lost+ end", code=1)


def test_removed_while_read(watch: Watch, check: Check, tmp_path: Path) -> None:
    """The name goes, the bytes stay for whoever has them open."""
    path = write_clip(tmp_path / "clip.avi", range(100), fps=50)
    run = watch(path, options=("--realtime", "--policy", "every"))
    run.ok(3)
    path.unlink()
    check(run, rows="ok+ end", code=0)
    assert run.rows[-1]["summary"]["frames"] + run.rows[-1]["summary"]["dropped"] == 100


def test_sigint_mid_stream(watch: Watch, check: Check, tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.avi", range(60 * FPS))
    run = watch(path, options=("--realtime", "--policy", "every"))
    run.ok()
    run.signal(signal.SIGINT)
    check(run, rows="ok+ end", code=0)


def test_damaged_image_of_a_folder(watch: Watch, check: Check, tmp_path: Path) -> None:
    for kind in range(12):
        assert cv2.imwrite(str(tmp_path / f"{kind}.png"), picture(kind))
    (tmp_path / "7.png").write_bytes(jpeg(picture(7))[:-200])
    run = watch(tmp_path)
    check(run, rows="ok{7} lost ok(gap) ok{3} end", code=1)
    assert run.rows[7]["name"] == "7.png"


def test_two_cameras_one_lost(watch: Watch, check: Check, tmp_path: Path) -> None:
    cut = write_clip(tmp_path / "cut.avi", range(FRAMES))
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    whole = write_clip(tmp_path / "whole.avi", range(60))
    run = watch(cut, whole)
    rows = {str(cut): "ok+ lost+ end", str(whole): "ok{60} end"}
    check(run, rows=rows, code=1)


# A FIFO


def test_killed_and_back(
    watch: Watch, check: Check, tmp_path: Path, writers: Callable[[Path], FifoWriter]
) -> None:
    fifo = fifo_at(tmp_path / "camera.mjpeg")
    writer = writers(fifo)
    run = watch(fifo, options=LIVE)
    run.ok()
    writer.stop()
    run.next("lost")
    writers(fifo)
    run.next("ok", gap=True)
    run.ok()
    run.signal(signal.SIGTERM)
    check(run, rows="ok+ lost ok(gap) ok+ end", code=0)


def test_killed_for_good(
    watch: Watch, check: Check, tmp_path: Path, writers: Callable[[Path], FifoWriter]
) -> None:
    fifo = fifo_at(tmp_path / "camera.mjpeg")
    writer = writers(fifo)
    run = watch(fifo, options=LIVE)
    run.ok()
    writer.stop()
    check(run, rows="ok+ lost given-up end", code=1)


def test_stalled_and_back(
    watch: Watch, check: Check, tmp_path: Path, writers: Callable[[Path], FifoWriter]
) -> None:
    fifo = fifo_at(tmp_path / "camera.mjpeg")
    writer = writers(fifo)
    run = watch(fifo, options=LIVE)
    run.ok()
    writer.stall()
    run.next("lost")
    writer.stop()  # who has closed a FIFO cannot have its rest
    writers(fifo)
    run.next("ok", gap=True)
    run.ok()
    run.signal(signal.SIGTERM)
    check(run, rows="ok+ lost ok(gap) ok+ end", code=0, timeout_s=1)


def test_sigterm_while_lost(
    watch: Watch, check: Check, tmp_path: Path, writers: Callable[[Path], FifoWriter]
) -> None:
    fifo = fifo_at(tmp_path / "camera.mjpeg")
    writer = writers(fifo)
    run = watch(fifo, options=("--timeout", 1, "--policy", "every"))
    run.ok()
    writer.stop()
    run.next("lost")
    run.signal(signal.SIGTERM)
    check(run, rows="ok+ lost end", code=0)


def test_nobody_writes(watch: Watch, check_refused: Callable[..., None], tmp_path: Path) -> None:
    """A FIFO without a writer is a camera that cannot be opened."""
    fifo = fifo_at(tmp_path / "camera.mjpeg")
    check_refused(watch(fifo, options=LIVE), "camera.mjpeg")


def test_every_picture_is_sent(tmp_path: Path) -> None:
    """The clips hold what the tests think: else they would prove nothing."""
    path = write_clip(tmp_path / "clip.avi", range(FRAMES))
    assert FRAMES > KINDS
    assert path.stat().st_size > FRAMES * 500
