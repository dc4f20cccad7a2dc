"""Cut videos, judged by the ffmpeg program: what it decodes as recorded must be delivered.

Every clip is a cut of a recording whose frames are known by the hashes of `ffmpeg -f framemd5`. A
lie is a frame that was delivered and is not in the recording. A false loss is a frame that ffmpeg
decodes from the clip exactly as it is in the recording, and that was not delivered (in clips with
holes in them this is no fault: nothing says which frames are predicted from what is not there); a
false row calls something lost in a clip of one piece. A cut that is not told is one that the
header shows.

    python -m tests.attacks.cuts --out docs/results/cuts.json
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from av.codec.context import Flags

from motorvae.runtime.core.errors import SourceError
from motorvae.runtime.core.frame import Frame
from motorvae.runtime.sources.spec import SourceSpec
from motorvae.runtime.sources.video.source import VideoSource

RATE, FRAMES = 25, 60
CONTENT = f"testsrc2=size=96x64:rate={RATE},noise=alls=24:allf=t:all_seed=3,format=yuv420p"
X264 = "-c:v libx264 -preset fast -crf 20 -x264-params"
X265 = "-c:v libx265 -preset ultrafast -x265-params log-level=none:pools=1:frame-threads=1"


class Codec(NamedTuple):
    """How a recording is encoded; `{gop}` is replaced by the length of a group."""

    encode: str
    base: str  # the container it is recorded in
    containers: tuple[str, ...]


_ANY = ("mp4", "mov", "mkv", "ts", "avi", "flv", "h264")
FAULTS = ("lies", "false_losses", "false_rows", "untold")
CODECS = {
    "h264 closed": Codec(f"{X264} keyint={{gop}}:bframes=0", "mp4", _ANY),
    "h264 pyramid": Codec(
        f"{X264} keyint={{gop}}:min-keyint=1:bframes=3:b-adapt=0:b-pyramid=normal:ref=4:scenecut=0",
        "mp4",
        _ANY,
    ),
    "h264 open": Codec(
        f"{X264} keyint={{gop}}:min-keyint=1:open-gop=1:bframes=3:b-pyramid=normal:scenecut=0",
        "mp4",
        _ANY,
    ),
    "h264 refresh": Codec(
        f"{X264} keyint={{gop}}:intra-refresh=1:bframes=0:ref=1:scenecut=0",
        "mkv",
        ("mp4", "mkv", "ts"),
    ),
    "h264 field": Codec(f"{X264} keyint={{gop}}:tff=1:bframes=2", "mp4", ("mp4", "ts")),
    "hevc open": Codec(
        f"{X265}:keyint={{gop}}:min-keyint=1:open-gop=1:bframes=3:scenecut=0",
        "mkv",
        ("mp4", "mkv", "ts", "hevc"),
    ),
    "hevc radl": Codec(
        f"{X265}:keyint={{gop}}:min-keyint=1:open-gop=0:radl=2:bframes=3:scenecut=0",
        "mkv",
        ("mp4", "mkv", "ts"),
    ),
    "mpeg2 open": Codec(
        "-c:v mpeg2video -q:v 3 -g {gop} -bf 2", "mkv", ("mkv", "ts", "avi", "m2v")
    ),
    "mpeg4": Codec("-c:v mpeg4 -q:v 3 -g {gop} -bf 0", "mp4", ("mp4", "mov", "mkv", "avi")),
    "mpeg4 b": Codec("-c:v mpeg4 -q:v 3 -g {gop} -bf 2", "mp4", ("mp4", "mkv", "avi", "ts")),
    "vp8": Codec(
        "-c:v libvpx -deadline realtime -b:v 400k -g {gop}", "mkv", ("webm", "mkv", "avi")
    ),
    "vp9": Codec(
        "-c:v libvpx-vp9 -deadline good -cpu-used 8 -b:v 300k -g {gop} -auto-alt-ref 1 "
        "-lag-in-frames 16",
        "mkv",
        ("webm", "mkv", "mp4"),
    ),
    "av1": Codec(
        "-c:v libaom-av1 -cpu-used 8 -b:v 300k -g {gop} -usage good", "mkv", ("mp4", "mkv", "webm")
    ),
    "mjpeg": Codec("-c:v mjpeg -q:v 3", "avi", ("avi", "mkv", "mov")),
}
# The end of a command that copies the recording `{base}`; a cut may be made in steps.
CUTS = {
    "whole": "-i {base}",
    "from key": "-ss {key} -i {base}",
    "from between": "-ss {between} -i {base}",
    "from any frame": "-i {base} -ss {between} -copyinkf",
    "end": "-i {base} -t {between}",
    "middle": "-ss {key} -i {base} -t 0.9",
    "one dropped": "-i {base} -bsf:v noise=drop='eq(n\\,17)'",
    "leading dropped": "-i {base} -bsf:v noise=drop='eq(n\\,{lead})'",
    "group dropped": "-i {base} -bsf:v noise=drop='between(n\\,9\\,{late})'",
    "joined": "-f concat -safe 0 -i {list}",
    "sound longer": "-i {base} -f lavfi -i sine=duration=4 -map 0:v -map 1:a -c:a {sound}",
    "piped": "-i {base}",  # the header is written before anything is known
    "truncated": "",  # the bytes of the whole
    "appended": "",  # the bytes of two cuts one behind the other, where the container allows it
}
APPENDABLE = {"ts", "h264", "hevc", "m2v"}
SOUND = {"mkv": "aac", "mp4": "aac", "mov": "aac", "ts": "aac", "flv": "aac"}
SOUND |= {"avi": "pcm_s16le", "webm": "libvorbis"}
FORMATS = {"mkv": "matroska", "ts": "mpegts", "m2v": "mpeg2video"}
# Ours are what may be predicted from what did not come; that some is not, only luck can tell.
HOLES = {"one dropped", "leading dropped", "group dropped"}
# These do not count their frames: where one is missing, the next is decoded all the same.
COUNTLESS = {"mpeg4", "mpeg4 b", "vp8", "vp9", "av1"}
# In one piece: what ffmpeg does not decode of these is before the first frame that can be decoded.
PIECES = {"whole", "from key", "from between", "from any frame", "end", "middle", "sound longer"}
PIECES |= {"piped"}
# That there should be more is known from their headers.
ANNOUNCING = {"mp4", "mov", "mkv", "webm", "avi"}


class Clip(NamedTuple):
    name: str
    path: Path
    recorded: set[str]
    cut: str
    codec: str


class Hashed(VideoSource):
    """Delivers as always, and keeps the hash of the decoder's frame, as ffmpeg makes it."""

    hashes: list[str]

    def _frame(self, frame: Any, origin: Any) -> Frame:
        data = np.ascontiguousarray(frame.to_ndarray())
        self.hashes.append(hashlib.md5(data, usedforsecurity=False).hexdigest())
        return super()._frame(frame, origin)


