"""motorvae hub: runs and bundles as repositories of Hugging Face Hub, and these as runs."""

from __future__ import annotations

from pathlib import Path

from ...runtime.core.command import Command, CommandGroup, stderr_console
from ...runtime.core.errors import needed_for, next_command
from ...runtime.core.lifecycle import loading
from .files import Kind, kind_of
from .options import CardOptions, PullOptions, PushOptions, SaveOptions

_IMAGES = (
    "note: a bundle holds up to 256 of the held-out images, in verification.npz, by which every "
    "machine judges its graphs: whoever has the bundle has these"
)


def _save(options: SaveOptions, *_: object) -> None:
    with needed_for("motorvae hub save", extra="hub"), loading():
        from .folder import save_folder  # noqa: PLC0415  # nothing is loaded for its help
    _warn_of_images(options)
    save_folder(options, options.output)
    stderr_console().print(f"wrote {options.output}, with its card in README.md")


def _push(options: PushOptions, *_: object) -> None:
    with needed_for("motorvae hub push", extra="hub"), loading():
        from .transfer import push  # noqa: PLC0415  # as above
    _warn_of_images(options)
    stderr_console().print(f"pushed to {push(options)}")


def _pull(options: PullOptions, *_: object) -> None:
    with needed_for("motorvae hub pull", extra="hub"), loading():
        from .transfer import pull  # noqa: PLC0415  # as above
    output, kind = pull(options)
    console = stderr_console()
    console.print(f"{kind} of {options.source} in {output}, checked")
    console.print(f"next: {_next(output, kind)}")


def _next(output: Path, kind: Kind) -> str:
    if kind == "bundle":
        return next_command("motorvae-stream", "0", "--model", output)
    return next_command("motorvae-train", "DATA", "--pretrained", output)


def _warn_of_images(options: CardOptions) -> None:
    if kind_of(options.model) == "bundle":
        stderr_console().print(_IMAGES)


hub_main = CommandGroup(
    "motorvae hub",
    "Runs and bundles as repositories of Hugging Face Hub.",
    {
        "save": Command(
            SaveOptions,
            _save,
            "Write a run or a bundle to a folder, with a model card.",
            positional=("--model",),
        ),
        "push": Command(
            PushOptions,
            _push,
            "Push a run or a bundle to a repository, with a model card.",
            positional=("--model",),
        ),
        "pull": Command(
            PullOptions,
            _pull,
            "Fetch a run or a bundle from a repository or a folder.",
            positional=("--source",),
        ),
    },
    hints={"--token": "log in with hf auth login, or set HF_TOKEN"},
)
