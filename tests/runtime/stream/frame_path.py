"""Which of our functions one frame passes through: `frame_path.py BUNDLE CAMERA [option ...]`.

Streams a camera, by default of 60 frames, with a profile function in every thread, and prints
each module with those of its functions that ran for at least nine of ten frames, capture to file.
"""

from __future__ import annotations

import collections
import sys
import tempfile
import threading
from pathlib import Path
from types import FrameType

from motorvae.runtime.cli import stream_main

FRAMES = 60
SHARE = 0.9
OURS = "motorvae."
FIRST, LAST = "take", "summary"
"""What is called once everything is open, and once the last frame is through."""


def profiled(bundle: str, camera: str, *options: str) -> collections.Counter[tuple[str, str]]:
    """Stream `FRAMES` frames; return how often each named function of ours was called."""
    calls: collections.Counter[tuple[str, str]] = collections.Counter()
    streaming = threading.Event()

    def count(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event != "call" or code.co_name.startswith("<"):
            return
        module = frame.f_globals.get("__name__", "")
        if code.co_name == FIRST:
            streaming.set()
        elif code.co_name == LAST:
            streaming.clear()
        if streaming.is_set() and module.startswith(OURS):
            calls[module, getattr(code, "co_qualname", code.co_name)] += 1

    with tempfile.TemporaryDirectory() as folder:
        output = str(Path(folder) / "latents.jsonl")
        threading.setprofile(count)
        sys.setprofile(count)
        try:
            code = stream_main(
                [
                    *("--model", bundle, "--camera", camera, "--output", output),
                    *("--max-frames", str(FRAMES), *options),
                ]
            )
        finally:
            sys.setprofile(None)
            threading.setprofile(None)
    if code:
        raise SystemExit(code)
    return calls


def main() -> None:
    """Print the path."""
    calls = profiled(*sys.argv[1:])
    path = collections.defaultdict(list)
    for (module, function), count in calls.items():
        if count >= SHARE * FRAMES:
            path[module].append(f"{function} x{count / FRAMES:.3g}")
    for module, functions in sorted(path.items()):
        print(f"{module}: {', '.join(functions)}")
    print(f"{len(path)} modules, {sum(map(len, path.values()))} functions")


if __name__ == "__main__":
    main()
