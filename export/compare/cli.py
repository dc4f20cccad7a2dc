"""motorvae verify: the table, the verdict, the exit code and JSON."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ...runtime.core.atomic_files import check_writable
from ...runtime.core.command import Command, print_sentence, stderr_console
from ...runtime.core.documents import json_from_document, save_document
from ...runtime.core.errors import OutputError, needed_for
from ...runtime.core.lifecycle import loading
from ...runtime.core.text import printable
from ..steps import steps_shown
from .options import VerifyOptions

if TYPE_CHECKING:
    from .result import VerifyResult

CANNOT_JUDGE = 2
"""The exit code where there is no verdict, whatever the cause: a failed gate alone is 1."""
_STDOUT = "-"


def run_verify(
    options: VerifyOptions, step: Callable[[str], object] = lambda _: None
) -> VerifyResult:
    """Compare two graphs, without a word; see `verified`."""
    with needed_for("verifying graphs", extra="export,cpu"), loading():
        from .run import verified  # noqa: PLC0415  # onnx is loaded where it is needed
    return verified(options, step)


def _verify(options: VerifyOptions, _words: Sequence[str] = ()) -> int:
    console = stderr_console()
    target = None if options.json in {None, _STDOUT} else Path(str(options.json))
    if target is not None:
        check_writable(target)
        if not target.absolute().parent.is_dir():
            raise OutputError(f"{target.parent} is not there: make that folder, or name another")
    with steps_shown(console, "loading") as step:
        result = run_verify(options, step)
    from .table import result_table  # noqa: PLC0415  # onnx is there, so its parts are

    console.print(result_table(result))
    notes = dict.fromkeys((*result.notes, *result.candidate.notes))
    notes |= dict.fromkeys(note for output in result.outputs for note in output.notes)
    if result.skipped:
        first = f"{len(result.skipped)} images were skipped, first {result.skipped[0]}"
        notes[first] = None
    for note in notes:
        print_sentence(console, f"note: {printable(note)}")
    print_sentence(console, printable(result.verdict))
    if options.json == _STDOUT:
        sys.stdout.write(json_from_document(result, indent=2))
    elif target is not None:
        save_document(target, result, indent=2)
    return 0 if result.passed else 1


verify_main = Command(
    VerifyOptions,
    _verify,
    "compare a graph with a reference on your images, output by output",
    prog="motorvae verify",
    failed=CANNOT_JUDGE,
)
