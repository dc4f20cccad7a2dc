"""Weights of a bundle's graphs in one file: each once, and what is done with such a bundle."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper
from onnx.external_data_helper import uses_external_data

from motorvae.commands import main
from motorvae.export.shared_weights import LEAST_BYTES, share_weights
from motorvae.runtime.bundle.graph_key import GraphKey
from motorvae.runtime.bundle.load import Bundle, load_bundle
from motorvae.runtime.bundle.manifest import MANIFEST, WEIGHTS, GraphEntry
from motorvae.runtime.bundle.weights import DEFLATED, PAGE, QUANTIZED, ROUNDED, whole_graph
from motorvae.runtime.core.atomic_files import sha256_of
from motorvae.runtime.engines.base import Batch
from motorvae.runtime.engines.open import EngineRequest, open_engine, open_file
from motorvae.runtime.sources.synthetic.vehicles import vehicle
from motorvae.training.hub.folder import copy_model

ChangeManifest = Callable[[Path, Callable[[dict[str, Any]], object]], None]


@pytest.fixture
def copy(external_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(external_bundle, tmp_path / "bundle"))


@pytest.fixture
def whole(copy: Path) -> Path:
    """The same bundle as earlier versions wrote it: all weights in the files of the graphs."""
    assert main(["export", "--model", str(copy), "--no-external-data"]) == 0
    return copy


def graphs_of(bundle: Bundle) -> dict[str, bytes]:
    return {entry.title: bundle.content(entry) for entry in bundle.manifest.graphs}


def pictures(count: int = 2) -> Batch:
    return np.random.default_rng(5).random((count, 1, 64, 64), np.float32)


def test_each_weight_is_kept_once_on_a_page_of_its_own(external_bundle: Path) -> None:
    bundle = load_bundle(external_bundle)
    placed: dict[bytes, set[int]] = {}
    ends = 0
    for entry in bundle.manifest.graphs:
        model = onnx.load(external_bundle / entry.file, load_external_data=False)
        inside = onnx.load_from_string(bundle.content(entry))
        for kept, tensor in zip(model.graph.initializer, inside.graph.initializer, strict=True):
            assert uses_external_data(kept) == (len(tensor.raw_data) >= LEAST_BYTES)
            if uses_external_data(kept):
                said = {one.key: one.value for one in kept.external_data}
                assert int(said["offset"]) % PAGE == 0
                ends = max(ends, int(said["offset"]) + int(said["length"]))
                location = ROUNDED if tensor.data_type == onnx.TensorProto.FLOAT16 else WEIGHTS
                assert said["location"].startswith(location)
                placed.setdefault(tensor.raw_data, set()).add(int(said["offset"]))
    assert all(len(offsets) == 1 for offsets in placed.values())
    floats = [data for data in placed if len(data) == 4 * 32 * 32 * 64]
    assert len(floats) == 3  # of two heads and the decoder's first layer
    held = (external_bundle / WEIGHTS).stat().st_size
    assert sum(map(len, floats)) < held < sum(map(len, floats)) + LEAST_BYTES
    assert ends < held  # what FP16 weights round to lies behind


def test_int8_weights_are_made_of_float32_ones_or_deflated_where_no_stream_starts_with_them(
    external_bundle: Path, tmp_path: Path
) -> None:
    draw = np.random.default_rng(4)
    exact = draw.normal(0, 0.05, (512, 256)).astype(np.float32)
    scales = 127 / np.abs(exact).max(axis=1, keepdims=True)
    weights = {
        "linear": np.rint(exact * scales).astype(np.int8),
        "narrow": draw.integers(-3, 4, exact.shape).astype(np.int8),
        "wide": draw.integers(-127, 128, exact.shape).astype(np.int8),
    }
    entry = load_bundle(external_bundle).entry(GraphKey("encoder"))
    graphs = [
        written(tmp_path, {"linear.weight": exact}, entry),
        *(
            written(
                tmp_path,
                {f"{name}.weight_quantized": weights[name] for name in names},
                entry.model_copy(update={"precision": "int8", "variant": variant, "file": file}),
            )
            for file, variant, names in (
                ("int8.all.onnx", "luma", ("linear", "narrow", "wide")),
                ("int8.first.onnx", "mu", ("narrow",)),
                ("int8.second.onnx", "luma", ("linear",)),
            )
        ),
    ]
    whole = {one.file: (tmp_path / one.file).read_bytes() for one in graphs}
    share_weights(tmp_path, graphs)
    locations = {}
    for file, data in whole.items():
        kept = (tmp_path / file).read_bytes()
        assert whole_graph(kept, tmp_path, len(data)) == data
        for tensor in onnx.load_from_string(kept).graph.initializer:
            said = {one.key: one.value for one in tensor.external_data}
            locations[file, tensor.name.partition(".")[0]] = said["location"].partition(".")[0]
    assert locations["int8.all.onnx", "linear"] == QUANTIZED
    assert locations["int8.second.onnx", "linear"] == QUANTIZED
    assert locations["int8.all.onnx", "wide"] == "weights"
    assert locations["int8.first.onnx", "narrow"] == "weights"
    assert locations["int8.all.onnx", "narrow"] == "weights"  # it is there already
    shared = (tmp_path / WEIGHTS).stat().st_size
    assert shared < exact.nbytes + 2.1 * weights["wide"].nbytes

    def deflates(kept: list[GraphEntry]) -> bool:
        for one in kept:
            (tmp_path / one.file).write_bytes(whole[one.file])
        share_weights(tmp_path, kept)
        return DEFLATED.encode() in (tmp_path / "int8.all.onnx").read_bytes()

    exact_one, all_of_them, _, second = graphs
    leaner = second.model_copy(update={"variant": "mu"})
    assert deflates([exact_one, all_of_them, leaner])
    assert (tmp_path / WEIGHTS).stat().st_size < shared + weights["linear"].nbytes * 0.6
    # Where no form is leaner, as of a model without log_var, a stream starts with this one.
    assert not deflates([exact_one, all_of_them])


def written(folder: Path, weights: dict[str, npt.NDArray[Any]], entry: GraphEntry) -> GraphEntry:
    """Write a graph that has weights and nothing else; return its entry in the manifest."""
    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph([], "graph", [], [], tensors)
    (folder / entry.file).write_bytes(helper.make_model(graph).SerializeToString())
    return entry


def test_what_is_made_is_what_was_verified_to_the_bit(external_bundle: Path, whole: Path) -> None:
    made, written = load_bundle(external_bundle), load_bundle(whole)
    assert all(entry.stored for entry in made.manifest.graphs)
    assert not any(entry.stored for entry in written.manifest.graphs)
    assert not (whole / WEIGHTS).exists()
    for one, other in zip(made.manifest.graphs, written.manifest.graphs, strict=True):
        assert (one.sha256, one.size_bytes) == (other.sha256, other.size_bytes)
        assert sha256_of(whole / other.file) == one.sha256
        onnx.checker.check_model(whole / other.file, full_check=True)


@pytest.mark.parametrize("engine", ["onnx", "openvino"])
def test_other_programs_read_float32_graphs_in_their_folder(
    external_bundle: Path, engine: str
) -> None:
    path, taken = external_bundle / "encoder.onnx", pictures()
    with open_engine(load_bundle(external_bundle), GraphKey("encoder")) as backend:
        expected = backend.run(taken)["mu"]
    if engine == "onnx":
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        (found,) = session.run(["mu"], {"image": taken})
    else:
        pytest.importorskip("openvino")
        with open_file(path, EngineRequest("openvino"), external_data=True) as backend:
            found = backend.run(taken)["mu"]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_a_half_that_another_program_cannot_read_is_verified_in_place(
    external_bundle: Path, whole: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(Exception, match=ROUNDED):
        onnxruntime.InferenceSession(external_bundle / "encoder.fp16.onnx")
    (tmp_path / "images").mkdir()
    for number in range(8):
        image = vehicle(1, number, 64)[0]
        assert cv2.imwrite(str(tmp_path / "images" / f"{number}.png"), image)
    figures = []
    for folder in (external_bundle, whole):
        result = tmp_path / f"{len(figures)}.json"
        graphs = (folder / "encoder.onnx", folder / "encoder.fp16.onnx")
        words = (*graphs, tmp_path / "images", "--json", result)
        code = main(["verify", *map(str, words)])
        assert code == 0, capsys.readouterr().err
        figures.append(json.loads(result.read_text())["outputs"])
    assert figures[0] == figures[1]


def test_altered_weights_are_said_where_a_graph_of_a_bundle_is_verified_in_place(
    copy: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "images").mkdir()
    for number in range(8):
        image = vehicle(1, number, 64)[0]
        assert cv2.imwrite(str(tmp_path / "images" / f"{number}.png"), image)
    graphs = (copy / "encoder.onnx", copy / "encoder.fp16.onnx")
    data = bytearray((copy / WEIGHTS).read_bytes())
    data[3] ^= 0x80  # a sign
    (copy / WEIGHTS).write_bytes(data)
    assert main(["verify", *map(str, graphs), str(tmp_path / "images")]) != 0
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"{WEIGHTS} was altered" in said


@pytest.mark.parametrize("name", [MANIFEST, WEIGHTS])
def test_a_graph_beside_a_file_of_another_program_is_verified_as_it_is(
    whole: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / "images").mkdir()
    for number in range(8):
        image = vehicle(1, number, 64)[0]
        assert cv2.imwrite(str(tmp_path / "images" / f"{number}.png"), image)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / name).write_text('{"name": "a web page"}')
    graphs = [tmp_path / "mine" / one for one in ("encoder.onnx", "encoder.fp16.onnx")]
    for graph in graphs:
        shutil.copy(whole / graph.name, graph)
    assert main(["verify", *map(str, graphs), str(tmp_path / "images")]) == 0


def test_precisions_are_added_and_graphs_stay_the_graphs_they_were(
    copy: Path, change_manifest: ChangeManifest
) -> None:
    before = graphs_of(load_bundle(copy))
    names = {one.file for one in load_bundle(copy).manifest.graphs if one.precision == "fp16"}

    def without_fp16(content: dict[str, Any]) -> None:
        for name in ("graphs", "verification"):
            content[name] = [one for one in content[name] if one["precision"] != "fp16"]

    change_manifest(copy, without_fp16)
    for name in names:
        (copy / name).unlink()
    assert main(["export", "--model", str(copy), "--fp16", "--engine", "none"]) == 0
    bundle = load_bundle(copy)
    assert graphs_of(bundle) == before
    assert [one.file for one in bundle.manifest.files].count(WEIGHTS) == 1


def test_a_bundle_of_whole_graphs_is_read_and_shares_its_weights_when_it_is_added_to(
    whole: Path, external_bundle: Path
) -> None:
    before = graphs_of(load_bundle(external_bundle))
    assert graphs_of(load_bundle(whole)) == before
    words = ["export", "--model", str(whole), "--whole-frame", "bgr:96x80"]
    assert main(words) == 0
    # As it was written: somebody's program may read these files.
    assert not any(entry.stored for entry in load_bundle(whole).manifest.graphs)
    manifest = json.loads((whole / MANIFEST).read_text())
    (whole / MANIFEST).write_text(json.dumps(manifest | {"schema_version": 6}))  # of an earlier one
    assert main([*words, "--replace"]) == 0
    bundle = load_bundle(whole)
    after = graphs_of(bundle)
    assert {title: after[title] for title in before} == before
    stored = {entry.file for entry in bundle.manifest.graphs if entry.stored}
    assert len(stored) == len(before)
    assert not {"encoder.bgr.onnx", "encoder.bgr.fp16.onnx"} & stored  # for programs of others
    assert main([*words, "--replace", "--no-external-data"]) == 0
    assert not any(entry.stored for entry in load_bundle(whole).manifest.graphs)


def test_it_goes_to_the_hub_to_triton_and_under_a_signature(
    copy: Path,
    external_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    copy_model(copy, tmp_path / "hub")
    assert graphs_of(load_bundle(tmp_path / "hub")) == graphs_of(load_bundle(external_bundle))
    assert main(["export", "--model", str(copy), "--triton", str(tmp_path / "served")]) == 0
    served = tmp_path / "served" / "motorvae_encoder" / "1" / "model.onnx"
    assert sha256_of(served) == load_bundle(copy).entry(GraphKey("encoder")).sha256
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    assert main(["keys", "new", "factory"]) == 0
    assert main(["sign", str(copy)]) == 0
    assert main(["keys", "trust", str(tmp_path / "config/motorvae/keys/factory.pub")]) == 0
    assert main(["verify-signature", str(copy)]) == 0
    data = bytearray((copy / WEIGHTS).read_bytes())
    data[-1] ^= 1
    (copy / WEIGHTS).write_bytes(data)
    capsys.readouterr()
    assert main(["verify-signature", str(copy)]) == 1
    assert f"'{WEIGHTS}' was altered after it was signed" in capsys.readouterr().err


def test_without_its_weights_it_is_one_line(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (copy / WEIGHTS).unlink()
    assert main(["export", "--model", str(copy), "--no-external-data"]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"{copy / WEIGHTS} is missing: copy the whole bundle again" in said
