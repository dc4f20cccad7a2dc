from __future__ import annotations

import os
import pty
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import pytest

from motorvae.runtime.core.errors import ConfigError
from motorvae.runtime.sources.synthetic.vehicles import vehicle
from motorvae.training.checkpoint import KeptEpoch, KeptWeights, model_from_checkpoint
from motorvae.training.cli import (
    OPENMP_WAITING,
    _with_new_goal,
    let_idle_threads_sleep,
    lines_of,
    main,
    overfitting,
)
from motorvae.training.loop.resume_file import steps_saved
from motorvae.training.options import TrainOptions
from motorvae.training.setup.ranks import RUN_VARIABLE
from motorvae.training.train import train

SMALL = (
    *("--image-size", "32", "--channels", "4", "8", "8", "16", "16", "--latent-size", "8"),
    *("--vehicles-count", "48", "--batch-size", "8", "--accelerator", "cpu"),
)
STEPS_OF_AN_EPOCH = 6
"""What is left of 48 images to train on is 41 to 48, in batches of at most 8."""
COMMAND = (
    sys.executable,
    "-c",
    "import sys; from motorvae.training.cli import main; sys.exit(main())",
)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(RUN_VARIABLE, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--data", "nowhere"), "--data=nowhere does not exist"),
        (("--data", "empty"), "no image in empty"),
        (("--image-size", "100"), "take 96 or 112"),
        (("--epochs", "1", "0"), "--epochs=(1, 0)"),
        (("--output", "file"), "file"),
        (("--accelerator", "gpu", "--devices", "64"), "--devices=64"),
        (("--accelerator", "abacus"), "--accelerator=abacus"),
        (("--resume", "nowhere"), "nowhere is not a training run"),
    ],
)
def test_what_a_user_can_cause_is_one_line_and_leaves_nothing(
    here: Path, capsys: pytest.CaptureFixture[str], args: tuple[str, ...], said: str
) -> None:
    (here / "empty").mkdir()
    (here / "file").touch()
    assert main([*SMALL, *args] if "--resume" not in args else args) == 1
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1
    assert error[0].startswith("motorvae-train: ")
    assert said in error[0]
    assert {path.name for path in here.iterdir()} == {"empty", "file"}


