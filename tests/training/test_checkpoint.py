from __future__ import annotations

import json
import pickle
import resource
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch

from motorvae.runtime.core.errors import CheckpointError, OutputError
from motorvae.training.checkpoint import config_from_run, model_from_checkpoint, save_weights


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    """A finished run that may be corrupted."""
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


def test_folder_link_and_weights_give_the_same_model(finished_run: Path) -> None:
    paths = [finished_run, finished_run.parent / "latest", finished_run / "model.safetensors"]
    images = torch.rand(2, 1, 32, 32)
    outputs = []
    for path in paths:
        model, config = model_from_checkpoint(path)
        assert not model.training
        assert config.options.name == "whole"
        assert config.model == model.spec
        outputs.append(model(images).mu)
    assert torch.equal(outputs[0], outputs[1])
    assert torch.equal(outputs[0], outputs[2])


def test_every_tensor_that_does_not_fit_is_named(run: Path) -> None:
    path = run / "model.safetensors"
    state = safetensors.torch.load_file(path)
    del state["encoder.mu.bias"], state["decoder.image.bias"]
    state["extra.weight"] = torch.zeros(1)
    state["encoder.log_var.bias"] = torch.zeros(9)
    state["decoder.linear.bias"] = state["decoder.linear.bias"].half()
    state["encoder.features.0.bias"][1] = float("nan")
    safetensors.torch.save_file(state, path)
    with pytest.raises(CheckpointError) as refusal:
        model_from_checkpoint(run)
    text = str(refusal.value)
    assert "missing: decoder.image.bias, encoder.mu.bias" in text
    assert "unexpected: extra.weight" in text
    assert "encoder.log_var.bias is 9 float32, expected 8 float32" in text
    assert "decoder.linear.bias is 16 float16, expected 16 float32" in text
    assert "not finite: encoder.features.0.bias" in text


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.complex64])
def test_types_that_torch_only_keeps_are_named(run: Path, dtype: torch.dtype) -> None:
    """They have no `isfinite`, and nothing that does not fit is asked for it."""
    path = run / "model.safetensors"
    state = safetensors.torch.load_file(path)
    state["encoder.mu.bias"] = state["encoder.mu.bias"].to(dtype)
    state |= {f"more.{number:03d}\n\x1b[31m": torch.zeros(2).to(dtype) for number in range(50)}
    safetensors.torch.save_file(state, path)
    with pytest.raises(CheckpointError) as refusal:
        model_from_checkpoint(run)
    text = str(refusal.value)
    assert f"encoder.mu.bias is 8 {str(dtype).removeprefix('torch.')}, expected 8 float32" in text
    assert "more.019\\n\\x1b[31m, and 30 more; misshapen" in text
    assert text.isprintable()


@pytest.mark.parametrize("name", ["weights.pt", "last.ckpt", "model.pth", "model.bin"])
def test_a_pickle_is_refused_and_never_opened(tmp_path: Path, name: str) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (tmp_path / "sprung",)  # type: ignore[return-value]

    path = tmp_path / name
    path.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(CheckpointError, match=r"opening a pickle.*give the folder of a finished"):
        model_from_checkpoint(path)
    assert not (tmp_path / "sprung").exists()


def test_no_run_and_unfinished_run_say_what_to_do(run: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="make one with motorvae-train"):
        model_from_checkpoint(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"it has no config\.json"):
        model_from_checkpoint(tmp_path / "empty")
    (run / "model.safetensors").unlink()
    with pytest.raises(
        CheckpointError, match=r"not finished: go on with motorvae-train --resume .* or .* --finish"
    ):
        model_from_checkpoint(run)


def test_a_refusal_of_torch_is_one_line(run: Path) -> None:
    """Of a shape that it cannot count it says so with its stack."""
    header = b'{"x":{"dtype":"F32","shape":[0,9223372036854775808],"data_offsets":[0,0]}}'
    (run / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(CheckpointError, match=r"cannot read .*model\.safetensors") as refusal:
        model_from_checkpoint(run)
    assert str(refusal.value).isprintable()


def test_truncated_weights_are_refused(run: Path) -> None:
    path = run / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"cannot read .*model\.safetensors"):
        model_from_checkpoint(run)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema_version": 99}, "schema_version=99, and this motorVAE reads 1"),
        ({"surprise": 1}, "surprise: Extra inputs are not permitted"),
        ({"model": {"image_size": 33}}, "image_size=33: 33 is not a multiple of 16"),
        ({"options": {"colour": 1}}, "options.colour"),
    ],
)
def test_config_is_checked(run: Path, change: dict[str, object], said: str) -> None:
    path = run / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(CheckpointError) as refusal:
        config_from_run(run)
    assert said in str(refusal.value)
    assert str(path) in str(refusal.value)


def test_config_that_is_no_json_is_refused(run: Path) -> None:
    (run / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json is not JSON .*restore it or train"):
        config_from_run(run)


def test_a_run_of_an_earlier_version_has_one_set_of_weights(
    finished_run: Path, tmp_path: Path
) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((finished_run / name).read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    for name in ("steps", "threads", "finish"):
        del config["options"][name]
    (tmp_path / "config.json").write_text(json.dumps(config))
    best, last = (
        model_from_checkpoint(tmp_path)[0],
        model_from_checkpoint(tmp_path, "last")[0],
    )
    assert torch.equal(best.encoder.mu.weight, last.encoder.mu.weight)


def test_weights_that_are_no_file_or_too_large_are_refused_unread(run: Path) -> None:
    path = run / "model.safetensors"
    whole = path.read_bytes()
    with path.open("r+b") as file:
        file.truncate(1 << 40)
    with pytest.raises(CheckpointError, match=r"has 1099511627776 bytes, and such a file has"):
        model_from_checkpoint(run)
    path.write_bytes((1 << 21).to_bytes(8, "little") + whole[8:])
    with pytest.raises(CheckpointError, match="has a header of over"):
        model_from_checkpoint(run)
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        model_from_checkpoint(run)


def test_weights_for_which_there_is_no_room_are_an_output_error(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(OutputError, match=r"^cannot write .*safetensors: File too large; "):
            save_weights(tmp_path, {"one": torch.arange(30_000.0)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not any(tmp_path.iterdir())
