from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from motorvae.runtime.bundle import load
from motorvae.runtime.bundle.graph_key import GraphKey
from motorvae.runtime.bundle.load import load_bundle
from motorvae.runtime.bundle.manifest import GraphReport, Metric
from motorvae.runtime.core.errors import BundleError
from motorvae.runtime.core.spec import ModelSpec
from motorvae.runtime.engines.base import CpuRunner
from motorvae.runtime.engines.open import EngineRequest, open_engine

ChangeManifest = Callable[[Path, Callable[[dict[str, Any]], object]], None]


def refusal(folder: Path) -> str:
    """The one line with which a bundle is refused."""
    with pytest.raises(BundleError) as caught:
        load_bundle(folder)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_a_whole_bundle_loads(small_bundle: Path, small_spec: ModelSpec) -> None:
    bundle = load_bundle(small_bundle)
    assert bundle.spec == small_spec
    present = {(entry.graph, entry.precision) for entry in bundle.manifest.graphs}
    assert present == {(g, p) for g in ("encoder", "decoder") for p in ("fp32", "fp16")}
    for entry in bundle.manifest.graphs:
        assert bundle.path(entry).is_file()
    assert all(report.passed for report in bundle.manifest.verification)


def test_the_contract_names_the_tensors(small_spec: ModelSpec) -> None:
    encoder, decoder = GraphKey("encoder"), GraphKey("decoder")
    (image,), (mu, log_var) = encoder.inputs(small_spec), encoder.outputs(small_spec)
    assert (image.name, image.shape) == ("image", ("batch", 1, 32, 32))
    assert [(mu.name, mu.shape), (log_var.name, log_var.shape)] == [
        ("mu", ("batch", 8)),
        ("log_var", ("batch", 8)),
    ]
    (z,), (reconstruction,) = decoder.inputs(small_spec), decoder.outputs(small_spec)
    assert (z.name, reconstruction.name) == ("z", "reconstruction")


@pytest.mark.parametrize("value", [float("inf"), float("nan"), 0.1, 1e-30])
def test_a_figure_survives_json_whatever_it_is(value: float) -> None:
    read = Metric.model_validate_json(Metric(name="x", value=value).model_dump_json())
    assert read.value == pytest.approx(value, rel=0, abs=0, nan_ok=True)


def test_no_folder(tmp_path: Path) -> None:
    text = refusal(tmp_path / "none")
    assert text == (
        f"no bundle at {tmp_path / 'none'}: run motorvae-export --output {tmp_path / 'none'} first"
    )
    (tmp_path / "file").touch()
    assert "no bundle at" in refusal(tmp_path / "file")


