"""Repositories on Hugging Face Hub: what is pushed to one, and what is fetched from one."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # not declared

from ...runtime.core.errors import CheckpointError, ConfigError, MotorVAEError, reason_of
from ...runtime.core.text import printable
from .files import CARD, FIRST, PICTURES, Kind, files_of_model
from .folder import check_new, copy_model, save_folder
from .options import PullOptions, PushOptions

_REFUSED = (
    *(HfHubHTTPError, HFValidationError, OSError, ValueError, RuntimeError),
    *(TypeError, LookupError),  # of an answer that is not the Hub's
)


def push(options: PushOptions) -> str:
    """Push a run or a bundle in Hugging Face form, and return the address of the commit.

    Files of the repository that this does not write stay.

    Raises:
        ConfigError: It is refused: no such owner, no permission, or no network.
        MotorVAEError: As of `save_folder`.
    """
    if not options.repo:
        raise ConfigError("--repo: name the repository to push to, as OWNER/NAME")
    with _errors_of(f"--repo={printable(options.repo)}", ConfigError, "write it as OWNER/NAME"):
        validate_repo_id(options.repo)
    with tempfile.TemporaryDirectory(prefix="motorvae-hub-") as name:
        folder = Path(name) / options.repo.rpartition("/")[2]
        save_folder(options, folder)
        names = [*files_of_model(folder), CARD, f"{PICTURES}/*"]
        with _errors_of(f"cannot push to {options.repo}", ConfigError, "see hf auth whoami"):
            api = HfApi(library_name="motorvae")
            api.create_repo(options.repo, private=options.private or None, exist_ok=True)
            commit = api.upload_folder(
                repo_id=options.repo,
                folder_path=folder,
                commit_message=options.message,
                allow_patterns=_exactly(names[:-1]) + names[-1:],
            )
    return str(commit)


def pull(options: PullOptions) -> tuple[Path, Kind]:
    """Fetch a run or a bundle to a new folder, from the Hub or a folder in its form; check it.

    Only files are fetched that a run or a bundle has; nothing is ever unpickled or run.

    Raises:
        CheckpointError: There is no such repository, no model in it, or its weights do not fit.
        BundleError: The bundle is not whole, altered, or of another version.
        OutputError: The output exists, or cannot be written.
    """
    output = options.output or Path(Path(options.source).resolve().name)
    check_new(output)
    source = Path(options.source).expanduser()
    if source.is_dir():
        if options.revision is not None:
            raise ConfigError(f"--revision={options.revision}: {source} is a folder, leave it out")
    else:
        source = fetched(options.source, options.revision)
    return output, copy_model(source, output)


def fetched(repo: str, revision: str | None = None, **how: Any) -> Path:
    """Fetch the files of a model, or find them in the Hub's cache; return their folder there.

    `how` goes to `huggingface_hub.snapshot_download`, such as `local_files_only`. A CheckpointError
    where there is no such repository, or it holds no model of motorVAE's.
    """
    fix = "name OWNER/NAME, or a folder; see hf auth whoami for a private one"
    with _errors_of(f"cannot pull {repo}", CheckpointError, fix):
        first = Path(
            snapshot_download(repo, revision=revision, allow_patterns=_exactly(FIRST), **how)
        )
    names = files_of_model(first)
    with _errors_of(f"cannot pull {repo}", CheckpointError, fix):
        # By its commit: what was looked at is what is fetched.
        whole = snapshot_download(repo, revision=first.name, allow_patterns=_exactly(names), **how)
    return Path(whole)


def _exactly(names: Sequence[str]) -> list[str]:
    """Return patterns that match these names alone."""
    return ["".join(f"[{char}]" if char in "*?[" else char for char in name) for name in names]


@contextlib.contextmanager
def _errors_of(what: str, kind: type[MotorVAEError], fix: str) -> Iterator[None]:
    """Turn what the Hub or the network refuses into one line."""
    try:
        yield
    except MotorVAEError:
        raise
    except _REFUSED as error:
        raise kind(reason_of(error), context=what, fix=fix) from error
