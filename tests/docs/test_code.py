"""The code in README and documentation: Python runs, commands parse, options exist."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import io
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tyro
from PIL import Image

import motorvae
from motorvae.benchmarks.demo.cli import video_of_vehicles
from motorvae.runtime.sources.synthetic.vehicles import vehicle
from motorvae.training.explore.cli import VERBS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]
RUN_ELSEWHERE = {"serving.md", "sinks.md", "whole-frame.md"}
"""Pages whose Python the tests of what they show run."""
COMMANDS = {
    point.name: point
    for point in importlib.metadata.entry_points(group="console_scripts")
    if point.name == "motorvae" or point.name.startswith("motorvae-")
}
OF_OTHERS = {
    *("--no-build-isolation", "--system-site-packages", "--logdir", "--conditions"),
    "--screenshot-to",  # rerun
    # python -m, and our scripts
    *("--images", "--lengthen", "--batches", "--frames", "--known", "--count", "--kinds", "--side"),
    *("--data", "--more"),
    *("--fan", "--show", "--stronglyTyped"),  # jetson_clocks and trtexec
    # python -m motorvae.benchmarks.proof
    *("--list", "--steps", "--seconds", "--time-factor", "--work"),
    *("--checkout", "--machine", "--no-wheels", "--packages", "--python"),  # tests/gpu/carry.py
    # srun, sbatch and torchrun
    *("--gres", "--gpus-per-task", "--kill-on-bad-exit", "--max-restarts", "--ntasks-per-node"),
    *("--rm", "--model-repository", "--model-control-mode"),  # docker and tritonserver
    *("--grpc", "--save", "--url"),  # docs/examples/triton_client.py
    *("--lr", "--imgsz", "--device"),  # what they are called here is what the page says
}
"""Options on these pages that are no command's."""


class ParsedError(BaseException):
    """A command line was parsed; the command itself is not to run."""


def blocks(page: Path, language: str) -> list[str]:
    text = page.read_text(encoding="utf-8")
    found: list[str] = re.findall(rf"(?ms)^```{language}\n(.*?)^```", text)
    return found


def command_lines() -> Iterator[tuple[str, str]]:
    """Yield page and line for every command of ours in a block of shell."""
    for page in PAGES:
        for block in blocks(page, "sh"):
            for line in block.replace("\\\n", " ").splitlines():
                if line.startswith("motorvae"):
                    yield page.name, line.partition(" > ")[0]


@pytest.fixture
def user_folder(
    small_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """A folder with what the examples work on."""
    shutil.copytree(small_bundle, tmp_path / "bundle")
    (tmp_path / "photos").mkdir()
    for index in range(3):
        image = Image.fromarray(vehicle(4, index, 64)[0])
        image.save(tmp_path / "photos" / f"{index}.png")
    image.save(tmp_path / "car.jpg")
    video_of_vehicles(tmp_path / "drive.mp4", seconds=0.5)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("user_folder")
@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if blocks(page, "python") and page.name not in RUN_ELSEWHERE],
    ids=lambda page: page.name,
)
def test_python_examples_run(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The blocks of one page in their order, in one namespace, as a reader would type them."""
    namespace: dict[str, Any] = {}
    for number, block in enumerate(blocks(page, "python")):
        exec(compile(block, f"{page.name}, block {number}", "exec"), namespace)  # noqa: S102
    for name, shape in (("latent", (8,)), ("latents", (3, 8))):
        assert name not in namespace or namespace[name].mu.shape == shape
    if "mv.stream" in "".join(blocks(page, "python")):
        assert re.search("^14 .*", capsys.readouterr().out, re.MULTILINE)  # of its last frame


@pytest.mark.parametrize(("page", "line"), list(command_lines()))
def test_command_lines_parse(page: str, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = tyro.cli

    def parse_only(*args: object, **options: object) -> None:
        real(*args, **options)
        raise ParsedError

    monkeypatch.setattr(tyro, "cli", parse_only)
    # Plain lines are read without tyro, and then run.
    monkeypatch.setattr("motorvae.runtime.core.command.plain_values", lambda *_: None)
    name, *arguments = shlex.split(line, comments=True)
    with pytest.raises((ParsedError, SystemExit)) as raised:
        COMMANDS[name].load()(arguments)
    assert not isinstance(raised.value, SystemExit) or not raised.value.code, page


def test_scripts_and_modules_that_are_run_are_there() -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    scripts = re.findall(r"(?:python|pytest) ((?:tests|docs)/[\w/]+(?:\.py)?)", text)
    modules = re.findall(r"python -m (motorvae[\w.]*)", text)
    assert scripts
    assert modules
    assert [script for script in scripts if not (ROOT / script).exists()] == []
    assert [module for module in modules if importlib.util.find_spec(module) is None] == []


def test_make_targets_are_there() -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([\w-]+):", makefile, flags=re.MULTILINE))
    assert set(re.findall(r"(?:^|`)make ([a-z][\w-]*)", text, flags=re.MULTILINE)) <= targets


def test_the_page_of_the_api_has_every_name() -> None:
    text = (DOCS / "api.md").read_text(encoding="utf-8")
    documented = re.findall(r"^::: motorvae\.(?:functions\.)?(\w+)$", text, flags=re.MULTILINE)
    assert sorted([*documented, "__version__"]) == sorted(motorvae.__all__)


def options_of(name: str, *arguments: str) -> set[str]:
    """Return every option in a command's help."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        COMMANDS[name].load()([*arguments, "--help"])
    return set(re.findall(r"--[a-z][\w-]+", text.getvalue()))


def test_every_option_in_the_text_is_one_of_a_command() -> None:
    subcommands = {
        "motorvae": (
            *("verify", "import", "sign", "keys new", "keys trust"),
            *("hub save", "hub push", "hub pull", "demo"),
        ),
        "motorvae-bench": ("run", "report", "compare"),
        "motorvae-doctor": ("gpu",),
        "motorvae-explore": tuple(VERBS),
    }
    known = set(OF_OTHERS)
    for name in COMMANDS:
        known |= options_of(name)
        for subcommand in subcommands.get(name, ()):
            known |= options_of(name, *subcommand.split())
    named = {
        option
        for page in PAGES
        for option in re.findall(r"`[^`\n]*?(--[a-z][\w-]+)", page.read_text(encoding="utf-8"))
    }
    assert sorted(named - known) == []
