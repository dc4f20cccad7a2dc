"""Configurations parse by Triton's own schema, and say of each tensor what its graph says."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from motorvae.export.cli import main
from motorvae.runtime.bundle.load import load_bundle
from motorvae.runtime.core.spec import ModelSpec

from .agreement import config_of, configs_of, problems_of, tensors_of

FLOATS, LEVELS = "TYPE_FP32", "TYPE_UINT8"
MODELS = {
    "m_encoder": ({"image": (FLOATS, (-1, 1, 32, 32))}, {"mu", "log_var"}),
    "m_encoder_luma": ({"image": (LEVELS, (-1, 1, 32, 32))}, {"mu", "log_var"}),
    "m_encoder_mu": ({"image": (LEVELS, (-1, 1, 32, 32))}, {"mu"}),
    "m_encoder_bgr": ({"frame": (LEVELS, (-1, 48, 64, 3))}, {"mu", "log_var"}),
    "m_encoder_nv12": ({"frame": (LEVELS, (-1, 72, 64))}, {"mu", "log_var"}),
    "m_decoder": ({"z": (FLOATS, (-1, 8))}, {"reconstruction"}),
    "m_reconstruct": (
        {"image": (FLOATS, (-1, 1, 32, 32))},
        {"mu", "log_var", "reconstruction"},
    ),
    "m_reconstruct_bgr": (
        {"frame": (LEVELS, (-1, 48, 64, 3))},
        {"mu", "log_var", "reconstruction"},
    ),
    "m_reconstruct_nv12": (
        {"frame": (LEVELS, (-1, 72, 64))},
        {"mu", "log_var", "reconstruction"},
    ),
}


def written(bundle: Path, folder: Path, *words: object) -> Path:
    assert main(["--model", str(bundle), "--triton", str(folder), *map(str, words)]) == 0
    return folder


def test_with_no_option_all_agrees(repository: Path) -> None:
    assert problems_of(repository) == []
    assert set(configs_of(repository)) == {
        f"motorvae{name[1:]}" for name in MODELS if name != "m_encoder_luma"
    }


@pytest.mark.parametrize(
    ("words", "backend", "most"),
    [
        ((), "onnxruntime", 16),
        (("--triton-batch", 5, "--triton-version", 7), "onnxruntime", 5),
        (("--triton-batch", 1), "onnxruntime", 1),
        (("--triton-platform", "openvino"), "openvino", 0),
        (("--triton-platform", "openvino", "--triton-batch", 4), "openvino", 4),
    ],
)
def test_every_platform_has_every_model_in_its_form(
    framed_bundle: Path, tmp_path: Path, words: tuple[object, ...], backend: str, most: int
) -> None:
    named = ("--triton-name", "m", "--triton-precision", "fp16", *words)
    folder = written(framed_bundle, tmp_path / "models", *named)
    assert problems_of(folder) == []
    found = configs_of(folder)
    assert set(found) == set(MODELS)
    for name, (inputs, outputs) in MODELS.items():
        config = found[name]
        assert config.max_batch_size == most
        assert tensors_of(config.input, most) == inputs
        assert set(tensors_of(config.output, most)) == outputs
        is_ensemble = "reconstruct" in name
        assert (config.platform, config.backend) == (
            ("ensemble", "") if is_ensemble else ("", backend)
        )
        assert config.HasField("dynamic_batching") == (most > 1 and not is_ensemble)
        assert bool(config.model_warmup) != is_ensemble


def test_what_is_reconstructed_is_mu(repository: Path) -> None:
    """`log_var` would fit as well."""
    for name, config in configs_of(repository).items():
        if "reconstruct" in name:
            encode, decode = config.ensemble_scheduling.step
            assert encode.model_name == name.replace("reconstruct", "encoder")
            assert dict(encode.output_map) == {"mu": "mu", "log_var": "log_var"}
            assert (decode.model_name, dict(decode.input_map)) == ("motorvae_decoder", {"z": "mu"})


def test_a_client_learns_which_model_it_is_and_how_frames_become_input(
    framed_bundle: Path, repository: Path
) -> None:
    manifest = load_bundle(framed_bundle).manifest
    hashes = {entry.title: entry.sha256 for entry in manifest.graphs}
    for name, config in configs_of(repository).items():
        said = {
            key.removeprefix("motorvae."): value.string_value
            for key, value in config.parameters.items()
        }
        assert said["weights_sha256"] == manifest.weights_sha256
        assert ModelSpec.model_validate_json(said["model"]) == manifest.model
        assert json.loads(said["preprocessing"])["resize"].startswith("area average")
        assert hashes[said["graph"]] == said["graph_sha256"]
        frame = re.search("bgr|nv12", name)
        assert (json.loads(said["frame"])["layout"] if "frame" in said else None) == (
            frame and frame[0]
        )


@pytest.mark.parametrize(
    ("words", "kind", "keeps_float32", "sizes"),
    [
        ((), "KIND_AUTO", True, [*range(1, 17)]),
        (("--triton-device", "cpu"), "KIND_CPU", False, [1, 16]),
        (
            ("--triton-device", "gpu", "--triton-batch", 40),
            "KIND_GPU",
            True,
            [1, 2, 4, 8, 16, 32, 40],
        ),
        (("--triton-platform", "openvino"), "KIND_CPU", False, [1]),
    ],
)
def test_instances_and_warm_up_are_of_the_device(
    small_bundle: Path,
    tmp_path: Path,
    words: tuple[object, ...],
    kind: str,
    keeps_float32: bool,
    sizes: list[int],
) -> None:
    folder = written(small_bundle, tmp_path / "models", "--triton-instances", 3, *words)
    config = config_of(folder / "motorvae_encoder")
    (group,) = config.instance_group
    assert (group.count, group.Kind.Name(group.kind)) == (3, kind)
    accelerators = config.optimization.execution_accelerators.gpu_execution_accelerator
    assert [(one.name, dict(one.parameters)) for one in accelerators] == (
        [("cuda", {"use_tf32": "0"})] if keeps_float32 else []
    )
    assert [request.batch_size for request in config.model_warmup] == sizes


def test_delay_and_openvinos_settings_are_said(small_bundle: Path, tmp_path: Path) -> None:
    folder = written(small_bundle, tmp_path / "a", "--triton-delay-us", 250)
    config = config_of(folder / "motorvae_decoder")
    assert config.dynamic_batching.max_queue_delay_microseconds == 250
    one = written(small_bundle, tmp_path / "b", "--triton-platform", "openvino")
    two = written(
        small_bundle, tmp_path / "c", "--triton-platform", "openvino", "--triton-instances", 2
    )
    said = [
        {
            key: value.string_value
            for key, value in config_of(folder / "motorvae_encoder").parameters.items()
            if not key.startswith("motorvae.")
        }
        for folder in (one, two)
    ]
    assert said == [
        {"PERFORMANCE_HINT": "LATENCY"},
        {"PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": "2"},
    ]


def test_large_frames_are_gathered_in_smaller_batches(small_bundle: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(small_bundle, tmp_path / "bundle"))
    assert main(["--model", str(bundle), "--whole-frame", "bgr:1920x1080"]) == 0
    found = configs_of(written(bundle, tmp_path / "models"))
    assert found["motorvae_encoder_bgr"].max_batch_size == (64 << 20) // (1920 * 1080 * 3) == 10
    assert found["motorvae_reconstruct_bgr"].max_batch_size == 10
    assert found["motorvae_encoder"].max_batch_size == 16


def in_text(old: str, new: str) -> Callable[[str], str]:
    def change(text: str) -> str:
        assert old in text
        return text.replace(old, new, 1)

    return change


@pytest.mark.parametrize(
    ("model", "change"),
    [
        ("encoder", in_text("dims: [1, 32, 32]", "dims: [1, 32, 33]")),
        ("encoder", in_text("dims: [1, 32, 32]", "dims: [-1, 1, 32, 32]")),
        ("encoder", in_text("TYPE_FP32", "TYPE_UINT8")),
        ("encoder", in_text('name: "log_var"', 'name: "logvar"')),
        ("encoder", in_text("versions: [1]", "versions: [2]")),
        ("encoder", in_text("max_batch_size: 16", "max_batch_size: 0")),
        ("encoder", in_text("batch_size: 16\n  inputs", "batch_size: 17\n  inputs")),
        ("encoder_bgr", in_text("dims: [48, 64, 3]", "dims: [64, 48, 3]")),
        ("decoder", in_text('name: "motorvae_decoder"', 'name: "decoder"')),
        ("reconstruct", in_text('key: "z" value: "mu"', 'key: "z" value: "z"')),
        ("reconstruct", in_text('model_name: "motorvae_encoder"', 'model_name: "encoder"')),
        ("reconstruct", in_text("model_version: 1", "model_version: 2")),
        ("reconstruct", in_text("max_batch_size: 16", "max_batch_size: 32")),
        ("reconstruct", in_text("dims: [8]", "dims: [9]")),
    ],
)
def test_a_planted_fault_is_found(
    repository: Path, tmp_path: Path, model: str, change: Callable[[str], str]
) -> None:
    """The check itself is of use only where it finds what is wrong."""
    folder = Path(shutil.copytree(repository, tmp_path / "models"))
    path = folder / f"motorvae_{model}" / "config.pbtxt"
    path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")
    assert problems_of(folder)
