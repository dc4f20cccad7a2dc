"""Channels that hardly move an encoder's answers, left out of a float32 graph."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from .equalise import Link, links_of
from .graph_ops import array_of
from .values_inside import GraphWithValues, opened_with_values

STEP = 32
"""Kernels of INT8 and of float32 work on so many channels at a time, or on a part of them."""

Floats = npt.NDArray[np.float64]


class Pruned(NamedTuple):
    """How many channels of a layer stay."""

    layer: str  # the name of the node
    kept: int
    of: int


class _Moments(NamedTuple):
    """Of a value (N, C, ...) over inputs."""

    means: Floats  # (C, places)
    away: Floats  # (C,) mean squares of what is not the mean


def prune_channels(
    model: ir.Model,
    inputs: npt.NDArray[np.float32],
    scales: Mapping[str, Floats],
    folder: Path,
    *,
    most: float,
) -> tuple[Pruned, ...]:
    """Leave out of a float32 encoder, in place, the channels that move its outputs least.

    From the last layer to the first as many channels go, in steps of 32, as leave the largest error
    of any output over its `scales` at `most`, over (N, ...) `inputs`, all layers together. What a
    channel gives on average stays, in the biases of the layers that read it. Channels are ranked by
    how far they are from their mean times the weights that read them (as in He et al. 2017,
    "Channel Pruning for Accelerating Very Deep Neural Networks", by their effect on what reads
    them, but kept as they are and not fitted anew).

    Precondition: as of `equalise`; `folder` is one for temporary files.
    Postcondition: same inputs and outputs, fewer channels between; what it says of images unlike
    these is not looked at, and is for a gate to judge.
    """
    wanted = _outputs(model, inputs, folder)
    moments = _moments_of(model, inputs, folder)
    pruned = []
    for place in reversed(range(len(links_of(model)))):
        link = links_of(model)[place]
        order = np.argsort(_importance(link, moments[link.name]))[::-1]
        least, best = 1, -(-link.channels // STEP)  # in steps; all of them stay, at worst
        while least < best:
            middle = (least + best) // 2
            trial = model.clone()
            _keep(links_of(trial)[place], np.sort(order[: middle * STEP]), moments[link.name])
            found = _outputs(trial, inputs, folder)
            error = max(
                np.abs((found[name] - wanted[name]) / scales[name]).max() for name in scales
            )
            least, best = (least, middle) if error <= most else (middle + 1, best)
        if best * STEP < link.channels:
            _keep(link, np.sort(order[: best * STEP]), moments[link.name])
            pruned.append(Pruned(str(link.source.name), best * STEP, link.channels))
    return tuple(reversed(pruned))


def _outputs(
    model: ir.Model, inputs: npt.NDArray[np.float32], folder: Path
) -> dict[str, npt.NDArray[np.float32]]:
    """Return the outputs (N, D) of a graph, one run for each input."""
    path = folder / "pruned.onnx"
    ir.save(model, path)
    try:
        engine = GraphWithValues(path)
        runs = [engine.run(inputs[row : row + 1]) for row in range(len(inputs))]
    finally:
        path.unlink()
    return {name: np.concatenate([run[name] for run in runs]) for name in runs[0]}


def _moments_of(
    model: ir.Model, inputs: npt.NDArray[np.float32], folder: Path
) -> dict[str, _Moments]:
    links = links_of(model)
    sums: dict[str, list[Floats]] = {link.name: [] for link in links}
    with opened_with_values(model, folder) as engine:
        for row in range(len(inputs)):
            values = engine.run(inputs[row : row + 1])
            for link in links:
                value = values[link.name].reshape(link.channels, -1).astype(np.float64)
                if not sums[link.name]:
                    sums[link.name] = [np.zeros_like(value), np.zeros(link.channels)]
                sums[link.name][0] += value
                sums[link.name][1] += (value**2).mean(axis=1)
    found = {}
    for name, (total, squares) in sums.items():
        means = total / len(inputs)
        if not _is_flat(links, name):
            # A convolution reads a channel alike everywhere, so that one number stands for it.
            means = np.broadcast_to(means.mean(axis=1, keepdims=True), means.shape)
        found[name] = _Moments(means, squares / len(inputs) - (means**2).mean(axis=1))
    return found


def _is_flat(links: tuple[Link, ...], name: str) -> bool:
    (link,) = (one for one in links if one.name == name)
    return all(reader.op_type == "Gemm" for reader in link.readers)


def _importance(link: Link, moments: _Moments) -> Floats:
    reading = np.zeros(link.channels)
    for reader in link.readers:
        weights = array_of(reader.inputs[1]).astype(np.float64)
        by_channel = weights.reshape(len(weights), link.channels, -1)
        reading += (by_channel**2).sum(axis=(0, 2))
    return moments.away * reading


def _keep(link: Link, kept: npt.NDArray[np.intp], moments: _Moments) -> None:
    """Leave all channels of a link but those out of its graph."""
    for position in (1, 2):
        if len(link.source.inputs) > position and (value := link.source.inputs[position]):
            _set(value, array_of(value)[kept])
    gone = np.setdiff1d(np.arange(link.channels), kept)
    for reader in link.readers:
        weights = array_of(reader.inputs[1])
        parts = weights.reshape(len(weights), link.channels, -1)
        # Of a convolution every tap reads the mean; where there is padding, that is not so.
        means = moments.means[:, :1] if weights.ndim > 2 else moments.means
        stays = (parts[:, gone] * means[gone]).sum(axis=(1, 2))
        bias = reader.inputs[2]
        _set(bias, (array_of(bias) + stays).astype(np.float32))
        _set(reader.inputs[1], parts[:, kept].reshape(len(weights), -1, *weights.shape[2:]))
    _resize(link, len(kept))


def _resize(link: Link, channels: int) -> None:
    """Say how large the values between a layer and its readers are now."""
    value = link.source.outputs[0]
    while True:
        shape = list(value.shape or ())
        width = shape[1]
        assert isinstance(width, int)  # noqa: S101  # channels are counted in every graph of ours
        shape[1] = width * channels // link.channels
        value.shape = ir.Shape(shape)
        (*_, last) = uses = [use.node for use in value.uses()]
        if last in link.readers:
            return
        (node,) = uses
        if node.op_type == "Reshape":
            size = np.asarray(node.inputs[1].const_value.numpy()).copy()  # type: ignore[union-attr]
            size[1:] = [int(str(one)) for one in list(node.outputs[0].shape or ())[1:]]
            size[1] = size[1] * channels // link.channels
            _set(node.inputs[1], size)
        value = node.outputs[0]


def _set(value: ir.Value | None, array: npt.NDArray[np.generic]) -> None:
    assert value is not None  # noqa: S101  # constants of a link
    value.const_value = ir.tensor(np.ascontiguousarray(array), name=value.name)
    value.shape = ir.Shape(array.shape)
