"""Several real processes train one run: as one would, stopped and resumed, killed, refused."""

from __future__ import annotations

import csv
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from lightning.fabric.strategies.launchers import subprocess_script

from motorvae.runtime.core.command import stderr_console
from motorvae.runtime.core.errors import ConfigError
from motorvae.runtime.core.system.locks import output_locked
from motorvae.training.cli import _run_to_go_on_with, _with_new_goal
from motorvae.training.loop.resume_file import steps_saved
from motorvae.training.options import TrainOptions
from motorvae.training.setup.ranks import LossOfRanks, launch
from motorvae.training.setup.trainer import trainer_from_options
from motorvae.training.train import options_to_resume, train

from .. import rank_callbacks
from ..processes import COMMAND, SMALL, by_rank, end_all, environment, ours, said, started, torchrun
from ..runs import tree_of

ROUNDING = 1e-5
"""Most by which a figure of two processes differed from that of one, relative, was 1e-6."""
FIXED = ("--callback", "rank_callbacks:FixedBatchNorm")
SIGNALLED = ("--callback", "rank_callbacks:FixedBatchNorm", "rank_callbacks:Signalled")
EPOCHS = ("--epochs", "2", "2")


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Path]:
    """A folder to start processes in, with the callbacks that they are given."""
    shutil.copy(rank_callbacks.__file__, tmp_path)
    yield tmp_path
    end_all()


@pytest.fixture(scope="module")
def curve(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, float]]:
    """The loss curve of one process that has the whole batch."""
    here = tmp_path_factory.mktemp("one")
    outcome = train(_options(here, batch_size=16, callback=_callbacks(here)))
    assert outcome.finished
    return _curve(outcome.folder)


def _callbacks(here: Path, *names: str) -> tuple[str, ...]:
    shutil.copy(rank_callbacks.__file__, here)
    return tuple(f"tests.training.rank_callbacks:{name}" for name in ("FixedBatchNorm", *names))


def _options(here: Path, **more: object) -> TrainOptions:
    """Those of `SMALL`, for a process that is this one."""
    options = TrainOptions(
        output=here / "runs",
        name="one",
        image_size=32,
        channels=(4, 8, 8, 16, 16),
        latent_size=8,
        learning_rate=1e-3,
        epochs=(2, 2),
        vehicles_count=48,
        held_out=0.2,
        precision="32-true",
        accelerator="cpu",
        devices="1",
        threads=1,
    )
    return replace(options, **more)  # type: ignore[arg-type]


