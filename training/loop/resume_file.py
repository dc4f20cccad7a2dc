"""The file that an interrupted run continues from: whole, checked by its hash, and of that run."""

from __future__ import annotations

import hashlib
import os
import pickle
import stat
import struct
from pathlib import Path
from typing import Any, BinaryIO

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch.serialization import get_unsafe_globals_in_checkpoint

from ...runtime.core.atomic_files import replaced_file
from ...runtime.core.errors import CheckpointError, UserCodeError
from ...runtime.core.spec import ModelSpec
from ..checkpoint import RunConfig, config_from_run
from ..model import MotorVAE
from ..options import resume_command

RESUME_NAME = "resume.ckpt"
_REQUEUED = "hpc_ckpt_"
"""How Lightning names what it saves before SLURM requeues a job; here it is the resume file."""
_MARK = b"motorvae-sha256:"
_TRAILER_BYTES = len(_MARK) + hashlib.sha256().digest_size * 2
# The end of a zip archive, whose last field is the length of the comment that follows.
# https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT, 4.3.16
_ZIP_END = struct.Struct("<4s4H2LH")
_SPARE_BYTES = 64 << 20
_UNREADABLE = (
    OSError,
    RuntimeError,
    EOFError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    pickle.UnpicklingError,
)


class ResumeFileIO(TorchCheckpointIO):
    """Writes a resume file whole or not at all, in its own folder, and never unpickles code.

    The SHA-256 of all before it is the archive's comment, so that torch.load reads the file as it
    is. `run` is the config of the only run that it is for; without one nothing can be read.
    """

    def __init__(self, run: RunConfig | None = None) -> None:
        super().__init__()
        self._run = run

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | Path,
        storage_options: object = None,  # noqa: ARG002  # Lightning's signature
    ) -> None:
        """Write a file in place of an earlier one, which stays whole on an OutputError."""
        path = Path(path)
        if path.name.startswith(_REQUEUED):
            path = path.with_name(RESUME_NAME)
        if path.name != RESUME_NAME:  # a callback's, in a folder of its own
            path.parent.mkdir(parents=True, exist_ok=True)
        with replaced_file(path) as temporary, temporary.open("w+b") as file:
            try:
                torch.save(checkpoint | {"run": _identity(self._run)}, file)
            except RuntimeError as error:  # torch's, as it completes what could not be written
                if isinstance(error.__context__, OSError):
                    raise error.__context__ from error
                raise
            file.seek(0)
            self._check_readable(path, file)
            _seal(file)

    def _check_readable(self, path: Path, file: BinaryIO) -> None:
        """Raise a UserCodeError where a file holds what `load_checkpoint` would refuse."""
        keep = "let callbacks keep numbers, texts and tensors in their states"
        if kinds := get_unsafe_globals_in_checkpoint(file):
            raise UserCodeError(
                f"{path} is not written, it would hold {min(kinds)}, and nothing is read "
                f"that takes code to be read: {keep}"
            )
        size, most = file.seek(0, os.SEEK_END) + _TRAILER_BYTES, _largest(self._run)
        if self._run is not None and size > most:
            raise UserCodeError(
                f"{path} is not written, it would have {size} bytes, and at most {most} are "
                "needed: let callbacks keep less in their states"
            )

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: object = None,  # noqa: ARG002  # as above
        weights_only: bool | None = None,  # noqa: ARG002  # as above
    ) -> dict[str, Any]:
        """Read numbers and tensors only; CheckpointError where the file is damaged or foreign."""
        path = Path(path)
        try:
            # Opened so that a FIFO does not wait for who writes to it.
            with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
                self._check(file)
                found: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
            is_ours = _is_of(found["run"], self._run)
        except _UNREADABLE as error:
            raise unusable(path, error) from error
        if not is_ours:
            raise unusable(path, ValueError("it is of another run"))
        return found

    def _check(self, file: BinaryIO) -> None:
        """Raise a ValueError with a clause where a file is not what `save_checkpoint` wrote."""
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it is no file")
        if (limit := _largest(self._run)) < status.st_size:
            raise ValueError(f"it has {status.st_size} bytes, and at most {limit} are needed")
        file.seek(max(0, status.st_size - _TRAILER_BYTES))
        trailer = file.read()
        if not trailer.startswith(_MARK):
            raise ValueError("it is cut short, or no resume file of this version of motorVAE")
        if trailer[len(_MARK) :].decode(errors="replace") != _digest(file, status.st_size):
            raise ValueError("it was altered after it was written, its SHA-256 is another one")
        file.seek(0)


def unusable(path: Path, error: Exception) -> CheckpointError:
    """Return the error for a run whose resume file cannot be continued from."""
    text = str(getattr(error, "strerror", None) or error)
    reason = text.partition("\n")[0] or type(error).__name__
    return CheckpointError(
        f"cannot resume from {path}: {reason}; remove that file, and {resume_command(path.parent)} "
        "trains the run from its beginning with the images it has, or start a new run"
    )


def steps_saved(folder: Path) -> int:
    """Return how many optimizer steps a run's resume file has; 0 where there is none."""
    path = folder / RESUME_NAME
    if not path.exists():
        return 0
    found = ResumeFileIO(config_from_run(folder)).load_checkpoint(path)
    try:
        return int(found["motorvae"]["schedule"]["step"])
    except (LookupError, TypeError, ValueError) as error:
        raise unusable(path, error) from error


def _seal(file: BinaryIO) -> None:
    """Add the hash of an archive to it, as its comment."""
    size = file.seek(-_ZIP_END.size, os.SEEK_END) + _ZIP_END.size
    *end, _ = _ZIP_END.unpack(file.read())
    file.seek(-_ZIP_END.size, os.SEEK_END)
    file.write(_ZIP_END.pack(*end, _TRAILER_BYTES))
    file.write(_MARK)
    file.flush()
    file.seek(0, os.SEEK_END)
    digest = _digest(file, size + _TRAILER_BYTES)
    file.seek(0, os.SEEK_END)
    file.write(digest.encode())


def _digest(file: BinaryIO, size: int) -> str:
    """Return the SHA-256 of a file up to the digits of it that end it."""
    digest = hashlib.sha256()
    file.seek(0)
    left = size - (_TRAILER_BYTES - len(_MARK))
    while left > 0 and (block := file.read(min(left, 1 << 20))):
        digest.update(block)
        left -= len(block)
    return digest.hexdigest()


def _identity(run: RunConfig | None) -> str:
    return "" if run is None else f"{run.started} {run.model.model_dump_json()}"


def _is_of(identity: str, run: RunConfig | None) -> bool:
    """Whether an identity is a run's, also one of a version whose models had fewer fields."""
    started, _, model = identity.partition(" ")
    if run is None or started != run.started:
        return False
    return ModelSpec.model_validate_json(model) == run.model


def _largest(run: RunConfig | None) -> int:
    """Return how many bytes a resume file can have: five of every weight, and some to spare."""
    if run is None:
        return 0
    with torch.device("meta"):
        weights = MotorVAE(run.model).state_dict().values()
    return _SPARE_BYTES + 5 * sum(int(one.numel() * one.element_size()) for one in weights)


def row_of_this_version(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row of a history with what an earlier version did not have: nothing moved then."""
    return {
        "train_loss": row["train_total"],
        "held_out_loss": row["held_out_total"],
        "kl_weight": row["beta"],
        "end_learning_rate": row["learning_rate"],
    } | row