def test_a_folder_that_is_no_bundle(tmp_path: Path) -> None:
    assert "is no bundle, it has no manifest.json: give" in refusal(tmp_path)
    (tmp_path / "manifest.json").mkdir()
    assert "Is a directory" in refusal(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\x00\xff\xfe" * 50, b"schema_version: 1", b"[" * 5000, b'{"a": NaN}']
)
def test_a_manifest_that_is_not_json(bundle_copy: Path, content: bytes) -> None:
    (bundle_copy / "manifest.json").write_bytes(content)
    assert "manifest.json is not JSON" in refusal(bundle_copy)


@pytest.mark.parametrize("content", [b"[]", b"7", b'"text"', b"null", b"{}"])
def test_a_manifest_without_a_version(bundle_copy: Path, content: bytes) -> None:
    (bundle_copy / "manifest.json").write_bytes(content)
    assert "schema_version=None, and this motorVAE reads 7" in refusal(bundle_copy)


@pytest.mark.parametrize("version", [0, 1, "2", None, [1] * 5000, {"a": "b\nc"}])
def test_another_schema_version(
    bundle_copy: Path, change_manifest: ChangeManifest, version: object
) -> None:
    change_manifest(bundle_copy, lambda content: content.update(schema_version=version))
    text = refusal(bundle_copy)
    assert f"schema_version={repr(version)[:20]}" in text
    assert "export the bundle again with this version" in text
    assert len(text) < 300


def test_a_bundle_of_version_4_keeps_its_matrix(
    bundle_copy: Path, change_manifest: ChangeManifest
) -> None:
    def as_before(content: dict[str, Any]) -> None:
        content["schema_version"] = 4
        del content["model"]["matrix"]

    change_manifest(bundle_copy, as_before)
    assert load_bundle(bundle_copy).manifest.model.matrix == "bt601"


def test_a_bundle_of_version_2_loads_without_what_it_lacks(
    bundle_copy: Path, change_manifest: ChangeManifest
) -> None:
    def as_before(content: dict[str, Any]) -> None:
        content["schema_version"] = 2
        del content["model"]["matrix"]
        for name in ("remarks", "ood"):
            del content[name]
        for report in content["verification"]:
            del report["notes"]
            for metric in report["metrics"]:
                del metric["bound"]

    change_manifest(bundle_copy, as_before)
    manifest = load_bundle(bundle_copy).manifest
    assert (manifest.schema_version, manifest.remarks, manifest.ood) == (2, (), None)
    assert manifest.model.matrix == "bt601"  # as whatever names none was taken then
    assert all(m.bound is None for report in manifest.verification for m in report.metrics)


def test_a_failure_says_which_way_fresh_images_may_go() -> None:
    report = GraphReport(
        graph="decoder",
        precision="int8",
        output="reconstruction",
        engine="none",
        reference="none",
        images=64,
        metrics=(
            Metric(name="error", value=0.5, limit=0.6, bound=0.7, passed=False),
            Metric(name="PSNR", value=45, limit=44, bound=43, passed=False, higher_is_better=True),
        ),
    )
    error, psnr = report.failures
    assert error.endswith("error 0.5, up to 0.7 in the next 128 images (limit 0.6)")
    assert psnr.endswith("PSNR 45, down to 43 in the next 128 images (limit 44)")


def test_an_extra_key_is_named(bundle_copy: Path, change_manifest: ChangeManifest) -> None:
    change_manifest(bundle_copy, lambda content: content.update(surprise=1))
    assert "manifest.json: surprise: Extra inputs are not permitted" in refusal(bundle_copy)


def test_an_extra_key_further_in_is_named(
    bundle_copy: Path, change_manifest: ChangeManifest
) -> None:
    change_manifest(bundle_copy, lambda content: content["graphs"][0].update(surprise=1))
    assert "graphs.0.surprise" in refusal(bundle_copy)


@pytest.mark.parametrize(
    "key", ["producer", "created", "weights_sha256", "model", "graphs", "files", "verification"]
)
def test_a_missing_key_is_named(
    bundle_copy: Path, change_manifest: ChangeManifest, key: str
) -> None:
    change_manifest(bundle_copy, lambda content: content.pop(key))
    assert f"manifest.json: {key}: Field required" in refusal(bundle_copy)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda c: c["model"].update(image_size=33), "image_size=33: 33 is not a multiple of 16"),
        (lambda c: c["model"].update(latent_size="many"), "latent_size=many"),
        (lambda c: c["graphs"][0].update(sha256="short"), "sha256=short"),
        (lambda c: c["graphs"][0].update(size_bytes=-1), "size_bytes=-1"),
        (lambda c: c["graphs"][0].update(precision="fp8"), "precision=fp8"),
        (lambda c: c["graphs"][0]["inputs"][0].update(dtype="float64"), "dtype=float64"),
    ],
)
def test_a_value_out_of_range_is_named(
    bundle_copy: Path,
    change_manifest: ChangeManifest,
    edit: Callable[[dict[str, Any]], object],
    words: str,
) -> None:
    change_manifest(bundle_copy, edit)
    assert words in refusal(bundle_copy)


@pytest.mark.parametrize("name", ["encoder.onnx", "decoder.fp16.onnx", "latents.npz"])
def test_a_missing_file_is_named(bundle_copy: Path, name: str) -> None:
    (bundle_copy / name).unlink()
    assert f"{bundle_copy / name} is missing" in refusal(bundle_copy)


def test_a_truncated_file_is_named_with_both_sizes(bundle_copy: Path) -> None:
    path = bundle_copy / "encoder.onnx"
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    text = refusal(bundle_copy)
    assert f"{path} has {len(data) - 1} bytes, and the manifest says {len(data)}" in text


def test_one_altered_byte_is_noticed(bundle_copy: Path) -> None:
    path = bundle_copy / "decoder.fp16.onnx"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert f"{path} was altered: sha256" in refusal(bundle_copy)


@pytest.mark.parametrize("name", ["../secret", "sub/../../secret", "/etc/hostname"])
def test_a_path_that_leaves_the_folder_is_refused(
    bundle_copy: Path, change_manifest: ChangeManifest, name: str
) -> None:
    (bundle_copy.parent / "secret").write_text("")
    change_manifest(bundle_copy, lambda content: content["files"][0].update(file=name))
    assert f"names {name!r}, which leaves the bundle: do not use it" in refusal(bundle_copy)


def test_an_absolute_path_is_refused_even_inside(
    bundle_copy: Path, change_manifest: ChangeManifest
) -> None:
    inside = str((bundle_copy / "latents.npz").resolve())
    change_manifest(bundle_copy, lambda content: content["files"][0].update(file=inside))
    assert "leaves the bundle" in refusal(bundle_copy)


