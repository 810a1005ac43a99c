"""Shapes in the source that usually cost more than linear time or keep more than a constant state.

Hints for a reviewer, never a verdict: vetting counts the real cost.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from functools import cached_property

from engine.linear_attention.static_tree import Functions, Program, StaticFinding, functions

ATTENTION = frozenset({"MultiheadAttention", "scaled_dot_product_attention", "softmax_attention"})
PRODUCTS = frozenset({"baddbmm", "bmm", "einsum", "matmul"})
TRANSPOSED = frozenset({"T", "mT", "mH", "transpose", "permute", "swapaxes", "rearrange"})
JOINING = frozenset({"cat", "concat", "concatenate", "hstack", "vstack"})
GROWING = frozenset({"append", "extend", "insert"})
SHORTENING = frozenset({"pop", "popleft"})

Given = tuple[set[str], list[ast.AST], set[str]]
"""An assignment: the names that are set, the nodes of the value, and the names that it speaks of."""


def check(program: Program) -> list[StaticFinding]:
    """Everything that looks quadratic, and every state that looks as if it grew."""
    findings = list(_fused(program))
    for name, function in functions(program.tree):
        body = _Body(program, function)
        findings += body.written_out()
        if name.rpartition(".")[2] == "step":
            findings += body.growing()
    return findings


def _fused(program: Program) -> Iterator[StaticFinding]:
    """Attention over all positions by its name."""
    for node in program.nodes:
        if isinstance(node, ast.Call) and _called(node) in ATTENTION:
            yield program.warning("quadratic", node, f"attends over all pairs of positions by {_called(node)}")


class _Body:
    """One function: its calls, and which names are made from what. Every node is looked at a fixed number of times."""

    def __init__(self, program: Program, function: Functions) -> None:
        self.program, self.function = program, function
        self.nodes = list(ast.walk(function))
        self.given = [
            _given(node)
            for node in self.nodes
            if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign | ast.NamedExpr)
        ]

    def made_from(self, begins: Callable[[ast.AST], bool]) -> set[str]:
        """The names whose values hold, by way of other names or not, a node for which `begins` is true."""
        found: set[str] = set()
        for targets, nodes, _ in self.given:
            if any(begins(node) for node in nodes):
                found |= targets
        return self.with_heirs(found)

    def with_heirs(self, names: set[str]) -> set[str]:
        """The names, and all that are made from them."""
        found, pending, seen = set(names), list(names), set()
        while pending:
            for index in self.users.get(pending.pop(), ()):
                if index not in seen:
                    seen.add(index)
                    fresh = self.given[index][0] - found
                    found |= fresh
                    pending += fresh
        return found

    @cached_property
    def users(self) -> dict[str, list[int]]:
        """For each name the assignments that speak of it."""
        users: dict[str, list[int]] = {}
        for index, (_, _, mentioned) in enumerate(self.given):
            for name in mentioned:
                users.setdefault(name, []).append(index)
        return users

    # --- quadratic ----------------------------------------------------------------------------------------------------

    @cached_property
    def transposed(self) -> set[str]:
        """Names of what was transposed."""
        return self.made_from(_is_transposed)

    @cached_property
    def scores(self) -> set[str]:
        """Names of what was made from products of queries with transposed keys."""
        return self.made_from(self._is_score)

    def written_out(self) -> Iterator[StaticFinding]:
        """The softmax of such a product."""
        for node in self.nodes:
            if not isinstance(node, ast.Call) or _called(node) not in ("softmax", "log_softmax"):
                continue
            owner = node.func.value if isinstance(node.func, ast.Attribute) else None
            subject = owner if owner is not None and self.program.dotted(owner) is None else next(iter(node.args), None)
            if subject is not None and any(self._is_score(n) or _is_one_of(n, self.scores) for n in ast.walk(subject)):
                text = "a softmax over products of queries and keys; over all positions that is quadratic"
                yield self.program.warning("quadratic", node, text)

    def _is_score(self, node: ast.AST) -> bool:
        if not _is_product(node):
            return False
        sides = list(ast.iter_child_nodes(node))
        return _is_einsum(node) or any(
            _is_transposed(side) or _is_one_of(side, self.transposed) for side in sides if isinstance(side, ast.expr)
        )

    # --- state --------------------------------------------------------------------------------------------------------

    def growing(self) -> Iterator[StaticFinding]:
        """Joining or appending to the state in `step`, where nothing is cut off again."""
        arguments = [*self.function.args.posonlyargs, *self.function.args.args]
        if len(arguments) < 3:
            return
        states = self.with_heirs({arguments[2].arg})
        calls = [node for node in self.nodes if isinstance(node, ast.Call)]
        if any(_called(node) in SHORTENING for node in calls):
            return
        for node in calls:
            owner = node.func.value if isinstance(node.func, ast.Attribute) else None
            joins = _called(node) in JOINING and any(_speaks_of(argument, states) for argument in node.args)
            appends = _called(node) in GROWING and owner is not None and _speaks_of(owner, states)
            if (joins or appends) and not self._is_cut(node):
                text = "step joins to its state and cuts nothing off; a state that grows is not a recurrence"
                yield self.program.warning("state_growth", node, text, "medium")

    def _is_cut(self, node: ast.Call) -> bool:
        """Whether what the call gives is sliced: at once, or later under its name."""
        above = self.program.parents.get(id(node))
        if isinstance(above, ast.Subscript):
            return True
        if isinstance(above, ast.Assign):
            return any(_speaks_of(target, self.sliced) for target in above.targets)
        return isinstance(node.func, ast.Attribute) and _speaks_of(node.func.value, self.sliced)

    @cached_property
    def sliced(self) -> set[str]:
        """Names of which a slice is taken somewhere in the function."""
        return {
            node.value.id
            for node in self.nodes
            if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name)
            if any(isinstance(inner, ast.Slice) for inner in ast.walk(node.slice))
        }


# --- small questions to the tree -------------------------------------------------------------------------------------


def _called(node: ast.Call) -> str:
    function = node.func
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def _given(node: ast.Assign | ast.AugAssign | ast.AnnAssign | ast.NamedExpr) -> Given:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    names = {inner.id for target in targets for inner in ast.walk(target) if isinstance(inner, ast.Name)}
    value = list(ast.walk(node.value)) if node.value is not None else []
    return names, value, {inner.id for inner in value if isinstance(inner, ast.Name)}


def _is_one_of(node: ast.AST, names: set[str]) -> bool:
    return isinstance(node, ast.Name) and node.id in names


def _speaks_of(node: ast.AST, names: set[str]) -> bool:
    return any(_is_one_of(inner, names) for inner in ast.walk(node))


def _is_product(node: ast.AST) -> bool:
    if isinstance(node, ast.BinOp):
        return isinstance(node.op, ast.MatMult)
    return isinstance(node, ast.Call) and _called(node) in PRODUCTS


def _is_einsum(node: ast.AST) -> bool:
    """An einsum whose result has two positions: two indices that come from different operands."""
    if not (isinstance(node, ast.Call) and _called(node) == "einsum" and node.args):
        return False
    form = next((a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)), "")
    inputs, _, result = form.replace(" ", "").partition("->")
    operands = inputs.split(",")
    if len(operands) != 2 or not result:
        return False
    left, right = (set(operand) & set(result) for operand in operands)
    contracted = set(operands[0]) & set(operands[1]) - set(result)
    return bool(contracted) and bool(left - right) and bool(right - left)


def _is_transposed(node: ast.AST) -> bool:
    if isinstance(node, ast.Attribute):
        return node.attr in TRANSPOSED
    return isinstance(node, ast.Call) and _called(node) in TRANSPOSED
