"""What every command shares: options from a frozen dataclass, errors as one line, exit codes."""

from __future__ import annotations

import ast
import contextlib
import inspect
import itertools
import os
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, make_dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, TextIO, TypeVar, cast, get_origin, get_type_hints

import tyro
from rich.console import Console

from .errors import ConfigError, MotorVAEError
from .lifecycle import terminated_by_signals
from .packages import own_version

Options = TypeVar("Options")

MISUSED = 2
INTERRUPTED = 130


def stderr_console() -> Console:
    """Return a console for progress, tables and notes; standard output is kept for data."""
    # What is printed holds file names, in which [x] and :x: mean nothing.
    return Console(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True)


class LastingStderr:
    """Standard error on which printing never fails: what a closed terminal refuses is dropped.

    Progress that nobody can see any more must not end the work that it is about.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write as far as that is possible."""
        with self._dropping():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush as far as that is possible."""
        with self._dropping():
            self._stream.flush()

    @contextlib.contextmanager
    def _dropping(self) -> Iterator[None]:
        try:
            yield
        except OSError:
            # What is left in buffers would fail once more as Python exits, with a code of its own.
            with contextlib.suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())


def print_sentence(console: Console, text: str) -> None:
    """Print prose: broken between words on a terminal, and elsewhere on one line to search in."""
    console.print(text, soft_wrap=not console.is_terminal)


def print_remarks(console: Console, subject: Path, remarks: Sequence[str]) -> None:
    """Say what a bundle's manifest wants whoever uses the bundle to know, a line each."""
    for remark in remarks:
        console.print(f"warning: {subject}: {remark}")


def run_command(
    options: type[Options],
    body: Callable[[Options], int | None],
    *,
    prog: str,
    description: str,
    args: Sequence[str] | None = None,
    usage: str | None = None,
    positional: Sequence[str] = (),
    hints: Mapping[str, str] = MappingProxyType({}),
) -> int:
    """Parse a command line into `options`, run `body`, and return the exit code.

    Args:
        options: A frozen dataclass.
        body: Takes it once it is parsed.
        prog: The command's name.
        description: The first line of its help.
        args: The command line; by default that of this process.
        usage: How it is called in its help; by default by its name alone.
        positional: Option names, each with one value, that mean the positional argument, too.
        hints: What is said of an option that other programs have: the name that it has here.

    Returns:
        What `body` returns (None counts as 0); 1 after any `MotorVAEError` or `OSError`, whose
        message becomes one line on standard error; 130 after Ctrl-C, SIGTERM or SIGHUP. The parser
        exits with 2 by itself.
    """
    lasting = cast("TextIO", LastingStderr(sys.stderr))
    with terminated_by_signals(), contextlib.redirect_stderr(lasting):
        given = list(sys.argv[1:] if args is None else args)
        if "--version" in given:
            sys.stdout.write(f"{prog} {own_version()}\n")
            return 0
        for name in given:
            if hint := hints.get(name.partition("=")[0]):
                return _misused(f"{prog}: {name}: {hint}")
        try:
            given = positional_from_options(given, positional)
        except ConfigError as error:
            return _misused(f"{prog}: {error}")
        parse = partial(parsed_options, options, given, prog=usage or prog, description=description)
        return _run(lambda: body(parse()), prog)


@dataclass(frozen=True)
class Subcommand:
    """One of several things that a command does.

    Attributes:
        what: A line of help, of at most 66 characters.
        options: Its options, a frozen dataclass.
        body: Takes them; see `run_command`.
    """

    what: str
    options: type[Any]
    body: Callable[[Any], int | None]


def run_subcommands(
    subcommands: Mapping[str, Subcommand],
    *,
    prog: str,
    description: str,
    args: Sequence[str] | None = None,
    hints: Mapping[str, str] = MappingProxyType({}),
) -> int:
    """Run the subcommand that a command line begins with, or else the first; see `run_command`."""
    given = list(sys.argv[1:] if args is None else args)
    first = given[0] if given else ""
    if first in {"-h", "--help"}:
        lines = [f"  {name:<10}{one.what}" for name, one in subcommands.items()]
        usage = f"usage: {prog} [{'|'.join(subcommands)}] [OPTIONS]"
        after = f"Without a name it is {next(iter(subcommands))}; each takes --help."
        sys.stdout.write("\n".join([usage, "", description, "", *lines, "", after, ""]))
        raise SystemExit(0)
    if first in subcommands:
        name, given = first, given[1:]
    elif first and not first.startswith("-"):
        return _misused(f"{prog}: {first}: no such subcommand, take {', '.join(subcommands)}")
    else:
        name = next(iter(subcommands))
    chosen = subcommands[name]
    return run_command(
        chosen.options,
        chosen.body,
        prog=prog,
        usage=f"{prog} {name}",
        description=chosen.what,
        args=given,
        hints=hints,
    )


