"""Where latent rows go: what every sink can do, and how one is opened from what a user typed."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from ..core.atomic_files import check_replaceable_file, check_writable
from ..core.errors import ConfigError, missing_dependency
from ..core.redaction import without_credentials
from ..core.row import RunFacts
from .address import address_of
from .base import STANDARD_OUTPUT, Sink

_SUFFIXES = (".jsonl", ".csv", ".npz", ".parquet", ".mcap")
_SCHEMES = ("zmq", "udp")
# Package and extra of what is not always installed.
_OPTIONAL = {
    ".parquet": ("pyarrow", "parquet"),
    ".mcap": ("mcap", "mcap"),
    "zmq": ("pyzmq", "zmq"),
}


def check_output(output: str) -> None:
    """Refuse an output that no sink takes, before anything is opened.

    Raises:
        ConfigError: Its suffix or scheme is unknown, or it is no address.
        MissingDependencyError: The package that writes it is not installed.
        OutputError: A folder or a device has that name, or nothing can be written there.
    """
    kind = _kind_of(output)
    _sink_class(kind)
    if kind in _SCHEMES:
        address_of(output)
    elif kind != STANDARD_OUTPUT:
        check_replaceable_file(Path(output), or_folder=kind == ".parquet")
        check_writable(Path(output))


def open_sink(output: str, facts: RunFacts) -> Sink:
    """Open what `output` names: `-`, a file by its suffix, or an address by its scheme.

    An earlier file of that name is kept under the first free number, `Sink.set_aside_as`.

    Raises:
        ConfigError: No sink takes such an output, or rows of this run do not fit it.
        MissingDependencyError: The package that writes it is not installed.
        OutputError: It cannot be created.
    """
    check_output(output)
    return _sink_class(_kind_of(output))(output, facts)


def _kind_of(output: str) -> str:
    """Return `-`, the suffix or the scheme."""
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", output)
    kind = scheme[1] if scheme else output if output == STANDARD_OUTPUT else Path(output).suffix
    if kind in (_SCHEMES if scheme else (*_SUFFIXES, STANDARD_OUTPUT)):
        return kind
    shown = without_credentials(output) if scheme else output
    raise ConfigError(
        f"output={shown!r}: name a file ending in {', '.join(_SUFFIXES[:-1])} or {_SUFFIXES[-1]}, "
        "an address zmq://HOST:PORT or udp://HOST:PORT, or - for stdout"
    )


def _sink_class(kind: str) -> Callable[[str, RunFacts], Sink]:  # noqa: PLR0911  # one return a kind
    """Import the sink of a kind; each is a module about one package or format."""
    try:
        match kind:
            case ".csv":
                from .text_lines import CsvSink  # noqa: PLC0415

                return CsvSink
            case ".npz":
                from .npz import NpzSink  # noqa: PLC0415

                return NpzSink
            case ".parquet":
                from .parquet import ParquetSink  # noqa: PLC0415

                return ParquetSink
            case ".mcap":
                from .mcap_file import McapSink  # noqa: PLC0415

                return McapSink
            case "zmq":
                from .zeromq import ZmqSink  # noqa: PLC0415

                return ZmqSink
            case "udp":
                from .udp import UdpSink  # noqa: PLC0415

                return UdpSink
            case _:
                from .text_lines import JsonLinesSink  # noqa: PLC0415

                return JsonLinesSink
    except ModuleNotFoundError as error:
        package, extra = _OPTIONAL[kind]
        raise missing_dependency(
            f"--output {kind}", package, extra=extra, instead="choose a file ending in .jsonl"
        ) from error