def test_a_link_that_leaves_the_folder_is_refused(bundle_copy: Path) -> None:
    outside = bundle_copy.parent / "outside.onnx"
    (bundle_copy / "encoder.onnx").rename(outside)
    (bundle_copy / "encoder.onnx").symlink_to(outside)
    assert "names 'encoder.onnx', which leaves the bundle" in refusal(bundle_copy)


def test_a_link_to_a_whole_bundle_is_fine(small_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(small_bundle)
    assert load_bundle(tmp_path / "link").manifest == load_bundle(small_bundle).manifest


def test_a_link_to_itself_is_refused(bundle_copy: Path) -> None:
    (bundle_copy / "encoder.onnx").unlink()
    (bundle_copy / "encoder.onnx").symlink_to("encoder.onnx")
    assert "encoder.onnx" in refusal(bundle_copy)


@pytest.mark.parametrize("name", ["a\0b", "x" * 300, "", ".", "encoder.onnx/below"])
def test_a_name_that_no_file_has_is_refused(
    bundle_copy: Path, change_manifest: ChangeManifest, name: str
) -> None:
    change_manifest(bundle_copy, lambda content: content["files"][0].update(file=name))
    refusal(bundle_copy)


def test_shapes_in_the_manifest_must_be_those_of_its_model(
    bundle_copy: Path, change_manifest: ChangeManifest
) -> None:
    change_manifest(bundle_copy, lambda content: content["model"].update(latent_size=16))
    text = refusal(bundle_copy)
    assert "inputs and outputs are not those of a" in text
    assert "latent_size=16" in text


def test_a_graph_that_is_absent_is_asked_for_with_the_command(
    bundle_copy: Path, change_manifest: ChangeManifest
) -> None:
    def only_fp32(content: dict[str, Any]) -> None:
        content["graphs"] = [g for g in content["graphs"] if g["precision"] == "fp32"]

    change_manifest(bundle_copy, only_fp32)
    for path in bundle_copy.glob("*.fp16.onnx"):
        path.unlink()
    bundle = load_bundle(bundle_copy)
    with pytest.raises(BundleError) as caught:
        bundle.entry(GraphKey("encoder", "fp16"))
    assert "has no encoder fp16 (it has encoder fp32" in str(caught.value)
    assert f"motorvae-export --model {bundle_copy} --fp16" in str(caught.value)


def test_one_file_under_two_hashes_is_refused(
    bundle_copy: Path, change_manifest: ChangeManifest
) -> None:
    def twice(content: dict[str, Any]) -> None:
        content["graphs"].append(
            content["graphs"][0] | {"precision": "bf16", "made_for": "openvino", "sha256": "0" * 64}
        )

    change_manifest(bundle_copy, twice)
    assert "encoder.onnx is listed with two hashes; export" in refusal(bundle_copy)


def test_a_manifest_without_a_graph_or_with_one_twice_is_refused(
    bundle_copy: Path, change_manifest: ChangeManifest
) -> None:
    change_manifest(bundle_copy, lambda content: content["graphs"].append(content["graphs"][0]))
    assert "encoder fp32 is listed twice; export the bundle again" in refusal(bundle_copy)
    change_manifest(bundle_copy, lambda content: content["graphs"].clear())
    assert "graphs=[]" in refusal(bundle_copy)


def test_a_stream_hashes_what_it_opens_and_no_more(bundle_copy: Path) -> None:
    path = bundle_copy / "decoder.onnx"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    bundle = load_bundle(bundle_copy, hash_all=False)
    with open_engine(bundle, GraphKey("encoder")):
        pass
    with pytest.raises(BundleError, match=r"decoder\.onnx was altered"):
        open_engine(bundle, GraphKey("decoder"))
    assert "decoder.onnx was altered" in refusal(bundle_copy)


def replace_graph(folder: Path, data: bytes) -> None:
    """Put other bytes in the encoder's place, with a manifest that vouches for them."""
    (folder / "encoder.onnx").write_bytes(data)
    path = folder / "manifest.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    for entry in content["graphs"]:
        if entry["file"] == "encoder.onnx":
            entry.update(sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))
    path.write_text(json.dumps(content), encoding="utf-8")


def test_a_graph_other_than_announced_is_refused_with_both_sides(bundle_copy: Path) -> None:
    replace_graph(bundle_copy, (bundle_copy / "decoder.onnx").read_bytes())
    text = refusal(bundle_copy)  # the hash is right
    assert "{'z': ('float32', ('batch', 8))}" in text
    assert "{'image': ('float32', ('batch', 1, 32, 32))}" in text


