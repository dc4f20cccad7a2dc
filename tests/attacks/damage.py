"""Videos with damaged bytes: how many frames are delivered that are not as recorded.

Codecs carry few checks, so some altered bytes decode to a picture without complaint; this counts
how many, by codec. A frame is as recorded where its hash is one that the ffmpeg program gives for
the undamaged recording.

    python -m tests.attacks.damage --count 40
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from pathlib import Path

from .cuts import CODECS, CONTENT, FRAMES, ffmpeg, hashes_by_ffmpeg, read
from .limits import LIMIT_S

KINDS = ("bytes", "hole", "zeros", "packet")
_TS_PACKET = 188


def damaged(data: bytes, draw: random.Random, kind: str) -> bytes:
    """Return the bytes with a part behind the headers altered."""
    start = draw.randrange(len(data) // 10, len(data) * 9 // 10)
    size = draw.choice((1, 2, 8, 64, 300))
    if kind == "packet":  # as a transport stream loses them
        start, size = start // _TS_PACKET * _TS_PACKET, _TS_PACKET * draw.choice((1, 2, 7))
    if kind == "bytes":
        new = draw.randbytes(size)
    elif kind == "zeros":
        new = bytes(size)
    else:
        new = b""
    return data[:start] + new + data[start + size :]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--codecs", nargs="*", default=list(CODECS))
    parser.add_argument("--count", type=int, default=20, help="clips of each codec and container")
    parser.add_argument("--kinds", nargs="*", default=KINDS)
    parser.add_argument("--containers", nargs="*", default=["mp4", "ts", "avi", "mkv"])
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    begun_s, total = time.monotonic(), {"clips": 0, "frames": 0, "lies": 0, "lost": 0, "slow": 0}
    with tempfile.TemporaryDirectory() as folder:
        for name in given.codecs:
            codec = CODECS[name]
            base = Path(folder) / f"base.{codec.base}"
            encode = codec.encode.format(gop=12).split()
            ffmpeg("-f", "lavfi", "-i", CONTENT, "-frames:v", str(FRAMES), *encode, str(base))
            recorded = set(hashes_by_ffmpeg(base))
            counts = dict.fromkeys(total, 0)
            for container in [form for form in codec.containers if form in given.containers][:2]:
                whole = Path(folder) / f"whole.{container}"
                ffmpeg("-i", str(base), "-c", "copy", str(whole))
                data, draw = whole.read_bytes(), random.Random(f"{name} {given.seed}")
                path = Path(folder) / f"clip.{container}"
                for number in range(given.count):
                    path.write_bytes(damaged(data, draw, given.kinds[number % len(given.kinds)]))
                    clip_s = time.monotonic()
                    frames, gaps = read(path)
                    counts["clips"] += 1
                    counts["frames"] += len(frames)
                    counts["lies"] += sum(frame not in recorded for frame in frames)
                    counts["lost"] += len(gaps)
                    counts["slow"] += time.monotonic() - clip_s > LIMIT_S
            print(json.dumps({"codec": name, **counts}), flush=True)
            total = {key: total[key] + counts[key] for key in total}
    print(json.dumps({**total, "seconds": round(time.monotonic() - begun_s)}))
    return int(total["slow"] > 0)


if __name__ == "__main__":
    sys.exit(main())
