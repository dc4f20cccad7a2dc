"""Graphs whose weights lie in the bundle's file of weights: what is made of them, and of lies."""

from __future__ import annotations

import hashlib
import json
import shutil
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from motorvae.runtime.bundle.graph_key import GraphKey
from motorvae.runtime.bundle.load import load_bundle
from motorvae.runtime.bundle.made_weights import rounded_of
from motorvae.runtime.bundle.manifest import WEIGHTS
from motorvae.runtime.bundle.weights import (
    ROUNDED,
    Place,
    made_whole,
    whole_graph,
)
from motorvae.runtime.core.errors import BundleError
from motorvae.runtime.engines.open import EngineRequest, open_engine
from motorvae.runtime.engines.trial.child import ALTERED
from motorvae.runtime.engines.trial.child import main as child

ChangeManifest = Callable[[Path, Callable[[dict[str, Any]], object]], None]
ENCODER, HALF = GraphKey("encoder"), GraphKey("encoder", "fp16")


@pytest.fixture
def copy(external_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(external_bundle, tmp_path / "bundle"))


def opened(folder: Path, key: GraphKey = ENCODER) -> None:
    """Open a graph as a stream does, which hashes nothing that it does not run."""
    open_engine(load_bundle(folder, hash_all=False), key).close()


def with_constant(folder: Path, change: Callable[[onnx.TensorProto], object]) -> bytes:
    """Return the FP16 encoder's file with one constant changed that lies elsewhere."""
    model = onnx.load(folder / "encoder.fp16.onnx", load_external_data=False)
    change(next(one for one in model.graph.initializer if one.external_data))
    return model.SerializeToString()


def said(tensor: onnx.TensorProto, **entries: str | None) -> None:
    """Change what a constant says of its place; None takes a key away."""
    known = {one.key: one.value for one in tensor.external_data} | entries
    tensor.ClearField("external_data")
    for key, value in known.items():
        if value is not None:
            tensor.external_data.add(key=key, value=value)


def places_of(folder: Path) -> list[dict[str, str]]:
    """Where the float32 encoder's constants lie that are not in it."""
    model = onnx.load(folder / "encoder.onnx", load_external_data=False)
    return [
        {one.key: one.value for one in tensor.external_data}
        for tensor in model.graph.initializer
        if tensor.external_data
    ]


