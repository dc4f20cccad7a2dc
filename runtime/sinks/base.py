"""Sink: what every output of latent rows can do, and what files and addresses have in common."""

from __future__ import annotations

import abc
import contextlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson

from ..core.atomic_files import set_aside
from ..core.errors import ConfigError, OutputError
from ..core.lifecycle import Closing
from ..core.redaction import without_credentials
from ..core.row import SCHEMA, Row, RunFacts
from ..core.text import printable

STANDARD_OUTPUT = "-"
LOOPBACK = "127.0.0.1"
NUMPY_TOO = orjson.OPT_SERIALIZE_NUMPY


class Sink(Closing):
    """Somewhere that rows go. Each is used by one thread only.

    A class of sinks is called with what the user typed, such as a path or an address, and with the
    `RunFacts` of the run; where the output cannot be created it raises `OutputError`.
    """

    name: str = ""  # what to call it in messages; never holds credentials
    # how many rows it took. Where what is kept back cannot be written, it falls to the number of
    # rows that are in the output.
    rows: int = 0
    # where an earlier output of that name was moved to, if there was one
    set_aside_as: Path | None = None
    # what must stay in its place while rows are written, and what it was then
    _place: tuple[Path, os.stat_result] | None = None

    @abc.abstractmethod
    def write(self, row: Row) -> None:
        """Take one row.

        Raises:
            OutputError: It could not be written whole, and is not in the output.
        """

    def flush(self) -> None:
        """Give away what is kept back; called at least twice a second, also where no row comes.

        Raises:
            OutputError: It could not be written.
        """

    def check_place(self) -> None:
        """Make sure that the output is where it was made; OutputError where somebody removed it.

        The system goes on taking rows for a file that has no name any more.
        """
        if self._place is None:
            return
        path, before = self._place
        with contextlib.suppress(OSError):
            if os.path.samestat(path.stat(), before):
                return
        self.rows = 0
        raise OutputError(
            f"{path} was moved or deleted while {self.name} was being written, and no row is "
            "there: leave it in its place, and run again"
        )

    def _stays_at(self, path: Path) -> None:
        """Let `check_place` look for what is at `path` now."""
        self._place = path, path.stat()

    def _new_path(self, output: str, *, or_folder: bool = False) -> Path:
        """Name the sink after its file, whose folder is made and whose predecessor set aside."""
        self.name, path = printable(output), Path(output)
        path.parent.mkdir(parents=True, exist_ok=True)
        self.set_aside_as = set_aside(path, or_folder=or_folder)
        return path

    @contextlib.contextmanager
    def _writing(self, undo: Callable[[], None] | None = None) -> Iterator[None]:
        """Turn what the system refuses within the block into this sink's error, after `undo`."""
        try:
            yield
        except OSError as error:
            if undo is not None:
                undo()
            if isinstance(error, OutputError):
                raise
            written = f"the {self.rows} rows before it are whole; " if self.rows else ""
            raise OutputError(
                f"cannot write {self.name}: {error.strerror or error}; {written}"
                "make room or choose another --output"
            ) from error


def metadata_of(facts: RunFacts) -> dict[str, str]:
    """Return what a file says once of all its rows."""
    return {
        "schema_version": str(SCHEMA),
        "latent_size": str(facts.latent_size),
        "latent_shape": " ".join(map(str, facts.latent_shape)),
        "weights_sha256": facts.weights_sha256,
        "backend": facts.backend,
    }


def summary_json(row: Row) -> str | None:
    """Return the summary of a last row as JSON, for formats without nested values."""
    return None if row.summary is None else orjson.dumps(row.summary, option=NUMPY_TOO).decode()


def address_of(output: str) -> tuple[str, int]:
    """Return host and port of `SCHEME://HOST:PORT`; no host means the loopback interface."""
    found = re.fullmatch(r"\w+://(?:\[([0-9a-fA-F:.]+)\]|([^][:/@?#\s]*)):([0-9]{1,5})", output)
    if found is None or int(found[3]) > 65535:
        scheme = output.partition("://")[0]
        raise ConfigError(
            f"output={without_credentials(output)!r}: write {scheme}://HOST:PORT, or "
            f"{scheme}://:PORT for this machine only, without a user name or a path"
        )
    return found[1] or found[2] or LOOPBACK, int(found[3])


def bracketed(host: str) -> str:
    """Return a host as it stands before a port."""
    return f"[{host}]" if ":" in host else host
