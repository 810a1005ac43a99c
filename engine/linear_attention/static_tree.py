"""A program's source as the static checks see it: its tree, what its imports bind, and the words it is written in."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cached_property
from typing import Literal

import msgspec

Severity = Literal["error", "warning"]
Weight = Literal["info", "low", "medium", "high"]

MAX_SHOWN = 80
_LINE_END = re.compile(r"\r\n|\r|\n")
Functions = ast.FunctionDef | ast.AsyncFunctionDef


class StaticFinding(msgspec.Struct, frozen=True):
    """One thing seen in the source. An "error" fails the gate; a "warning" is for the reviewer's eye.

    `kind` is the stable word that a policy names: syntax, size, contract, global, import, dynamic, attribute, file,
    process, network, patch, global_state, override, literal, obfuscation, hook, stop_path, quadratic, fft,
    state_growth. `weight` is how grave a reviewer should take it; `message` ends with the words of the source.
    """

    kind: str
    severity: Severity
    line: int
    message: str
    weight: Weight = "low"


class Program:
    """One parsed program."""

    def __init__(self, source: str, tree: ast.Module) -> None:
        self.source, self.tree = source, tree
        self.lines = _LINE_END.split(source)
        self.nodes = list(ast.walk(tree))
        self.parents = {id(child): node for node in self.nodes for child in ast.iter_child_nodes(node)}
        self.bound: dict[str, str] = {}
        for node in self.nodes:
            if isinstance(node, ast.Import):
                for alias in node.names:
                    first = alias.name.split(".")[0]
                    self.bound[alias.asname or first] = alias.name if alias.asname else first
            elif isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    self.bound[alias.asname or alias.name] = f"{module_of(node)}.{alias.name}"

    @cached_property
    def aliases(self) -> dict[str, str]:
        """Names that are only ever another name for something imported: `L = nn.Linear`."""
        found: dict[str, set[str]] = {}
        for node in self.nodes:
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                above = self.parents.get(id(node))
                plain = isinstance(above, ast.Assign) and node in above.targets
                path = self.dotted(above.value) if plain and isinstance(above, ast.Assign) else None
                found.setdefault(node.id, set()).add(path or "")
        return {name: paths.pop() for name, paths in found.items() if len(paths) == 1 and "" not in paths}

    @cached_property
    def remarks(self) -> set[int]:
        """Ids of the strings that stand alone as statements: docstrings and the like, which do nothing."""
        return {
            id(node.value)
            for node in self.nodes
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        }

    def dotted(self, node: ast.expr) -> str | None:
        """`F.softmax` as "torch.nn.functional.softmax" when F was imported, else None."""
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name) or node.id not in self.bound:
            return None
        return ".".join([self.bound[node.id], *reversed(parts)])

    def whole(self, node: ast.AST) -> ast.AST:
        """The attribute chain or the call that `node` is the beginning of."""
        above = self.parents.get(id(node))
        while (isinstance(above, ast.Attribute) and above.value is node) or (
            isinstance(above, ast.Call) and above.func is node
        ):
            node, above = above, self.parents.get(id(above))
        return node

    def shown(self, node: ast.AST) -> str:
        """A node as it is written, on one line of printable characters, at most `MAX_SHOWN` long."""
        line, start = getattr(node, "lineno", 0), getattr(node, "col_offset", 0)
        if not 1 <= line <= len(self.lines):
            return ""
        text = self.lines[line - 1].encode("utf-8", "surrogatepass")
        single = getattr(node, "end_lineno", line) == line
        text = text[start : getattr(node, "end_col_offset", None)] if single else text[start:]
        return excerpt(text.decode("utf-8", "replace") + ("" if single else " …"))

    def error(self, kind: str, node: ast.AST, message: str) -> StaticFinding:
        """A finding that fails the gate, with the words it is about."""
        return StaticFinding(kind, "error", getattr(node, "lineno", 1), self._with_words(node, message), "high")

    def warning(self, kind: str, node: ast.AST, message: str, weight: Weight = "low") -> StaticFinding:
        """A finding for the reviewer, with the words it is about."""
        return StaticFinding(kind, "warning", getattr(node, "lineno", 1), self._with_words(node, message), weight)

    def _with_words(self, node: ast.AST, message: str) -> str:
        words = self.shown(self.whole(node))
        return message if not words or words in message else f"{message}: {words}"


def module_of(node: ast.ImportFrom) -> str:
    """The module that names are imported from, with leading dots where it is relative."""
    return "." * node.level + (node.module or "")


def excerpt(text: str) -> str:
    """Words of a program as one short line that does nothing to a terminal."""
    shown = " ".join("".join(c if c.isprintable() else "?" for c in text[: 4 * MAX_SHOWN]).split())
    return shown if len(shown) <= MAX_SHOWN else shown[: MAX_SHOWN - 1] + "…"


def is_dunder(name: str) -> bool:
    """Whether a name is one of Python's own."""
    return name.startswith("__") and name.endswith("__") and len(name) > 4


def functions(tree: ast.AST, owner: str = "") -> Iterator[tuple[str, Functions]]:
    """Every function with its qualified name, outer ones first."""
    pending: list[tuple[str, ast.AST]] = [(owner, tree)]
    while pending:
        prefix, node = pending.pop(0)
        for child in ast.iter_child_nodes(node):
            name = prefix
            if isinstance(child, Functions | ast.ClassDef):
                name = f"{prefix}.{child.name}" if prefix else child.name
                if isinstance(child, Functions):
                    yield name, child
            pending.append((name, child))
