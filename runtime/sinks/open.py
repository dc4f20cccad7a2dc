"""Where latent rows go: each kind of output, checked and opened from what a user typed."""

from __future__ import annotations

import contextlib
import importlib
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

from ..core.atomic_files import check_writable
from ..core.errors import ConfigError, missing_dependency
from ..core.redaction import without_credentials
from ..core.row import RunFacts
from ..core.system.locks import output_locked
from ..core.text import check_utf8
from .base import STANDARD_OUTPUT, Sink, address_of

SinkClass = Callable[[str, RunFacts], Sink]

VIEW = "--view"
VIEW_SUFFIX = ".rrd"
DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY", "WAYLAND_SOCKET")
_SUFFIXES = (".jsonl", ".csv", ".npz", ".parquet", ".mcap")
_SCHEMES = ("zmq", "udp")
# Module and class of each kind, imported when it is asked for, and the package and the extra that
# several need.
_SINKS = {
    STANDARD_OUTPUT: ("text_lines", "JsonLinesSink", "", ""),
    ".jsonl": ("text_lines", "JsonLinesSink", "", ""),
    ".csv": ("text_lines", "CsvSink", "", ""),
    ".npz": ("npz", "NpzSink", "", ""),
    ".parquet": ("parquet", "ParquetSink", "pyarrow", "parquet"),
    ".mcap": ("mcap_file", "McapSink", "mcap", "mcap"),
    "zmq": ("zeromq", "ZmqSink", "pyzmq", "zmq"),
    "udp": ("udp", "UdpSink", "", ""),
    VIEW: ("rerun_sink", "ViewSink", "rerun-sdk", "view"),
}


def check_output(output: str) -> SinkClass:
    """Return what opens an output, once its package is there and its file can be written.

    Nothing is opened or left behind.
    """
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", output)
    kind = scheme[1] if scheme else output if output == STANDARD_OUTPUT else Path(output).suffix
    if kind not in (_SCHEMES if scheme else (*_SUFFIXES, STANDARD_OUTPUT)):
        shown = without_credentials(output) if scheme else output
        raise ConfigError(
            f"output={shown!r}: name a file ending in {', '.join(_SUFFIXES[:-1])} or "
            f"{_SUFFIXES[-1]}, an address zmq://HOST:PORT or udp://HOST:PORT, or - for stdout"
        )
    found = _sink_class(kind)
    if scheme:
        address_of(output)
    elif kind != STANDARD_OUTPUT:
        check_writable(Path(output), or_folder=kind == ".parquet")
    return found


def locked_outputs(outputs: Sequence[str], view: Sequence[str] | None) -> contextlib.ExitStack:
    """Lock every output that is a file, as of `output_locked`; what comes back unlocks them."""
    files = [one for one in outputs if one != STANDARD_OUTPUT and "://" not in one]
    with contextlib.ExitStack() as locked:
        for file in (*files, *(view or ())):
            locked.enter_context(output_locked(Path(file)))
        return locked.pop_all()


def open_sink(output: str, facts: RunFacts) -> Sink:
    """Open what `output` names: `-`, a file by its suffix, or an address by its scheme."""
    return check_output(output)(output, facts)


def check_view(view: Sequence[str]) -> SinkClass:
    """Return what opens a view, the one .rrd file to record or the Rerun viewer, as above."""
    if where := "".join(view):
        path = Path(where)
        if path.suffix != VIEW_SUFFIX:
            raise ConfigError(
                f"--view {where}: name a file ending in {VIEW_SUFFIX}, or nothing to open the "
                "Rerun viewer"
            )
        check_utf8(path, "Rerun")
        check_writable(path)
    elif not any(os.environ.get(name) for name in DISPLAYS):
        raise ConfigError(
            f"--view: no display ({' and '.join(DISPLAYS[:2])} are not set): record with "
            f"--view file{VIEW_SUFFIX} and open that elsewhere, or start from a desktop"
        )
    return _sink_class(VIEW)


def open_view(view: Sequence[str], facts: RunFacts) -> Sink:
    """Open the Rerun viewer, which outlives the run, or start a recording; see `check_view`."""
    return check_view(view)("".join(view), facts)


def open_sinks(
    outputs: Sequence[str],
    view: Sequence[str] | None,
    facts: RunFacts,
    view_class: SinkClass | None = None,
) -> list[Sink]:
    """Open outputs and a view, if one is asked for: all of them, or none where one fails.

    `view_class` opens the view, by default as of `check_view`.
    """
    with contextlib.ExitStack() as opened:
        sinks = [opened.enter_context(open_sink(output, facts)) for output in outputs]
        if view is not None:
            checked = check_view(view)
            sink = (view_class or checked)("".join(view), facts)
            sinks.append(opened.enter_context(sink))
        opened.pop_all()
    return sinks


def _sink_class(kind: str) -> SinkClass:
    module, name, package, extra = _SINKS[kind]
    try:
        found = getattr(importlib.import_module(f".{module}", __package__), name)
    except ModuleNotFoundError as error:
        if not package:  # nothing that an extra would bring
            raise
        feature, instead = f"--output {kind}", "choose a file ending in .jsonl"
        if kind == VIEW:
            feature, instead = VIEW, "leave --view out"
        raise missing_dependency(feature, package, extra=extra, instead=instead) from error
    return cast("SinkClass", found)
