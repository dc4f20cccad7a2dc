"""The commands of the runtime with what only higher packages can do for them."""

from __future__ import annotations

from collections.abc import Sequence


def stream_main(args: Sequence[str] | None = None) -> int:
    """Run motorvae-stream; return its exit code."""
    from .export.rebuild import rebuild_engines  # noqa: PLC0415  # nothing heavy before it is run
    from .runtime.cli import stream_main as run  # noqa: PLC0415  # as above

    return run(args, rebuild_engines)


def encode_main(args: Sequence[str] | None = None) -> int:
    """Run motorvae-encode; return its exit code."""
    from .export.rebuild import rebuild_engines  # noqa: PLC0415  # nothing heavy before it is run
    from .runtime.cli import encode_main as run  # noqa: PLC0415  # as above

    return run(args, rebuild_engines)
