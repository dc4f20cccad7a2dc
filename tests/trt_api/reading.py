"""What our code asks of TensorRT, as its source text says it.

The conventions that make the source readable here:

- The imported module is called `trt`: a parameter, a variable, or an attribute such as
  `package.trt`.
- In annotations, its types are written `tensorrt.IBuilderConfig`, with `import tensorrt` under
  `TYPE_CHECKING`.
- What only some releases have stands behind `package.is_rtx`, `hasattr(trt.Owner, "Name")` or
  `hasattr(instance, "name")`: in a branch, or after an early return.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass

MODULE = frozenset({"trt", "_trt"})
ANNOTATED = "tensorrt"


@dataclass(frozen=True, order=True)
class Use:
    """One dotted path from the module, without the module itself, on a line."""

    line: int
    chain: str


def chain_of(node: ast.expr, *, roots: frozenset[str] = MODULE) -> str | None:
    """Return an expression's path from the module: "" for the module, None for anything else."""
    if isinstance(node, ast.Name):
        return "" if node.id in roots else None
    if not isinstance(node, ast.Attribute):
        return None
    if node.attr in roots:
        return ""
    owner = chain_of(node.value, roots=roots)
    return None if owner is None else f"{owner}.{node.attr}".lstrip(".")


def guard_of(node: ast.AST) -> tuple[ast.expr, str] | None:
    """Return owner and name of a `hasattr` or `getattr` with a literal name."""
    match node:
        case ast.Call(
            func=ast.Name(id="hasattr" | "getattr"),
            args=[owner, ast.Constant(value=str(name)), *_],
        ):
            return owner, name
    return None


def reachable(tree: ast.Module, *, is_rtx: bool, has: Callable[[str], bool]) -> ast.Module:
    """Return the tree without what can not run under one release."""
    return _Pruner(is_rtx=is_rtx, has=has).visit(tree)


def uses(tree: ast.Module) -> Iterator[Use]:
    """Yield what is taken from the module at run time.

    A method of a class that derives from one of the module's counts too: the library calls back
    by name, so one that it does not know would never run.
    """
    inner: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node not in inner and (chain := chain_of(node)):
            yield Use(node.lineno, chain)
            inner.update(ast.walk(node))
        if isinstance(node, ast.ClassDef):
            bases = [chain for base in node.bases if (chain := chain_of(base))]
            methods = [part for part in node.body if isinstance(part, ast.FunctionDef)]
            for method in methods:
                if bases and not method.name.startswith("_"):
                    yield Use(method.lineno, f"{bases[0]}.{method.name}")


def annotations(tree: ast.Module) -> Iterator[Use]:
    """Yield what is named in annotations; never evaluated, so no release must have it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and (
            chain := chain_of(node, roots=frozenset({ANNOTATED}))
        ):
            yield Use(node.lineno, chain)


def guards(tree: ast.Module) -> Iterator[tuple[int, str | None, str]]:
    """Yield line, owner's path from the module (None for an instance) and name of each guard."""
    for node in ast.walk(tree):
        if guard := guard_of(node):
            owner, name = guard
            yield node.lineno, chain_of(owner), name


def retyped(
    source: str, *, is_rtx: bool, has: Callable[[str], bool], members: frozenset[str]
) -> str:
    """Return a file's text as a type checker must see it, line by line in the same place.

    The module becomes the one that type stubs describe; questions about the release become their
    answers, so that what cannot run is not looked at; and each object of which one of `members`
    is asked has its type revealed.
    """
    edits: list[tuple[int, int, int, bytes]] = []
    text = source.encode()
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))

    def replace(node: ast.expr, new: str) -> None:
        edits.append((_start(node), 1, _end(node), new.encode()))

    def _start(node: ast.expr) -> int:
        return starts[node.lineno - 1] + node.col_offset

    def _end(node: ast.expr) -> int:
        return starts[(node.end_lineno or 1) - 1] + (node.end_col_offset or 0)

    def walk(node: ast.AST) -> None:
        truth = _truth(node, is_rtx=is_rtx, has=has)
        if truth is not None and isinstance(node, ast.expr):
            return replace(node, str(truth))
        match node:
            case ast.JoinedStr():
                return None  # places inside are wrong before Python 3.12
            case ast.Name(ctx=ast.Load()) | ast.Attribute(ctx=ast.Load()) if chain_of(node) == "":
                return replace(node, ANNOTATED)
            case ast.Attribute(value=owner, attr=attr) if (
                attr in members and "_" in attr and chain_of(owner) is None
            ):
                edits.append((_start(owner), 0, _start(owner), b"reveal_type("))
                edits.append((_end(owner), 2, _end(owner), b")"))
        for child in ast.iter_child_nodes(node):
            walk(child)
        return None

    walk(ast.parse(source))
    for start, _, end, new in sorted(edits, reverse=True):
        text = text[:start] + new + text[end:]
    return f"{text.decode().rstrip()}\nimport {ANNOTATED}\n"


def _truth(node: ast.AST, *, is_rtx: bool, has: Callable[[str], bool]) -> bool | None:
    """Return the answer to a question about the release, or None where it is no such question."""
    match node:
        case ast.Attribute(attr="is_rtx", ctx=ast.Load()):
            return is_rtx
        case ast.Call(func=ast.Name(id="hasattr")) if guard := guard_of(node):
            owner = chain_of(guard[0])
            return None if owner is None else has(f"{owner}.{guard[1]}".lstrip("."))
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            truth = _truth(operand, is_rtx=is_rtx, has=has)
            return None if truth is None else not truth
    return None


class _Pruner(ast.NodeTransformer):
    """Takes the branch that a release takes, and drops what stands after the way out."""

    def __init__(self, *, is_rtx: bool, has: Callable[[str], bool]) -> None:
        self._is_rtx = is_rtx
        self._has = has

    def visit(self, node: ast.AST) -> ast.AST | list[ast.stmt]:
        if isinstance(node, ast.expr):
            truth = _truth(node, is_rtx=self._is_rtx, has=self._has)
            if truth is not None:
                return ast.copy_location(ast.Constant(truth), node)
        node = self.generic_visit(node)
        match node:
            case ast.If(test=ast.Constant(value=truth)):
                return (node.body if truth else node.orelse) or [
                    ast.copy_location(ast.Pass(), node)
                ]
            case ast.IfExp(test=ast.Constant(value=truth)):
                return node.body if truth else node.orelse
            case ast.BoolOp(op=op, values=values):
                return _shortened(node, values, ends_at=isinstance(op, ast.Or))
        return node

    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        for field in ("body", "orelse", "finalbody"):
            statements = getattr(node, field, None)
            if isinstance(statements, list):
                for index, statement in enumerate(statements):
                    if isinstance(statement, ast.Return | ast.Raise | ast.Continue | ast.Break):
                        del statements[index + 1 :]
                        break
        return node


def _shortened(node: ast.BoolOp, values: list[ast.expr], *, ends_at: bool) -> ast.expr:
    """Return an `and` or `or` without the known values that do not decide it."""
    kept: list[ast.expr] = []
    for value in values:
        known = value.value if isinstance(value, ast.Constant) else None
        if known is (not ends_at):
            continue
        kept.append(value)
        if known is ends_at:
            break
    if not kept:
        return ast.copy_location(ast.Constant(not ends_at), node)
    node.values = kept
    return kept[0] if len(kept) == 1 else node
