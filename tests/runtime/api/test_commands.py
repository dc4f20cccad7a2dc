"""The command `motorvae`, and what all commands share on their command lines."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import motorvae as mv
from motorvae.commands import COMMANDS, main

ONLY_HERE = {"hub", "import", "verify", "sign", "verify-signature", "keys", "demo"}
"""Those that have no script of their own."""


def test_help_names_every_command_in_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[2 : 2 + len(COMMANDS)]] == list(COMMANDS)
    assert max(map(len, lines)) <= 80
    assert main([]) == 2
    assert capsys.readouterr().out.splitlines() == lines


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_is_there_and_says_its_version(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([name, "--version"]) == 0
    prog, _, version = capsys.readouterr().out.strip().rpartition(" ")
    assert prog == (f"motorvae {name}" if name in ONLY_HERE else f"motorvae-{name}")
    assert version == mv.__version__


def test_an_unknown_command_is_answered_with_those_there_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["fly"]) == 2
    assert "motorvae: fly: no such command, take train, explore, export" in capsys.readouterr().err
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"motorvae {mv.__version__}\n"


def test_python_runs_it_as_a_module(small_bundle: Path, image_folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "rows.jsonl"
    args = ("stream", image_folder, "--model", small_bundle, "--output", output)
    done = subprocess.run(
        [sys.executable, "-m", "motorvae", *map(str, args)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "12 latents" in done.stderr
    assert output.read_bytes().count(b"\n") == 13


def test_the_installed_scripts_are_these(script: Callable[[str], str]) -> None:
    for name in ("motorvae", *(f"motorvae-{name}" for name in COMMANDS if name not in ONLY_HERE)):
        assert Path(script(name)).is_file()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["train", "--device", "0"], "--accelerator (cpu, gpu) and --devices (0,1) choose where"),
        (["stream", "0", "--device=cuda"], "with --backend or --provider"),
        (["stream", "0", "--bundle", "b"], "the bundle is named with --model"),
        (["encode", "photos", "--bundle", "b"], "the bundle is named with --model"),
        (["stream", "--camera"], "--camera: give it a value"),
    ],
)
def test_what_other_programs_call_it_is_answered_with_the_right_name(
    args: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(args) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"motorvae-{args[0]}: ")
    assert error.count("\n") == 1
    assert words in error


@pytest.mark.parametrize(
    "name", [*COMMANDS, "bench run", "bench compare", "bench report", "doctor screen", "doctor gpu"]
)
def test_help_fits_80_columns_and_shows_no_default_of_none(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as ended:
        main([*name.split(), "--help"])
    assert ended.value.code == 0
    usage, *lines = capsys.readouterr().out.splitlines()
    assert usage.startswith("usage: ")
    assert max(map(len, lines)) <= 80
    assert not re.search(r"default:\s*(None|False)", "\n".join(lines))
    assert not any("{None}" in line for line in lines)


def test_options_are_shown_in_groups(capsys: pytest.CaptureFixture[str]) -> None:
    for name, groups in {
        "stream": ("engine", "camera", "loss", "out-of-distribution"),
        "export": ("precision", "engine"),
        "train": ("model", "images", "schedule", "hardware"),
    }.items():
        with pytest.raises(SystemExit):
            main([name, "--help"])
        text = capsys.readouterr().out
        assert [group for group in groups if f"{group} options" not in text] == []


def completed(script: str, *words: str) -> set[str]:
    """What bash offers for the last of these words."""
    line = " ".join(words)
    source = f"""
        {script}
        COMP_WORDS=({" ".join(map(shlex.quote, words))})
        COMP_CWORD={len(words) - 1} COMP_LINE={shlex.quote(line)} COMP_POINT={len(line)}
        $(complete -p {words[0]} | sed 's/.*-F \\([^ ]*\\).*/\\1/') {words[0]}
        echo "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "-c", source], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_bash_completes_every_command_and_subcommand(capsys: pytest.CaptureFixture[str]) -> None:
    def script_of(name: str) -> str:
        with pytest.raises(SystemExit) as ended:
            main([*name.split(), "--tyro-print-completion", "bash"])
        assert ended.value.code in {None, 0}
        return capsys.readouterr().out

    script = script_of("")
    assert set(COMMANDS) <= completed(script, "motorvae", "")
    assert "--max-age-ms" in completed(script, "motorvae", "stream", "--")
    assert {"run", "compare", "report", "--quick"} <= completed(script, "motorvae", "bench", "")
    assert "--frames" in completed(script, "motorvae", "doctor", "gpu", "--f")
    script = script_of("bench")
    assert {"--tolerance"} == completed(script, "motorvae-bench", "compare", "--t")
    assert "--training" in completed(script, "motorvae-bench", "--t")
    assert "--policy" in completed(script_of("stream"), "motorvae-stream", "--p")


INTERRUPTED_AT_THE_END = """
import atexit, os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a test may run with it ignored
from motorvae.startup import main
atexit.register(lambda: os.kill(os.getpid(), signal.SIGINT))
sys.argv = ["motorvae", "--version"]
sys.exit(main())
"""


def test_ctrl_c_while_python_ends_shows_no_traceback() -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_AT_THE_END],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (130, "")
    assert done.stdout.startswith("motorvae ")
