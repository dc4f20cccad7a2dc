"""Console entry points: the command `motorvae`, and the runtime's, which can rebuild engines."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Callable, Iterator, Sequence

_INTERRUPTED = 130

COMMANDS = {
    "train": (".training.cli", "main", "train a VAE on images, a video or built-in vehicles"),
    "export": (".commands", "export_main", "export a training run as verified graphs and engines"),
    "stream": (".commands", "stream_main", "stream cameras through the encoder to latent rows"),
    "encode": (".commands", "encode_main", "encode a folder of images or a video to one file"),
    "bench": (".benchmarks.cli", "main", "time every engine, and the path from frame to latent"),
    "doctor": (".benchmarks.doctor", "main", "show what this machine has and what is missing"),
    "demo": (
        ".benchmarks.demo.cli",
        "main",
        "train, export and stream on this machine, in minutes",
    ),
}
"""Name to module, function, and a line of help."""


def main(args: Sequence[str] | None = None) -> int:
    """Run `motorvae COMMAND ...`; return the command's exit code."""
    given = list(sys.argv[1:] if args is None else args)
    name = given[0] if given else "--help"
    if name in {"-h", "--help"}:
        sys.stdout.write(_help())
        return 0 if given else 2
    if name == "--version":
        from .runtime.core.packages import own_version  # noqa: PLC0415  # no work at import

        sys.stdout.write(f"motorvae {own_version()}\n")
        return 0
    if name not in COMMANDS:
        sys.stderr.write(f"motorvae: {name}: no such command, take {', '.join(COMMANDS)}\n")
        return 2
    module, function, _ = COMMANDS[name]
    run: Callable[[Sequence[str]], int] = getattr(
        importlib.import_module(module, __package__), function
    )
    return run(given[1:])


def stream_main(args: Sequence[str] | None = None) -> int:
    """Run motorvae-stream; return its exit code."""
    with _importing("motorvae-stream"):
        from .export.rebuild import rebuild_engines  # noqa: PLC0415  # no work at import
        from .runtime.cli import stream_main as run  # noqa: PLC0415  # as above

    return run(args, rebuild_engines)


def encode_main(args: Sequence[str] | None = None) -> int:
    """Run motorvae-encode; return its exit code."""
    with _importing("motorvae-encode"):
        from .export.rebuild import rebuild_engines  # noqa: PLC0415  # no work at import
        from .runtime.cli import encode_main as run  # noqa: PLC0415  # as above

    return run(args, rebuild_engines)


def export_main(args: Sequence[str] | None = None) -> int:
    """Run motorvae-export; return its exit code."""
    with _importing("motorvae-export"):
        from .export.cli import main as run  # noqa: PLC0415  # no work at import

    return run(args)


@contextlib.contextmanager
def _importing(prog: str) -> Iterator[None]:
    """End in one line where Ctrl-C comes before a command is there to hear it."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"{prog}: interrupted", file=sys.stderr)
        raise SystemExit(_INTERRUPTED) from None


def _help() -> str:
    lines = [f"  {name:<8}{what}" for name, (_, _, what) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: motorvae COMMAND [OPTIONS]",
            "",
            *lines,
            "",
            "Each is also a command of its own, such as motorvae-stream; all take --help and",
            "--version.",
            "",
        ]
    )
