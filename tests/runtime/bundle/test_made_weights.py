"""Weights that are made of others as a graph is opened: to the bit, and what lies is refused."""

from __future__ import annotations

import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from motorvae.runtime.bundle.made_weights import added_to, factors_of, flips_of, rounded_of
from motorvae.runtime.bundle.manifest import WEIGHTS
from motorvae.runtime.bundle.weights import DEFLATED, QUANTIZED, Place, whole_graph


def test_halves_round_to_either_neighbour_and_come_back_to_the_bit() -> None:
    draw = np.random.default_rng(3)
    exact = draw.normal(0, 0.05, 20000).astype(np.float32)
    exact[:8] = [0.0, -0.0, 3e-8, -3e-8, 6e-5, 65000.0, -65000.0, 1e-9]
    near = exact.astype(np.float16)
    beyond = np.where(near < exact, np.float16(np.inf), np.float16(-np.inf))
    other = np.where(near == exact, near, np.nextafter(near, beyond))
    chosen = np.where(draw.random(exact.shape) < 0.4, other, near)
    flips = flips_of(chosen, exact)
    assert 0.3 < flips.mean() < 0.5
    assert rounded_of(exact, flips) == chosen.tobytes()


def int8_graph(folder: Path, weights: npt.NDArray[np.int8], place: Place, beside: bytes) -> bytes:
    """Write a file of weights; return the file of a graph with one constant, which lies there."""
    (folder / WEIGHTS).write_bytes(beside)
    graph = helper.make_graph([], "graph", [], [])
    tensor = graph.initializer.add(name="w", data_type=TensorProto.INT8, dims=weights.shape)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in place.entries:
        tensor.external_data.add(key=key, value=value)
    return helper.make_model(graph).SerializeToString()


