"""What holds for every run of the stream, whatever fails, and how a test names its rows."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import groupby

from .pictures import Album
from .processes import Row, StreamRun

LETTERS = {
    "ok": "o",
    "duplicate": "d",
    "ok(gap)": "g",
    "stale": "s",
    "lost": "l",
    "given-up": "u",
    "end": "e",
}
NAMES = {letter: name for name, letter in LETTERS.items()}
GIVEN_UP = "given up"
CLOCK_MS = 50.0  # Unix time and the monotonic clock, on which gaps are taken, drift apart


def letter_of(row: Row) -> str:
    """What kind of row this is, in one letter."""
    status = row["status"]
    if status == "lost" and row["reason"].startswith(GIVEN_UP):
        return LETTERS["given-up"]
    if status == "ok" and "gap_ms" in row:
        return LETTERS["ok(gap)"]
    if status == "ok" and row.get("duplicate"):
        return LETTERS["duplicate"]
    return LETTERS[status]


def shape_of(rows: Sequence[Row]) -> str:
    """The rows in words, with a `+` for several of a kind in a row: `ok+ lost ok(gap) ok+ end`."""
    words = []
    for letter, group in groupby(letter_of(row) for row in rows):
        words.append(NAMES[letter] + ("+" if len(list(group)) > 1 else ""))
    return " ".join(words)


def matches(rows: Sequence[Row], pattern: str) -> bool:
    """Whether rows fit a pattern of words: `ok+ lost{2} given-up? ok|duplicate* end`."""
    expression = ""
    for word in pattern.split():
        names, times = re.fullmatch(r"(.+?)([*+?]|{[\d,]+})?", word).groups()  # type: ignore[union-attr]
        expression += f"[{''.join(LETTERS[name] for name in names.split('|'))}]{times or ''}"
    return re.fullmatch(expression, "".join(map(letter_of, rows))) is not None


def check_run(
    run: StreamRun,
    album: Album,
    *,
    rows: str | dict[str, str],
    code: int,
    sequence: bool = True,
    shown: Callable[[Row], int] | None = None,
    timeout_s: float | None = None,
) -> str:
    """Wait for the end of a run and hold it against all that is promised.

    Args:
        run: A stream that is about to end, or has.
        album: Every picture that was sent.
        rows: The pattern of all rows, or of those of each camera by its name; `end` is the last.
        code: The exit code.
        sequence: A frame's picture follows from its index: the source sent one after another, and
            each counts.
        shown: Which picture a row must be of, where that is known.
        timeout_s: A silence is lost after so long.

    Returns:
        The shape of the rows.
    """
    if run.code is None:
        run.wait_for_exit()
    all_rows = run.rows
    shape = shape_of(all_rows)
    reasons = "\n".join(row["reason"] for row in all_rows if row["status"] == "lost")
    told = f"{shape}\n{reasons}\n{run.stderr}"
    assert run.code == code, told
    assert "Traceback" not in run.stderr, told
    errors = [line for line in run.stderr.splitlines() if line.startswith("motorvae-stream: ")]
    assert len(errors) == (code != 0), told
    assert [row["status"] for row in all_rows].count("end") == 1, told
    assert all_rows[-1]["status"] == "end"
    check_summary(all_rows)
    by_camera: dict[str, list[Row]] = {}
    for row in all_rows[:-1]:
        by_camera.setdefault(row["camera"], []).append(row)
    if isinstance(rows, str):
        assert len(by_camera) <= 1
        assert matches(all_rows, rows), f"expected {rows}, got {told}"
    else:
        assert set(by_camera) == set(rows), told
        shape = ""
        for name, pattern in rows.items():
            own = [*by_camera[name], all_rows[-1]]
            assert matches(own, pattern), f"{name}: expected {pattern}, got {shape_of(own)}"
            shape += f"{' / ' if shape else ''}{shape_of(own)}"
    for own in by_camera.values():
        check_order(own)
        check_pictures(own, album, sequence=sequence and shown is None, shown=shown)
        check_losses(own, timeout_s)
    return shape


def check_summary(rows: Sequence[Row]) -> None:
    """The last row counts what the others are."""
    end = rows[-1]
    summary = end["summary"]
    unwritten = sum(row.get("unwritten", 0) for row in rows)
    statuses = [row["status"] for row in rows]
    assert summary["sinks"][0]["dropped"] == unwritten
    assert summary["rows"] == len(rows) - 1 + unwritten
    if unwritten == 0:
        assert summary["frames"] == statuses.count("ok")
        assert summary["lost"] == statuses.count("lost")
        assert summary["stale"] == statuses.count("stale")
        assert summary["dropped"] == sum(row["dropped"] for row in rows)
        assert summary["duplicates"] == sum(
            row["status"] == "ok" and bool(row.get("duplicate")) for row in rows
        )
    assert end["mu"] is None


def check_order(rows: Sequence[Row]) -> None:
    """Indices and times of one camera only grow, and what is missing between them is said."""
    following = 0
    captured_ns = 0
    lost = False
    for row in rows:
        assert row["index"] >= following, (following, row)
        if not row.get("unwritten") and not lost:  # nobody knows how many were lost
            assert row["index"] == following + row["dropped"], (following, row)
        assert row["captured_ns"] >= captured_ns, row
        following, captured_ns = row["index"] + 1, row["captured_ns"]
        lost = row["status"] == "lost"


def check_pictures(
    rows: Sequence[Row], album: Album, *, sequence: bool, shown: Callable[[Row], int] | None
) -> None:
    """No latent without a frame that was delivered: each is clearly of a picture that was sent."""
    before: tuple[int, int] | None = None  # the index and picture of the last frame
    for row in rows:
        assert (row["mu"] is None) == (row["status"] != "ok"), row
        if row["mu"] is None:
            if row["status"] == "lost":
                before = before if "damage" in row["reason"] else None
            continue
        kind = album.kind_of(row["mu"])
        assert shown is None or kind == shown(row), row
        if before is not None and "gap_ms" not in row and not row.get("unwritten"):
            steps = (kind - before[1]) % len(album.sent)
            if row.get("duplicate"):
                assert steps == 0 or row["dropped"], (before, row)
                continue  # a camera that stands still counts on
            if sequence:
                assert steps == (row["index"] - before[0]) % len(album.sent), (before, kind, row)
        before = row["index"], kind


def check_losses(rows: Sequence[Row], timeout_s: float | None) -> None:
    """Each loss says why, at once, and how long it lasted once it is over."""
    delivered: Row | None = None
    lost = False
    for row in rows:
        if row["status"] == "lost":
            assert row["reason"], row
            assert "\n" not in row["reason"], row
            assert row["age_ms"] is None
            lost = True
            continue
        assert row["age_ms"] >= 0
        if row["status"] == "ok" and "gap_ms" in row:
            assert lost, row
            assert row["gap_ms"] >= 0  # frames that lay there together got one time
            if delivered is not None:
                between_ms = (row["captured_ns"] - delivered["captured_ns"]) / 1e6
                assert row["gap_ms"] <= between_ms + CLOCK_MS, row
                if timeout_s is not None:
                    assert row["gap_ms"] >= 1000 * timeout_s * 0.9, row
        if row["status"] == "ok":
            delivered, lost = row, False
