from __future__ import annotations

from pathlib import Path

import pytest

from motorvae.export.bundle import write_bundle
from motorvae.export.onnx_export import onnx_from_model
from motorvae.export.verify.reference import held_out_from_run
from motorvae.export.verify.torch_reference import reference_from_model
from motorvae.runtime.bundle.graph_key import PARTS
from motorvae.runtime.core.atomic_files import sha256_of
from motorvae.training.checkpoint import model_from_checkpoint


@pytest.fixture(scope="session")
def bundle(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the finished run. Copy it to change it."""
    folder = tmp_path_factory.mktemp("hub") / "small bundle"
    model, config = model_from_checkpoint(finished_run)
    held_out, spread = held_out_from_run(finished_run, config.model)
    write_bundle(
        folder,
        graphs={part: onnx_from_model(model, config.model, part) for part in PARTS},
        spec=config.model,
        weights_sha256=sha256_of(finished_run / "model.safetensors"),
        statistics=finished_run / "latents.npz",
        reference=reference_from_model(model, held_out, spread),
        held_out=held_out,
        precisions=(),
        on_reports=lambda *_: None,
        remarks=("learned <b>too</b> little | see",),
    )
    return folder