@pytest.mark.parametrize("columns", [8, 63, 700, 1 << 18])
def test_int8_weights_are_rows_of_float32_ones_times_a_factor(tmp_path: Path, columns: int) -> None:
    """Rows go in whole, as many as a block holds; the judge is float64."""
    draw = np.random.default_rng(columns)
    rows = max(3, 600_000 // columns)
    exact = draw.normal(0, 0.05, (rows, columns)).astype(np.float32)
    exact[0] = 0
    scales = 127 / np.abs(exact).max(axis=1, initial=1e-3, keepdims=True)
    weights = np.rint(exact.astype(np.float64) * scales * 1.1).clip(-128, 127).astype(np.int8)
    weights[-1, 0] -= np.sign(weights[-1, 0]) * 3  # by no factor
    factors = factors_of(weights, exact)
    added = added_to(weights, exact, factors)
    assert np.count_nonzero(added[:-1]) < 2 + 1e-3 * added.size
    assert added[-1].any()
    says = zlib.compress(factors.tobytes() + added.tobytes())
    place = Place(0, exact.nbytes, QUANTIZED, (exact.nbytes, len(says), rows))
    data = int8_graph(tmp_path, weights, place, exact.tobytes() + says)
    (made,) = onnx.load_from_string(whole_graph(data, tmp_path, 1 << 30)).graph.initializer
    np.testing.assert_array_equal(numpy_helper.to_array(made), weights)


def test_int8_weights_are_made_in_hardly_more_memory_than_twice_what_they_take(
    tmp_path: Path,
) -> None:
    """That is the graph, and what is added to its weights; float32 ones come block by block."""
    exact = np.random.default_rng(6).normal(0, 0.05, (600_000, 8)).astype(np.float32)
    factors = np.full(len(exact), 500, np.float32)
    added = np.zeros(exact.shape, np.int8)
    says = zlib.compress(factors.tobytes() + added.tobytes())
    place = Place(0, exact.nbytes, QUANTIZED, (exact.nbytes, len(says), len(exact)))
    data = int8_graph(tmp_path, added, place, exact.tobytes() + says)
    tracemalloc.start()
    whole_graph(data, tmp_path, 1 << 30)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2.9 * added.nbytes + factors.nbytes


def test_no_byte_is_fed_to_the_inflater_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left of a block is copied: as a whole each time, 512 MB took two minutes."""
    weights = np.zeros((8, 1 << 20), np.int8)
    deflated = zlib.compress(weights.tobytes(), 0)
    place = Place(0, len(deflated), DEFLATED, (weights.nbytes,))
    data = int8_graph(tmp_path, weights, place, deflated)
    fed: list[int] = []

    class Counting:
        def __init__(self) -> None:
            self.real = inflater()

        def __getattr__(self, name: str) -> object:
            return getattr(self.real, name)

        def decompress(self, part: memoryview, most: int) -> bytes:
            fed.append(len(part))
            return self.real.decompress(part, most)

    inflater = zlib.decompressobj
    monkeypatch.setattr(zlib, "decompressobj", Counting)
    whole_graph(data, tmp_path, 1 << 30)
    assert len(deflated) <= sum(fed) < 1.1 * len(deflated)


@pytest.mark.parametrize("level", [0, 1, 9])
def test_deflated_weights_come_back_block_by_block(tmp_path: Path, level: int) -> None:
    weights = np.random.default_rng(2).integers(-3, 4, (3, 1_000_001)).astype(np.int8)
    deflated = zlib.compress(weights.tobytes(), level)
    place = Place(0, len(deflated), DEFLATED, (weights.nbytes,))
    data = int8_graph(tmp_path, weights, place, deflated)
    (made,) = onnx.load_from_string(whole_graph(data, tmp_path, 1 << 30)).graph.initializer
    assert made.raw_data == weights.tobytes()


@pytest.mark.parametrize(
    ("place", "text"),
    [
        (Place(0, 4000, QUANTIZED, (4000, 40, 0)), "is not of 0 rows"),
        (Place(0, 4000, QUANTIZED, (4000, 40, 11)), "is not of 11 rows"),
        (Place(0, 4002, QUANTIZED, (4000, 40, 10)), "is not of 10 rows"),
        (Place(0, 0, QUANTIZED, (4000, 40, 10)), "is no INT8 one"),
        (Place(0, 8 << 20, QUANTIZED, (0, 40, 1)), "is of rows of 8388608 bytes, and 1048576 are"),
        (Place(0, 4000, QUANTIZED, (4000, 40, 200)), "is of rows of fewer than 8 weights"),
        (
            Place(0, 4000, QUANTIZED, (4000, 2000, 10)),
            "is made with 2000 bytes, and 1104 are the m",
        ),
        (Place(0, 4000, QUANTIZED, (4000, 40)), "in another file"),
        (Place(0, 4000, QUANTIZED, (4000, 40, 10, 1)), "in another file"),
        (Place(0, 4000, QUANTIZED, (9000, 40, 10)), "is cut short"),
        (Place(0, 9000, QUANTIZED, (4000, 40, 10)), "is cut short"),
        (Place(0, 4000, QUANTIZED, (0, 40, 10)), "is damaged"),
        (Place(4000, 40, DEFLATED, (1039,)), "is damaged"),
        (Place(4000, 40, DEFLATED, (1041,)), "is damaged"),
        (Place(4000, 39, DEFLATED, (1040,)), "is damaged"),
        (Place(4000, 41, DEFLATED, (1040,)), "is damaged"),
        (Place(3999, 41, DEFLATED, (1040,)), "is damaged"),
        (Place(4000, 200, DEFLATED, (1040,)), "is cut short"),
        (Place(4000, 0, DEFLATED, (1040,)), "is deflated to nothing"),
        (Place(0, 4000, DEFLATED, (1040,)), "is deflated from 1040 bytes to 4000"),
        (Place(4000, 40, DEFLATED, (2 << 30,)), "it is larger than it says"),
        (Place(4000, 40, DEFLATED), "in another file"),
    ],
)
def test_places_of_int8_weights_that_lie_are_refused_in_a_clause(
    tmp_path: Path, place: Place, text: str
) -> None:
    """The file holds 4000 bytes of float32 weights and what ten rows of them are made with."""
    says = zlib.compress(bytes(4 * 10 + 1000), 9)
    beside = bytes(4000) + says + b"\0" * (80 - len(says))
    place = place._replace(
        numbers=tuple(len(says) if one == 40 else one for one in place.numbers),
        length={39: len(says) - 1, 40: len(says), 41: len(says) + 1}.get(
            place.length, place.length
        ),
    )
    data = int8_graph(tmp_path, np.zeros((10, 100), np.int8), place, beside)
    with pytest.raises(ValueError, match=text):
        whole_graph(data, tmp_path, 64 << 20)
