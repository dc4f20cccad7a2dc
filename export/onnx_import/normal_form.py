"""The normal form of a user's graphs: image to mu and log_var, z to reconstruction, all flat."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from ...runtime.core.errors import GraphError
from ...runtime.core.spec import ModelSpec
from .emit import Array, Emitter
from .proof import (
    FLOAT16_TOLERANCE,
    FLOAT32_TOLERANCE,
    BatchNotFreeError,
    FromOwn,
    Original,
    ToOwn,
    prove_equal,
)
from .read import UserGraph, batches_of, lowered
from .session import Session

_RANDOM_INPUTS = 3
Gives = Literal["unit", "network"]
_Numbers = npt.NDArray[np.float64]
_Front = Callable[[Emitter], ir.Value]
_Back = Callable[[Emitter, Mapping[str, ir.Value]], dict[str, ir.Value]]


def original_encoder(user: UserGraph, spec: ModelSpec) -> Original:
    """Return the user's own encoder, of one image (1, C, H, W) in [0, 1] to flat latents."""
    gains, offsets = _scaling(spec)

    def to_own(batch: npt.NDArray[np.float32]) -> Mapping[str, Array]:
        scaled = np.asarray(batch * gains + offsets, np.float32)
        if user.facts.layout == "NHWC":
            scaled = scaled.transpose(0, 2, 3, 1)
        return _own(user, scaled)

    def from_own(found: Mapping[str, Array]) -> Mapping[str, npt.NDArray[np.float64]]:
        flat = {
            ours: np.asarray(found[str(value.name)], np.float64).reshape(1, -1)
            for ours, value in user.ends.outputs.items()
        }
        if "moments" in flat:
            mu, log_var = np.split(flat["moments"], 2, axis=1)
            return {"mu": mu, "log_var": log_var}
        return flat

    return _original(user, to_own, from_own)


def original_decoder(user: UserGraph, spec: ModelSpec, gives: Gives = "network") -> Original:
    """Return the user's own decoder, of one flat latent (1, D) to an image in about [0, 1].

    It `gives` images in the range of the network (`spec`), or in [0, 1] already.
    """
    gains, offsets = _scaling(spec)

    def to_own(batch: npt.NDArray[np.float32]) -> Mapping[str, Array]:
        return _own(user, batch)

    def from_own(found: Mapping[str, Array]) -> Mapping[str, npt.NDArray[np.float64]]:
        image = np.asarray(found[str(user.ends.outputs["reconstruction"].name)], np.float64)
        channels, height, width = user.facts.image_shape
        if user.facts.layout == "NHWC":
            image = image.reshape(1, height, width, channels).transpose(0, 3, 1, 2)
        image = image.reshape(1, channels, height, width)
        return {"reconstruction": (image - offsets) / gains if gives == "network" else image}

    return _original(user, to_own, from_own)


def normal_encoder(
    user: UserGraph, spec: ModelSpec, images: npt.NDArray[np.float32] | None = None
) -> ir.Model:
    """Return the encoder of a bundle: image (batch, C, H, W) in [0, 1] to mu, log_var (batch, D).

    Ranges are those of `spec`. It is proved equal to the user's graph on random images and on
    (N, C, H, W) `images`; a GraphError or VerificationError where it is not.
    """
    gains, offsets = _scaling(spec)
    facts = user.facts

    def front(made: Emitter) -> ir.Value:
        image = made.add_input("image", facts.image_shape)
        return _to_layout(made, _scaled(made, image, gains, offsets), user)

    def back(made: Emitter, found: Mapping[str, ir.Value]) -> dict[str, ir.Value]:
        size = math.prod(facts.latent_shape)
        flat = {ours: made.flattened(value, name=f"{ours}_flat") for ours, value in found.items()}
        if "moments" not in flat:
            return flat
        return {
            name: made.sliced(flat["moments"], 1, start, start + size, name=f"{name}_half")
            for name, start in (("mu", 0), ("log_var", size))
        }

    inputs = np.random.default_rng(0).random((_RANDOM_INPUTS, *facts.image_shape), np.float32)
    inputs = inputs if images is None else np.concatenate([inputs, images])
    return _proved(user, inputs, front, back, original_encoder(user, spec))


