from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

FAILING = """
import sys
from motorvae.runtime.core.errors import DataError
from motorvae.runtime.core.lifecycle import exit_code_of
def body():
    print("a table")
    raise {error}
sys.exit(exit_code_of("x", body))
"""


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [("DataError('no image')", 1, "x: no image"), ("KeyboardInterrupt", 130, "x: interrupted")],
)
def test_what_ended_a_command_counts_and_not_that_nobody_reads_its_output(
    error: str, code: int, words: str
) -> None:
    reader, broken = os.pipe()
    os.close(reader)
    with os.fdopen(broken, "w") as output:
        done = subprocess.run(
            [sys.executable, "-c", FAILING.format(error=error)],
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            env={key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"},
        )
    assert (done.returncode, done.stderr) == (code, f"{words}\n")


PLACES = """
import os, sys
from motorvae.runtime.core.lifecycle import exit_code_of
def body():
    with open(sys.argv[1], "w") as file:
        file.write(str(file.fileno()))
sys.exit(exit_code_of("x", body))
"""


@pytest.mark.parametrize("closed", ["0<&-", "2>&-", "0<&- 2>&-", "0<&- 1>&- 2>&-"])
def test_no_file_takes_the_place_of_a_closed_standard_stream(tmp_path: Path, closed: str) -> None:
    """What libraries print on standard error would stand between its rows."""
    rows = tmp_path / "rows"
    words = shlex.join([sys.executable, "-c", PLACES, str(rows)])
    assert subprocess.run(["sh", "-c", f"{words} {closed}"], check=False).returncode == 0
    assert int(rows.read_text()) > 2
