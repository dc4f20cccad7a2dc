"""A short clip in the containers that come over networks, and how the ffmpeg program reads it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

FFMPEG = shutil.which("ffmpeg")
needs_ffmpeg = pytest.mark.skipif(FFMPEG is None, reason="needs the ffmpeg program")


def ffmpeg(*arguments: str | Path) -> str:
    """Run the ffmpeg program; return its output."""
    command = [FFMPEG or "ffmpeg", "-v", "error", "-nostdin", "-y", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def make_clip(path: Path, *options: str, frames: int = 20) -> bytes:
    """Encode `frames` pictures of 64x48, a key frame every fifth."""
    source = ["-f", "lavfi", "-i", f"testsrc2=size=64x48:rate=10:duration={frames / 10}"]
    coded = ["-c:v", "libx264", "-g", "5", "-bf", "0", "-pix_fmt", "yuv420p", "-threads", "1"]
    ffmpeg(*source, *coded, *options, path)
    return path.read_bytes()


def count_frames(path: Path) -> int:
    """Return how many frames the ffmpeg program decodes."""
    hashes = ffmpeg("-i", path, "-map", "0:v:0", "-fps_mode", "passthrough", "-f", "framemd5", "-")
    return sum(not line.startswith("#") for line in hashes.splitlines())