def normal_decoder(
    user: UserGraph,
    spec: ModelSpec,
    latents: npt.NDArray[np.float32] | None = None,
    *,
    gives: Gives = "network",
) -> ir.Model:
    """Return the decoder of a bundle: z (batch, D) to reconstruction (batch, C, H, W) in [0, 1].

    What it `gives` is as of `original_decoder`. It is proved equal to the user's on random latents
    and on (N, D) `latents`.
    """
    gains, offsets = _scaling(spec)
    facts = user.facts
    size = math.prod(facts.latent_shape)

    def front(made: Emitter) -> ir.Value:
        z = made.add_input("z", (size,))
        return made.reshaped(z, (1, *facts.input_shape), 0, name="z_shaped")

    def back(made: Emitter, found: Mapping[str, ir.Value]) -> dict[str, ir.Value]:
        image = _from_layout(made, found["reconstruction"], user)
        if gives == "network":
            image = _scaled(made, image, 1 / gains, -offsets / gains)
        return {"reconstruction": image}

    inputs = np.random.default_rng(0).standard_normal((_RANDOM_INPUTS, size), np.float32)
    inputs = inputs if latents is None else np.concatenate([inputs, latents])
    return _proved(user, inputs, front, back, original_decoder(user, spec, gives))


def _scaling(spec: ModelSpec) -> tuple[_Numbers, _Numbers]:
    gains, offsets = (np.array(one, np.float64).reshape(-1, 1, 1) for one in spec.scaling)
    return gains, offsets


def _original(user: UserGraph, to_own: ToOwn, from_own: FromOwn) -> Original:
    names = [str(value.name) for value in user.ends.outputs.values()]
    return Original(Session(user.original), names, to_own, from_own)


def _proved(
    user: UserGraph,
    inputs: npt.NDArray[np.float32],
    front: _Front,
    back: _Back,
    original: Original,
) -> ir.Model:
    """Return a graph that passed the proof, with the batch axis followed in one of its ways."""
    tolerance = FLOAT16_TOLERANCE if user.is_half else FLOAT32_TOLERANCE
    problem: GraphError | None = None
    for batch in batches_of(is_free=user.batch.is_free, varied=user.batch.varied):
        try:
            emitter, found = lowered(user.source, user.ends, batch, front)
            model = emitter.model(back(emitter, found))
            prove_equal(model, original, inputs, tolerance=tolerance)
        except GraphError as error:
            if not isinstance(error, BatchNotFreeError) and user.batch.is_free:
                raise
            problem = problem or error
            continue
        onnx.checker.check_model(ir.to_proto(model), full_check=True)
        return model
    raise problem or AssertionError("there is at least one way")


def _own(user: UserGraph, batch: npt.NDArray[np.float32]) -> Mapping[str, Array]:
    """Return a batch of 1 as the user's graph takes it."""
    value = user.ends.input
    dtype = np.float16 if value.dtype == ir.DataType.FLOAT16 else np.float32
    own = batch.reshape(1, *user.facts.input_shape).astype(dtype)
    return {str(value.name): own}


def _scaled(made: Emitter, value: ir.Value, gains: Array, offsets: Array) -> ir.Value:
    """Return gains * value + offsets of each channel."""
    for op, what, numbers, idle in (("Mul", "gain", gains, 1), ("Add", "offset", offsets, 0)):
        if (numbers == idle).all():
            continue
        one = numbers.reshape(-1)[:1].reshape(()) if (numbers == numbers.flat[0]).all() else numbers
        inputs = [value, made.constant(f"range_{what}", one.astype(np.float32))]
        value = made.node(op, inputs, name=f"range_{op.lower()}")
    return value


def _to_layout(made: Emitter, image: ir.Value, user: UserGraph) -> ir.Value:
    facts = user.facts
    if facts.layout == "NHWC" and facts.image_shape[0] > 1:
        return made.node("Transpose", [image], {"perm": [0, 2, 3, 1]}, name="image_nhwc")
    return made.reshaped(image, (1, *facts.input_shape), 0, name="image_shaped")


def _from_layout(made: Emitter, image: ir.Value, user: UserGraph) -> ir.Value:
    facts = user.facts
    if facts.layout == "NHWC" and facts.image_shape[0] > 1:
        return made.node("Transpose", [image], {"perm": [0, 3, 1, 2]}, name="image_nchw")
    return made.reshaped(image, (1, *facts.image_shape), 0, name="image_shaped")
