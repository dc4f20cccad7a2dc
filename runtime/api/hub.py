"""Models in the form of Hugging Face Hub, for Python, as `motorvae.hub.save(...)` and so on."""

from __future__ import annotations

from pathlib import Path

from .keywords import PathLike, spelled_for_python
from .runtime.core.errors import needed_for

__all__ = ("pull", "push", "save")


@spelled_for_python()
def save(
    model: PathLike = "runs/latest",
    output: PathLike = "hub",
    *,
    half: bool = False,
    bundle: PathLike | None = None,
    explore: PathLike | None = None,
    license: str | None = None,  # noqa: A002  # the Hub's own name
) -> Path:
    """Write a run or a bundle to a new folder in Hugging Face form, with a model card.

    Args:
        model: A finished run, or a bundle.
        output: The folder.
        half: Keep the weights of a run in FP16.
        bundle: Of a run: the bundle whose verification table the card shows.
        explore: A folder that `motorvae explore` wrote, whose pictures and factors it shows.
        license: Of the weights, by its name on the Hub.

    Returns:
        The folder.

    Raises:
        MotorVAEError: The model cannot be read, the folder exists, or huggingface_hub is missing.
    """
    from .training.hub.folder import save_folder  # noqa: PLC0415  # not needed to stream
    from .training.hub.options import SaveOptions  # noqa: PLC0415  # as above

    options = SaveOptions(
        _path(model), half, _path_or_none(bundle), _path_or_none(explore), license, _path(output)
    )
    save_folder(options, options.output)
    return options.output


@spelled_for_python()
def push(
    model: PathLike,
    repo: str,
    *,
    half: bool = False,
    bundle: PathLike | None = None,
    explore: PathLike | None = None,
    license: str | None = None,  # noqa: A002  # as above
    private: bool = False,
    message: str = "Upload a model of motorVAE",
) -> str:
    """Push a run or a bundle to a repository of Hugging Face Hub, with a model card.

    Args:
        model: A finished run, or a bundle.
        repo: OWNER/NAME; it is made where it is not there.
        half: As of `save`.
        bundle: As of `save`.
        explore: As of `save`.
        license: As of `save`.
        private: Make a new repository for its owner alone.
        message: What the commit says.

    Returns:
        The address of the commit.

    Raises:
        MotorVAEError: As of `save`, or the Hub refuses it.
    """
    with needed_for("motorvae.hub", extra="hub"):
        from .training.hub import transfer  # noqa: PLC0415  # not needed to stream
    from .training.hub.options import PushOptions  # noqa: PLC0415  # as above

    of_card = (_path(model), half, _path_or_none(bundle), _path_or_none(explore), license)
    return transfer.push(PushOptions(*of_card, repo, private, message))


@spelled_for_python()
def pull(source: PathLike, output: PathLike | None = None, *, revision: str | None = None) -> Path:
    """Fetch a run or a bundle from Hugging Face Hub, or a folder in its form, and check it.

    Args:
        source: OWNER/NAME, or a folder.
        output: The new folder of the run or the bundle; by default the repository's name.
        revision: A branch, a tag or a commit.

    Returns:
        The folder, which `motorvae.load`, `motorvae-train --pretrained` and others take.

    Raises:
        MotorVAEError: There is no such repository, or what it holds is no model or not whole.
    """
    with needed_for("motorvae.hub", extra="hub"):
        from .training.hub import transfer  # noqa: PLC0415  # not needed to stream
    from .training.hub.options import PullOptions  # noqa: PLC0415  # as above

    folder, _ = transfer.pull(PullOptions(str(source), _path_or_none(output), revision))
    return folder


def _path(path: PathLike) -> Path:
    return Path(path).expanduser()


def _path_or_none(path: PathLike | None) -> Path | None:
    return None if path is None else _path(path)
