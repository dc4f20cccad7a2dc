from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.trainer.connectors import signal_connector

from motorvae.runtime.core.errors import CheckpointError
from motorvae.training.interrupt import RequeueRequest, StopRequest
from motorvae.training.loop.resume_file import steps_saved
from motorvae.training.options import TrainOptions
from motorvae.training.train import options_to_resume, train

from .runs import OnLoss, ctrl_c, rows_of, tree_of, weights_of


@pytest.mark.parametrize(
    ("number", "sent"),
    [
        *itertools.product([3, 5, 9, 15], [signal.SIGINT, signal.SIGTERM]),
        (5, signal.SIGHUP),
    ],
)
def test_stopped_then_resumed_is_the_uninterrupted_run(
    finished_run: Path, options: TrainOptions, on_loss: OnLoss, number: int, sent: signal.Signals
) -> None:
    handler = signal.getsignal(sent)
    on_loss(number, lambda: signal.raise_signal(sent))
    stopped = train(options)
    assert not stopped.finished
    assert signal.getsignal(sent) is handler
    assert stopped.steps == steps_saved(stopped.folder) > 0
    assert not (stopped.folder / "model.safetensors").exists()
    resumed = train(options_to_resume(stopped.folder))
    assert resumed.finished
    assert weights_of(resumed.folder) == weights_of(finished_run)
    assert rows_of(resumed.folder) == rows_of(finished_run)
    assert tree_of(resumed.folder) == tree_of(finished_run)


def test_ctrl_c_is_heard_where_an_epoch_is_one_batch(
    options: TrainOptions, on_loss: OnLoss
) -> None:
    one = replace(options, batch_size=512, name="whole")
    assert train(one).finished
    on_loss(2, ctrl_c)
    outcome = train(replace(one, name="stopped"))
    assert not outcome.finished
    assert len(rows_of(outcome.folder)) < len(rows_of(options.output / "whole"))
    assert train(options_to_resume(outcome.folder)).finished
    assert weights_of(outcome.folder) == weights_of(options.output / "whole")


def test_a_second_ctrl_c_loses_nothing(options: TrainOptions, on_loss: OnLoss) -> None:
    def twice() -> None:
        ctrl_c()
        ctrl_c()

    on_loss(3, twice)
    stopped = train(replace(options, name="twice"))
    assert stopped.steps == 3
    assert (stopped.folder / "resume.ckpt").is_file()


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_third_time_stops_at_once_and_counts_what_is_saved(
    finished_run: Path, options: TrainOptions, on_loss: OnLoss, sent: signal.Signals
) -> None:
    def three_times() -> None:
        for _ in range(3):
            signal.raise_signal(sent)

    on_loss(12, three_times)  # in the second epoch
    stopped = train(options)
    assert not stopped.finished
    saved = int(rows_of(stopped.folder)[-1]["steps"])
    assert stopped.steps == saved == steps_saved(stopped.folder)
    assert train(options_to_resume(stopped.folder)).finished
    assert weights_of(stopped.folder) == weights_of(finished_run)


@pytest.mark.parametrize(
    "damage", [lambda data: data[: len(data) // 2], lambda _: b"", lambda _: b"x" * 99]
)
def test_damaged_resume_file_is_refused_in_one_line(
    options: TrainOptions, on_loss: OnLoss, damage: Callable[[bytes], bytes]
) -> None:
    on_loss(2, ctrl_c)
    outcome = train(replace(options, name="damaged"))
    path = outcome.folder / "resume.ckpt"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(
        CheckpointError, match=r"cannot resume from .*resume\.ckpt: .*start a new run"
    ):
        train(options_to_resume(outcome.folder))


def test_a_terminal_that_closes_may_send_sighup_often(
    options: TrainOptions, on_loss: OnLoss
) -> None:
    def four_times() -> None:
        for _ in range(4):
            signal.raise_signal(signal.SIGHUP)

    on_loss(3, four_times)
    assert train(replace(options, name="closed")).steps == 3


def test_a_signal_while_a_line_is_printed_is_a_request_all_the_same() -> None:
    def reentrant(_line: str) -> None:
        raise RuntimeError("reentrant call inside <_io.BufferedWriter name='<stderr>'>")

    stop = StopRequest(reentrant)
    with stop.listening():
        ctrl_c()
    assert stop.asked


@pytest.mark.parametrize("code", [0, 1])
def test_a_requeue_that_slurm_refuses_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """Lightning's own handler calls a stand-in for `scontrol`."""
    tool = tmp_path / "scontrol"
    tool.write_text(f"#!/bin/sh\nexit {code}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    monkeypatch.setattr(Trainer, "save_checkpoint", lambda *_: None)
    trainer = Trainer(accelerator="cpu", logger=False, default_root_dir=tmp_path)
    lightnings = signal_connector._SignalConnector(trainer)
    handler = signal_connector._HandlersCompose([lightnings._slurm_sigusr_handler_fn])
    before = signal.signal(signal.SIGUSR1, handler)
    try:
        request = RequeueRequest()
        request.on_train_start()
        assert request.answer() == (code == 0)
        assert not signal_connector.log.filters
    finally:
        signal.signal(signal.SIGUSR1, before)
