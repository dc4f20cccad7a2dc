"""What every command shares: options from a frozen dataclass, help, completion, exit codes."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass, make_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Union, cast, get_args, get_origin

import docstring_parser
import tyro
from rich.console import Console
from rich.text import Text

from .command_line.option_fields import fields_of, flag_of, leaves_of
from .command_line.plain_words import options_from_values, plain_values
from .errors import UsageError
from .lifecycle import exit_code_of
from .packages import own_version
from .text import printable, printable_lines

_COMPLETION = "--tyro-print-completion"
_SHELLS = ("bash", "zsh")
_NUMBER = r"-?[\d.]+(?:[eE][-+]?\d+)?"  # also one that is wrong, so that the error is about it
_UNPREFIXED: Any = tyro.conf.OmitArgPrefixes
_ANNOTATED, _UNION = cast("Any", Annotated), cast("Any", Union)  # made here, for no type checker


class PlainConsole(Console):
    """A console on which names and texts of others are no markup, and no terminal obeys them."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, **settings)

    def render_str(self, text: str, **settings: Any) -> Text:
        """Return a text or the cell of a table as it may be shown."""
        return super().render_str(printable_lines(text), **settings)


def stderr_console() -> Console:
    """Return a console for progress, tables and notes; standard output is kept for data."""
    return PlainConsole(stderr=True, soft_wrap=True)


def print_sentence(console: Console, text: str) -> None:
    """Print prose: broken between words on a terminal, and elsewhere on one line to search in."""
    console.print(text, soft_wrap=not console.is_terminal)


def print_remarks(console: Console, subject: Path, remarks: Sequence[str]) -> None:
    """Print what a bundle's manifest wants whoever uses the bundle to know, a line each."""
    for remark in remarks:
        console.print(f"warning: {subject}: {printable(remark)}")


@dataclass(frozen=True)
class ValuesLike:
    """Marks an option of any number of values: it takes words of this pattern and no others.

    What follows them is the positional argument, as in `--view 0`, where 0 is no recording. Where
    that `is_path`, a word that names no file is a wrong value, and is refused as such.
    """

    pattern: str
    is_path: bool = False
    counts: tuple[int, ...] = ()  # how many values there may be; any number where it is empty
    is_whole: bool = False  # whether they are whole numbers

    def check(self, name: str, values: Sequence[str], following: Sequence[str]) -> None:
        """UsageError where these are too few or too many, or not whole; `following` is the rest."""
        are_whole = all(re.fullmatch(r"-?\d+", value) for value in values)
        if self.counts and (len(values) not in self.counts or (self.is_whole and not are_whole)):
            others = [word for word in following[:1] if not values and not word.startswith("-")]
            given = printable(" ".join([name, *values, *others]))
            counts = " or ".join(map(str, self.counts))
            raise UsageError(f"{given}: give {counts}{' whole' if self.is_whole else ''} numbers")

    def takes(self, word: str) -> bool:
        """Whether a word that follows the option is a value of it."""
        fits = re.fullmatch(self.pattern, word) is not None
        return fits or (self.is_path and not word.startswith("-") and not Path(word).exists())


