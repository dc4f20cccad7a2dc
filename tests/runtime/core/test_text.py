"""Text that others chose, on a screen, in JSON and in tables."""

from __future__ import annotations

import csv
import io
import json
import subprocess
from pathlib import Path

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from motorvae.runtime.core.documents import save_document
from motorvae.runtime.core.errors import OutputError, next_command
from motorvae.runtime.core.spec import StrictModel
from motorvae.runtime.core.text import check_utf8, printable, printable_values, spreadsheet_cell

anything = st.text(st.characters(codec=None))


@given(anything)
def test_what_is_printable_is_shown_and_encoded_and_parsed(text: str) -> None:
    shown = printable(text)
    assert orjson.loads(orjson.dumps(shown)) == shown
    assert not any(one < " " or 0x7F <= ord(one) < 0xA0 for one in shown)
    assert printable(shown) == shown


@pytest.mark.parametrize("text", ["caf\u00e9", "\u65e5\u672c", "\U0001f600", "a b", "100%", "a\\b"])
def test_ordinary_names_stay(text: str) -> None:
    assert printable(text) == text


@given(st.recursive(anything, lambda inner: st.lists(inner) | st.dictionaries(anything, inner)))
def test_a_document_of_any_text_can_be_encoded(value: object) -> None:
    orjson.dumps(printable_values(value))


@given(st.text(max_size=9))
@example("\uff1d1+1")
@example("\uff0b1")
@example("\uff0d1")
@example("\uff20SUM(A1)")
def test_no_cell_is_a_formula(text: str) -> None:
    cell = spreadsheet_cell(text)
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    assert not cell.startswith(("\uff1d", "\uff0b", "\uff0d", "\uff20"))
    assert cell.endswith(text)
    row = io.StringIO()
    csv.writer(row).writerow([cell])


class Note(StrictModel):
    """A document."""

    schema_version: int = 1
    text: str
    path: Path


def test_a_name_that_is_no_utf8_reaches_a_document(tmp_path: Path) -> None:
    path = tmp_path / "note.json"
    save_document(path, Note(text="a\udcff\x1b", path=Path("b\udcfe")), indent=2)
    read = json.loads(path.read_text(encoding="utf-8"))
    assert read == {"schema_version": 1, "text": r"a\udcff\x1b", "path": r"b\udcfe"}


@given(st.binary(min_size=1, max_size=12).filter(lambda name: b"\0" not in name))
def test_a_shell_reads_the_next_command_back(name: bytes) -> None:
    word = name.decode(errors="surrogateescape")
    command = next_command("printf", "%s", word)
    assert command.isprintable()
    done = subprocess.run(["bash", "-c", command.encode()], capture_output=True, check=True)
    assert done.stdout == name


def test_a_library_that_takes_utf8_only_is_named(tmp_path: Path) -> None:
    check_utf8(tmp_path / "\u00e9", "Rerun")
    with pytest.raises(OutputError, match=r"x\\udcff is no UTF-8, and Rerun takes no other names"):
        check_utf8(tmp_path / "x\udcff", "Rerun")
