"""What the OpenVINO backend checks when it loads a model, by OpenVINO itself.

It compares outputs exactly, and fixes the batch with set_batch where `max_batch_size` is above 0
(ValidateInputs and ValidateOutputs in openvino.cc of openvino_backend).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from motorvae.export.cli import main

from .agreement import config_of, configs_of, problems_of, tensors_of

openvino = pytest.importorskip("openvino")

NAMES = {"f32": "TYPE_FP32", "u8": "TYPE_UINT8"}


@pytest.mark.parametrize("most", [0, 4])
def test_every_model_loads_with_the_dims_that_it_says(
    framed_bundle: Path, tmp_path: Path, most: int
) -> None:
    words = ["--triton-batch", str(most)] if most else []
    folder = tmp_path / "models"
    openvino_words = ["--triton-platform", "openvino", *words]
    assert main(["--model", str(framed_bundle), "--triton", str(folder), *openvino_words]) == 0
    seen = 0
    for name, config in configs_of(folder).items():
        if config.platform == "ensemble":
            continue
        model = openvino.Core().read_model(str(folder / name / "1" / "model.onnx"))
        if most:
            preparing = openvino.preprocess.PrePostProcessor(model)
            for one in config.input:
                preparing.input(one.name).tensor().set_layout(openvino.Layout("N..."))
            model = preparing.build()
            openvino.set_batch(model, most)
        for configured, ports in ((config.input, model.inputs), (config.output, model.outputs)):
            found = {
                port.get_any_name(): (
                    NAMES[port.get_element_type().get_type_name()],
                    tuple(
                        -1 if side.is_dynamic else side.get_length()
                        for side in port.get_partial_shape()
                    ),
                )
                for port in ports
            }
            said = {
                name: (kind, (most or -1, *sides[1:]))
                for name, (kind, sides) in tensors_of(configured, most).items()
            }
            assert found == said
            seen += 1
    assert seen == 2 * 5


def test_bf16_is_asked_for_by_name(
    bundle_copy: Path, tmp_path: Path, change_manifest: Callable[..., None]
) -> None:
    """As if `--bf16` had passed here, which takes a processor with AMX: it adds no files."""

    def with_bf16(manifest: dict[str, Any]) -> None:
        for what in ("graphs", "verification"):
            manifest[what] += [
                one | {"precision": "bf16", "made_for": "openvino"}
                for one in manifest[what]
                if one["precision"] == "fp32" and one["made_for"] is None
            ]

    change_manifest(bundle_copy, with_bf16)
    folder = tmp_path / "models"
    words = ("--triton-platform", "openvino", "--triton-precision", "bf16")
    assert main(["--model", str(bundle_copy), "--triton", str(folder), *words]) == 0
    assert problems_of(folder) == []
    for form in ("encoder", "encoder_mu", "decoder"):
        parameters = config_of(folder / f"motorvae_{form}").parameters
        assert parameters["HINT_BF16"].string_value == "YES"
        assert parameters["motorvae.graph"].string_value.endswith("for openvino")
