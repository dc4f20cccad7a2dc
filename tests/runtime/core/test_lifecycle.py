from __future__ import annotations

import os
import subprocess
import sys

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
