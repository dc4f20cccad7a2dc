"""Every option of motorvae hub with its default and help."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

_Model = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN|BUNDLE")]


@dataclass(frozen=True)
class CardOptions:
    """What is published, and what its card says."""

    model: _Model = Path("runs/latest")
    """A finished training run, or a bundle."""
    half: bool = False
    """Keep the weights of a run in FP16, half as large; they are computed with in float32."""
    bundle: Path | None = None
    """Of a run: show the verification table of this bundle, which was exported from it."""
    explore: Path | None = None
    """Show the pictures and the factors in this folder, which motorvae explore wrote; by default
    the folder explore in the run's own, if it is there."""
    license: str | None = None
    """The licence of the weights, by its name on the Hub, such as mit or cc-by-4.0."""


@dataclass(frozen=True)
class SaveOptions(CardOptions):
    """Options of motorvae hub save."""

    output: Path = Path("hub")
    """The new folder in Hugging Face form."""


@dataclass(frozen=True)
class PushOptions(CardOptions):
    """Options of motorvae hub push."""

    repo: str = ""
    """The repository to push to, as OWNER/NAME; it is made where it is not there. Who pushes is as
    the command hf auth login, or the variable HF_TOKEN, says."""
    private: bool = False
    """Make a new repository for its owner alone."""
    message: str = "Upload a model of motorVAE"
    """What the commit says."""


@dataclass(frozen=True)
class PullOptions:
    """Options of motorvae hub pull."""

    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="OWNER/NAME|FOLDER")]
    """A repository on the Hub, or a folder in its form."""
    output: Path | None = None
    """The new folder of the run or the bundle; by default the repository's NAME."""
    revision: str | None = None
    """A branch, a tag or a commit; by default the newest."""
