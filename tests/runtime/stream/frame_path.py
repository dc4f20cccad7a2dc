"""Which of our functions one frame passes through: `frame_path.py BUNDLE CAMERA [option ...]`.

Streams a camera with a profile function in every thread, and prints each module with those of its
functions that ran for at least nine of ten frames, from capture to file. A star marks a function
that takes or gives the frame with its facts, or its row; the others see pixels and numbers only.
"""

from __future__ import annotations

import collections
import sys
import tempfile
import threading
from pathlib import Path
from types import FrameType
from typing import Any

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


class Calls(dict[tuple[str, str], int]):
    """How often each named function of ours was called for a frame, by module and name.

    Attributes:
        knowing: Those that took or gave what the frame's facts are in.
    """

    def __init__(self) -> None:
        self.knowing: set[tuple[str, str]] = set()
        self._counts: collections.Counter[tuple[str, str]] = collections.Counter()
        self._streaming = threading.Event()

    def note(self, frame: FrameType, event: str, returned: Any) -> None:
        """Be the profile function of a thread."""
        code = frame.f_code
        module = frame.f_globals.get("__name__", "")
        if code.co_name == FIRST:
            self._streaming.set()
        elif code.co_name == LAST:
            self._streaming.clear()
        if not (self._streaming.is_set() and module.startswith(OURS)) or code.co_name[0] == "<":
            return
        function = module, getattr(code, "co_qualname", code.co_name)
        if event == "call":
            self._counts[function] += 1
            values = [frame.f_locals.get(name) for name in code.co_varnames[: code.co_argcount]]
        else:
            values = [returned] if event == "return" else []
        if any(isinstance(value, KNOWING) for value in values):
            self.knowing.add(function)

    def finish(self) -> None:
        """Keep what belongs to every frame."""
        self.update({key: n for key, n in self._counts.items() if n >= SHARE * FRAMES})
        self.knowing &= self.keys()


def profiled(bundle: Path | str, camera: str, *options: str) -> Calls:
    """Stream `FRAMES` frames; return which functions ran for them."""
    calls = Calls()
    with tempfile.TemporaryDirectory() as folder:
        output = str(Path(folder) / "latents.jsonl")
        threading.setprofile(calls.note)
        sys.setprofile(calls.note)
        try:
            code = stream_main(
                [
                    *("--model", str(bundle), "--camera", camera, "--output", output),
                    *("--max-frames", str(FRAMES), *options),
                ]
            )
        finally:
            sys.setprofile(None)
            threading.setprofile(None)
    if code:
        raise SystemExit(code)
    calls.finish()
    return calls


def main() -> None:
    """Print the path."""
    calls = profiled(*sys.argv[1:])
    modules = sorted({module for module, _ in calls})
    for module in modules:
        functions = [
            f"{name}{'*' if (module, name) in calls.knowing else ''} x{count / FRAMES:.3g}"
            for (of, name), count in calls.items()
            if of == module
        ]
        print(f"{module}: {', '.join(functions)}")
    knowing = {module for module, _ in calls.knowing}
    print(f"{len(modules)} modules, {len(calls)} functions; {len(knowing)} modules know the frame")


if __name__ == "__main__":
    main()
