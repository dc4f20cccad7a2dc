from __future__ import annotations

import errno
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

import pytest
import tyro
from rich.table import Table

from motorvae.runtime.core.command import Command, CommandGroup, ValuesLike, stderr_console
from motorvae.runtime.core.errors import ConfigError, UsageError
from motorvae.runtime.core.text import printable


@dataclass(frozen=True)
class Options:
    """Options of a command."""

    size: int = 3
    """How large."""
    fast: bool = False
    """Whether to hurry."""


@dataclass(frozen=True)
class Engine:
    """Which engine runs."""

    threads: int | None = None
    """How many; by default
    all of them."""


@dataclass(frozen=True)
class Grouped:
    """Options in groups."""

    GROUPS: ClassVar[dict[str, tuple[str, ...]]] = {"paint": ("colour", "thick")}

    colour: str = "red"
    """Which."""
    name: str | None = None
    """What to call it; by default nothing."""
    thick: bool = False
    """Whether to paint thickly."""
    engine: Engine = field(default_factory=Engine)
    """Which engine runs."""


@dataclass(frozen=True)
class PathOptions:
    """A positional argument and a flag."""

    run: Annotated[str, tyro.conf.Positional] = ""
    """Which."""
    fast: bool = False
    """Whether to hurry."""


@dataclass(frozen=True)
class Lists:
    """Options of any number of values."""

    names: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """What it works on."""
    view: Annotated[tuple[str, ...] | None, ValuesLike(r".*\.rrd")] = None
    """A file, or none."""
    kinds: Annotated[tuple[str, ...] | None, ValuesLike("one|two", is_path=True)] = None
    """Some of these."""
    sizes: tuple[int, ...] = (1, 2)
    """Numbers."""
    shape: int | tuple[int, int] = 8
    """One number or two."""
    box: tuple[float, float, float, float] | None = None
    """Four numbers."""
    fps: float = 3
    """One number."""


def run(body: Callable[[Options], int | None], *args: str) -> int:
    return Command(Options, lambda options, _: body(options), "Does x.", prog="motorvae-x")(args)


def raising(error: BaseException) -> Callable[[Options], int]:
    def body(_: Options) -> int:
        raise error

    return body


def test_options_reach_the_body_and_its_code_comes_back() -> None:
    seen: list[Options] = []
    assert run(seen.append, "--size", "7", "--fast") == 0
    assert seen == [Options(7, fast=True)]
    assert run(lambda _: 5) == 5


@pytest.mark.parametrize("args", [["--size", "many"], ["--speed", "1"], ["--size"], ["extra"]])
def test_a_wrong_command_line_exits_with_2(
    args: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        run(lambda _: pytest.fail("the body must not run"), *args)
    assert caught.value.code == 2
    assert capsys.readouterr().err


def test_help_shows_every_option_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run(lambda _: 0, "--help")
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for words in ("Does x.", "--size INT", "How large. (default: 3)", "--fast"):
        assert words in text


def test_an_error_is_one_line_and_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(raising(ConfigError("3 is bad:\n  take 4"))) == 1
    assert capsys.readouterr().err == "motorvae-x: 3 is bad: take 4\n"


def test_a_setting_is_called_as_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    text = "size=3: take 4, with (fast=True); not clip?size=3, step_size=2 or size alone"
    run(raising(ConfigError(text)))
    said = text.replace("size=3:", "--size=3:").replace("fast=", "--fast=")
    assert capsys.readouterr().err == f"motorvae-x: {said}\n"


def test_what_the_system_refuses_is_one_line_too(capsys: pytest.CaptureFixture[str]) -> None:
    refused = OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), "aaaa")
    assert run(raising(refused)) == 1
    text = capsys.readouterr().err
    assert text == "motorvae-x: aaaa: File name too long; check that path and its permissions\n"


