"""The rates of training steps, of a network so small that no figure means anything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from motorvae.benchmarks import training_rates
from motorvae.benchmarks.training_rates import flop_of_step, layers_of, main, ways_on
from motorvae.runtime.core.spec import ModelSpec
from motorvae.training import hardware
from motorvae.training.hardware import threads_restored

SMALL = ["--image-size", "32", "--channels", "4", "8", "--batch", "2", "--rounds", "2"]
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _threads() -> Any:
    with threads_restored():
        yield


def test_each_way_has_a_row_for_each_batch_and_number_of_threads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "rates.json"
    words = [*SMALL, "4", "--steps", "1", "--threads", "1", "2", "--no-memory", "--layers"]
    words[words.index("--rounds") : words.index("--rounds") + 3] = ["4", "--rounds", "2"]
    assert main([*words, "--json", str(file)]) == 0
    found = json.loads(file.read_text("utf-8"))
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == found
    names = [way.name for way in ways_on(CPU)]
    assert [(row["threads"], row["batch"], row["way"]) for row in found["rows"]] == [
        (threads, batch, name) for threads in (1, 2) for batch in (2, 4) for name in names
    ]
    assert all(row["against_plain"] == 1 for row in found["rows"] if row["way"] == "plain")
    for row in found["rows"]:
        median = sorted(row["seconds"])
        assert row["images_per_s"] == pytest.approx(row["batch"] / (sum(median) / 2))
        peak = found["peak_tflop_per_s"][str(row["threads"])][row["precision"]] * 1e12
        flop = row["batch"] * found["flop_of_a_step_and_image"]
        assert row["share_of_peak"] == pytest.approx(flop / (sum(median) / 2) / peak)
    layers = [row["layer"] for row in found["layers"]]
    assert len(layers) == 2 * 2 * 5
    assert {"encoder.features.0", "decoder.features.0", "decoder.image"} <= set(layers)
    assert found["environment"]["cpu"]


def test_the_multiplications_of_the_layers_are_those_of_a_step() -> None:
    """Forward, and as much again for each gradient; the heads and the linear layer are the rest."""
    spec = ModelSpec(image_size=32, channels=(4, 8), latent_size=3)
    (plain, *_) = ways_on(CPU)
    rows = {row["layer"]: row for row in layers_of(plain, spec, 1, CPU, {"32-true": 1e9})}
    products = sum(
        row["flop"] * (2 if name == "encoder.features.0" else 3) for name, row in rows.items()
    )
    linear = 2 * 3 * 3 * spec.flat_size * spec.latent_size
    assert flop_of_step(spec) == products + linear
    first = rows["encoder.features.0"]
    assert first["flop"] == 2 * 9 * 4 * 16 * 16
    assert first["backward_share"] == pytest.approx(first["flop"] / first["backward_ms"] / 1e6)


def test_memory_is_that_of_a_process_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    # Small heads: with two layers these, their gradients and Adam's moments were 200 MB.
    words = ["--image-size", "128", "--channels", "16", "32", "32", "32", "--rounds", "1"]
    assert main([*words, "--steps", "1", "--batch", "2", "32", "--threads", "1"]) == 0
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    small, large = ({r["way"]: r["held_bytes"] for r in rows if r["batch"] == n} for n in (2, 32))
    # Activations of float32, each convolution's and batch norm's, are kept for the backward pass.
    # A process that is started has not the peak of the one that starts it, with torch and steps.
    assert small["plain"] < 100e6
    least = 30 * 2 * 4 * (16 * 64**2 + 32 * 32**2 + 16 * 64**2 + 16 * 128**2)
    assert large["plain"] - small["plain"] > least


@pytest.mark.parametrize("has_bf16", [False, True])
def test_float32_is_a_way_of_its_own_where_the_processor_has_bf16(
    monkeypatch: pytest.MonkeyPatch, *, has_bf16: bool
) -> None:
    monkeypatch.setattr(hardware, "cpu_has_bf16", lambda: has_bf16)
    ways = {way.name: way.precision for way in ways_on(CPU, compiles=True)}
    own = "bf16-mixed" if has_bf16 else "32-true"
    extra = {"ours float32": "32-true"} if has_bf16 else {}
    assert ways == {"plain": "32-true", "ours": own, **extra, "compiled": own}


def test_our_step_is_what_training_makes() -> None:
    """Layout and precision as motorvae-train takes them, and images of which no level is lost."""
    spec = ModelSpec(image_size=32, channels=(4, 8))
    (_, ours, *_) = ways_on(CPU)
    seen: list[torch.Tensor] = []

    class Watched(training_rates.MotorVAE):
        def encode(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            seen.append(images.detach().clone())
            return super().encode(images)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training_rates, "MotorVAE", Watched)
        next(training_rates._steps_of(ours, spec, 4, CPU))
    (images,) = seen
    assert images.dtype == torch.float32
    assert images.is_contiguous(memory_format=hardware.layout_of(ours.precision))
    levels = (images * 255).round()
    assert torch.equal(levels * torch.tensor(1 / 255), images)