def ffmpeg_bytes(*arguments: str) -> bytes:
    """Run the ffmpeg program and return what it prints; it may complain."""
    command = ["ffmpeg", "-v", "error", "-nostdin", "-y", "-threads", "1", *arguments]
    return subprocess.run(command, capture_output=True, check=False, timeout=120).stdout


def ffmpeg(*arguments: str) -> str:
    return ffmpeg_bytes(*arguments).decode()


def hashes_by_ffmpeg(path: Path) -> list[str]:
    """Return the hash of each frame that the program decodes."""
    # Some of its decoders are not exact unless asked to be.
    text = ffmpeg(
        "-flags",
        "+bitexact",
        "-i",
        str(path),
        "-map",
        "0:v:0",
        "-vsync",
        "passthrough",
        "-f",
        "framemd5",
        "-",
    )
    rows = [line.split(",") for line in text.splitlines() if line and not line.startswith("#")]
    # Of some codecs it shows also what an edit list says is not to be shown.
    return [row[-1].strip() for row in rows if int(row[2]) >= 0]


def read(path: Path) -> tuple[list[str], list[str]]:
    """Return the hashes of the frames that were delivered, and the reasons of gaps."""
    try:
        source = Hashed(SourceSpec("video", str(path), path.name))
    except SourceError as error:
        return [], [f"cannot open: {error}"]
    source.hashes = []
    source._stream.codec_context.flags |= Flags.bitexact
    with source:
        gaps = [item.reason for item in iter(source.read, None) if not isinstance(item, Frame)]
    return source.hashes, gaps


def clips(folder: Path, given: argparse.Namespace) -> Iterator[Clip]:
    """Make every clip in turn."""
    for codec in given.codecs:
        kind = CODECS[codec]
        for gop in given.groups:
            base = folder / f"base.{kind.base}"
            encode = kind.encode.format(gop=gop).split()
            ffmpeg("-f", "lavfi", "-i", CONTENT, "-frames:v", str(FRAMES), *encode, str(base))
            recorded = set(hashes_by_ffmpeg(base))
            if len(recorded) != FRAMES:
                raise RuntimeError(f"{codec}: ffmpeg gives {len(recorded)} frames")
            times = {
                "base": str(base),
                "key": str((gop + 0.1) / RATE),
                "between": str((gop + 5.1) / RATE),
                "lead": gop + 1,
                "late": gop + gop // 2 - 2,
                "list": str(folder / "list.txt"),
            }
            for container in given.containers or kind.containers:
                times["sound"] = SOUND.get(container)
                for cut in given.cuts:
                    if cut == "appended" and container not in APPENDABLE:
                        continue
                    if cut == "sound longer" and container not in SOUND:
                        continue
                    path = folder / f"clip.{container}"
                    path.unlink(missing_ok=True)
                    _cut(path, cut, times, folder)
                    if path.exists() and path.stat().st_size:
                        name = f"{codec} | {gop} | {container} | {cut}"
                        yield Clip(name, path, recorded, cut, codec)