def test_an_interrupt_is_code_130(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(raising(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == "motorvae-x: interrupted\n"


def test_a_fault_of_ours_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        run(raising(ZeroDivisionError()))


@pytest.mark.parametrize("name", ["clip[/b].avi", "[red]x", "a:car:b", "x" * 200])
def test_a_file_name_is_printed_as_it_is(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    console: Any = stderr_console()
    console.print(name)
    assert capsys.readouterr().err == f"{name}\n"


def test_values_of_an_option_can_be_the_positional_argument() -> None:
    command = Command(Lists, pytest.fail, "", positional=("--camera", "--source"))
    args = ["--fps", "5", "--camera", "0", "--source=b c"]
    assert command.parse(args) == Lists(("0", "b c"), fps=5)
    assert command.parse(["a.mp4", "--fps", "5"]) == Lists(("a.mp4",), fps=5)
    with pytest.raises(SystemExit):
        command.parse(["--cameras", "x"])
    with pytest.raises(ConfigError, match="--camera: give it a value"):
        command.parse(["x", "--camera"])


def test_an_option_of_many_values_leaves_the_positional_argument_alone(tmp_path: Path) -> None:
    parse = Command(Lists, pytest.fail, "").parse
    found = Lists((str(tmp_path),), view=(), kinds=("one",), sizes=(3,))
    for args in (
        ["--view", "--kinds", "one", "--sizes", "3", str(tmp_path)],
        ["--kinds", "one", "--sizes", "3", "--view", str(tmp_path)],
        ["--view", "--sizes", "3", "--kinds", "one", str(tmp_path)],
        [str(tmp_path), "--view", "--sizes", "3", "--kinds", "one"],
    ):
        assert parse(args) == found
    # A value behind an equals sign is one, and what follows may be more of them.
    for args in (
        ["--view=x.rrd", "--kinds=one", "--sizes=3", str(tmp_path)],
        ["--sizes=3", str(tmp_path), "--view=x.rrd", "--kinds=one"],
        [str(tmp_path), "--sizes=3", "--kinds=one", "--view=x.rrd"],
    ):
        assert replace(parse(args), view=()) == found
    assert parse(["--view=x.rrd", "0"]) == Lists(("0",), view=("x.rrd",))
    two = parse(["--kinds=one", "two", str(tmp_path)])
    assert two == Lists((str(tmp_path),), kinds=("one", "two"))
    assert parse(["--view", "x.rrd", "0"]) == Lists(("0",), view=("x.rrd",))
    assert parse(["--sizes", "3", "-4", "--kinds", "one", "two"]).sizes == (3, -4)
    assert parse(["--kinds", "onne"]).kinds == ("onne",)  # no path: a wrong value, not an argument


def test_a_number_that_is_none_and_a_flag_with_a_value_are_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        Command(Lists, pytest.fail, "", prog="x").parse(["--sizes", "1.5", "photos"])
    assert "1.5" in capsys.readouterr().err
    command = Command(PathOptions, pytest.fail, "", prog="x")
    with pytest.raises(UsageError, match=r"--fast=true: --fast takes no value"):
        command.parse(["--fast=true", "run"])


@pytest.mark.parametrize("default", [None, PathOptions("file"), PathOptions("file", fast=True)])
def test_the_last_of_a_flag_and_its_opposite_counts(default: PathOptions | None) -> None:
    parse = Command(PathOptions, pytest.fail, "", prog="x").parse
    for words, fast in (
        (["--fast"], True),
        (["--no-fast"], False),
        (["--fast", "--no-fast"], False),
        (["--no-fast", "--fast"], True),
        (["--fast", "--no-fast", "--fast"], True),
        (["--no-fast", "--fast", "--no-fast"], False),
    ):
        assert parse(["run", *words], default).fast is fast
        assert parse([*words, "run"], default) == PathOptions("run", fast=fast)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ("--shape 8 16 3", "--shape 8 16 3: give 1 or 2 whole numbers"),
        ("--shape 8x16", "--shape 8x16: give 1 or 2 whole numbers"),
        ("--shape=8,16", "--shape 8,16: give 1 or 2 whole numbers"),
        ("--shape --sizes 3", "--shape: give 1 or 2 whole numbers"),
        ("--shape 8.5 16", "--shape 8.5 16: give 1 or 2 whole numbers"),
        ("--box 1 2 3", "--box 1 2 3: give 4 numbers"),
        ("photos --box 1 2 3 4 5", "--box 1 2 3 4 5: give 4 numbers"),
        ("--box=1 2 -3", "--box 1 2 -3: give 4 numbers"),
        ("--box nan 0 1 1", "--box nan: give 4 numbers"),
        ("--box", "--box: give 4 numbers"),
    ],
)
def test_numbers_that_are_too_few_or_too_many_are_one_line(
    args: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert Command(Lists, pytest.fail, "", prog="x")(args.split()) == 2
    assert capsys.readouterr().err == f"x: {said}\n"


@pytest.mark.parametrize(
    "args", ["a --box 5 20 -25 -20", "--box 5 20 -25 -20 a", "--box=5 20 -25 -20 a"]
)
def test_as_many_numbers_as_there_are_to_be_come_anywhere(args: str) -> None:
    found = Command(Lists, pytest.fail, "").parse([*args.split(), "--shape", "8", "16"])
    assert found == Lists(("a",), shape=(8, 16), box=(5, 20, -25, -20))


@pytest.mark.parametrize("shell", ["tcsh", "fish"])
def test_completion_is_for_two_shells(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(pytest.fail, "--tyro-print-completion", shell) == 2
    assert capsys.readouterr().err == "motorvae-x: --tyro-print-completion: name bash or zsh\n"


@pytest.mark.parametrize(
    "name", ["a\x1b]0;x\x07", "a\x9b31m", "a\u202eb", "a\udcff", "a\x7f", "\U000e0041"]
)
def test_no_terminal_obeys_a_name(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    console = stderr_console()
    table = Table(name)
    table.add_row(name)
    console.print(name)
    console.print(table)
    run(raising(ConfigError(f"{name}: no")))
    shown = capsys.readouterr().err
    assert shown.count(printable(name)) == 4
    assert all(one.isprintable() for line in shown.splitlines() for one in line)


def test_every_command_says_its_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(lambda _: pytest.fail("the body must not run"), "--size", "7", "--version") == 0
    assert capsys.readouterr().out.startswith("motorvae-x ")


def test_options_come_in_groups_and_nested_ones_without_a_prefix(
    capsys: pytest.CaptureFixture[str],
) -> None:
    args = ["--thick", "--threads", "4", "--name", "x"]
    parse = Command(Grouped, pytest.fail, "", prog="motorvae-x").parse
    found = parse(args)
    assert found == Grouped(name="x", thick=True, engine=Engine(4))
    again = parse(["--colour", "blue"], found)
    assert again == Grouped("blue", "x", thick=True, engine=Engine(4))
    with pytest.raises(SystemExit):
        parse(["--help"])
    text = capsys.readouterr().out
    assert "paint options" in text
    assert "engine options" in text
    assert "How many; by default all of them." in text
    assert "default: red" in text
    assert "None" not in text
    assert "False" not in text


@pytest.mark.parametrize(
    ("args", "ran"),
    [
        (["--size", "4"], ("first", 4)),
        (["second", "--size", "5"], ("second", 5)),
        ([], ("first", 3)),
    ],
)
def test_the_first_subcommand_needs_no_name(args: list[str], ran: tuple[str, int]) -> None:
    seen: list[tuple[str, int]] = []
    group = CommandGroup(
        "motorvae-x",
        "Does x.",
        {
            name: Command(Options, lambda o, _, name=name: seen.append((name, o.size)), "")
            for name in ("first", "second")
        },
    )
    assert group(args) == 0
    assert seen == [ran]


def test_help_lists_subcommands_and_an_unknown_one_is_answered(
    capsys: pytest.CaptureFixture[str],
) -> None:
    group = CommandGroup("x", "Does x.", {"first": Command(Options, pytest.fail, "Do the first.")})
    with pytest.raises(SystemExit) as ended:
        group(["--help"])
    assert ended.value.code == 0
    assert "  first     Do the first." in capsys.readouterr().out
    with pytest.raises(SystemExit):
        group(["first", "--help"])
    assert capsys.readouterr().out.startswith("usage: x first ")
    assert group(["fly"]) == 2
    assert "x: fly: no such subcommand, take first" in capsys.readouterr().err


CLOSED = """
import os, sys
from motorvae.runtime.core.lifecycle import exit_code_of
sys.exit(exit_code_of("x", lambda: print("y" * 9)))
"""


def test_where_nobody_reads_standard_output_a_command_ends_quietly() -> None:
    """Standard output is closed, a pipe whose reader has gone, and a disk that is full."""
    reader, broken = os.pipe()
    os.close(reader)
    ends = []
    with open("/dev/full", "w") as full:  # noqa: PTH123  # a device
        for output in (None, broken, full):
            done = subprocess.run(
                [sys.executable, "-c", CLOSED],
                stdout=output,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
                preexec_fn=None if output else lambda: os.close(1),
            )
            ends.append((done.returncode, done.stderr))
    os.close(broken)
    assert ends[:2] == [(0, ""), (1, "")]
    assert ends[2][0] == 1
    assert ends[2][1].startswith("x: ")
    assert ends[2][1].count("\n") == 1
    assert "No space left on device" in ends[2][1]


@pytest.mark.parametrize(("end", "code"), [("return 3", 3), ("raise KeyboardInterrupt", 130)])
def test_a_terminal_that_is_gone_ends_no_command(tmp_path: Path, end: str, code: int) -> None:
    """As under nohup: no SIGHUP, but what is printed there fails with EIO."""
    script = tmp_path / "command.py"
    text = f"""if True:
        import sys
        from motorvae.runtime.core.command import stderr_console
        from motorvae.runtime.core.lifecycle import exit_code_of
        def body():
            sys.stdin.read()  # until the terminal is gone
            stderr_console().print("nobody sees this")
            {end}
        sys.exit(exit_code_of("x", body))
    """
    script.write_text(text)
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        (sys.executable, script), stdin=subprocess.PIPE, stderr=theirs
    ) as process:
        os.close(theirs)
        os.close(ours)
        process.communicate()
    assert process.returncode == code
