"""Which outputs of two graphs belong together, and as what each is judged."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ...runtime.core.errors import ConfigError, DataError, sentence_list
from ...runtime.core.spec import ModelSpec
from ...runtime.engines.base import Arrays
from .graphs import UserGraph
from .options import VerifyOptions, output_of
from .result import OutputKind

Floats = npt.NDArray[np.float32]
_MU = {"mu", "mean", "zmu", "zmean", "latentmean", "posteriormean", "loc"}
_LOG_VAR = {"logvar", "logvariance", "zlogvar", "zlogvariance", "latentlogvar", "posteriorlogvar"}
_AUTO_FLOATS = {"float32", "float16"}
_SAME = 1e-5
"""Two runs on the same images may differ by this share of an output's spread: rounding in another
order, as threads finish, is nothing random."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One output of the reference and the candidate's that it is compared with."""

    output: str
    candidate_output: str
    kind: OutputKind
    shape: tuple[int, ...]  # of one image, as the reference gives it
    channels_last: tuple[bool, bool] = (False, False)  # of an image: the reference's, the other's


def paired_outputs(
    options: VerifyOptions,
    reference: tuple[UserGraph, Arrays],
    candidate: tuple[UserGraph, Arrays],
) -> tuple[tuple[Pair, ...], tuple[str, ...]]:
    """Return what is judged, from what both graphs gave for the first images, and notes.

    Raises:
        ConfigError: A name that is asked for is not there, or nothing belongs together.
        DataError: The shapes of two outputs that belong together differ.
    """
    (graph, given), (other, other_given) = reference, candidate
    asked = [output_of(word) for word in options.outputs]
    names = [name for _, name in asked]
    others = list(options.candidate_outputs) or list(names)
    notes: list[str] = []
    if not asked:
        names, others, left_out = _names_of_both(graph, given, other, other_given)
        notes += left_out + _not_judged(reference, candidate)
    for one, found, wanted in ((graph, given, names), (other, other_given, others)):
        if lacking := [name for name in wanted if name not in found]:
            raise ConfigError(
                f"{one.path} has no output {lacking[0]!r} for each image, it has "
                f"{sentence_list(list(found))}: name outputs with --outputs and --candidate-outputs"
            )
    said = [kind for kind, _ in asked] or [None] * len(names)
    pairs = []
    for name, another, kind in zip(names, others, said, strict=True):
        values, other_values = given[name], other_given[another]
        own: OutputKind = "latent" if kind in {None, "image"} else kind
        pair = Pair(name, another, own, values.shape[1:])
        if kind in {None, "image"}:
            pair = _as_image(pair, values, other_values, graph.spec)
            if kind == "image" and pair.kind != "image":
                raise ConfigError(
                    f"image={name}: {pair.shape} is no image of 1 or 3 channels: leave out image="
                )
        if pair.kind != "image" and _core(values.shape[1:]) != _core(other_values.shape[1:]):
            raise DataError(
                f"{another} of {other.path} is {other_values.shape[1:]} an image, and {name} of "
                f"{graph.path} {values.shape[1:]}: outputs of other shapes cannot be compared"
            )
        pairs.append(pair)
    return _with_posterior(pairs, fixed={name for kind, name in asked if kind}), tuple(notes)


def _names_of_both(
    graph: UserGraph, given: Arrays, other: UserGraph, other_given: Arrays
) -> tuple[list[str], list[str], list[str]]:
    """Return the outputs of two graphs that belong together, and clauses on others.

    One output each belongs together, whatever it is called. A ConfigError where none does.
    """
    names = [name for name in _floats_of(graph) if name in given]
    available = [name for name in _floats_of(other) if name in other_given]
    if len(names) == len(available) == 1:
        return names, available, []
    common = [name for name in names if name in available]
    if not common:
        for one in (graph, other):
            if not _floats_of(one):
                raise ConfigError(
                    f"{one.path} has no output of float32 or float16: export it with one"
                )
        raise ConfigError(
            f"no output of {graph.path} ({sentence_list(_floats_of(graph))}) has the name of one "
            f"of {other.path} ({sentence_list(available)}): name those that belong together with "
            "--outputs and --candidate-outputs"
        )
    lone = [name for name in names + available if name not in common]
    notes = [f"not judged, as one graph alone has it: {', '.join(lone)}"] if lone else []
    return common, common, notes