@dataclass(frozen=True)
class Command:
    """A command, which is called with a command line.

    Its options are a frozen dataclass. Help shows the fields in the groups that `GROUPS` names,
    titles to names of fields, and a nested dataclass as a group of its own. A default of None,
    False or () is not shown: the field's docstring says what leaving it out means.
    """

    options: type[Any]
    # Takes the options, and the words that they were parsed from; its exit code, None counts as 0.
    body: Callable[[Any, Sequence[str]], int | None]
    what: str  # first line of its help; of a subcommand at most 66 characters
    prog: str = ""  # its name; a group names its subcommands itself
    usage: str = ""  # how it is called in its help; by default by its name alone
    positional: Sequence[str] = ()  # option names, each with one value, for the positional argument
    # What to answer to an option that other programs have: the name that it has here.
    hints: Mapping[str, str] = field(default_factory=dict)
    failed: int = 1  # its exit code after an error

    def __call__(self, args: Sequence[str] | None = None) -> int:
        """Run a command line, by default that of this process; return the exit code.

        It is as of `exit_code_of`, and 2 where the command line is wrong; the parser exits with 2
        by itself.
        """
        given = list(sys.argv[1:] if args is None else args)
        return exit_code_of(
            self.prog, lambda: self._run(given), self._with_option_names, failed=self.failed
        )

    def parse(self, args: Sequence[str], default: Any = None) -> Any:
        """Return the options that a command line gives; what it leaves out is as in `default`."""
        flags = [one.name for one, kind, _ in fields_of(self.options) if kind is bool]
        # As the parser would know one of the two only, by the default.
        off = {flag_of(f"no_{name}"): name for name in flags}
        on = {flag_of(name): name for name in flags}
        # The last of the two counts, as of any option.
        last = {(on | off)[word]: word for word in args if word in on or word in off}
        taken_back = {name: False for name, word in last.items() if word in off}
        if default is not None:
            default = replace(default, **{name: False for name in flags if flag_of(name) in args})
        args = self._positional_first([word for word in args if word not in off])
        if default is None and (plain := plain_values(self.options, args)) is not None:
            return replace(options_from_values(self.options, plain), **taken_back)
        found = _parsed(_view_of(self.options, default), args, self.usage or self.prog, self.what)
        return replace(_from_view(self.options, found), **taken_back)

    def view(self) -> Any:
        """Return what the parser is shown for completion."""
        return _view_of(self.options, None)

    def _run(self, given: Sequence[str]) -> int | None:
        if "--version" in given:
            print(self.prog, own_version())
            return 0
        for word in given:
            if hint := self.hints.get(word.partition("=")[0]):
                raise UsageError(f"{word}: {hint}")
        return self.body(self.parse(given), given)

    def _positional_first(self, args: Sequence[str]) -> list[str]:
        """Return a command line whose positional arguments no option can take for its values."""
        takes: dict[str, ValuesLike] = {}  # of options of any number of values
        leaves = list(leaves_of(self.options))
        for option, kind, own in leaves:
            likes = [like for like in own if isinstance(like, ValuesLike)]
            if _is_numbers(kind):
                likes.append(_numbers_like(kind))
            aliases = [name for one in own for name in getattr(one, "aliases", None) or ()]
            takes |= {name: like for like in likes[:1] for name in (flag_of(option), *aliases)}
        flags = {flag_of(option) for option, kind, _ in leaves if kind is bool}
        if not any(tyro.conf.Positional in own for _, _, own in leaves):
            takes = {}  # there is no argument that these words could be instead
        first: list[str] = []
        others: list[str] = []
        left = list(args)
        while left:
            word = left.pop(0)
            name, equals, value = word.partition("=")
            if name in self.positional:
                if not equals and not left:
                    raise UsageError(f"{name}: give it a value")
                first.append(value if equals else left.pop(0))
                continue
            if equals and name in flags:
                raise UsageError(f"{word}: {name} takes no value")
            others += [name, value] if equals and name in takes else [word]
            if like := takes.get(name):
                values = [value] if equals else []
                while left and like.takes(left[0]):
                    values.append(left.pop(0))
                like.check(name, values, left)
                others += values[equals == "=" :]
                while left and not left[0].startswith("-"):
                    first.append(left.pop(0))
        return first + others

    def _with_option_names(self, text: str) -> str:
        """Return an error text with `--max-age-ms=` where it names a setting as Python does."""
        names = "|".join(name for name, _, _ in leaves_of(self.options))
        return re.sub(rf"(?<![^\s(])(?:{names})(?==)", lambda found: flag_of(found[0]), text)


@dataclass(frozen=True)
class CommandGroup:
    """A command of several subcommands, of which the first needs no name."""

    prog: str
    what: str  # in common, in one line of help
    commands: Mapping[str, Command]
    hints: Mapping[str, str] = field(default_factory=dict)  # as of `Command`, for all of them

    def __call__(self, args: Sequence[str] | None = None) -> int:
        """Run the subcommand that a command line begins with, or else the first."""
        given = list(sys.argv[1:] if args is None else args)
        first = given[0] if given else ""
        if first in self.commands:
            return self._command(first)(given[1:])
        is_of_all = first in {"-h", "--help", _COMPLETION}
        if not first or (first.startswith("-") and not is_of_all):
            return self._command(next(iter(self.commands)))(given)
        return exit_code_of(self.prog, lambda: self._describe(given))

    def view(self) -> Any:
        """Return what the parser is shown for completion: the first one's options, and all."""
        first, *_ = (command.view() for command in self.commands.values())
        parts = [("options", _UNPREFIXED[first], field(default_factory=first))]
        some = _one_of(self.commands, _subcommand("none", type(None), ""))
        return make_dataclass("Group", [*parts, ("command", some, field(default=None))])

    def _describe(self, given: Sequence[str]) -> None:
        if not given[0].startswith("-"):
            raise UsageError(f"{given[0]}: no such subcommand, take {', '.join(self.commands)}")
        if given[0] == _COMPLETION:
            _parsed(self.view(), given, self.prog, self.what)
        print(f"usage: {self.prog} [{'|'.join(self.commands)}] [OPTIONS]\n\n{self.what}\n")
        width = max(8, *map(len, self.commands)) + 2
        for name, command in self.commands.items():
            print(f"  {name:<{width}}{command.what}")
        print(f"\nWithout a name it is {next(iter(self.commands))}; each takes --help.")
        raise SystemExit(0)

    def _command(self, name: str) -> Command:
        usage = f"{self.prog} {name}"
        return replace(self.commands[name], prog=self.prog, usage=usage, hints=self.hints)