def test_too_few_images_for_batch_norm_leave_nothing(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "two").mkdir()
    for number in range(2):
        cv2.imwrite(str(here / "two" / f"{number}.png"), vehicle(5, number, 64)[0])
    assert main([*SMALL, "--data", "two"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "motorvae-train: 1 training image, and 1 device needs at least 2, for batch norm: "
        "give more images"
    ]
    assert {path.name for path in here.iterdir()} == {"two"}


def test_one_held_out_image_is_said_to_tell_nothing(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "three").mkdir()
    for number in range(3):
        cv2.imwrite(str(here / "three" / f"{number}.png"), vehicle(5, number, 64)[0])
    assert main([*SMALL, "--data", "three", "--epochs", "1", "1"]) == 0
    assert "warning: one held-out image cannot show whether" in capsys.readouterr().err


def test_an_unknown_option_is_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refusal:
        main(["--colour", "red"])
    assert refusal.value.code == 2
    assert "--colour" in capsys.readouterr().err
    assert list(here.iterdir()) == []


def test_a_run_ends_with_the_next_command(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, "--epochs", "4", "4", "--learning-rate", "0.01", "--name", "one"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1] == "next: motorvae-export runs/latest --fp16"
    assert lines[-2] == "wrote runs/one"
    assert sum(line.startswith("epoch ") for line in lines) == 8
    model_from_checkpoint(here / "runs" / "latest")


def test_without_torch_one_line_says_what_to_install(here: Path) -> None:
    script = """if True:
        import sys
        class NoTorch:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] == "torch":
                    raise ModuleNotFoundError("no torch here", name=name)
        sys.meta_path.insert(0, NoTorch())
        from motorvae.training.cli import main
        sys.exit(main([]))
    """
    done = subprocess.run(
        (sys.executable, "-c", script), capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "training needs the package torch" in done.stderr
    assert "pip install 'motorvae[train]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert list(here.iterdir()) == []


def test_ctrl_c_saves_and_says_how_to_resume(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = (*COMMAND, *SMALL, "--epochs", "100000", "100000", "--name", "long")
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("epoch 2 "):
                break
        process.send_signal(signal.SIGINT)
        last = process.stderr.read().splitlines()[-1]
        assert process.wait() == 130
    resume = "motorvae-train --resume runs/long"
    steps = int(last.split()[3])
    assert steps >= 2 * STEPS_OF_AN_EPOCH
    assert last == (
        f"motorvae-train: interrupted after {steps} of {200000 * STEPS_OF_AN_EPOCH} steps; "
        f"continue with: {resume}, or keep what it has learned: {resume} --finish"
    )
    assert (here / "runs" / "long" / "resume.ckpt").is_file()
    assert not (here / "runs" / "long" / "model.safetensors").exists()

    assert main(["--resume", "runs/long", "--batch-size", "9"]) == 1
    error = capsys.readouterr().err.strip()
    assert "--batch-size=9 contradicts the run to resume, which has 8" in error
    assert main(["--resume", "runs/long", "--batch-size", "64"]) == 1
    assert "--batch-size=64 contradicts" in capsys.readouterr().err


def _train_and_close_the_terminal(*args: str, hears: bool) -> int:
    """Close the terminal of a training after its first epoch; return the training's exit code."""

    script = f"""if True:
        import fcntl, signal, sys, termios
        fcntl.ioctl(2, termios.TIOCSCTTY, 0)
        signal.signal(signal.SIGHUP, signal.{"SIG_DFL" if hears else "SIG_IGN"})
        from motorvae.training.cli import main
        sys.exit(main())
    """
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        (sys.executable, "-c", script, *SMALL, *args), stderr=theirs, start_new_session=True
    ) as process:
        os.close(theirs)
        shown = b""
        while b"epoch 1 stage 1" not in shown:
            shown += os.read(ours, 4096)
        os.close(ours)
    return process.returncode


def test_a_terminal_that_closes_ends_training_as_sigterm_does(here: Path) -> None:
    long = ("--epochs", "100000", "100000", "--name", "long")
    assert _train_and_close_the_terminal(*long, hears=True) == 130
    assert steps_saved(here / "runs" / "long") >= STEPS_OF_AN_EPOCH
    assert main(["--resume", "runs/long", "--finish"]) == 0


def test_without_sighup_training_survives_its_terminal(here: Path) -> None:
    assert _train_and_close_the_terminal("--epochs", "9", "9", hears=False) == 0
    model_from_checkpoint(here / "runs" / "latest")


def test_ctrl_c_while_preparing_leaves_nothing(here: Path) -> None:
    command = (*COMMAND, *SMALL, "--vehicles-count", "10000000", "--name", "never")
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while not any(here.glob("runs/.never.*/never/cache")):  # a run appears once it is prepared
            assert process.poll() is None
            os.sched_yield()
        process.send_signal(signal.SIGINT)
        assert process.wait() == 130
        assert process.stderr is not None
        assert process.stderr.read().splitlines() == ["motorvae-train: interrupted"]
    assert list(here.iterdir()) == []


@pytest.mark.slow
def test_two_devices_train_one_run(here: Path) -> None:
    script = here / "command.py"
    script.write_text("import sys\nfrom motorvae.training.cli import main\nsys.exit(main())\n")
    command = (
        *(sys.executable, str(script), *SMALL, "--epochs", "1", "1"),
        *("--devices", "2", "--strategy", "ddp"),
    )
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert sum(line.startswith("epoch ") for line in lines) == 2
    (folder,) = (path for path in (here / "runs").iterdir() if path.name != "latest")
    _, config = model_from_checkpoint(folder)
    steps = (folder / "metrics.csv").read_text().splitlines()[-1].split(",")[4]
    assert int(steps) == 2 * -(-config.data.train // 16)
    shutil.rmtree(here / "runs")


def test_epochs_that_would_change_nothing_are_refused() -> None:
    saved = TrainOptions(steps=300)
    with pytest.raises(ConfigError, match=r"only shares out the --steps=300 .* give --steps, too"):
        _with_new_goal(["--resume", "run", "--epochs", "1", "1"], saved)
    given = _with_new_goal(["--resume", "run", "--epochs", "1", "1", "--steps", "20"], saved)
    assert (given.epochs, given.steps) == ((1, 1), 20)
    assert _with_new_goal(["--resume", "run", "--epochs", "1", "1"], TrainOptions()).epochs == (
        1,
        1,
    )


@pytest.fixture
def _no_waiting_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in OPENMP_WAITING:
        # Set first, so that what the code under test sets is taken back, too.
        monkeypatch.setenv(name, "x")
        monkeypatch.delenv(name)


@pytest.mark.usefixtures("_no_waiting_set")
def test_idle_threads_sleep_by_default() -> None:
    let_idle_threads_sleep()
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"


@pytest.mark.usefixtures("_no_waiting_set")
@pytest.mark.parametrize("name", OPENMP_WAITING)
def test_what_the_user_said_stays(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "7")
    let_idle_threads_sleep()
    assert {other: os.environ.get(other) for other in OPENMP_WAITING} == {
        other: "7" if other == name else None for other in OPENMP_WAITING
    }


def _epoch(number: int, train_total: float, held_out_total: float) -> KeptEpoch:
    return KeptEpoch(
        file="x",
        epoch=number,
        stage=2,
        steps=1,
        train_total=train_total,
        held_out_total=held_out_total,
    )


@pytest.mark.parametrize(
    ("last", "said"),
    [((80, 105), True), ((80, 100.5), False), ((120, 105), False), ((100, 105), False)],
)
def test_overfitting_is_said_with_both_epochs_and_the_difference(
    last: tuple[float, float], *, said: bool
) -> None:
    sentence = overfitting(KeptWeights(best=_epoch(7, 100, 100), last=_epoch(9, *last)))
    assert (sentence is not None) is said
    if sentence:
        assert (
            "from epoch 7 to epoch 9 the held-out total rose by 5.0%, from 100 to 105" in sentence
        )
        assert "the training total fell from 100 to 80" in sentence


def test_a_ceiling_that_cuts_steps_short_is_told(options: TrainOptions) -> None:
    outcome = train(replace(options, steps=100000, minutes=0.01))
    assert outcome.finished
    (line,) = (line for line in lines_of(outcome) if line.startswith("trained"))
    assert f"{outcome.steps} steps of 100000, as --minutes 0.01 were over," in line


def test_too_little_learned_is_a_warning(options: TrainOptions) -> None:
    lines = list(lines_of(train(replace(options, steps=2))))
    assert any(
        line.startswith("warning: this model has learned too little") and "--anyway" in line
        for line in lines
    )
    assert lines[-1].startswith("wrote ")
