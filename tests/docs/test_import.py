"""The commands of docs/import.md, run as they stand there, and its table."""

from __future__ import annotations

import importlib.util
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import pytest
import safetensors.torch
import torch

from motorvae.export.importing.cli import import_main
from motorvae.runtime.bundle.load import load_bundle
from motorvae.runtime.sources.synthetic.vehicles import vehicle_picture

from ..export.importing.networks import pool
from ..export.importing.original_network import original_network, two_stage_file
from ..export.onnx_import.torch_graphs import exported

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "import.md").read_text(encoding="utf-8")
FACTORY = f"""
import sys
sys.path.insert(0, {str(ROOT / "tests" / "export" / "importing")!r})
from networks import pool as make
"""


def lines() -> list[list[str]]:
    blocks = re.findall(r"(?ms)^```sh\n(.*?)^```", PAGE)
    found = [line for block in blocks for line in block.splitlines()]
    return [shlex.split(line)[2:] for line in found if line.startswith("motorvae import")]


@pytest.fixture
def _files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A folder with what the examples import; their models reconstruct."""
    monkeypatch.chdir(tmp_path)
    path = sys.path[:]
    module = pool()
    exported(
        module.down, Path("encoder.onnx"), (3, 32, 32), ("mean", "log_var"), dynamo=True, opset=18
    )
    exported(module.up, Path("decoder.onnx"), (3, 8, 8), ("image",), dynamo=True, opset=18)
    two_stage_file(Path("motorvae.pth"), original_network())
    Path("my_vae.py").write_text(FACTORY, encoding="utf-8")
    safetensors.torch.save_file(module.state_dict(), "my_vae.safetensors")
    Path("photos").mkdir()
    for row in range(24):
        cv2.imwrite(f"photos/{row}.png", vehicle_picture(4, row, 64, "rgb"))
    if importlib.util.find_spec("diffusers") is not None:
        import diffusers

        torch.manual_seed(1)
        diffusers.AutoencoderKL(block_out_channels=(32,), norm_num_groups=8).save_pretrained(
            "sd-vae"
        )
    yield
    sys.path[:] = path
    for name in ("my_vae", "networks"):
        sys.modules.pop(name, None)


def test_there_is_a_line_for_each_way() -> None:
    assert [line[0] for line in lines()] == [
        *("encoder.onnx", "encoder.onnx", "motorvae.pth", "--module", "sd-vae/")
    ]


@pytest.mark.usefixtures("_files")
@pytest.mark.parametrize("line", lines(), ids=lambda line: " ".join(line)[:30])
def test_the_example_of_each_way_runs(line: list[str]) -> None:
    more = ["--engine", "none"]
    if line[0] == "sd-vae/":
        if importlib.util.find_spec("diffusers") is None:
            pytest.skip("diffusers is not installed")
        more += ["--anyway"]  # its weights are random
    if line[0] == "motorvae.pth":
        more = []  # a run alone
    assert import_main([*line, *more]) == 0
    if line[0] == "motorvae.pth":
        assert Path("runs/motorvae/model.safetensors").is_file()
        return
    output = line[line.index("--output") + 1] if "--output" in line else "bundle"
    assert all(report.passed for report in load_bundle(Path(output)).manifest.verification)


def test_the_page_has_the_table_that_was_measured() -> None:
    table = (ROOT / "docs" / "results" / "import.txt").read_text(encoding="utf-8")
    parts = table.strip().split("\n\n")
    assert len(parts) == 2
    assert all(part in PAGE for part in parts)
    assert table.count("\n|") > 12