def print_completion(
    prog: str, commands: Mapping[str, Command | CommandGroup], args: Sequence[str]
) -> None:
    """Print the completion of a command with these subcommands, as `args` ask for it, and exit."""
    _parsed(_one_of(commands), args, prog, "")


def _parsed(view: Any, args: Sequence[str], prog: str, what: str) -> Any:
    if _COMPLETION in args and args[-1] not in _SHELLS:
        raise UsageError(f"{_COMPLETION}: name {' or '.join(_SHELLS)}")
    config = (tyro.conf.FlagCreatePairsOff, tyro.conf.DisallowNone)
    return tyro.cli(view, args=args, prog=prog, description=what, config=config)


def _one_of(commands: Mapping[str, Command | CommandGroup], *further: object) -> Any:
    kinds = tuple(_subcommand(name, one.view(), one.what) for name, one in commands.items())
    unprefixed: Any = tyro.conf.OmitSubcommandPrefixes
    return unprefixed[_UNPREFIXED[_UNION[kinds + further]]]


def _subcommand(name: str, view: Any, what: str) -> Any:
    return _ANNOTATED[view, tyro.conf.subcommand(name, description=what)]


def _is_numbers(kind: Any) -> bool:
    """Whether an option takes several numbers, or may."""
    some = [get_args(one) for one in (kind, *get_args(kind)) if get_origin(one) is tuple]
    return any({*of} <= {int, float, Ellipsis} for of in some)


def _numbers_like(kind: Any) -> ValuesLike:
    """Return which words an option of several numbers takes, and how many of them."""
    every = (kind,) if get_origin(kind) is tuple else get_args(kind)
    kinds = [get_args(one) or (one,) for one in every if one is not type(None)]
    counts = () if any(Ellipsis in one for one in kinds) else tuple(sorted(map(len, kinds)))
    return ValuesLike(_NUMBER, counts=counts, is_whole=float not in sum(kinds, ()))


def _view_of(options: Any, default: Any) -> Any:
    """Return a dataclass of the same values that the parser shows as `Command.options` says."""
    docs = {
        one.arg_name: " ".join(str(one.description).split())
        for base in reversed(options.__mro__)
        if is_dataclass(base)
        for one in docstring_parser.parse_from_object(base).params
    }
    groups: Mapping[str, tuple[str, ...]] = getattr(options, "GROUPS", {})
    title_of = {name: title for title, names in groups.items() for name in names}
    shown: dict[str, list[Any]] = {title: [] for title in ("", *groups)}
    inner: list[Any] = []
    for one, kind, own in fields_of(options):
        value = one.default if default is None else getattr(default, one.name)
        if is_dataclass(kind):
            view = _view_of(kind, None if default is None else value)
            inner.append((one.name, _UNPREFIXED[view], field(default_factory=view)))
            continue
        hint = "" if value is None or value is False or value == () else None
        settings = tyro.conf.arg(help=docs.get(one.name), help_behavior_hint=hint)
        parts = (kind, settings, *own)  # the field's own settings win
        shown[title_of.get(one.name, "")].append(
            (one.name, _ANNOTATED[parts], field(default=value))
        )
    for title in groups:
        group = make_dataclass(title, shown[title], frozen=True)
        group.__doc__ = ""
        titled = _ANNOTATED[_UNPREFIXED[group], tyro.conf.arg(name=title)]
        inner.append((f"{title}_group", titled, field(default_factory=group)))
    view = make_dataclass(options.__name__, [*shown[""], *inner], frozen=True)
    view.__doc__ = inspect.getdoc(options)
    return view


def _from_view(options: Any, view: Any) -> Any:
    """Return the options whose values a view holds, those of its groups included."""
    values: dict[str, Any] = dict(vars(view))
    for title in getattr(options, "GROUPS", ()):
        values |= vars(values.pop(f"{title}_group"))
    for one, kind, _ in fields_of(options):
        if is_dataclass(kind):
            values[one.name] = _from_view(kind, values[one.name])
    return options(**values)
