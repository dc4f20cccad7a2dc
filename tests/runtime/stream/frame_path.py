"""Which of our functions one frame passes through: `frame_path.py BUNDLE CAMERA [option ...]`.

Streams a camera with a profile function in every thread, and prints each module with those of its
functions that ran for at least nine of ten frames, from capture to file. A star marks a function
that is given the frame with its facts, or its row; the others see pixels and numbers only.
"""

from __future__ import annotations

import collections
import sys
import tempfile
import threading
from pathlib import Path
from types import FrameType

from motorvae.runtime.cli import stream_main
from motorvae.runtime.core.frame import Frame
from motorvae.runtime.core.row import Row
from motorvae.runtime.stream.mailbox import LostFrame, QueuedFrame

FRAMES = 60
SHARE = 0.9
OURS = "motorvae."
KNOWING = (Frame, QueuedFrame, LostFrame, Row)
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
            given = [frame.f_locals.get(name) for name in code.co_varnames[: code.co_argcount]]
            star = "*" if any(isinstance(value, KNOWING) for value in given) else ""
            calls[module, getattr(code, "co_qualname", code.co_name) + star] += 1

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
    starred = sum("*" in " ".join(functions) for functions in path.values())
    functions = sum(map(len, path.values()))
    print(f"{len(path)} modules, {functions} functions; {starred} modules know the frame")


if __name__ == "__main__":
    main()
