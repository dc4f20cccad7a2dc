"""kill -9 at random moments of each command: what was whole stays, and the next run works.

    python -m tests.attacks.kills --count 60 --commands encode parquet npz train export engines

Each command is killed `count` times, at moments over all of its time, and then run to its end once
in the same place. Prints the counts as one line of JSON and exits with 1 where something whole was
lost, anything was left over, or the run after it failed.
"""

from __future__ import annotations

import argparse
import collections
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .writers import pictures, rows_in

PATIENCE_S = 300.0
MOTORVAE = (sys.executable, "-m", "motorvae")
SMALL = (
    "--channels",
    "4",
    "8",
    "--latent-size",
    "4",
    "--image-size",
    "32",
    "--vehicles-count",
    "60",
    "--threads",
    "1",
)


@dataclass(frozen=True)
class Attacked:
    """A command, what it leaves in `folder` once it ran, and what must be whole at any moment."""

    command: tuple[str, ...]
    check: Callable[[Path], None]


def whole_bundle(folder: Path) -> None:
    """Read every file of a bundle by the hashes in its manifest, with hashlib."""
    manifest = json.loads((folder / "bundle" / "manifest.json").read_bytes())
    for entry in (*manifest["graphs"], *manifest["files"]):
        content = (folder / "bundle" / entry["file"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == entry["sha256"], entry["file"]
    unknown = {path.name for path in (folder / "bundle").iterdir()}
    unknown -= {entry["file"] for entry in (*manifest["graphs"], *manifest["files"])}
    visible = {name for name in unknown if ".motorvae-" not in name}
    assert visible <= {"manifest.json", "engines"}, visible


def whole_outputs(folder: Path) -> None:
    """Read every output that has a name; those of killed runs may end early, but are whole."""
    for path in folder.glob("rows*"):
        if path.suffix == ".parquet" and not any(path.glob("part-*")):
            continue  # killed between the folder and its first part
        rows_in(path)


def whole_json(folder: Path) -> None:
    """Parse every result."""
    for path in folder.glob("bench*.json"):
        json.loads(path.read_bytes())


def whole_run(folder: Path) -> None:
    """Read every run's config, and the hash of the weights of a finished one."""
    import safetensors.numpy

    for path in folder.glob("runs/*/config.json"):
        json.loads(path.read_bytes())
    for path in folder.glob("runs/*/*.safetensors"):
        safetensors.numpy.load_file(path)


def attacked(name: str, folder: Path, images: Path, bundle: Path, run: Path) -> Attacked:
    """Return a command by its name; what it needs is copied into `folder`."""
    model = ("--model", str(bundle))
    if name == "encode":
        output = str(folder / "rows.npz")
        return Attacked(
            (*MOTORVAE, "encode", str(images), *model, "--output", output), whole_outputs
        )
    if name in {"parquet", "npz", "jsonl"}:
        output = str(folder / f"rows.{name}")
        frames = ("--max-frames", "60")
        return Attacked(
            (*MOTORVAE, "stream", "synthetic", *model, *frames, "--output", output), whole_outputs
        )
    if name == "train":
        where = ("--output", str(folder / "runs"), "--name", "demo")
        command = (*MOTORVAE, "train", "vehicles", *SMALL, "--epochs", "2", "1", *where)
        return Attacked(command, whole_run)
    if name == "bench":
        sizes = ("--image-size", "32", "--channels", "4", "8", "--latent-size", "4")
        quick = ("--quick", "--only", "encoder", "--skip-compile", "--threads", "1")
        output = ("--output", str(folder / "bench.json"))
        command = (*MOTORVAE, "bench", "run", "--untrained", *sizes, *quick, *output)
        return Attacked(command, whole_json)
    if not (folder / "bundle").exists():
        shutil.copytree(bundle, folder / "bundle")
    if name == "engines":
        add = ("--model", str(folder / "bundle"), "--fp16", "--engine", "tensorrt-rtx")
        return Attacked((*MOTORVAE, "export", *add), whole_bundle)
    output = ("--output", str(folder / "bundle"), "--fp16", "--engine", "none", "--replace")
    return Attacked((*MOTORVAE, "export", str(run), *output, "--anyway"), whole_bundle)


def run_of(command: tuple[str, ...], folder: Path) -> tuple[int, str, float]:
    """Run a command to its end."""
    began_s = time.monotonic()
    with tempfile.TemporaryFile() as errors:
        code = subprocess.call(
            command, stderr=errors, stdout=subprocess.DEVNULL, cwd=folder, timeout=PATIENCE_S
        )
        errors.seek(0)
        return code, errors.read().decode(errors="replace"), time.monotonic() - began_s


def killed(command: tuple[str, ...], folder: Path, after_s: float) -> bool:
    """Kill a command, with all that it started, after some time; whether it was running then."""
    process = subprocess.Popen(
        command,
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        cwd=folder,
        start_new_session=True,
    )
    try:
        process.wait(after_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return True
    return False


def next_command(name: str, command: tuple[str, ...], folder: Path) -> tuple[str, ...]:
    """Return what a user types after a kill: the same, or for a run that has begun --resume."""
    run = folder / "runs" / "demo"
    if name == "train" and (run / "config.json").exists():
        return (*MOTORVAE, "train", "--resume", str(run))
    return command


def attack(
    name: str, count: int, dice: random.Random, images: Path, bundle: Path, run: Path
) -> dict[str, int]:
    """Kill one command `count` times; run it once more after every tenth kill and at the end."""
    found: collections.Counter[str] = collections.Counter()
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        made = attacked(name, folder, images, bundle, run)
        code, errors, takes_s = run_of(made.command, folder)
        assert code == 0, errors[-2000:]
        made.check(folder)
        number = 0
        while found["killed"] < count:
            if name == "train" and number % 5 == 0:
                shutil.rmtree(folder / "runs", ignore_errors=True)
            number += 1
            command = next_command(name, made.command, folder)
            if "--resume" in command and (folder / "runs/demo/model.safetensors").exists():
                shutil.rmtree(folder / "runs")
                command = made.command
            began_s = time.monotonic()
            if killed(command, folder, dice.uniform(0.3, 1.0) * takes_s):
                found["killed"] += 1
            else:
                takes_s = min(takes_s, time.monotonic() - began_s)
            try:
                made.check(folder)
            except Exception as error:  # noqa: BLE001  # what was lost is counted
                found["lost"] += 1
                print(f"{name}: {error!r}", file=sys.stderr)
            if number % 20 == 0 or found["killed"] == count:
                command = next_command(name, made.command, folder)
                if "--resume" in command and (folder / "runs/demo/model.safetensors").exists():
                    shutil.rmtree(folder / "runs")
                    command = made.command
                code, errors, _ = run_of(command, folder)
                made.check(folder)
                left = [path for path in folder.rglob(".*") if ".motorvae-" in path.name]
                found["runs after"] += 1
                found["failed after"] += code != 0 or "Traceback" in errors
                found["left over"] += len(left)
                if code or left:
                    print(f"{name}: {code} {errors[-500:]} {left}", file=sys.stderr)
    return dict(found)


def main() -> int:
    """Run from a command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--commands", nargs="*", default=["encode", "parquet", "npz", "train"])
    options = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        images = pictures(Path(folder) / "images")
        run, bundle = Path(folder) / "runs" / "demo", Path(folder) / "bundle"
        train = ("train", "vehicles", *SMALL, "--epochs", "1", "1", "--name", "demo")
        export = ("export", str(run), "--anyway", "--fp16", "--engine", "none")
        for command in (train, (*export, "--output", str(bundle))):
            code, errors, _ = run_of((*MOTORVAE, *command), Path(folder))
            assert code == 0, errors
        for name in options.commands:
            dice = random.Random(options.seed)
            found[name] = attack(name, options.count, dice, images, bundle, run)
    print(json.dumps(found))
    bad = ("lost", "failed after", "left over")
    return int(any(counts.get(name, 0) for counts in found.values() for name in bad))


if __name__ == "__main__":
    sys.exit(main())
