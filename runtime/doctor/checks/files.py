"""The doctor's checks of room: write access, free disk space, free memory."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from ...core.atomic_files import cache_dir, check_writable
from ...core.errors import OutputError
from ..finding import Finding, Verdict
from .video import on_jetson

STREAM_BYTES = 256 << 20
"""A stream with the default model took 188 MiB when measured, 38 MiB of them one copy of the
encoder."""
COPIES = 4
"""Of the encoder's file: what ONNX Runtime reads, what it unpacks, and a decoder beside it."""
GPU_BYTES = 1 << 30
"""For CUDA and an engine in memory that GPU and processor share; an estimate."""

_DISK_LOW_BYTES, _DISK_FULL_BYTES = 1 << 30, 64 << 20
_DEFAULT_ENCODER_BYTES = 40_000_000
_MEMORY = Path("/proc/meminfo")
_CONTAINER = Path("/sys/fs/cgroup")


def check_writing(_model: Path) -> tuple[Finding, ...]:
    """Create an unnamed file in each place that is written to; it is gone at once."""
    return _working_folder(), _cache()


def check_memory(model: Path) -> tuple[Finding, ...]:
    """Compare the free memory with what a stream takes."""
    available = available_bytes()
    if available is None:
        return (Finding("memory", "not known on this system", "optional"),)
    sizes = [path.stat().st_size for path in model.glob("encoder*.onnx")]
    needed = STREAM_BYTES + COPIES * max(sizes, default=_DEFAULT_ENCODER_BYTES)
    shared = on_jetson()
    return (memory_finding(available, needed + (GPU_BYTES if shared else 0), shared=shared),)


def memory_finding(available: int, needed: int, *, shared: bool) -> Finding:
    """Compare free memory with what is needed.

    Args:
        available: Bytes that a new process can have.
        needed: Bytes that a stream takes, about.
        shared: Whether the GPU takes its memory from there, too.
    """
    found = (
        f"{available / 1e9:.1f} GB available{', shared with the GPU' if shared else ''}; a stream "
        f"takes about {needed / 1e9:.1f} GB"
    )
    if available >= 2 * needed:
        return Finding("memory", found)
    command = "ps -eo rss,comm --sort=-rss | head  # and end what is not needed"
    return Finding("memory", found, "warn" if available >= needed else "FAILED", command)


def available_bytes() -> int | None:
    """Return the memory that a new process can have here, in a container too, or None."""
    try:
        text = _MEMORY.read_text("ascii")
    except OSError:
        return None
    listed = re.search(r"^MemAvailable:\s+(\d+) kB", text, re.MULTILINE)
    if listed is None:
        return None
    available = int(listed[1]) << 10
    try:
        most = int((_CONTAINER / "memory.max").read_text("ascii"))
        taken = int((_CONTAINER / "memory.current").read_text("ascii"))
        cached = re.search(
            r"^inactive_file (\d+)", (_CONTAINER / "memory.stat").read_text("ascii"), re.MULTILINE
        )
    except (OSError, ValueError):  # no container, or one without a limit ("max")
        return available
    return min(available, max(0, most - taken + (int(cached[1]) if cached else 0)))


def _working_folder() -> Finding:
    what = "working folder"
    try:
        check_writable(Path("motorvae-doctor-probe"))
        free = shutil.disk_usage(".").free
    except OSError as error:
        return Finding(what, f"nothing can be written here: {_cause(error)}", "FAILED", "cd ~")
    found = f"can be written, {free / 1e9:.1f} GB free"
    if free >= _DISK_LOW_BYTES:
        return Finding(what, found)
    verdict: Verdict = "warn" if free >= _DISK_FULL_BYTES else "FAILED"
    return Finding(what, found, verdict, "du -h --max-depth=1 . | sort -h | tail")


def _cache() -> Finding:
    what, command = "cache folder", "export XDG_CACHE_HOME=$PWD/.cache"
    try:
        folder = cache_dir()
    except RuntimeError:
        return Finding(what, "this user has no home folder", "warn", command)
    try:
        check_writable(folder / "probe")
    except OutputError as error:
        found = f"{folder} cannot be written: {_cause(error)}; it only saves time"
        return Finding(what, found, "warn", command)
    return Finding(what, f"{folder} can be written")


def _cause(error: OSError) -> str:
    cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
    return cause.strerror or str(cause)
