from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

import pytest

from motorvae.benchmarks.cli import CompareOptions
from motorvae.commands import COMMANDS, command_of
from motorvae.runtime.core import command as command_module
from motorvae.runtime.core.command import Command, CommandGroup
from motorvae.runtime.core.command_line.option_fields import flag_of, leaves_of
from motorvae.runtime.core.command_line.plain_words import plain_values
from motorvae.runtime.core.errors import MotorVAEError
from motorvae.runtime.stream.options import StreamOptions

WORDS = (
    "0",
    "1",
    "7",
    "0.5",
    "12.25",
    "car.jpg",
    "some where",
    "None",
    "none",
    "int8",
    "x=y",
    "é",
    "-",
)
ODD = ("--help", "--no-such", "-h", "--", "-1", "--max_frames", "--ood=mu", "1e3", "inf")


def commands() -> Iterator[tuple[str, Command]]:
    for name in COMMANDS:
        one = command_of(name)
        if isinstance(one, CommandGroup):
            yield from ((f"{name} {sub}", command) for sub, command in one.commands.items())
        else:
            yield name, one


def lines(command: Command, draw: random.Random, count: int) -> Iterator[list[str]]:
    """Command lines that mostly mean something: one to four options, most with a fitting value."""
    leaves = list(leaves_of(command.options))
    for _ in range(count):
        line = [draw.choice(WORDS) for _ in range(draw.choice((0, 1, 1, 2)))]
        for _ in range(draw.randint(1, 4)):
            name, kind, _own = draw.choice(leaves)
            line.append(flag_of(name))
            literals = [kind, *get_args(kind)]
            choices = [
                word for one in literals if get_origin(one) is Literal for word in get_args(one)
            ]
            if kind is not bool and draw.random() < 0.9:
                line.append(str(draw.choice(choices or WORDS)))
        if draw.random() < 0.2:
            line.insert(draw.randint(0, len(line)), draw.choice(ODD))
        yield line


def outcome(command: Command, line: list[str]) -> Any:
    """The options, the error of ours, or that the parser ended the process."""
    try:
        return command.parse(line)
    except MotorVAEError as error:
        return type(error), str(error)
    except SystemExit as ended:
        return ended.code


def test_whatever_is_read_without_the_parser_is_what_the_parser_reads(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    draw = random.Random(18)
    read_plainly = 0
    for name, command in commands():
        for line in lines(command, draw, 40) if list(leaves_of(command.options)) else ():
            try:
                words = command._positional_first(line)
            except MotorVAEError:
                continue
            if plain_values(command.options, words) is None:
                continue
            read_plainly += 1
            plain = outcome(command, line)
            with monkeypatch.context() as patch:
                patch.setattr(command_module, "plain_values", lambda *_: None)
                assert plain == outcome(command, line), (name, line)
            capsys.readouterr()
    assert read_plainly > 100


@pytest.mark.parametrize(
    "line",
    [
        ["0"],
        ["synthetic?fps=60", "--model", "some where", "--precision", "int8", "--output", "-"],
        [
            "a",
            "b",
            "--output",
            "a.jsonl",
            "--output",
            "udp://h:1",
            "--timeout",
            "2.5",
            "--realtime",
        ],
    ],
)
def test_usual_command_lines_are_read_so(line: list[str]) -> None:
    assert plain_values(StreamOptions, line) is not None


@pytest.mark.parametrize("odd", ODD)
def test_what_may_be_help_an_error_or_something_else_goes_to_the_parser(odd: str) -> None:
    assert plain_values(StreamOptions, ["0", "--timeout", "5", odd]) is None
    assert plain_values(StreamOptions, ["0", "--timeout", odd]) is None


def test_an_option_without_a_default_that_is_not_given_goes_to_the_parser() -> None:
    assert plain_values(CompareOptions, ["--tolerance", "0.1"]) is None