def positional_from_options(args: Sequence[str], names: Sequence[str]) -> list[str]:
    """Return a command line in which the values of some options are positional arguments.

    Raises:
        ConfigError: One of them has no value.
    """
    values: list[str] = []
    others: list[str] = []
    left = list(args)
    while left:
        word = left.pop(0)
        name, equals, value = word.partition("=")
        if name not in names:
            others.append(word)
        elif equals:
            values.append(value)
        elif left:
            values.append(left.pop(0))
        else:
            raise ConfigError(f"{name}: give it a value")
    return values + others


def parsed_options(
    options: type[Options],
    args: Sequence[str],
    *,
    prog: str,
    description: str = "",
    default: Options | None = None,
) -> Options:
    """Return the options that a command line gives.

    Help shows the fields in the groups that the class names in `GROUPS`, titles to names of fields,
    and a nested dataclass as a group of its own. A default of None or False is not shown: the
    field's docstring says what leaving it out means.

    Args:
        options: A dataclass.
        args: The command line.
        prog: The command's name.
        description: The first line of its help, of at most 80 characters.
        default: What is not given is as in these options.
    """
    found = tyro.cli(
        _view_of(options, default),
        args=args,
        prog=prog,
        description=description,
        config=(tyro.conf.FlagCreatePairsOff, tyro.conf.DisallowNone),
    )
    return cast("Options", _from_view(options, found))


def _view_of(options: Any, default: Any) -> Any:
    """Return a dataclass of the same values that the parser shows as `parsed_options` says."""
    annotated: Any = Annotated  # made here, and not for a type checker
    unprefixed: Any = tyro.conf.OmitArgPrefixes
    types, docs = get_type_hints(options, include_extras=True), _docs_of(options)
    groups: Mapping[str, tuple[str, ...]] = getattr(options, "GROUPS", {})
    title_of = {name: title for title, names in groups.items() for name in names}
    shown: dict[str, list[Any]] = {title: [] for title in ("", *groups)}
    inner: list[Any] = []
    for one in fields(options):
        kind, own = types[one.name], ()
        if get_origin(kind) is Annotated:
            kind, own = kind.__origin__, kind.__metadata__
        value = one.default if default is None else getattr(default, one.name)
        if is_dataclass(kind) and one.default_factory is not MISSING:
            view = _view_of(kind, None if default is None else value)
            inner.append((one.name, unprefixed[view], field(default_factory=view)))
            continue
        hint = "" if value is None or value is False else None
        settings = tyro.conf.arg(help=docs.get(one.name), help_behavior_hint=hint)
        parts = (kind, settings, *own)  # the field's own settings win
        kind = annotated[parts]
        shown[title_of.get(one.name, "")].append((one.name, kind, field(default=value)))
    for title in groups:
        group = make_dataclass(title, shown[title], frozen=True)
        group.__doc__ = ""
        kind = annotated[unprefixed[group], tyro.conf.arg(name=title)]
        inner.append((f"{title}_group", kind, field(default_factory=group)))
    view = make_dataclass(options.__name__, [*shown[""], *inner], frozen=True)
    view.__doc__ = inspect.getdoc(options)
    return view


def _from_view(options: Any, view: Any) -> Any:
    """Return the options whose values a view holds, those of its groups included."""
    values: dict[str, Any] = dict(vars(view))
    for title in getattr(options, "GROUPS", ()):
        values |= vars(values.pop(f"{title}_group"))
    types = get_type_hints(options)
    for one in fields(options):
        if is_dataclass(types[one.name]) and one.default_factory is not MISSING:
            values[one.name] = _from_view(types[one.name], values[one.name])
    return options(**values)


def _docs_of(options: type[Any]) -> dict[str, str]:
    """Return the docstring of each field as one paragraph."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(options))).body
    assert isinstance(body, ast.ClassDef)  # noqa: S101  # for the type checker
    return {
        one.target.id: " ".join(after.value.value.split())
        for one, after in itertools.pairwise(body.body)
        if isinstance(one, ast.AnnAssign)
        and isinstance(one.target, ast.Name)
        and isinstance(after, ast.Expr)
        and isinstance(after.value, ast.Constant)
        and isinstance(after.value.value, str)
    }


def _misused(line: str) -> int:
    sys.stderr.write(f"{line}\n")
    return MISUSED


def _run(body: Callable[[], int | None], prog: str) -> int:
    try:
        return body() or 0
    except BrokenPipeError:  # whoever read the help or a table has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except MotorVAEError as error:
        sys.stderr.write(f"{prog}: {' '.join(str(error).split())}\n")
        return 1
    except OSError as error:
        # What the system refuses and nobody foresaw, such as a file name that is too long.
        name = f"{error.filename}: " if error.filename else ""
        reason = error.strerror or str(error)
        sys.stderr.write(f"{prog}: {name}{reason}; check that path and its permissions\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write(f"{prog}: interrupted\n")
        return INTERRUPTED
