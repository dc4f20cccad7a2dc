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


MEMORY = """
import resource, sys
from motorvae.runtime.core.lifecycle import exit_code_of
def body():
    resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
    if sys.argv[1] == "bytes":
        bytearray(1 << 33)
    import av  # whose libraries do not fit into what is left
    bytearray(1 << 30)
sys.exit(exit_code_of("x", body))
"""


@pytest.mark.parametrize("what", ["bytes", "library"])
def test_a_lack_of_memory_is_one_line(what: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, what], capture_output=True, text=True, check=False
    )
    line = "x: there is not enough memory: free some, or allow more (ulimit -v)\n"
    assert (done.returncode, done.stderr) == (1, line)


def test_a_full_disk_without_a_name_is_one_line() -> None:
    body = "print('x' * 100_000)"
    code = (
        f"from motorvae.runtime.core.lifecycle import exit_code_of as run; run('x', lambda: {body})"
    )
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-u", "-c", code],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (
        done.stderr == "x: cannot write: No space left on device; make room where the output goes\n"
    )


TWICE = """
import contextlib, os, signal, sys
from motorvae.runtime.core.lifecycle import exit_code_of
signal.signal(signal.SIGINT, signal.default_int_handler)  # a test may run with it ignored
def body():
    try:
        os.kill(os.getpid(), signal.{first})
    finally:
        os.kill(os.getpid(), signal.{second})
        print("cleaned up")
sys.exit(exit_code_of("x", body))
"""


@pytest.mark.parametrize("first", ["SIGINT", "SIGTERM", "SIGHUP"])
@pytest.mark.parametrize("second", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_right_after_one_does_not_break_off_the_cleaning_up(
    first: str, second: str
) -> None:
    code = TWICE.format(first=first, second=second)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout) == (130, "cleaned up\n"), done.stderr
    assert done.stderr == "x: interrupted\n"


HELD_DOWN = """
import os, signal, sys, time
from motorvae.runtime.core.lifecycle import exit_code_of
signal.signal(signal.SIGINT, signal.default_int_handler)  # a test may run with it ignored
def body():
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt:
        pass  # as a library may
    for _ in range(300):
        time.sleep(0.03)  # a key repeats
        os.kill(os.getpid(), signal.SIGINT)
sys.exit(exit_code_of("x", body))
"""


def test_ctrl_c_that_is_held_down_ends_what_swallowed_the_first() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HELD_DOWN], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (130, "x: interrupted\n")
