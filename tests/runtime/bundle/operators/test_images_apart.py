"""No graph that is opened gives an image's numbers to another: random graphs, run in batches."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from motorvae.runtime.bundle.graph_check import check_graph
from motorvae.runtime.bundle.graph_key import Tensor
from motorvae.runtime.bundle.operators.node import INT64, Node, Value
from motorvae.runtime.bundle.operators.tables import ANY
from motorvae.runtime.core.spec import ModelSpec

from .test_tables import entry

SHAPE = (1, 4, 6)
SPEC = ModelSpec(image_size=16, channels=None, latent_size=6)
MOST = 4096  # numbers of a value
COUNT = 250


class Chain:
    """Nodes one behind the other, which the rules take one by one."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}
        self.facts = {"image": Value(TensorProto.FLOAT, (1, *SHAPE), axis=0)}
        self.last = "image"

    def add(self, op: str, second: str | np.ndarray | None = None, **attributes: object) -> bool:
        """Add a node behind the last one, unless the rules refuse it."""
        known = [self.facts[self.last]]
        inputs = [self.last]
        if isinstance(second, str):
            known.append(self.facts[second])
            inputs.append(second)
        elif second is not None:
            dtype = INT64 if second.dtype == np.int64 else TensorProto.FLOAT
            raw = {"raw_data": memoryview(second.tobytes())}
            known.append(Value(dtype, second.shape, tensor=raw))
            inputs.append(f"c{len(self.constants)}")
            self.constants[inputs[-1]] = second
        try:
            fact = ANY[op].output(Node(op, attributes, known))
        except ValueError:
            return False
        if math.prod(fact.shape) > MOST:
            return False
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], **attributes))
        self.facts[name], self.last = fact, name
        return True

    def add_any(self) -> None:
        shape, draw = self.facts[self.last].shape, self.draw
        axis = draw.randrange(len(shape))
        kind = draw.randrange(9)
        if kind <= 1:
            self.add("Reshape", np.array(self.target(shape), np.int64))
        elif kind == 2:  # one axis of the two around that of images
            at = max((self.facts[self.last].axis or 0) - 1, 0)
            self.add("Reshape", np.array([*shape[:at], -1, *shape[at + 2 :]], np.int64))
        elif kind == 3:
            self.add("Transpose", perm=draw.sample(range(len(shape)), len(shape)))
        elif kind == 4:
            self.add("MatMul", numbers(shape[-1], draw.randrange(1, 4)))
        elif kind == 5:
            self.add(draw.choice(("Add", "Mul")), draw.choice([*self.facts]))
        elif kind == 6:
            self.add("Softmax", axis=axis)
        elif kind == 7:
            self.add("Expand", np.array([draw.choice((1, 2)), *[1] * len(shape)], np.int64))
        else:
            self.add("Transpose", perm=[*range(1, len(shape)), 0])

    def target(self, shape: Sequence[int]) -> list[int]:
        """Return a shape of as many numbers, one axis of which is left open."""
        left, target = math.prod(shape), []
        while left > 1 and len(target) < 4:
            target.append(self.draw.choice([n for n in range(2, left + 1) if left % n == 0]))
            left //= target[-1]
        target.insert(self.draw.randrange(len(target) + 1), 1)
        target[self.draw.randrange(len(target))] = -1
        return target

    def finish(self) -> int:
        """Bring images to the front; return how many numbers each has then, or 0."""
        fact = self.facts[self.last]
        if fact.outer > 1:
            before, behind = fact.shape[: fact.axis], fact.shape[(fact.axis or 0) + 1 :]
            self.add("Reshape", np.array([*before, fact.outer, -1, *behind], np.int64))
            fact = self.facts[self.last]
        others = [at for at in range(len(fact.shape)) if at != fact.axis]
        self.add("Transpose", perm=[fact.axis, *others])
        size = math.prod(fact.shape)
        done = self.add("Reshape", np.array([-1, size], np.int64))
        return size if done and self.facts[self.last].shape == (1, size) else 0


def numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng(math.prod(shape)).standard_normal(shape).astype(np.float32)


def test_an_image_of_a_batch_is_what_it_is_alone() -> None:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    run = merged = 0
    for seed in range(COUNT):
        chain = Chain(seed)
        for _ in range(6):
            chain.add_any()
        if not (size := chain.finish()):
            continue
        data = model_of(chain, size)
        image = Tensor(name="image", dtype="float32", shape=("batch", *SHAPE))
        announced = entry(("batch", size)).model_copy(update={"inputs": (image,)})
        check_graph(data, announced, SPEC)
        session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        images = np.random.default_rng(seed).random((3, *SHAPE), np.float32)
        alone = [session.run(None, {"image": one[None]})[0] for one in images]
        together = session.run(None, {"image": images})[0]
        np.testing.assert_allclose(together, np.concatenate(alone), rtol=1e-3, atol=1e-4)
        run += 1
        merged += any(fact.outer > 1 for fact in chain.facts.values())
    assert run > COUNT / 2
    assert merged > 5


def model_of(chain: Chain, size: int) -> bytes:
    chain.nodes[-1].output[0] = "mu"
    made = helper.make_graph(
        chain.nodes,
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", *SHAPE])],
        [helper.make_tensor_value_info("mu", TensorProto.FLOAT, ["batch", size])],
        [onnx.numpy_helper.from_array(array, name) for name, array in chain.constants.items()],
    )
    opsets = [helper.make_opsetid("", 20)]
    return helper.make_model(made, opset_imports=opsets, ir_version=10).SerializeToString()


@pytest.mark.parametrize("outer", [1, 2, 4, 8])
def test_what_lies_in_front_of_images_is_followed(outer: int) -> None:
    """(8, images, 3) merged to (8 / outer, outer x images, 3) gives its axes back, no others."""
    value = Value(TensorProto.FLOAT, (8, 1, 3), axis=1)
    merged = reshaped(value, (8 // outer, -1, 3))
    assert (merged.shape, merged.axis, merged.outer) == ((8 // outer, outer, 3), 1, outer)
    back = reshaped(merged, (8, -1, 3))
    assert (back.shape, back.axis, back.outer) == ((8, 1, 3), 1, 1)
    with pytest.raises(ValueError, match="does not take"):
        reshaped(merged, (3, -1, 8))


def reshaped(value: Value, target: Sequence[int]) -> Value:
    array = np.array(target, np.int64)
    shape = Value(INT64, array.shape, tensor={"raw_data": memoryview(array.tobytes())})
    return ANY["Reshape"].output(Node("Reshape", {}, [value, shape]))
