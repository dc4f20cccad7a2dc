"""Nodes of anybody's graph by names: unique ones, and the module that a node belongs to."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator

import onnx_ir as ir
from onnx_ir.passes.common import LiftConstantsToInitializersPass

_SCOPES = "pkg.torch.onnx.name_scopes"
"""What torch's exporter notes of a node: the modules around it, outermost first."""
_PARAMETERS = ("weight", "bias", "scale", "gamma", "beta", "kernel")


def name_nodes(model: ir.Model) -> None:
    """Give every node a name of its own, in place, and make constants of nodes initialisers.

    Exporters leave names empty, or use one twice. Equal graphs get equal names.
    """
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    taken: set[str] = set()
    for node in model.graph:
        name = node.name or f"{node.op_type}_{node.outputs[0].name}"
        number = 2
        while name in taken:
            name, number = f"{node.name or node.op_type}_{number}", number + 1
        taken.add(name)
        node.name = name


def module_of(node: ir.Node) -> str:
    """Return the dotted path of the module that a node belongs to; empty where nothing tells.

    It is read from what exporters leave: scopes, a name such as `/decoder/norm1/Add`, or the names
    of parameters, such as `decoder.conv.weight`.
    """
    if scopes := node.metadata_props.get(_SCOPES):
        try:
            *modules, _ = ast.literal_eval(scopes)
            return str(modules[-1]) if modules else ""
        except (ValueError, SyntaxError):
            return ""
    if "/" in (node.name or ""):
        parts: list[str] = []
        for part in str(node.name).strip("/").split("/")[:-1]:
            if parts and part.startswith(f"{parts[-1]}."):  # an item of a list is named after it
                parts.pop()
            parts.append(part)
        return ".".join(parts)
    for value in node.inputs:
        if value is not None and value.const_value is not None:
            module, _, parameter = str(value.name).removesuffix("_fp16").rpartition(".")
            if parameter.startswith(_PARAMETERS):
                return module
    return ""


def described(node: ir.Node) -> str:
    """Return a node's name with what it is and where, for a message."""
    if module := module_of(node):
        return f"{node.name} ({node.op_type} of {module})"
    behind = next((found for one in _before(node) if (found := module_of(one))), "")
    return f"{node.name} ({node.op_type}{f' behind {behind}' if behind else ''})"


def nodes_called(model: ir.Model, names: Collection[str]) -> dict[str, list[str]]:
    """Return for each of some names the nodes that it means.

    It is a node's own name, or its module's or that of a module around it.
    """
    found: dict[str, list[str]] = {name: [] for name in names}
    for node in model.graph:
        own = (str(node.name), module_of(node))
        for name, nodes in found.items():
            if name in own or any(one.startswith((f"{name}.", f"{name}/")) for one in own):
                nodes.append(str(node.name))
    return found


def _before(node: ir.Node) -> Iterator[ir.Node]:
    """Yield the nodes that a node's values come from, nearest first."""
    seen, queue = {node}, [node]
    while queue:
        for value in queue.pop(0).inputs:
            maker = value.producer() if value is not None else None
            if maker is not None and maker not in seen:
                seen.add(maker)
                queue.append(maker)
                yield maker