def flipped(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(data)


def test_a_graph_with_all_of_its_constants_is_returned_as_it_is(small_bundle: Path) -> None:
    data = (small_bundle / "encoder.onnx").read_bytes()
    assert whole_graph(data, small_bundle / "nowhere", len(data)) is data
    assert made_whole(small_bundle / "encoder.onnx") is None


def test_every_altered_byte_of_the_weights_is_noticed_before_anything_runs(
    copy: Path, external_bundle: Path
) -> None:
    whole = (external_bundle / WEIGHTS).read_bytes()
    assert len(places_of(copy)) == 2
    for place in places_of(copy):
        start = int(place["offset"])
        for at in (start, start + int(place["length"]) - 1):
            (copy / WEIGHTS).write_bytes(whole)
            opened(copy)
            flipped(copy / WEIGHTS, at)
            with pytest.raises(BundleError, match=rf"{WEIGHTS} was altered: with it, encoder\.onn"):
                opened(copy)
            with pytest.raises(BundleError, match=rf"{WEIGHTS} was altered"):
                load_bundle(copy)
        with pytest.raises(BundleError, match=rf"{WEIGHTS} was altered: with it, encoder\.fp16"):
            opened(copy, HALF)  # the last byte of a number is its sign


def test_weights_that_are_cut_exchanged_or_gone_are_named(
    copy: Path, external_bundle: Path
) -> None:
    path, whole = copy / WEIGHTS, (external_bundle / WEIGHTS).read_bytes()
    bundle = load_bundle(copy, hash_all=False)
    path.write_bytes(whole[:-1])
    with pytest.raises(BundleError, match=rf"{WEIGHTS} has {len(whole) - 1} bytes"):
        load_bundle(copy, hash_all=False)
    path.write_bytes(whole[:5000])  # while a bundle is open
    with pytest.raises(BundleError, match=rf"cannot be made whole: {WEIGHTS} is cut short"):
        open_engine(bundle, ENCODER)
    path.write_bytes(whole[::-1])
    with pytest.raises(BundleError, match=rf"{WEIGHTS} was altered"):
        opened(copy)
    path.unlink()
    with pytest.raises(BundleError, match=rf"{WEIGHTS} is missing"):
        opened(copy)
    path.symlink_to(external_bundle / WEIGHTS)  # the very same bytes, and not of this folder
    with pytest.raises(BundleError, match="leaves the bundle"):
        opened(copy)


@pytest.mark.parametrize(
    "location", ["../weights.bin", "/etc/passwd", "other.bin", "", "./" + WEIGHTS]
)
def test_no_constant_lies_anywhere_else(copy: Path, location: str) -> None:
    data = with_constant(copy, lambda tensor: said(tensor, location=location))
    with pytest.raises(ValueError, match=rf"has data in another file than {WEIGHTS}"):
        whole_graph(data, copy, 1 << 30)


@pytest.mark.parametrize(
    ("entries", "text"),
    [
        ({"offset": "-4096"}, "in another file"),
        ({"offset": "0x10"}, "in another file"),
        ({"offset": "9" * 13}, "in another file"),
        ({"offset": "9" * 12}, "is cut short"),
        ({"offset": None}, "in another file"),
        ({"checksum": "00"}, "in another file"),
        ({"length": "262143"}, "is no FP16 one"),
        ({"length": "4"}, "by more than a bit a weight"),
        ({"length": "0"}, "is no FP16 one"),
        ({"length": "9" * 11 + "6"}, "is larger than it says"),
        ({"location": f"{ROUNDED}.{'9' * 12}.9"}, "is cut short"),
        ({"location": f"{ROUNDED}.0.9"}, "is damaged"),
        ({"location": f"{ROUNDED}.0"}, "in another file"),
        ({"location": f"{ROUNDED}.0.9.9"}, "in another file"),
        ({"location": f"{ROUNDED}.0.-9"}, "in another file"),
        ({"location": f"../{ROUNDED}.0.9"}, "in another file"),
    ],
)
def test_numbers_that_lie_are_refused_in_a_clause(
    copy: Path, entries: dict[str, str | None], text: str
) -> None:
    data = with_constant(copy, lambda tensor: said(tensor, **entries))
    with pytest.raises(ValueError, match=text):
        whole_graph(data, copy, 64 << 20)


def test_a_large_graph_is_made_whole_in_hardly_more_memory_than_it_takes(tmp_path: Path) -> None:
    """Its constants come block by block, and end with less than a block, and a byte, of bits."""
    draw = np.random.default_rng(5)
    exact = draw.normal(0, 0.05, 2_300_003).astype(np.float32)
    flips = draw.random(exact.shape) < 0.3
    deflated = zlib.compress(np.packbits(flips).tobytes())
    (tmp_path / WEIGHTS).write_bytes(exact.tobytes() + deflated)
    graph = helper.make_graph([], "graph", [], [])
    places = {
        TensorProto.FLOAT: Place(0, exact.nbytes),
        TensorProto.FLOAT16: Place(0, exact.nbytes, ROUNDED, (exact.nbytes, len(deflated))),
    }
    for data_type, place in places.items():
        tensor = graph.initializer.add(name=f"{data_type}", data_type=data_type, dims=exact.shape)
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in place.entries:
            tensor.external_data.add(key=key, value=value)
    data = helper.make_model(graph).SerializeToString()
    tracemalloc.start()
    made = whole_graph(data, tmp_path, 1 << 30)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(made) > 1.5 * exact.nbytes
    assert peak < 1.4 * len(made)  # 2 where all of them are read before they are joined
    float32, float16 = map(numpy_helper.to_array, onnx.load_from_string(made).graph.initializer)
    np.testing.assert_array_equal(float32, exact)
    assert float16.tobytes() == rounded_of(exact, flips)


@pytest.mark.parametrize(
    ("megabytes", "words"), [(4, "is damaged"), (64, "by more than a bit a weight")]
)
def test_flips_unfold_to_no_more_than_there_are_weights(
    copy: Path, megabytes: int, words: str
) -> None:
    bomb = zlib.compress(bytes(megabytes << 20), 9)
    size = (copy / WEIGHTS).stat().st_size
    with (copy / WEIGHTS).open("ab") as file:
        file.write(bomb)
    data = with_constant(
        copy, lambda tensor: said(tensor, location=f"{ROUNDED}.{size}.{len(bomb)}")
    )
    with pytest.raises(ValueError, match=words):
        whole_graph(data, copy, 1 << 30)


def test_a_constant_that_hides_its_place_is_no_constant_of_ours(
    copy: Path, change_manifest: ChangeManifest
) -> None:
    """One too long to be looked into here is refused when the whole graph is."""
    path = copy / "encoder.onnx"
    model = onnx.load(path, load_external_data=False)
    next(one for one in model.graph.initializer if one.external_data).doc_string = "x" * 5000
    data = model.SerializeToString()
    path.write_bytes(data)
    made = whole_graph(data, copy, 64 << 20)
    assert vouched_for(copy, change_manifest, data, made) == "data in another file"


def vouched_for(folder: Path, change_manifest: ChangeManifest, data: bytes, made: bytes) -> str:
    """Let the manifest vouch for another encoder.onnx; return why it is refused all the same."""

    def vouch(content: dict[str, Any]) -> None:
        for one in content["graphs"]:
            if one["file"] == "encoder.onnx":
                digest = hashlib.sha256(data).hexdigest()
                one["stored"] = {"sha256": digest, "size_bytes": len(data)}
                one.update(sha256=hashlib.sha256(made).hexdigest(), size_bytes=len(made))

    change_manifest(folder, vouch)
    with pytest.raises(BundleError) as caught:
        opened(folder)
    known = ("data in another file", "has not the bytes of float32")
    return next((text for text in known if text in str(caught.value)), str(caught.value))


def test_a_constant_is_not_in_two_places(copy: Path) -> None:
    data = with_constant(copy, lambda tensor: setattr(tensor, "raw_data", b"1234"))
    with pytest.raises(ValueError, match="is in it and in another file"):
        whole_graph(data, copy, 1 << 30)


def test_a_place_named_again_and_again_makes_no_larger_graph_than_announced(copy: Path) -> None:
    model = onnx.load(copy / "encoder.onnx", load_external_data=False)
    large = next(one for one in model.graph.initializer if one.external_data)
    for number in range(200):
        model.graph.initializer.add().CopyFrom(large)
        model.graph.initializer[-1].name = f"again{number}"
    with pytest.raises(ValueError, match="it is larger than it says"):
        whole_graph(model.SerializeToString(), copy, 4 << 20)


def test_a_whole_graph_has_its_size_limit(copy: Path, change_manifest: ChangeManifest) -> None:
    def enlarge(content: dict[str, Any]) -> None:
        content["graphs"][0]["size_bytes"] = 1 << 40

    change_manifest(copy, enlarge)
    with pytest.raises(BundleError, match="1099511627776 bytes with its weights, and for this mod"):
        load_bundle(copy, hash_all=False)


def test_a_manifest_lists_the_weights(copy: Path, change_manifest: ChangeManifest) -> None:
    def forget(content: dict[str, Any]) -> None:
        content["files"] = [one for one in content["files"] if one["file"] != WEIGHTS]

    change_manifest(copy, forget)
    with pytest.raises(BundleError, match=rf"graphs keep weights in {WEIGHTS}, which is not liste"):
        load_bundle(copy)


def test_the_trial_opens_the_whole_graph_and_no_other(copy: Path) -> None:
    entry = load_bundle(copy).entry(ENCODER)
    words = ["onnx", str(copy / entry.file), entry.sha256, str(entry.size_bytes), "fp32"]
    assert trial(words) == 0
    flipped(copy / WEIGHTS, int(places_of(copy)[0]["offset"]))
    assert trial(words) == ALTERED
    (copy / WEIGHTS).unlink()
    assert trial(words) == ALTERED


def trial(words: list[str]) -> int:
    """Run the process that tries a graph; its exit code."""
    import subprocess
    import sys

    command = [sys.executable, "-m", child.__module__, *words, "1", "60", "2000"]
    return subprocess.run(command, check=False, stdout=subprocess.DEVNULL, timeout=120).returncode


def test_a_forged_graph_is_looked_into_when_it_is_whole(
    copy: Path, change_manifest: ChangeManifest
) -> None:
    """The manifest vouches for it all; its largest constant has another shape than its bytes."""
    path = copy / "encoder.onnx"
    model = onnx.load(path, load_external_data=False)
    large = next(one for one in model.graph.initializer if one.external_data)
    large.dims[0] += 1
    data = model.SerializeToString()
    path.write_bytes(data)
    made = whole_graph(data, copy, 64 << 20)
    assert vouched_for(copy, change_manifest, data, made) == "has not the bytes of float32"


def test_a_place_of_halves_is_known_by_its_name(copy: Path) -> None:
    assert ROUNDED.encode() in (copy / "encoder.fp16.onnx").read_bytes()
    entry = load_bundle(copy).entry(HALF)
    made = made_whole(copy / entry.file)
    assert made is not None
    assert hashlib.sha256(made).hexdigest() == entry.sha256
    assert json.loads((copy / "manifest.json").read_text())["schema_version"] == 7
    with open_engine(load_bundle(copy), HALF, EngineRequest("onnx")) as backend:
        assert set(backend.outputs) == {"mu", "log_var"}
