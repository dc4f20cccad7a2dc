"""Graphs of networks unlike the card's: every precision, and what is left out of them."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch

from motorvae.export.bundle import BundleWriter
from motorvae.export.graph_folder import GraphFolder, graph_keys
from motorvae.export.int8.graphs import Searched
from motorvae.export.int8.images import CalibrationImages
from motorvae.runtime.bundle.graph_key import Part, Precision, Target
from motorvae.runtime.core.errors import ConfigError, VerificationError
from motorvae.runtime.core.spec import ModelSpec

from .other_networks import (
    FLAT,
    SPATIAL,
    FlatDecoder,
    FlatEncoder,
    SpatialDecoder,
    SpatialEncoder,
    graph_of,
    pictures,
    reference_of,
)

Graphs = dict[Part, bytes]
FACTOR = 3e5


def serialised(model: ir.Model) -> bytes:
    return bytes(ir.to_proto(model).SerializeToString())


@pytest.fixture(scope="module")
def spatial() -> Graphs:
    """A pair whose decoder overflows FP16: one convolution larger, the next smaller."""
    torch.manual_seed(0)
    encoder, decoder = SpatialEncoder(), SpatialDecoder()
    decoder.up1.weight.data *= FACTOR
    decoder.up1.bias.data *= FACTOR
    decoder.up2.weight.data /= FACTOR
    return {
        "encoder": serialised(graph_of(encoder, SPATIAL.input_shape, "mu", "log_var")),
        "decoder": serialised(graph_of(decoder, (128,), "reconstruction")),
    }


@pytest.fixture(scope="module")
def flat() -> Graphs:
    torch.manual_seed(0)
    return {
        "encoder": serialised(graph_of(FlatEncoder(), FLAT.input_shape, "mu")),
        "decoder": serialised(graph_of(FlatDecoder(), (6,), "reconstruction")),
    }


def written(
    graphs: Graphs,
    spec: ModelSpec,
    folder: Path,
    precisions: Collection[Precision] = (),
    keep: Collection[str] = (),
    targets: Collection[Target] = ("onnx",),
) -> tuple[BundleWriter, tuple[Searched, ...]]:
    """Write the float32 graphs and others beside them, INT8 by default for ONNX Runtime."""
    reference = reference_of(graphs, spec, folder)
    (folder / "bundle").mkdir()
    files = GraphFolder(folder / "bundle", spec, "ab" * 32)
    writer = BundleWriter(files, reference, lambda _: None, keep)
    writer.derive("fp32", lambda part: ir.from_proto(onnx.load_from_string(graphs[part])))
    parts = [pictures(spec, count, seed) for seed, count in ((2, 24), (3, 16), (4, 32))]
    images = CalibrationImages(parts[0], "made", parts[1], parts[2])
    searched = writer.add(precisions, targets, images if "int8" in precisions else ())
    return writer, searched


def names_of(writer: BundleWriter) -> list[str]:
    return sorted(path.name for path in writer.files.folder.iterdir())


def test_which_graphs_there_are_follows_from_the_spec() -> None:
    card = ModelSpec()
    assert [key.title for key in graph_keys(card, "fp32")] == [
        "encoder fp32",
        "encoder fp32 mu",
        "decoder fp32",
        "decoder fp32 phases",
        "decoder fp32 phases for onnx",
    ]
    assert [key.title for key in graph_keys(card, "fp16")] == [
        "encoder fp16",
        "encoder fp16 luma",
        "encoder fp16 mu",
        "decoder fp16",
    ]
    assert [key.title for key in graph_keys(card, "bf16")] == [
        "encoder bf16 for openvino",
        "encoder bf16 mu for openvino",
        "decoder bf16 phases for openvino",
    ]
    assert [key.title for key in graph_keys(FLAT, "fp16")] == [
        "encoder fp16",
        "encoder fp16 luma",
        "decoder fp16",
    ]
    alone = FLAT.model_copy(update={"has_decoder": False})
    assert [key.title for key in graph_keys(alone, "bf16")] == [
        "encoder bf16 for openvino",
        "encoder bf16 luma for openvino",
    ]


def test_decoder_that_overflows_fp16_fails_with_its_layer_and_the_way_out(
    spatial: Graphs, tmp_path: Path
) -> None:
    writer, _ = written(spatial, SPATIAL, tmp_path, ["fp16"])
    with pytest.raises(VerificationError) as caught:
        writer.check_gate((), lambda *_: None)
    line = str(caught.value)
    assert "decoder fp16 activations: largest value inside, float32 " in line
    assert "(limit 65504); beyond FP16's 65504: node_conv2d_3 (Conv of up1) reaches " in line
    assert line.endswith("with --keep-float32 auto, or leave out --fp16")


@pytest.mark.parametrize("keep", [["auto"], ["up1", "node_upsample_nearest2d_1", "up2"]])
def test_what_overflows_is_kept_in_float32_and_recorded(
    keep: list[str], spatial: Graphs, tmp_path: Path
) -> None:
    writer, _ = written(spatial, SPATIAL, tmp_path, ["fp16"], keep)
    writer.check_gate((), lambda *_: None)
    kept = {entry.title: entry.kept_float32 for entry in writer.entries}
    names = ("node_conv2d_3", "node_upsample_nearest2d_1", "node_conv2d_4")
    assert set(names) <= set(kept["decoder fp16"])
    norm = ["node_mul_38", "node_mean_1", "node_add_85", "node_sqrt", "node_div"]
    for variant in ("", " luma", " mu"):  # the norm that is written out stays in any case
        assert [*kept[f"encoder fp16{variant}"]] == norm
    assert kept["encoder fp32"] == ()


def test_name_that_no_graph_has_is_refused(spatial: Graphs, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--keep-float32 up9: no node or module .* block.conv1"):
        written(spatial, SPATIAL, tmp_path, ["fp16"], ["up1", "up9"])


def test_spatial_latents_and_attention_pass_in_int8(spatial: Graphs, tmp_path: Path) -> None:
    writer, searched = written(spatial, SPATIAL, tmp_path, ["int8"])
    assert [(one.key.part, one.passed) for one in searched] == [
        ("encoder", True),
        ("decoder", True),
    ]
    assert {"encoder.mu.int8.onnx.onnx", "decoder.int8.onnx.onnx"} <= set(names_of(writer))


def test_encoder_without_log_var_or_decoder_has_what_it_can_have(
    flat: Graphs, tmp_path: Path
) -> None:
    alone = FLAT.model_copy(update={"has_decoder": False})
    graphs: Graphs = {"encoder": flat["encoder"]}
    writer, searched = written(graphs, alone, tmp_path, ["fp16", "int8"])
    writer.check_gate(searched, lambda *_: None)
    assert [one.key.title for one in searched] == ["encoder int8 luma for onnx"]
    assert names_of(writer) == [
        "encoder.fp16.onnx",
        "encoder.luma.fp16.onnx",
        *(["encoder.luma.int8.onnx.onnx"] if searched[0].passed else []),
        "encoder.luma.onnx",
        "encoder.onnx",
    ]
    assert {report.output for report in writer.reports} == {"mu", "activations"}


def test_graph_that_int8_cannot_do_is_left_out_with_figures(flat: Graphs, tmp_path: Path) -> None:
    # Its latents hardly vary, and with signed values and so few layers nothing is left to try.
    writer, searched = written(flat, FLAT, tmp_path, ["int8"], targets=["tensorrt"])
    writer.check_gate(searched, lambda *_: None)
    (one,) = searched
    assert not one.passed
    assert one.sentence.startswith("the INT8 graphs for tensorrt are left out: encoder int8 luma ")
    assert "max error / spread over data" in one.sentence
    assert not [name for name in names_of(writer) if "int8" in name or "candidate" in name]


def test_planted_fault_in_a_decoder_of_spatial_latents_fails(
    spatial: Graphs, tmp_path: Path
) -> None:
    reference = reference_of(spatial, SPATIAL, tmp_path)
    model = ir.from_proto(onnx.load_from_string(spatial["decoder"]))
    bias = model.graph.initializers["last.bias"]
    assert bias.const_value is not None
    wrong = bias.const_value.numpy() + np.float32([0, 0.02, 0])
    bias.const_value = ir.tensor(wrong, name="last.bias")
    (tmp_path / "bundle").mkdir()
    writer = BundleWriter(GraphFolder(tmp_path / "bundle", SPATIAL, "ab" * 32), reference)
    graphs = {**spatial, "decoder": serialised(model)}
    writer.derive("fp32", lambda part: ir.from_proto(onnx.load_from_string(graphs[part])))
    with pytest.raises(VerificationError, match=r"decoder fp32 reconstruction: max error 0\.003"):
        writer.check_gate((), lambda *_: None)
