"""Ends: which inputs and outputs of a user's graph are image, mu, log_var, z and reconstruction."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from ...runtime.core.errors import GraphError
from .source import Source, described, shape_text

_LOG_VAR = re.compile(r"(z|latent|fc|q|posterior)?log(var|variance|sigma2|sigmasq)")
_MU = re.compile(r"(z|latent|fc|q|posterior)?(mu|mean|means|loc)")
_MOMENTS = re.compile(r"(latent)?(moments|parameters|params|stats|distribution|dist)")
_FLOATS = {ir.DataType.FLOAT, ir.DataType.FLOAT16}
ENCODER = ("mu", "log_var", "moments")
DECODER = ("reconstruction",)


@dataclass(frozen=True, slots=True)
class Ends:
    """What of a user's graph is used."""

    input: ir.Value
    outputs: dict[str, ir.Value]  # by our names: mu, log_var, moments, reconstruction
    remarks: tuple[str, ...] = ()


def ends_of(
    source: Source, known: Sequence[str], *, input_name: str | None, outputs: Mapping[str, str]
) -> Ends:
    """Find what a graph takes and gives; `known` are our names of outputs.

    `outputs` are those that the caller names, ours to the graph's, which may be values inside. A
    GraphError lists what there is where it is ambiguous.
    """
    if strange := [name for name in outputs if name not in known]:
        raise GraphError(f"--outputs {strange[0]}=...", fix=f"name {', '.join(known)}")
    if {"moments", *outputs} > {"moments"} and "moments" in outputs:
        raise GraphError("--outputs moments=... and others", fix="moments are mu and log_var")
    image = _input(source, input_name)
    if outputs:
        found = {ours: source.value(name) for ours, name in outputs.items()}
        if not {"mu", "moments", "reconstruction"} & found.keys():
            raise GraphError("--outputs names no mu", fix="add mu=NAME")
    elif known == DECODER:
        found = {"reconstruction": _only(source)}
    else:
        found = _latents(source)
    used = {value.name for value in found.values()}
    dropped = [value for value in source.graph.outputs if value.name not in used]
    remarks = [f"outputs that are not used: {described(dropped)}"] if dropped else []
    return Ends(image, found, tuple(remarks))


def _input(source: Source, name: str | None) -> ir.Value:
    values = source.inputs
    if name is not None:
        found = [value for value in values if value.name == name]
    else:
        floats = [value for value in values if value.dtype in _FLOATS]
        found = [v for v in floats if v.shape is not None and len(v.shape) == 4] or floats
    if len(found) != 1:
        what = f"has no input {name!r}" if name else "has no single float input"
        raise GraphError(
            f"{source.path} {what} (it has {described(values)})", fix="name it with --inputs"
        )
    if found[0].dtype not in _FLOATS:
        kind = found[0].dtype.name if found[0].dtype else "unknown"
        raise GraphError(
            f"the input {found[0].name!r} of {source.path} is of type {kind}",
            fix="export the model with a float32 input",
        )
    if others := [value for value in values if value is not found[0]]:
        raise GraphError(
            f"{source.path} takes more than {found[0].name!r}: {described(others)}",
            fix="export it with one input, the others as constants",
        )
    return found[0]


def _only(source: Source) -> ir.Value:
    values = source.graph.outputs
    named = [value for value in values if "recon" in str(value.name).lower()]
    found = values if len(values) == 1 else named
    if len(found) != 1:
        raise GraphError(
            f"which output of {source.path} is the image? It has {described(values)}",
            fix="say --outputs reconstruction=NAME",
        )
    return found[0]


def _latents(source: Source) -> dict[str, ir.Value]:
    values = [value for value in source.graph.outputs if value.dtype in {*_FLOATS, None}]
    mus = [value for value in values if _MU.fullmatch(_plain(value))]
    logs = [value for value in values if _LOG_VAR.fullmatch(_plain(value))]
    if len(values) == 1 and not logs and not _MOMENTS.fullmatch(_plain(values[0])):
        return {"mu": values[0]}
    if len(mus) == 1 and len(logs) <= 1:
        return {"mu": mus[0], **dict(zip(["log_var"], logs, strict=False))}
    if len(values) == 1:
        fix = f"say --outputs moments={values[0].name} where it is mu and log_var one after another"
    else:
        names = [str(value.name) for value in values][:2]
        fix = f"say --outputs mu={names[0]},log_var={names[-1]}, or mu alone"
    raise GraphError(
        f"which output of {source.path} is mu? It has {described(source.graph.outputs)}", fix=fix
    )


def _plain(value: ir.Value) -> str:
    """Return the last part of a name, letters and digits only."""
    last = re.split(r"[/:.]", str(value.name).lower())[-1] or str(value.name).lower()
    return re.sub(r"[^a-z0-9]", "", last)


def sizes_of(value: ir.Value) -> list[int | None]:
    """Return an input's shape, None for an axis that is free, or raise a GraphError."""
    if value.shape is None:
        raise GraphError(
            f"the input {value.name!r} has no shape", fix="export the model with a known shape"
        )
    # Some exporters write a free axis as 0 or -1.
    return [size if isinstance(size, int) and size > 0 else None for size in value.shape]


def checked_batch(value: ir.Value) -> bool:
    """Return whether an input's batch axis is free; a batch fixed to more than 1 is refused."""
    first = sizes_of(value)[0]
    if first not in {None, 1}:
        raise GraphError(
            f"the input {value.name!r} has shape {shape_text(value)}: a batch fixed to {first}",
            fix="export the model with a batch of 1 or a dynamic batch axis",
        )
    return first is None
