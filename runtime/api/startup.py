"""Entry points of the commands, loaded first: from then on Ctrl-C ends them in one line."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys

TYPE_CHECKING = False  # as type checkers know it: loading typing would be most of the import
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType


def _start_sooner() -> None:
    """Leave out of a process that only streams what it has no use for; docs/speed.md has how long.

    Nothing is garbage while modules are loaded: the stream turns the collector on. Pydantic would
    search every installed package for plugins of its own (docs.pydantic.dev/api/plugin), and
    OpenVINO load its converter of models, without which it is imported as well.
    """
    gc.disable()
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    sys.modules.setdefault("openvino.tools.ovc", None)  # type: ignore[arg-type]


def _script(name: str) -> Callable[..., int]:
    prog = f"motorvae-{name}" if name else "motorvae"

    def run(args: Sequence[str] | None = None) -> int:
        is_over = False

        def end(_number: int, _frame: FrameType | None) -> None:
            if not is_over:
                os.write(2, f"{prog}: interrupted\n".encode())
            os._exit(130)

        # Nothing is held yet, and a KeyboardInterrupt amid an import is not always raised as such.
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            with contextlib.suppress(ValueError):  # not in the main thread: a program called it
                signal.signal(signal.SIGINT, end)
        if args is None and (name or next(iter(sys.argv[1:]), "")) == "stream":
            _start_sooner()
        from .commands import run_command  # noqa: PLC0415  # only now
        from .runtime.core.lifecycle import DEFAULT_HANDLERS  # noqa: PLC0415  # as above

        if args is None:  # a script, which it ends as well where its command holds nothing any more
            DEFAULT_HANDLERS.add(end)
        elif signal.getsignal(signal.SIGINT) is end:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            return run_command(prog, name, args)
        finally:
            is_over = True

    return run


main = _script("")
train_main, export_main, stream_main = _script("train"), _script("export"), _script("stream")
encode_main, bench_main, doctor_main = _script("encode"), _script("bench"), _script("doctor")
explore_main = _script("explore")
