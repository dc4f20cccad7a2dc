"""The command line of every verb, and the same verbs from Python."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

import motorvae as mv
from motorvae.commands import main
from motorvae.training.explore.cli import VERBS


@pytest.mark.parametrize("place", ["file", "dangling", "loop", "file/below", "taken"])
def test_an_output_that_cannot_be_is_refused_before_anything_is_read(
    place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("mine")
    Path("dangling").symlink_to("nowhere")
    Path("loop").symlink_to("loop")
    Path("taken/average.json").mkdir(parents=True)
    assert main(["explore", "average", "--model", "nowhere", "--output", place]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert place in line
    assert "nowhere" not in line
    assert line.endswith(("choose another place", "make room there", "name another output"))
    assert Path("file").read_text() == "mine"
    assert sorted(one.name for one in tmp_path.iterdir()) == ["dangling", "file", "loop", "taken"]


@pytest.mark.parametrize("name", list(VERBS))
def test_help_of_every_verb_fits_80_columns(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main(["explore", name, "--help"])
    usage, *lines = capsys.readouterr().out.splitlines()
    assert usage.startswith(f"usage: motorvae-explore {name}")
    assert max(map(len, lines)) <= 80
    assert not re.search(r"default:\s*(None|False)", "\n".join(lines))


def test_help_lists_all_verbs_in_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["explore", "--help"])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines[2:])) <= 80
    assert [line.split()[0] for line in lines[4 : 4 + len(VERBS)]] == list(VERBS)


def test_arithmetic_is_written_as_it_is_thought(
    small_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["held-out:0", "-", "held-out:1", "+", "vehicle:2"]
    model = ["--model", str(small_bundle), "--output", str(tmp_path / "explore")]
    assert main(["explore", "arithmetic", *words, *model]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("image-000000 - image-000001 + vehicle 2: the sum is of length")
    assert lines[-1].startswith("wrote ")
    assert main(["explore", "arithmetic", *model, *words]) == 0
    assert capsys.readouterr().out.splitlines() == lines


@pytest.mark.parametrize(
    ("args", "code", "text"),
    [
        (["reconstructions", "nowhere"], 1, "--model=nowhere does not exist"),
        (["reconstructions", "--count", "0"], 1, "--count=0: take 1 to 64"),
        (["interpolate", "a.png"], 2, "give two images, and not 1"),
        (["arithmetic", "a", "b"], 2, "write images with + or - between them"),
        (["history", "nowhere"], 1, "no training run at nowhere"),
        (["samples", "--bundle", "b"], 2, "a run or a bundle is named with --model"),
        (["fly"], 2, "fly: no such subcommand, take reconstructions, samples"),
    ],
)
def test_errors_are_one_line_and_leave_nothing(
    args: list[str],
    code: int,
    text: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["explore", *args]) == code
    error = capsys.readouterr().err
    assert error.startswith("motorvae-explore: ")
    assert error.count("\n") == 1
    assert text in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", list(VERBS))
def test_functions_have_the_options_of_the_command(name: str) -> None:
    given = inspect.signature(getattr(mv.explore, name)).parameters
    options = {one.name: one.default for one in fields(VERBS[name].options)}
    instead = {"ends": ("start", "end"), "terms": ("plus", "minus")}
    for option, default in options.items():
        for keyword in instead.get(option, (option,)):
            assert keyword in given
            if option in instead:
                continue
            value = given[keyword].default
            assert value == (str(default) if isinstance(default, Path) else default)
    assert len(given) == len(options) + sum(option in instead for option in options)


def test_functions_write_what_the_command_writes_and_print_nothing(
    small_bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    found = mv.explore.reconstructions(small_bundle, output=tmp_path / "api", count=2)
    assert capfd.readouterr() == ("", "")
    assert isinstance(found, mv.explore.Result)
    command = ["explore", "reconstructions", str(small_bundle), "--count", "2"]
    assert main([*command, "--output", str(tmp_path / "cli")]) == 0
    for name in ("reconstructions.png", "reconstructions.npz"):
        assert (tmp_path / "api" / name).read_bytes() == (tmp_path / "cli" / name).read_bytes()
    with pytest.raises(mv.MotorVAEError, match=r"^count=0: take 1 to 64$"):
        mv.explore.reconstructions(small_bundle, count=0)
    plus = mv.explore.arithmetic(
        ["held-out:0", "held-out:1"], ["vehicle:1"], model=small_bundle, output=tmp_path / "api"
    )
    assert plus.arrays["signs"].tolist() == [1, 1, -1]
    assert mv.explore.average(["vehicle:1"], model=small_bundle, output=tmp_path / "api").files


def test_a_missing_package_is_one_line_with_the_extra(small_bundle: Path, tmp_path: Path) -> None:
    source = (
        "import sys\n"
        "sys.modules['sklearn'] = None\n"
        "from motorvae.commands import main\n"
        f"sys.exit(main(['explore', 'samples', {str(small_bundle)!r}]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 1
    assert "motorvae explore samples needs the package scikit-learn" in done.stderr
    assert "pip install 'motorvae[explore]'" in done.stderr


def test_help_and_streaming_load_nothing_of_it() -> None:
    source = (
        "import sys, motorvae.startup\n"
        "from motorvae.commands import command_of, main\n"
        "main(['--help']); command_of('stream')\n"
        "print([name for name in sys.modules if '.explore' in name], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, check=True
    )
    assert done.stderr == "[]\n"
