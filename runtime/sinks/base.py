"""Sink: what every output of latent rows can do."""

from __future__ import annotations

import abc
from pathlib import Path

from ..core.errors import OutputError
from ..core.lifecycle import Closing
from ..core.row import Row

STANDARD_OUTPUT = "-"


class Sink(Closing):
    """Somewhere that rows go. Each is used by one thread only.

    Attributes:
        name: What to call it in messages; never holds credentials.
        rows: How many rows it took. Where what is kept back cannot be written, it falls to the
            number of rows that are in the output.
        set_aside_as: Where an earlier output of that name was moved to, if there was one.
    """

    name: str = ""
    rows: int = 0
    set_aside_as: Path | None = None

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

    def _failed(self, error: OSError) -> OutputError:
        """Return the error of this sink for one of the system."""
        if isinstance(error, OutputError):
            return error
        written = f"the {self.rows} rows before it are whole; " if self.rows else ""
        return OutputError(
            f"cannot write {self.name}: {error.strerror or error}; {written}"
            "make room or choose another --output"
        )
