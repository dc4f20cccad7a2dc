"""Small runs of the real trainer; nothing here stands in for it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lightning.fabric.utilities.rank_zero import rank_zero_only

from motorvae.runtime.core.spec import ModelSpec
from motorvae.training.loop import losses
from motorvae.training.model import Loss, vae_loss
from motorvae.training.options import TrainOptions
from motorvae.training.train import train

SPEC = ModelSpec(image_size=32, channels=(4, 8, 8, 16, 16), latent_size=8)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """A model this small only waits for its threads, the more so on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True, scope="module")
def _on_one_thread() -> Iterator[None]:
    with _one_thread():
        yield


@pytest.fixture(autouse=True)
def _rank_forgotten() -> Iterator[None]:
    """Lightning keeps the rank that a trainer had, for all that this process trains later."""
    yield
    rank_zero_only.rank = 0


@pytest.fixture(scope="session")
def spec() -> ModelSpec:
    return SPEC


@pytest.fixture
def options(tmp_path: Path) -> TrainOptions:
    """Two short epochs a stage on a few vehicles."""
    return _options(tmp_path / "runs")


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of `options`. Corrupt a copy, never this one."""
    options = _options(tmp_path_factory.mktemp("finished") / "runs")
    with _one_thread():
        return train(replace(options, name="whole")).folder


@pytest.fixture
def on_loss(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[], object]], None]:
    """Let something happen while the nth loss is computed: a signal, a power cut."""

    def arrange(number: int, event: Callable[[], object]) -> None:
        computed = 0

        def loss(*args: torch.Tensor, beta: float) -> Loss:
            nonlocal computed
            computed += 1
            if computed == number:
                event()
            return vae_loss(*args, beta=beta)

        monkeypatch.setattr(losses, "vae_loss", loss)

    return arrange


def _options(output: Path) -> TrainOptions:
    return TrainOptions(
        output=output,
        image_size=SPEC.image_size,
        channels=SPEC.channels,
        latent_size=SPEC.latent_size,
        batch_size=8,
        learning_rate=1e-3,
        epochs=(2, 2),
        vehicles_count=48,
        held_out=0.2,
        precision="32-true",
        accelerator="cpu",
        devices="1",
        threads=1,
    )
