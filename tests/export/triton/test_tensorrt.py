"""Engines as plan files: only whole ones of known origin, with what they fit said beside them.

The engines are TensorRT-RTX's, under the names and with the facts of TensorRT's own: nothing here
loads them, and a server with a GPU was not at hand.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from motorvae.export.cli import main
from motorvae.export.triton.manifest import RepositoryManifest
from motorvae.runtime.core.documents import json_from_document
from motorvae.runtime.engines.tensorrt.engine_manifest import EngineManifest
from motorvae.runtime.signing.machine_key import own_machine_key

from .agreement import configs_of, problems_of
from .test_repository import says

TENSORRT = {
    "package": "tensorrt",
    "version": "10.3.0",
    "compute_capabilities": ("8.7",),
    "gpu": "Orin",
}


def retagged(path: Path, **facts: Any) -> None:
    """Change an engine manifest as if this machine had written it so."""
    found = EngineManifest.model_validate_json(path.read_text(encoding="utf-8"))
    changed = EngineManifest.model_validate_json(
        json.dumps(json.loads(found.model_dump_json()) | facts | {"built_here": None})
    )
    text = json_from_document(changed.tagged(own_machine_key()[0]))
    path.write_text(text, encoding="utf-8")


@pytest.fixture
def bundle(rtx_bundle: Path, tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(rtx_bundle, tmp_path / "bundle"))
    for path in (folder / "engines").iterdir():
        path.rename(path.with_name(path.name.replace(".tensorrt-rtx.", ".tensorrt.")))
    for path in (folder / "engines").glob("*.json"):
        retagged(path, **TENSORRT)
    return folder


def manifest_of(folder: Path) -> RepositoryManifest:
    return RepositoryManifest.model_validate_json((folder / "motorvae.json").read_text())


def write(bundle: Path, folder: Path, *words: str) -> int:
    platform = ("--triton-platform", "tensorrt")
    return main(["--model", str(bundle), "--triton", str(folder), *platform, *words])


def test_every_engine_is_a_plan_that_is_batched_as_it_was_built(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "models"
    assert write(bundle, folder) == 0
    assert problems_of(folder) == []
    configs = configs_of(folder)
    assert {*configs} == {
        *(f"motorvae_encoder{form}" for form in ("", "_luma", "_mu")),
        "motorvae_decoder",
        "motorvae_reconstruct",
    }
    for name, config in configs.items():
        assert config.max_batch_size == 8
        if name == "motorvae_reconstruct":
            continue
        assert (config.backend, config.default_model_filename) == ("tensorrt", "model.plan")
        assert config.instance_group[0].kind == config.instance_group[0].KIND_GPU
        assert not config.HasField("optimization")
    form = {"": "", "_luma": ".luma", "_mu": ".mu"}
    for suffix, middle in form.items():
        plan = folder / f"motorvae_encoder{suffix}" / "1" / "model.plan"
        engine = bundle / "engines" / f"encoder{middle}.fp16.tensorrt.engine"
        assert plan.read_bytes() == engine.read_bytes()
    said = " ".join(capsys.readouterr().err.split())
    note = "built for 8.7 with TensorRT 10.3.0 (linux-x86_64), and runs there only"
    assert f"note: motorvae_encoder {note}" in said
    assert "not verified: it was built without a GPU" in said
    assert note in (folder / "README.md").read_text()
    assert manifest_of(folder).precision == "fp16"


def other_graph(engines: Path) -> str:
    retagged(engines / "decoder.fp16.tensorrt.json", onnx_sha256="0" * 64)
    return "decoder.fp16.tensorrt.engine was built from another decoder: build it again"


def altered(engines: Path) -> str:
    path = engines / "decoder.fp16.tensorrt.engine"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    return "decoder.fp16.tensorrt.engine was altered after it was built"


def by_another_machine(engines: Path) -> str:
    path = engines / "encoder.fp16.tensorrt.json"
    content = json.loads(path.read_text())
    del content["built_here"]
    path.write_text(json.dumps(content), encoding="utf-8")
    return "encoder.fp16.tensorrt.engine was not built by this machine"


def without_single_images(engines: Path) -> str:
    for path in engines.glob("*.json"):
        retagged(path, profile={"min": 4, "opt": 4, "max": 8})
    return "takes 4,4,8 images per run, and Triton passes on single ones: build it again"


@pytest.mark.parametrize(
    "change", [other_graph, altered, by_another_machine, without_single_images]
)
def test_an_engine_that_no_stream_would_load_is_not_served(
    bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[Path], str],
) -> None:
    line = change(bundle / "engines")
    words = ("--model", bundle, "--triton", tmp_path / "models", "--triton-platform", "tensorrt")
    assert line in says(capsys, *words)
    assert not (tmp_path / "models").exists()


def test_another_precision_names_the_command(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = ("--triton", tmp_path / "models", "--triton-platform", "tensorrt")
    said = says(capsys, "--model", bundle, *place, "--triton-precision", "int8")
    assert f"run motorvae-export --model {bundle} --engine tensorrt --int8 on the GPU" in said


def test_encoders_of_whole_frames_have_no_engine(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--model", str(bundle), "--whole-frame", "bgr:64x48"]) == 0
    assert write(bundle, tmp_path / "models") == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "bgr:64x48 frames is left out, as the bundle has no engine of it" in said
