"""Where latent rows go: JSON Lines in a file or on standard output."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import orjson

from .closing import Closing
from .errors import ConfigError, OutputError
from .files import check_replaceable_file, check_writable, set_aside

STANDARD_OUTPUT = "-"


class JsonLinesSink(Closing):
    """Rows as JSON Lines; every row that was written is whole and stays so.

    Each row goes to the system in one write as soon as it is there. Where a write fails half
    way, as on a full disk, the half row is cut off again.

    Args:
        output: A path ending in `.jsonl`, or `-` for standard output. An existing file is
            kept under the first free numbered name, `set_aside_as`.

    Raises:
        ConfigError: Another suffix.
        OutputError: The file cannot be created.
    """

    def __init__(self, output: str) -> None:
        self.name = "standard output" if output == STANDARD_OUTPUT else output
        self.rows = 0
        self.set_aside_as: Path | None = None
        self._whole_bytes = 0
        self._is_file = output != STANDARD_OUTPUT
        if not self._is_file:
            self._handle = sys.stdout.fileno()
            return
        check_output(output)
        path = Path(output)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.set_aside_as = set_aside(path)
            self._handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o666)
        except OSError as error:
            raise self._failed(error) from error

    def write(self, row: Mapping[str, object]) -> None:
        """Write one row; numpy arrays become lists of the shortest digits that read back equal.

        Raises:
            OutputError: The row could not be written whole; it is not in the file.
        """
        line = orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE)
        rest = memoryview(line)
        try:
            while rest:
                rest = rest[os.write(self._handle, rest) :]
        except OSError as error:
            if self._is_file:
                os.ftruncate(self._handle, self._whole_bytes)
            raise self._failed(error) from error
        self._whole_bytes += len(line)
        self.rows += 1

    def close(self) -> None:
        """Close the file; calling it again does nothing."""
        if self._is_file and self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def _failed(self, error: OSError) -> OutputError:
        if isinstance(error, OutputError):
            return error
        written = f"the {self.rows} rows before it are whole; " if self.rows else ""
        return OutputError(
            f"cannot write {self.name}: {error.strerror}; {written}"
            "make room or choose another --output"
        )


def check_output(output: str) -> None:
    """Refuse an output that no sink takes, before anything is opened.

    Raises:
        ConfigError: Its suffix is not `.jsonl` and it is not `-`.
        OutputError: A folder or a device has that name, or nothing can be written there.
    """
    if output == STANDARD_OUTPUT:
        return
    path = Path(output)
    if path.suffix != ".jsonl":
        raise ConfigError(f"output={output!r}: name a file ending in .jsonl, or - for stdout")
    check_replaceable_file(path)
    check_writable(path)
