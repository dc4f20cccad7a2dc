"""Text that others chose, such as names of files or of cameras, made fit for a screen and JSON."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from .errors import OutputError

# Control characters, marks and overrides of the writing direction, line separators, and the lone
# surrogates that stand for bytes of a file name that are no UTF-8.
_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f]"
)
# Where spreadsheets take a cell for a formula (OWASP, CSV injection); in full width, too, where
# the language has that.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def printable(text: str) -> str:
    r"""Return text of one line in which whatever a terminal would obey or hide is spelt out.

    An escape character becomes `\x1b`, and a byte of a file name that is no UTF-8 `\udcff`.
    """
    return _UNPRINTABLE.sub(lambda found: _escaped(found[0]), text)


def printable_lines(text: str) -> str:
    """Return text as above that may have several lines, and tabs."""
    if text.isascii() and text.isprintable():
        return text
    kept = (line.replace("\t", "    ") for line in text.split("\n"))
    return "\n".join(map(printable, kept))


def printable_values(value: Any) -> Any:
    """Return the content of a JSON document with every text, at whatever depth, as above."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {printable_values(key): printable_values(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [printable_values(one) for one in value]
    return value


def spreadsheet_cell(text: str) -> str:
    """Return text that no spreadsheet takes for a formula: an apostrophe comes before it."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def check_utf8(path: Path, library: str) -> None:
    """Refuse an output that a library cannot write as its name is no UTF-8: an OutputError."""
    try:
        str(path.absolute()).encode()
    except UnicodeEncodeError as error:
        raise OutputError(
            f"{printable(str(path.absolute()))} is no UTF-8, and {library} takes no other names: "
            "choose another output"
        ) from error


def _escaped(character: str) -> str:
    code = ord(character)
    if code < 0xA0:
        return {"\n": r"\n", "\r": r"\r", "\t": r"\t"}.get(character, rf"\x{code:02x}")
    return rf"\u{code:04x}" if code < 0x10000 else rf"\U{code:08x}"