def _not_judged(*graphs: tuple[UserGraph, Arrays]) -> list[str]:
    """Return a clause on outputs that are not compared, whichever graph has them."""
    of_others: dict[str, None] = {}
    of_all: dict[str, None] = {}
    for graph, given in graphs:
        of_others |= dict.fromkeys(name for name in graph.outputs if name not in _floats_of(graph))
        of_all |= dict.fromkeys(name for name in _floats_of(graph) if name not in given)
    reasons = {"no float32 or float16": of_others, "not one for each image": of_all}
    return [f"not judged, as it is {why}: {', '.join(of)}" for why, of in reasons.items() if of]


def _floats_of(graph: UserGraph) -> list[str]:
    return [name for name, (dtype, _) in graph.outputs.items() if dtype in _AUTO_FLOATS]


def _core(shape: Sequence[int]) -> tuple[int, ...]:
    """Return a shape without axes of one, which exporters add and drop."""
    return tuple(size for size in shape if size != 1)


def _as_image(pair: Pair, values: Floats, other: Floats, spec: ModelSpec | None) -> Pair:
    """Return the pair as an image where both outputs are; with pictures, of their size."""
    last = [_is_last(array.shape[1:], spec) for array in (values, other)]
    if None in last:
        return pair
    shapes = [
        (array.shape[3], *array.shape[1:3]) if is_last else array.shape[1:]
        for array, is_last in zip((values, other), last, strict=True)
    ]
    if shapes[0] != shapes[1]:
        return pair
    return replace(pair, kind="image", channels_last=(bool(last[0]), bool(last[1])))


def _is_last(shape: tuple[int, ...], spec: ModelSpec | None) -> bool | None:
    """Return whether the channels of an image come last; None where it is no image."""
    if len(shape) != 3:
        return None
    if spec is not None:
        channels, *size = spec.input_shape
        if shape == (channels, *size):
            return False
        return True if shape == (*size, channels) else None
    if shape[0] in {1, 3}:
        return False
    return True if shape[2] in {1, 3} else None


def _with_posterior(pairs: list[Pair], fixed: set[str]) -> tuple[Pair, ...]:
    """Return the pairs with one mu and one log_var of the same shape, if names say so."""
    kinds = {pair.output: pair.kind for pair in pairs}
    plain = {pair.output: _plain(pair.output) for pair in pairs if pair.kind == "latent"}
    if not {"mu", "log_var"} & {kinds[name] for name in fixed}:
        means = [name for name, word in plain.items() if word in _MU]
        variances = [name for name, word in plain.items() if word in _LOG_VAR]
        shapes = {pair.output: pair.shape for pair in pairs}
        if len(means) == len(variances) == 1 and shapes[means[0]] == shapes[variances[0]]:
            kinds |= {means[0]: "mu", variances[0]: "log_var"}
    found = [kind for kind in kinds.values() if kind in {"mu", "log_var"}]
    if found == ["log_var"] or len(found) > 2 or sorted(found) == ["log_var", "log_var"]:
        raise ConfigError(
            "--outputs: log_var= is of a mu=, and there is one of each: name both, or latent="
        )
    if found == ["mu"]:  # without a deviation it is a latent like any other
        kinds = {name: "latent" if kind == "mu" else kind for name, kind in kinds.items()}
    chosen = [replace(pair, kind=kinds[pair.output]) for pair in pairs]
    shapes_of = {pair.kind: pair.shape for pair in chosen}
    if "log_var" in shapes_of and shapes_of["mu"] != shapes_of["log_var"]:
        raise ConfigError(
            f"mu is {shapes_of['mu']} and log_var {shapes_of['log_var']}: name two of one shape"
        )
    order = ("mu", "log_var", "latent", "image")
    return tuple(sorted(chosen, key=lambda pair: order.index(pair.kind)))


def _plain(name: str) -> str:
    """Return a name without its scope, its number and what is no letter, such as "logvar"."""
    return re.sub("[^a-z]", "", re.sub(r":\d+$", "", name.lower()).rpartition("/")[2])


def check_repeatable(graph: UserGraph, runs: Sequence[Arrays], names: Sequence[str]) -> None:
    """Raise a DataError where a graph gave other values for the same images, with what is random.

    `runs` are two, each output name to (N, ...).
    """
    for name in names:
        one, again = (np.asarray(run[name], np.float64) for run in runs)
        if np.array_equal(one, again, equal_nan=True):
            continue
        scale = float(np.nanstd(one)) or 1.0
        if float(np.nanmax(np.abs(one - again))) <= _SAME * scale:
            continue
        nodes = graph.facts.random_nodes
        cause = f"its node {nodes[0]} draws numbers" if nodes else "something in it is random"
        raise DataError(
            f"{graph.path} gives another {name} each time it runs, as {cause}: export it without, "
            "or name other outputs with --outputs, such as the mean and log variance"
        )
