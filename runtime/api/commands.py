"""The command `motorvae`, and the runtime's commands with what rebuilds their engines."""

from __future__ import annotations

import pkgutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from .runtime.core.errors import UsageError
from .runtime.core.lifecycle import exit_code_of, loading

if TYPE_CHECKING:
    from .runtime.bundle.graph_key import Part
    from .runtime.bundle.load import Bundle
    from .runtime.core.command import Command, CommandGroup
    from .runtime.engines.request import EngineRequest

COMMANDS = {
    "train": (".training.cli:main", "train a VAE on images, a video or built-in vehicles"),
    "explore": (
        ".training.explore.cli:main",
        "show what a model has learned, as pictures and numbers",
    ),
    "export": (".export.cli:main", "export a training run as verified graphs and engines"),
    "stream": (".runtime.cli:stream_main", "stream cameras through the encoder to latent rows"),
    "encode": (
        ".runtime.encode_cli:encode_main",
        "encode images and videos, however many",
    ),
    "bench": (".benchmarks.cli:main", "time every engine, and the path from frame to latent"),
    "doctor": (".benchmarks.doctor:main", "show what this machine has and what is missing"),
    "verify": (
        ".export.compare.cli:verify_main",
        "compare a graph with a reference on your images",
    ),
    "import": (
        ".export.importing.cli:import_main",
        "import weights from elsewhere to a run or a bundle",
    ),
    "hub": (".training.hub.cli:hub_main", "save, push and pull models in Hugging Face Hub's form"),
    "sign": (".runtime.signing_cli:sign_main", "sign a bundle with a key of yours"),
    "verify-signature": (
        ".runtime.signing_cli:verify_main",
        "compare a bundle with what a trusted key signed",
    ),
    "keys": (".runtime.signing_cli:keys_main", "show, make, trust and retire keys that sign"),
    "demo": (".benchmarks.demo.cli:main", "train, export and stream on this machine, in minutes"),
}
"""Name to object, and a line of help."""


def main(args: Sequence[str] | None = None) -> int:
    """Run `motorvae COMMAND ...`; return the command's exit code."""
    return run_command("motorvae", "", args)


def run_command(prog: str, name: str, args: Sequence[str] | None = None) -> int:
    """Run a command by its name, or without one what `args` begin with; return the exit code."""
    given = list(sys.argv[1:] if args is None else args)
    return exit_code_of(prog, lambda: command_of(name)(given) if name else _run(given))


def _run(given: Sequence[str]) -> int:
    name = given[0] if given else "--help"
    if name in COMMANDS:
        return command_of(name)(given[1:])
    if name == "--version":
        from .runtime.core.packages import own_version  # noqa: PLC0415  # no work at import

        print("motorvae", own_version())
    elif name == "--tyro-print-completion":
        from .runtime.core.command import print_completion  # noqa: PLC0415  # as above

        print_completion("motorvae", {name: command_of(name) for name in COMMANDS}, given)
    elif name in {"-h", "--help"}:
        print("usage: motorvae COMMAND [OPTIONS]\n")
        for command, (_, what) in COMMANDS.items():
            print(f"  {command:<18}{what}")
        print("\nEach is also a command of its own, such as motorvae-stream; all take --help and")
        print("--version.")
    else:
        raise UsageError(f"{name}: no such command, take {', '.join(COMMANDS)}")
    return 0 if given else 2


def command_of(name: str) -> Command | CommandGroup:
    """Import a command."""
    with loading():
        command: Any = pkgutil.resolve_name(f"{__package__}{COMMANDS[name][0]}")
        if name not in {"stream", "encode"}:
            return command  # type: ignore[no-any-return]  # of a name in a table
        return replace(command, body=partial(command.body, rebuild=_rebuild))  # type: ignore[no-any-return]  # as above


def _rebuild(bundle: Bundle, part: Part, request: EngineRequest) -> Bundle:
    from .export.rebuild import rebuild_engines  # noqa: PLC0415  # few streams build an engine

    return rebuild_engines(bundle, part, request)


export_main, stream_main, encode_main = (
    partial(run_command, f"motorvae-{name}", name) for name in ("export", "stream", "encode")
)
"""Entry points of scripts that an earlier version installed."""
