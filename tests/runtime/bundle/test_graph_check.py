"""Which graphs are opened: all that exports write, and of others none."""

from __future__ import annotations

import random
import tracemalloc
from pathlib import Path

import onnx
import pytest

from motorvae.runtime.bundle.graph_check import budget_of, check_graph
from motorvae.runtime.bundle.graph_key import GraphKey
from motorvae.runtime.bundle.load import Bundle, load_bundle
from motorvae.runtime.bundle.manifest import GraphEntry
from motorvae.runtime.bundle.operators.tables import CARD
from motorvae.runtime.core.spec import ModelSpec

from ...attacks.hostile_graphs import ATTACKS, node


@pytest.fixture(scope="module")
def bundle(small_bundle: Path) -> Bundle:
    return load_bundle(small_bundle)


@pytest.fixture(scope="module")
def encoder(bundle: Bundle) -> tuple[bytes, GraphEntry, ModelSpec]:
    entry = bundle.entry(GraphKey("encoder"))
    return (bundle.folder / entry.file).read_bytes(), entry, bundle.spec


def test_all_that_exports_write_is_taken_and_nothing_else_is_on_the_list(
    bundle: Bundle, int8_bundle: Path
) -> None:
    found: dict[str, set[str]] = {}
    for one in (bundle, load_bundle(int8_bundle)):
        for entry in one.manifest.graphs:
            data = (one.folder / entry.file).read_bytes()
            check_graph(data, entry, one.spec)
            assert len(data) < budget_of(one.spec).file_bytes
            for made in onnx.load_from_string(data).graph.node:
                names = {attribute.name for attribute in made.attribute}
                found.setdefault(made.op_type, set()).update(names)
    assert set(CARD) == set(found)
    for op, names in found.items():
        assert names <= set(CARD[op].attributes)


def refusal(data: bytes, entry: GraphEntry, spec: ModelSpec) -> str:
    with pytest.raises(ValueError, match=r"\w") as caught:
        check_graph(data, entry, spec)
    assert caught.type is ValueError
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_refused_by_name(
    encoder: tuple[bytes, GraphEntry, ModelSpec], name: str
) -> None:
    edit, words = ATTACKS[name]
    data, entry, spec = encoder
    model = onnx.load_from_string(data)
    edit(model)
    found = refusal(model.SerializeToString(), entry, spec)
    assert any(word in found for word in words.split("|")), found


def test_what_a_merging_reader_would_add_is_refused(
    encoder: tuple[bytes, GraphEntry, ModelSpec],
) -> None:
    """Protobuf joins two graphs of one file into one, and skips what it does not know."""
    data, entry, spec = encoder
    more = onnx.ModelProto()
    more.graph.node.append(node("Loop", ["image"], "mu2"))
    assert "stands twice" in refusal(data + more.SerializeToString(), entry, spec)
    for tail in (b"\xf8\x3f\x01", b"\x0b\x0c", b"\x08\x0a", b"\x82", b"\x3a\xff\xff\xff\xff\x0f"):
        refusal(data + tail, entry, spec)
    assert "more than 64 bits" in refusal(b"\x08" + b"\xff" * 10 + b"\x01", entry, spec)
    for damaged in (b"", b"no protobuf", bytes(5000), data[:-1], data[: len(data) // 2]):
        refusal(damaged, entry, spec)


@pytest.mark.parametrize("field", ["int32_data", "float_data"])
def test_numbers_side_by_side_take_no_more_memory_than_a_graph(
    encoder: tuple[bytes, GraphEntry, ModelSpec], field: str
) -> None:
    """A byte of the file would be an object in memory."""
    data, entry, spec = encoder
    model = onnx.load_from_string(data)
    number = {"float_data": 4, "int32_data": 5}[field]
    numbers = b"\0" * (16 << 20)
    size = bytes([0x80 | len(numbers) & 0x7F])
    rest = len(numbers) >> 7
    while rest >= 0x80:
        size, rest = size + bytes([0x80 | rest & 0x7F]), rest >> 7
    model.graph.initializer[0].MergeFromString(
        bytes([number << 3 | 2]) + size + bytes([rest]) + numbers
    )
    hostile = model.SerializeToString()
    tracemalloc.start()
    try:
        assert "numbers that are not raw bytes" in refusal(hostile, entry, spec)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_damage_is_a_refusal_and_nothing_else(
    encoder: tuple[bytes, GraphEntry, ModelSpec],
) -> None:
    """Bits, bytes and stretches are changed where the structure is, and weights are not touched."""
    data, entry, spec = encoder
    model = onnx.load_from_string(data)
    for tensor in model.graph.initializer:
        if len(tensor.raw_data) > 64:  # a small file is read so much faster
            tensor.raw_data = tensor.raw_data[:64]
    small = model.SerializeToString()
    rng = random.Random(7)
    for turn in range(1500):
        changed = bytearray(small if turn % 4 else data[:20000])
        for _ in range(rng.choice((1, 1, 2, 8))):
            at = rng.randrange(len(changed))
            kind = rng.randrange(4)
            if kind == 0:
                changed[at] ^= 1 << rng.randrange(8)
            elif kind == 1:
                changed[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
            elif kind == 2:
                del changed[at : at + rng.randrange(1, 9)]
            else:
                changed[at:at] = rng.randbytes(rng.randrange(1, 9))
        refusal(bytes(changed), entry, spec)


def test_limits_follow_from_the_sizes_of_a_model() -> None:
    default, small = budget_of(ModelSpec()), budget_of(ModelSpec(image_size=32, channels=(4, 8)))
    # docs/design: 0.63 GFLOP in the encoder, 0.95 in the decoder, two a multiplication.
    assert 2 * default.work > 4 * 0.95e9
    assert 2 * default.work < 20 * 0.95e9
    assert default.value * 4 < 64 << 20
    assert small.file_bytes < 8 << 20 < default.file_bytes < 1 << 30