def _curve(folder: Path) -> list[dict[str, float]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [
            {name: float(value) for name, value in row.items() if name != "elapsed_s"}
            for row in csv.DictReader(file)
        ]


def _same(curve: list[dict[str, float]], other: list[dict[str, float]]) -> bool:
    return len(curve) == len(other) and all(
        row == pytest.approx(one, rel=ROUNDING) for row, one in zip(curve, other, strict=True)
    )


def test_two_processes_have_the_loss_curve_of_one_with_twice_the_batch(
    here: Path, curve: list[dict[str, float]]
) -> None:
    lines = said(torchrun(2, *SMALL, *EPOCHS, *FIXED, "--name", "two"), here)
    assert sum(line.startswith("epoch ") for line in lines) == 4
    assert any("batch size 8 on each of 2 devices, 16 in a step" in line for line in lines)
    assert not ours(lines)
    assert sorted(path.name for path in (here / "runs").iterdir()) == ["latest", "two"]
    assert _same(_curve(here / "runs" / "two"), curve)


@pytest.mark.parametrize("step", [4, 6])
def test_two_processes_that_are_stopped_go_on_as_one(
    here: Path, curve: list[dict[str, float]], step: int
) -> None:
    """A signal to one of them, amid an epoch or at its end, stops both after the same step."""
    command = torchrun(2, *SMALL, *EPOCHS, *SIGNALLED, "--name", "two")
    # The second rank gets it, the first writes, and its code is the run's.
    env = environment(ON_RANK="1", AT_STEP=str(step - 1), SIGNAL=str(int(signal.SIGTERM)))
    with started(command, here, env) as process:
        assert process.stderr is not None
        lines = process.stderr.read().splitlines()
    assert process.returncode != 0
    folder = here / "runs" / "two"
    (line,) = ours(lines)
    assert f"interrupted after {step} of 12 steps; continue with: motorvae-train --resume" in line
    assert steps_saved(folder) == step
    callback = _callbacks(here)
    resumed = train(replace(options_to_resume(folder), devices="1", callback=callback))
    assert resumed.finished
    assert _same(_curve(folder), curve)


def test_one_process_that_is_stopped_goes_on_as_two(
    here: Path, curve: list[dict[str, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"ON_RANK": 0, "AT_STEP": 7, "SIGNAL": int(signal.SIGINT)}.items():
        monkeypatch.setenv(name, str(value))
    callback = _callbacks(here, "Signalled")
    stopped = train(_options(here, batch_size=16, callback=callback))
    assert (stopped.finished, stopped.steps) == (False, 8)
    resume = ("--resume", str(stopped.folder))
    lines = said(torchrun(2, *resume, *FIXED), here)
    assert any("16 in a step, shared by 2 (it began on 1)" in line for line in lines)
    assert _same(_curve(stopped.folder), curve)


@pytest.mark.parametrize(
    ("rank", "starter"),
    [
        (1, "torchrun"),
        pytest.param(0, "torchrun", marks=pytest.mark.slow),
        pytest.param(1, "--devices", marks=pytest.mark.slow),
    ],
)
def test_a_killed_process_ends_all_in_one_line_and_the_run_goes_on(
    here: Path, curve: list[dict[str, float]], rank: int, starter: str
) -> None:
    own = (*SMALL, *EPOCHS, *SIGNALLED, "--name", "two")
    command = torchrun(2, *own) if starter == "torchrun" else [*COMMAND, *own, "--devices", "2"]
    env = environment(ON_RANK=str(rank), AT_STEP="7", SIGNAL=str(int(signal.SIGKILL)))
    with started(command, here, env) as process:
        assert process.stderr is not None
        lines = process.stderr.read().splitlines()
    assert process.returncode != 0
    (line,) = ours(lines)
    assert "process of this run ended" in line
    assert "go on with motorvae-train --resume" in line
    assert not any("stopping" in line or "RuntimeError" in line for line in lines)
    folder = here / "runs" / "two"
    assert steps_saved(folder) == 6
    callback = _callbacks(here)
    assert train(replace(options_to_resume(folder), devices="1", callback=callback)).finished
    assert _same(_curve(folder), curve)


@pytest.mark.slow
def test_torchrun_restarts_a_killed_process_and_the_run_goes_on(
    here: Path, curve: list[dict[str, float]]
) -> None:
    command = torchrun(2, *SMALL, *EPOCHS, *SIGNALLED, "--name", "two", restarts=1)
    env = environment(ON_RANK="1", AT_STEP="7", SIGNAL=str(int(signal.SIGKILL)))
    # Else the new processes may read from torchrun's store where the old ones listened.
    env = {**env, "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    with started(command, here, env) as process:
        assert process.stderr is not None
        process.stderr.read()
    assert process.returncode == 0
    assert _same(_curve(here / "runs" / "two"), curve)


def test_processes_with_other_options_are_refused_in_one_line(here: Path) -> None:
    commands = ((*COMMAND, *SMALL, "--epochs", epochs) for epochs in ("2", "4"))
    processes = by_rank(here, *commands, port=_free_port())
    said_by = [process.communicate()[1].splitlines() for process in processes]
    assert [process.returncode for process in processes] == [1, 0]
    assert said_by == [
        [
            "motorvae-train: rank 1 has --epochs=(2, 2), and rank 0 has (1, 1): start all "
            "processes of a run with the same command and packages"
        ],
        [],
    ]
    assert not (here / "runs").exists()


def test_what_the_first_process_refuses_ends_the_others(here: Path) -> None:
    commands = 2 * ((*COMMAND, "no-such-folder", *SMALL[1:], "--name", "two"),)
    processes = by_rank(here, *commands, port=_free_port())
    said_by = [process.communicate()[1].splitlines() for process in processes]
    assert [process.returncode for process in processes] == [1, 0]
    ((line,), others) = said_by
    assert line.startswith("motorvae-train: --data=no-such-folder does not exist")
    assert others == []


GONE = """
import os, sys
from motorvae.training.cli import main
from motorvae.training.setup.ranks import Ranks

Ranks.check_alike = lambda *_: os._exit(9)  # the processes have met
main(sys.argv[1:])
"""


@pytest.mark.parametrize("gone", [1, pytest.param(0, marks=pytest.mark.slow)])
def test_a_process_that_is_lost_before_training_is_said_in_one_line(here: Path, gone: int) -> None:
    """As one that the kernel kills for memory, while the first prepares the images."""
    kept, lost = [*COMMAND, *SMALL], [sys.executable, "-c", GONE, *SMALL]
    commands = [lost if rank == gone else kept for rank in range(2)]
    processes = by_rank(here, *commands, port=_free_port())
    said_by = [process.communicate()[1].splitlines() for process in processes]
    codes = [process.returncode for process in processes]
    assert (codes[gone], codes[1 - gone]) == (9, 1)
    # Torch's own code may warn of the connection to the one that is lost.
    (line,) = [line for line in said_by[1 - gone] if not line.startswith("[W")]
    assert line.startswith("motorvae-train: another process of this run ended before training")
    assert line.endswith(": look at what it said")
    assert not (here / "runs").exists()


TOLD = """
import os, sys
from pathlib import Path
from motorvae.runtime.core.errors import SourceError
from motorvae.training.options import TrainOptions
from motorvae.training.setup.ranks import Ranks
from motorvae.training.setup.trainer import trainer_from_options

ranks = Ranks(trainer_from_options(TrainOptions(accelerator="cpu", strategy="ddp")))
if not ranks.lead:
    os._exit(0)
with ranks.told([]):
    with Path("gate").open() as gate:
        gate.readline()
    raise RAISED
"""


@pytest.mark.parametrize(
    ("raised", "last"),
    [
        ('SourceError("no image in photos/")', "SourceError: no image in photos/"),
        pytest.param("KeyboardInterrupt", "KeyboardInterrupt", marks=pytest.mark.slow),
    ],
)
def test_what_the_first_process_raises_is_kept_where_the_other_is_gone(
    here: Path, raised: str, last: str
) -> None:
    os.mkfifo(here / "gate")
    command = (sys.executable, "-c", TOLD.replace("RAISED", raised))
    with (here / "gate").open("r+b", buffering=0) as gate:
        first, other = by_rank(here, command, command, port=_free_port())
        assert other.wait() == 0
        gate.write(b"\n")  # which the first one waits for
        said_by = first.communicate()[1].splitlines()
    assert said_by[-1].endswith(last)


NO_SIGNAL = {"ON_RANK": "-1", "AT_STEP": "0", "SIGNAL": "0"}
SLURM = {
    "SLURM_JOB_ID": "4711",
    "SLURM_NNODES": "1",
    "SLURM_NODEID": "0",
    "SLURM_JOB_NAME": "train",
    "MASTER_ADDR": "127.0.0.1",
}


def _as_srun(here: Path, ranks: int, command: list[str], **more: str) -> list[list[str]]:
    """Start what srun would, with a stand-in for `scontrol` (there is no SLURM here)."""
    tools = here / "bin"
    tools.mkdir(exist_ok=True)
    (tools / "scontrol").write_text('#!/bin/sh\necho "$@" >> scontrol.txt\nexit ${SCONTROL:-0}\n')
    (tools / "scontrol").chmod(0o755)
    path = f"{tools}{os.pathsep}{os.environ['PATH']}"
    port = str(_free_port())
    processes = [
        started(
            command,
            here,
            environment(
                **SLURM,
                SLURM_NTASKS=str(ranks),
                SLURM_NTASKS_PER_NODE=str(ranks),
                SLURM_PROCID=str(rank),
                SLURM_LOCALID=str(rank),
                MASTER_PORT=port,
                PATH=path,
                **more,
            ),
        )
        for rank in range(ranks)
    ]
    lines = [process.communicate()[1].splitlines() for process in processes]
    codes = [process.returncode for process in processes]
    return [[*said_by, f"code {code}"] for said_by, code in zip(lines, codes, strict=True)]


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_slurms_signal_saves_and_requeues_and_the_same_command_goes_on(
    here: Path, curve: list[dict[str, float]], ranks: int
) -> None:
    own = (*SMALL, *EPOCHS, *SIGNALLED, "--name", "job", "--batch-size", str(16 // ranks))
    command = [*COMMAND, *own]
    # It comes to the last rank, amid a step: all leave after it.
    first, *others = _as_srun(
        here, ranks, command, ON_RANK=str(ranks - 1), AT_STEP="7", SIGNAL=str(int(signal.SIGUSR1))
    )
    *_, line, code = first
    assert code == "code 130"
    assert line.startswith("motorvae-train: saved after 8 of 12 steps; SLURM was asked to run job")
    assert others == [["code 0"]] * (ranks - 1)
    assert (here / "scontrol.txt").read_text() == "requeue 4711\n"
    folder = here / "runs" / "job"
    assert steps_saved(folder) == 8
    assert not list(folder.glob("hpc*"))
    again, *_ = _as_srun(here, ranks, command, SLURM_RESTART_COUNT="1", **NO_SIGNAL)
    assert again[-1] == "code 0", again
    assert _same(_curve(folder), curve)
    files = {path for path in tree_of(folder) if not path.startswith("reconstructions")}
    assert {"model.safetensors", "metrics.csv"} <= files
    assert not files & {"resume.ckpt", "images.u8"}


@pytest.mark.slow
def test_a_job_that_cannot_be_requeued_is_saved_all_the_same(here: Path) -> None:
    signalled = {"ON_RANK": "0", "AT_STEP": "7", "SIGNAL": str(int(signal.SIGUSR1))}
    command = [*COMMAND, *SMALL, *EPOCHS, *SIGNALLED]
    # SLURM refuses, and Lightning says so.
    (lines,) = _as_srun(here, 1, [*command, "--name", "job"], **signalled, SCONTROL="1")
    assert any("Requeuing SLURM job 4711 failed with error code 1" in line for line in lines)
    *_, line, code = lines
    assert line.startswith(
        "motorvae-train: interrupted after 8 of 20 steps; continue with: motorvae-train --resume"
    )
    assert code == "code 130"
    assert not any("SLURM was asked" in line for line in lines)
    assert steps_saved(here / "runs" / "job") == 8
    (here / "scontrol.txt").unlink()
    # Without a name the same command would begin anew.
    (lines,) = _as_srun(here, 1, command, **signalled)
    assert "interrupted after 8 of" in lines[-2]
    assert not (here / "scontrol.txt").exists()


def test_processes_that_are_started_say_how_many_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert launch() is None
    _set(monkeypatch, SLURM | {"SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "2"})
    _set(monkeypatch, {"SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_NNODES": "2"})
    assert launch() == ("srun", 4, 2)
    trainer = trainer_from_options(_options(tmp_path, devices="auto"))
    assert (trainer.world_size, trainer.num_nodes, trainer.global_rank) == (4, 2, 3)
    for devices in ("1", "2", "3"):
        with pytest.raises(ConfigError, match=r"--num-nodes=1 .*: srun has started 4 processes, 2"):
            trainer_from_options(_options(tmp_path, devices=devices))
    # A run of two devices goes on with as many as were started.
    saved = _options(tmp_path, devices="2", strategy="ddp")
    given = _with_new_goal(["--resume", "run", "--name", "one"], saved, launched=True)
    assert (given.devices, given.strategy) == ("auto", "auto")


def test_a_command_that_runs_again_goes_on_with_its_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = _options(tmp_path)
    folder = tmp_path / "runs" / "one"
    folder.mkdir(parents=True)
    assert _run_to_go_on_with(options) is None
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    assert _run_to_go_on_with(options) == folder
    assert _run_to_go_on_with(replace(options, name="other")) is None
    assert _run_to_go_on_with(replace(options, name=None)) is None
    monkeypatch.setenv("SLURM_RESTART_COUNT", "0")
    assert _run_to_go_on_with(options) is None


def test_only_errors_of_a_lost_connection_are_taken_for_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lost = LossOfRanks(tmp_path / "run", stderr_console(), leads=True)
    for error in (RuntimeError("out of memory"), ValueError("gloo"), ConfigError("NCCL")):
        assert lost.error_for(error) is None
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    try:
        peer = "[/pytorch/gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:4"
        for _ in range(2):  # it is said once
            ending = lost.error_for(RuntimeError(peer))
            assert ending is not None
            assert ending.exit_code == 1
        # What comes now, from torchrun, would break off what is said.
        assert signal.SIGTERM in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    run = tmp_path / "run"
    assert capsys.readouterr().err.splitlines() == [
        "motorvae-train: another process of this run ended (Connection closed by peer "
        f"[127.0.0.1]:4), and so does this; go on with motorvae-train --resume {run}, started as "
        "before"
    ]


def test_another_process_speaks_only_where_the_first_is_gone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    try:
        with output_locked(run):  # as the first does
            ending = LossOfRanks(run, stderr_console(), leads=False).error_for(
                RuntimeError("Connection reset by peer")
            )
            assert ending is not None
            assert ending.exit_code == 0
            assert capsys.readouterr().err == ""
        ending = LossOfRanks(run, stderr_console(), leads=False).error_for(
            RuntimeError("Connection reset by peer")
        )
        assert ending is not None
        assert ending.exit_code == 1
        assert len(capsys.readouterr().err.splitlines()) == 1
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_lightnings_observer_is_put_in_our_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    observer = logging.getLogger(subprocess_script.__name__)
    level = observer.level
    try:
        LossOfRanks(tmp_path / "run", stderr_console(), leads=True).watch_children()
        child = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
        child.wait()
        watch = subprocess_script._ChildProcessObserver(os.getpid(), [child])
        watch._terminate_all = lambda: None  # type: ignore[method-assign]  # this process stays
        assert watch._run()
    finally:
        observer.filters.clear()
        observer.setLevel(level)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("motorvae-train: a process of this run ended with code 3, and so do the")


def _set(monkeypatch: pytest.MonkeyPatch, variables: Mapping[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