def _cut(path: Path, cut: str, times: dict[str, Any], folder: Path) -> None:
    base, container = str(times["base"]), path.suffix[1:]
    mp4 = container in {"mp4", "mov"}
    copy = ["-c:v", "copy", str(path)]
    if cut == "joined":
        parts = [folder / f"part{number}{Path(base).suffix}" for number in (0, 1)]
        ffmpeg("-i", base, "-t", "0.9", "-c", "copy", str(parts[0]))
        ffmpeg("-ss", times["key"], "-i", base, "-c", "copy", str(parts[1]))
        Path(times["list"]).write_text("".join(f"file '{part}'\n" for part in parts))
    if cut == "appended":
        data = b""
        for how in (["-t", "0.7"], ["-ss", times["key"]]):
            ffmpeg(*how, "-i", base, *copy)
            data += path.read_bytes()
        path.write_bytes(data)
    elif cut == "truncated":
        ffmpeg("-i", base, *(["-movflags", "faststart"] if mp4 else []), *copy)
        data = path.read_bytes()
        path.write_bytes(data[: len(data) * 2 // 3])
    elif cut == "piped":
        fragments = ["-movflags", "frag_keyframe+empty_moov"] if mp4 else []
        form = FORMATS.get(container, container)
        path.write_bytes(ffmpeg_bytes("-i", base, *fragments, "-c", "copy", "-f", form, "pipe:1"))
    else:
        ffmpeg(*CUTS[cut].format(**times).split(), *copy)


def judge(clip: Clip) -> dict[str, Any]:
    """Compare what was delivered with what the program decodes."""
    decoded, (delivered, gaps) = hashes_by_ffmpeg(clip.path), read(clip.path)
    good = Counter(frame for frame in decoded if frame in clip.recorded)
    expected = good
    if clip.cut not in {"joined", "appended"}:
        expected = Counter(set(good))  # more of the same are patches over what is missing
    false = sum((expected - Counter(delivered)).values())
    bad = len(decoded) - sum(good.values())
    lies = sum(frame not in clip.recorded for frame in delivered)
    unknowable = clip.cut in HOLES and clip.codec in COUNTLESS
    piece = clip.cut in PIECES and decoded
    announced = clip.cut == "truncated" and clip.path.suffix[1:] in ANNOUNCING
    row: dict[str, Any] = {
        "clip": clip.name,
        "ffmpeg": len(decoded),
        "exact": sum(good.values()),
        "ok": len(delivered),
        "lost": len(gaps),
        "lies": 0 if unknowable else lies,
        "unknowable_lies": lies if unknowable else 0,
        "false_losses": 0 if clip.cut in HOLES else false,
        "false_rows": max(0, len(gaps) - bad - false) if piece else 0,
        "untold": int(announced and not gaps),
    }
    if gaps and any(row[fault] for fault in FAULTS):
        row["reasons"] = dict(Counter(gaps))
    return row


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--codecs", nargs="*", default=list(CODECS))
    parser.add_argument("--groups", nargs="*", type=int, default=[12, 25])
    parser.add_argument("--containers", nargs="*", help="of those that a codec is tried in")
    parser.add_argument("--cuts", nargs="*", default=list(CUTS))
    parser.add_argument("--out", type=Path, help="write all rows as JSON")
    given = parser.parse_args()
    begun_s, rows = time.monotonic(), []
    with tempfile.TemporaryDirectory() as folder:
        for clip in clips(Path(folder), given):
            rows.append(row := judge(clip))
            if any(row[fault] for fault in FAULTS):
                print(json.dumps(row), flush=True)
    total = {
        key: sum(row[key] for row in rows)
        for key in ("exact", "ok", "lost", *FAULTS, "unknowable_lies")
    }
    summary = {"clips": len(rows), **total, "seconds": round(time.monotonic() - begun_s)}
    print(json.dumps(summary))
    if given.out:
        lines = ",\n  ".join(json.dumps(row, separators=(",", ":")) for row in rows)
        given.out.write_text(f'{{"total": {json.dumps(summary)}, "rows": [\n  {lines}\n]}}\n')
    return int(any(total[fault] for fault in FAULTS))


if __name__ == "__main__":
    sys.exit(main())
