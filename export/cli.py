"""motorvae-export."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ..runtime.core.command import run_command, stderr_console
from .options import ExportOptions
from .run import run_export


def main(args: Sequence[str] | None = None) -> int:
    """Run motorvae-export; return its exit code."""
    return run_command(
        ExportOptions,
        _export,
        prog="motorvae-export",
        description="Export a training run as verified ONNX graphs and TensorRT engines.",
        args=args,
        positional=("--checkpoint",),
        hints={"--device": "--engine chooses what engines are built for"},
    )


def _export(options: ExportOptions) -> None:
    run_export(options, stderr_console())


if __name__ == "__main__":
    sys.exit(main())