@pytest.mark.parametrize("data", [b"", b"no protobuf", bytes(5000)])
def test_bytes_that_are_no_graph_are_refused(bundle_copy: Path, data: bytes) -> None:
    replace_graph(bundle_copy, data)
    assert "encoder.onnx is not opened, as no encoder fp32 of ours is like it" in refusal(
        bundle_copy
    )


def test_a_graph_without_inputs_is_refused(bundle_copy: Path) -> None:
    import onnx
    from onnx import TensorProto, helper

    value = helper.make_tensor("v", TensorProto.FLOAT, [1], [1.0])
    node = helper.make_node("Sigmoid", ["v"], ["mu"])
    output = helper.make_tensor_value_info("mu", TensorProto.FLOAT, [1])
    graph = helper.make_graph([node], "g", [], [output], [value])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.checker.check_model(model)
    replace_graph(bundle_copy, model.SerializeToString())
    assert "it has {}, and the manifest announces {'image': " in refusal(bundle_copy)


def test_a_stream_looks_into_a_graph_before_an_engine_does(bundle_copy: Path) -> None:
    replace_graph(bundle_copy, b"\x08\x0a")
    bundle = load_bundle(bundle_copy, hash_all=False)
    with pytest.raises(BundleError, match=r"encoder\.onnx is not opened"):
        open_engine(bundle, GraphKey("encoder"))


@pytest.mark.parametrize("engine", ["onnx", "openvino"])
@pytest.mark.parametrize("hash_all", [False, True])
def test_what_was_checked_is_what_an_engine_gets(
    bundle_copy: Path, monkeypatch: pytest.MonkeyPatch, engine: CpuRunner, hash_all: bool
) -> None:
    """Whoever can write the file swaps it as soon as it was looked into."""
    pytest.importorskip({"onnx": "onnxruntime"}.get(engine, engine))
    bundle = load_bundle(bundle_copy, hash_all=hash_all)
    real = load.check_graph

    def swapping(data: bytes, *rest: Any) -> None:
        real(data, *rest)
        (bundle_copy / "encoder.onnx").write_bytes(b"another program")

    monkeypatch.setattr(load, "check_graph", swapping)
    with open_engine(bundle, GraphKey("encoder"), EngineRequest(backend=engine)) as encoder:
        assert set(encoder.run(np.zeros((1, 1, 32, 32), np.float32))) == {"mu", "log_var"}
    with pytest.raises(BundleError, match=r"encoder\.onnx has|encoder\.onnx was altered"):
        open_engine(bundle, GraphKey("encoder"), EngineRequest(backend=engine))


@pytest.mark.parametrize("name", ["encoder.onnx.data", "more.ort", "weights.bin", "libx.so.1"])
def test_what_an_engine_could_open_and_nobody_listed_is_refused(
    bundle_copy: Path, name: str
) -> None:
    (bundle_copy / name).write_bytes(b"x")
    assert (
        f"{bundle_copy / name} lies in the bundle and is not in its manifest: move it"
        in refusal(bundle_copy)
    )


def test_what_is_no_plain_file_is_refused_and_notes_are_not(bundle_copy: Path) -> None:
    (bundle_copy / "README.txt").write_text("of the car park")
    (bundle_copy / "notes").mkdir()
    load_bundle(bundle_copy)
    os.mkfifo(bundle_copy / "pipe")
    assert "pipe lies in the bundle and is no plain file" in refusal(bundle_copy)
    (bundle_copy / "pipe").unlink()
    (bundle_copy / "engines").symlink_to("notes")
    assert "engines lies in the bundle and is no plain file" in refusal(bundle_copy)


@pytest.mark.parametrize("name", ["encoder.ort", "encoder.onnx.xml", "encoder"])
def test_a_graph_that_is_no_onnx_file_is_refused(
    bundle_copy: Path, change_manifest: ChangeManifest, name: str
) -> None:
    (bundle_copy / "encoder.onnx").rename(bundle_copy / name)
    change_manifest(bundle_copy, lambda content: content["graphs"][0].update(file=name))
    assert f"{name} is named as a graph and is no .onnx file" in refusal(bundle_copy)


def test_a_file_that_no_model_of_these_sizes_has_is_refused_unread(
    bundle_copy: Path, change_manifest: ChangeManifest
) -> None:
    size = 1 << 40
    with (bundle_copy / "encoder.onnx").open("r+b") as file:
        file.truncate(size)
    change_manifest(bundle_copy, lambda content: content["graphs"][0].update(size_bytes=size))
    assert f"has {size} bytes, and for this model" in refusal(bundle_copy)
