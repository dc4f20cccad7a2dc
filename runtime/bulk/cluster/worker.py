"""Worker: an EncoderPool on a machine of a cluster, asked and answering in bytes."""

from __future__ import annotations

import contextlib
import os
import pickle
import socket
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ...bundle.load import load_bundle
from ...core.errors import ConfigError, MotorVAEError
from ...core.packages import own_version
from ..encoder_pool import EncoderPool, PoolRequest
from ..item import Item
from ..rows import Rows


@dataclass(frozen=True)
class WorkerRequest:
    """What a worker is to open."""

    version: str  # of motorVAE where the run was started
    folder: str  # which relative paths begin at
    files: Callable[[], Mapping[str, bytes]]  # of the bundle, by their paths in it
    pool: PoolRequest


class Facts(NamedTuple):
    """What a worker runs on."""

    chosen: str
    engine: str
    precision: str
    remarks: str
    ood_remark: str
    batch_size: int


class Answer(NamedTuple):
    """Rows of each batch of a task, and what there is to know of the worker by now."""

    rows: list[Rows]
    chosen: str
    notes: tuple[str, ...]


class Worker:
    """Opened once in a process of its own, and then asked again and again.

    An error of ours is an answer too: what the library that carries questions and answers would
    make of an exception is a page long, and it would start the process again.
    """

    def __init__(self, request: WorkerRequest) -> None:
        self._error: MotorVAEError | None = None
        with contextlib.suppress(OSError):  # where no folder is shared, paths must be absolute
            os.chdir(request.folder)
        try:
            self._pool = _opened(request)
        except MotorVAEError as error:
            self._error = _located(error)

    def __call__(self, table: Any) -> Any:
        """Answer a table of one row: `number`, and the pickled question in `content`."""
        (asked,) = table.column("content").to_pylist()
        answer = pickle.dumps(self._answer(pickle.loads(asked)), protocol=5)  # noqa: S301  # ours
        place = table.column_names.index("content")
        return table.set_column(place, "content", [[answer]])

    def _answer(self, batches: Sequence[Sequence[Item]] | None) -> Answer | Facts | MotorVAEError:
        """Return rows of batches, or facts where there is no batch, or what went wrong."""
        if self._error is not None:
            return self._error
        choice = self._pool.choice
        try:
            if batches is None:
                return Facts(
                    choice.chosen,
                    self._pool.engine,
                    choice.precision,
                    choice.remarks,
                    self._pool.ood_remark,
                    self._pool.best_batch_size(),
                )
            return Answer(list(self._pool.rows(batches)), choice.chosen, self._pool.notes)
        except MotorVAEError as error:
            return _located(error)


def _opened(request: WorkerRequest) -> EncoderPool:
    if request.version != (here := own_version()):
        raise ConfigError(
            f"motorVAE {here} is installed, and {request.version} where the run was started: "
            "install the same one on each node"
        )
    # Engines have read the files once they are open.
    with tempfile.TemporaryDirectory(prefix="motorvae-bundle-") as text:
        folder = Path(text)
        for name, content in request.files().items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return EncoderPool(load_bundle(folder, hash_all=False), request.pool)


def _located(error: MotorVAEError) -> MotorVAEError:
    """Say on which machine it happened."""
    return type(error)(f"on node {socket.gethostname()}: {error}")
