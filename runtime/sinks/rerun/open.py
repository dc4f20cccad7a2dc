"""What --view takes: nothing for the Rerun viewer, or a .rrd file; checked, then opened."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from ...core.atomic_files import check_replaceable_file, check_writable, set_aside
from ...core.errors import ConfigError, missing_dependency
from ...core.row import RunFacts

if TYPE_CHECKING:
    from .sink import ViewSink

SUFFIX = ".rrd"
DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY", "WAYLAND_SOCKET")


def check_view(where: str | None) -> None:
    """Make sure that a view can be opened, before work is spent on anything else.

    Args:
        where: None or "" for the Rerun viewer, or the .rrd file to record.

    Raises:
        ConfigError: It is something else, or there is no display for the viewer.
        MissingDependencyError: Rerun is not installed.
        OutputError: The file cannot be written.
    """
    if where:
        path = Path(where)
        if path.suffix != SUFFIX:
            raise ConfigError(
                f"--view {where}: name a file ending in {SUFFIX}, or nothing to open the Rerun "
                "viewer"
            )
        check_replaceable_file(path)
        check_writable(path)
    elif not any(os.environ.get(name) for name in DISPLAYS):
        raise ConfigError(
            f"--view: no display ({' and '.join(DISPLAYS[:2])} are not set): record with "
            f"--view file{SUFFIX} and open that elsewhere, or start from a desktop"
        )
    _view_sink()


def open_view(where: str | None, facts: RunFacts) -> ViewSink:
    """Open the Rerun viewer and stream to it, or start a recording.

    An earlier recording of that name is set aside under a number. The viewer outlives the run.

    Args:
        where: As `check_view` takes it.
        facts: What holds for every row.

    Raises:
        ConfigError: As for `check_view`, or Rerun is switched off in the environment.
        MissingDependencyError: Rerun is not installed.
        OutputError: The viewer did not start, or the file cannot be written.
    """
    check_view(where)
    view_sink = _view_sink()
    if not where:
        return view_sink.to_viewer(facts)
    path = Path(where)
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = set_aside(path)
    sink = view_sink.to_file(path, facts)
    sink.set_aside_as = kept
    return sink


def _view_sink() -> type[ViewSink]:
    try:
        from .sink import ViewSink  # noqa: PLC0415  # the optional view
    except ModuleNotFoundError as error:
        raise missing_dependency(
            "--view", "rerun-sdk", extra="view", instead="leave --view out"
        ) from error
    return ViewSink
