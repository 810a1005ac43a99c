"""How alike programs are: the same one, near copies, and how far a repair strays from what it repairs.

All of it compares what the syntax tree says; comments, docstrings, layout and annotations do not count.
"""

from __future__ import annotations

import ast
import hashlib
from collections import Counter
from itertools import pairwise

import msgspec

from engine.linear_attention.static_tree import Functions, functions

UNREADABLE = (SyntaxError, ValueError, RecursionError, MemoryError)
MAX_NAMED = 8


class Change(msgspec.Struct, frozen=True):
    """How one program differs from another: the share of changed lines, 0 to 1, and the functions they stand in."""

    share: float
    where: list[str]


def normalised_hash(source: str) -> str:
    """SHA-256 of what the source says: comments, docstrings, layout, annotations and local names do not count.

    Two programs with the same hash are the same program. Source that does not parse is hashed as it stands.
    """
    try:
        tree = _Normaliser().visit(ast.parse(source))
        text = ast.dump(tree)
    except UNREADABLE:
        text = source
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def fingerprint(source: str) -> frozenset[int]:
    """A program as a set of hashed lines and pairs of lines, blind to names; empty when it cannot be read.

    What two programs share of their fingerprints is their likeness.
    """
    try:
        tree = _Blind().visit(_Plain().visit(ast.parse(source)))
        lines = [line.strip() for line in ast.unparse(tree).splitlines() if line.strip()]
    except UNREADABLE:
        return frozenset()
    pieces: Counter[str] = Counter()
    hashes: set[int] = set()
    for piece in [*lines, *("\n".join(pair) for pair in pairwise(lines))]:
        pieces[piece] += 1
        digest = hashlib.blake2b(f"{pieces[piece]}\0{piece}".encode("utf-8", "surrogatepass"), digest_size=8)
        hashes.add(int.from_bytes(digest.digest(), "big"))
    return frozenset(hashes)


def change(before: str, after: str) -> Change:
    """How `after` differs from `before`, names included; everything when one of them cannot be read."""
    try:
        old, new = _by_function(before), _by_function(after)
    except UNREADABLE:
        return Change(1.0, ["the whole program"])
    where = [name for name in dict.fromkeys([*old, *new]) if old.get(name) != new.get(name)]
    lines = [Counter((name, line) for name, text in side.items() for line in text) for side in (old, new)]
    longest = max(lines[0].total(), lines[1].total(), 1)
    changed = longest - (lines[0] & lines[1]).total()
    # Lines that only changed places are no new lines, but something was changed.
    return Change(min(1.0, max(changed, len(where)) / longest), where[:MAX_NAMED])


def _by_function(source: str) -> dict[str, list[str]]:
    """The lines of every function by its qualified name, and under "the module" what stands outside of them."""
    tree = _Plain().visit(ast.parse(source))
    found: dict[str, list[str]] = {}
    for name, function in functions(tree):
        if name in found:
            name = f"{name} (again)"
        found[name] = ast.unparse(function).splitlines()
    rest = _Hollow().visit(tree)
    return {"the module": ast.unparse(rest).splitlines(), **found}


class _Plain(ast.NodeTransformer):
    """Takes away docstrings and annotations, which say nothing to Python."""

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        if node.value is None or not isinstance(node.target, ast.Name | ast.Attribute):
            return node
        return ast.copy_location(ast.Assign([node.target], self.visit(node.value)), node)

    def visit_Module(self, node: ast.Module) -> ast.AST:
        return self._body(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        return self._body(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self._body(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        node.returns = None
        return self._body(node)

    def _body(self, node: ast.Module | ast.ClassDef | Functions) -> ast.AST:
        if ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
        return self.generic_visit(node)


class _Hollow(ast.NodeTransformer):
    """Empties every function, so that what is left is the rest of the module."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        return ast.copy_location(ast.Expr(ast.Constant(node.name)), node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        return ast.copy_location(ast.Expr(ast.Constant(node.name)), node)


class _Blind(ast.NodeTransformer):
    """Gives every local name, and everything kept on self, the same name: renaming makes no program new."""

    def visit_Name(self, node: ast.Name) -> ast.AST:
        if node.id != "self":
            node.id = "_" if isinstance(node.ctx, ast.Store) or node.id in self._own else node.id
        return node

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.arg = "_"
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.value, ast.Name) and node.value.id == "self":
            node.attr = "_"
        return node

    def visit_Module(self, node: ast.Module) -> ast.AST:
        self._own = {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        self._own |= {n.arg for n in ast.walk(node) if isinstance(n, ast.arg)} - {"self"}
        return self.generic_visit(node)


class _Normaliser(ast.NodeTransformer):
    """Strips docstrings and annotations and numbers the local names of every function in order of appearance."""

    def __init__(self) -> None:
        self._scopes: list[dict[str, str]] = []

    def visit_Name(self, node: ast.Name) -> ast.AST:
        for scope in reversed(self._scopes):
            if node.id in scope:
                node.id = scope[node.id]
                break
        return node

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.arg = self._scopes[-1].get(node.arg, node.arg)
        node.annotation = None
        return node

    def visit_Module(self, node: ast.Module) -> ast.AST:
        return self._body(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        return self._body(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        shared = {
            name for inner in ast.walk(node) if isinstance(inner, ast.Global | ast.Nonlocal) for name in inner.names
        }
        found = [inner.arg for inner in ast.walk(node.args) if isinstance(inner, ast.arg)]
        found += [n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]
        names = [name for name in dict.fromkeys(found) if name not in shared]
        depth = len(self._scopes)
        self._scopes.append({name: f"local_{depth}_{index}" for index, name in enumerate(names)})
        self._body(node)
        self._scopes.pop()
        return node

    def _body(self, node: ast.Module | ast.ClassDef | ast.FunctionDef) -> ast.AST:
        if ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
        return self.generic_visit(node)
