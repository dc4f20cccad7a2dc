from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import tyro

from motorvae.runtime.core.errors import ConfigError
from motorvae.runtime.core.spec import ModelSpec
from motorvae.training.cli import main
from motorvae.training.loop.schedule import CARD_BATCH_SIZE
from motorvae.training.options import TrainOptions, spec_from_train_options


def test_defaults_are_the_model_cards() -> None:
    options = TrainOptions()
    assert spec_from_train_options(options) == ModelSpec(matrix="auto")
    assert (options.learning_rate, CARD_BATCH_SIZE) == (1e-4, 64)
    assert (options.epochs, options.betas) == ((100, 100), (0.001, 0.05))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"image_size": 100}, "image_size=100: 100 is not a multiple of 16: take 96 or 112"),
        ({"image_size": (80, 161)}, "image_size=80 x 161: 161 is not a multiple of 16"),
        ({"crop_box": (0.5, 0.0, 0.2, 1.0)}, "crop_box=(0.5, 0.0, 0.2, 1.0): as fractions"),
        ({"crop_box": (5.5, 0.0, -2.0, 0.0)}, "crop_box=(5.5, 0.0, -2.0, 0.0): take fractions"),
        ({"batch_size": 0}, "--batch-size=0: it must be at least 1"),
        ({"learning_rate": float("nan")}, "--learning-rate=nan"),
        ({"steps": 1}, "--steps=1: it must be at least 2, one for each stage"),
        ({"threads": 0}, "--threads=0: it must be between 1 and 1024"),
        ({"finish": True}, "--finish=True: it must be beside --resume RUN"),
        ({"epochs": (0, 5)}, "--epochs=(0, 5): it must be at least 1 for each stage"),
        ({"betas": (0.1, -1.0)}, "--betas=(0.1, -1.0)"),
        ({"minutes": 0.0}, "--minutes=0.0: it must be more than 0"),
        ({"minutes": float("inf")}, "--minutes=inf"),
        ({"held_out": 1.0}, "--held-out=1.0: it must be between 0 and 1"),
        ({"vehicles_count": 1}, "--vehicles-count=1"),
        ({"seed": -1}, "--seed=-1"),
        ({"workers": -2}, "--workers=-2"),
        ({"num_nodes": 0}, "--num-nodes=0"),
        ({"warmup": 1.0}, "--warmup=1.0: it must be a fraction of the run from 0 to below 1"),
        (
            {"weight_decay": -0.1},
            "--weight-decay=-0.1: it must be 0 or more, and below 1 / --learn",
        ),
        ({"weight_decay": 20, "learning_rate": 0.05}, "--weight-decay=20: it must be 0 or more"),
        # Of the heads 1 - rate * decay would be -9, and their weights grow tenfold with each step.
        (
            {"weight_decay": 1.0, "learning_rate": 0.01, "heads_rate": 1000.0},
            "--weight-decay=1.0: it must be 0 or more, and below 1 / --learning-rate (/ --heads",
        ),
        ({"heads_rate": 0.0}, "--heads-rate=0.0: it must be above 0, such as 0.1"),
        ({"clip_norm": 0.0}, "--clip-norm=0.0: it must be above 0"),
        ({"ema": 1.0}, "--ema=1.0: it must be a decay between 0 and 1, such as 0.999"),
        ({"patience": 0}, "--patience=0: it must be at least 1 epoch"),
        ({"kl_span": (0.5, 0.5)}, "--kl-span=(0.5, 0.5): it must be two fractions, the first"),
        ({"kl_cycles": 0}, "--kl-cycles=0: it must be at least 1"),
        ({"free_bits": -0.1}, "--free-bits=-0.1: it must be 0 nats or more"),
        ({"start_log_var": float("nan")}, "--start-log-var=nan: it must be between -20 and 5"),
        ({"augment": ("flip", "flip")}, "--augment=('flip', 'flip'): it must be each at most once"),
        (
            {"kl_cycles": 10**310},
            "--kl-cycles=a number of 311 digits: it must be at most 42949",
        ),
        ({"epochs": (1, 10**310)}, "--epochs=a number of 311 digits"),
        ({"steps": 10**30}, "--steps=a number of 31 digits"),
        ({"vehicles_count": 10**12}, "--vehicles-count=1000000000000: it must be at most 429496"),
        ({"patience": 2**32}, "--patience=4294967296"),
        ({"minutes": 1e308}, "--minutes=1e+308: it must be at most 3e+38"),
        ({"free_bits": 1e39}, "--free-bits=1e+39"),
        ({"betas": (0.0, 1e308)}, "--betas=1e+308"),
        ({"name": "../x"}, "--name=../x"),
        ({"name": "latest"}, "--name=latest"),
        ({"channels": (4, 0)}, "channels=(4, 0)"),
    ],
)
def test_out_of_range_is_refused_by_name_and_value(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        spec_from_train_options(replace(TrainOptions(), **change))
    assert said in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("args", "epochs"), [([], (100, 100)), (["3"], (2, 1)), (["1", "4"], (1, 4))]
)
def test_a_single_number_of_epochs_is_split_between_the_stages(
    args: list[str], epochs: tuple[int, int]
) -> None:
    options = tyro.cli(TrainOptions, args=["--epochs", *args] if args else [])
    assert options.epochs == epochs
    assert TrainOptions(epochs=(2,)).epochs == (1, 1)
    with pytest.raises(ConfigError, match=r"--epochs=\(1, 0\): it must be at least 1 for each"):
        spec_from_train_options(TrainOptions(epochs=(1,)))


def test_names_that_other_programs_use_are_understood() -> None:
    options = tyro.cli(
        TrainOptions, args=["photos", "--lr", "0.5", "--imgsz", "64", "--batch", "8"]
    )
    assert (options.data, options.learning_rate) == ("photos", 0.5)
    assert (options.image_size, options.batch_size) == (64, 8)


def test_kinds_of_augmentation_stand_before_the_data() -> None:
    words = ["--kl-span", "0", "0.1", "--augment", "flip", "erase", "photos"]
    options: TrainOptions = main.parse(words)
    assert (options.data, options.augment) == ("photos", ("flip", "erase"))
    assert options.kl_span == (0, 0.1)


@pytest.mark.parametrize("data", ["photos", "2024"])
@pytest.mark.parametrize("flag", ["--image-size", "--imgsz"])
def test_shapes_and_boxes_stand_before_the_data(flag: str, data: str) -> None:
    crop = ["5", "20", "-25", "-20"]
    words = [flag, "80", "160", "--color", "rgb", "--crop", *crop, "--fit", "pad", data]
    options: TrainOptions = main.parse(words)
    assert options.data == data
    spec = spec_from_train_options(options)
    assert (spec.input_shape, spec.crop_box, spec.fit) == ((3, 80, 160), (5, 20, -25, -20), "pad")
    for box in (crop, ["0.1", "1e-1", "1", "1"]):
        last = main.parse([flag, "64", "--crop-box", *box, "photos"])
        assert (last.data, last.image_size) == ("photos", 64)
        assert last.crop_box == tuple(map(float, box))
