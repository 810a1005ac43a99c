"""The form of a program: which classes and methods it defines, and whether the harness can call them."""

from __future__ import annotations

import ast

from engine.linear_attention import static_rules as rules
from engine.linear_attention.static_tree import Functions, Program, StaticFinding, is_dunder


def check(program: Program) -> list[StaticFinding]:
    """Definitions that replace what the harness relies on, and the contract of `Mixer`."""
    return [*_definitions(program), *_contract(program)]


def _definitions(program: Program) -> list[StaticFinding]:
    findings = []
    for node in program.nodes:
        if isinstance(node, Functions):
            unusual = is_dunder(node.name) and node.name not in rules.ALLOWED_DUNDERS
            findings += [program.error("override", node, f"defines {node.name}")] * unusual
        if not isinstance(node, ast.ClassDef):
            continue
        if any(keyword.arg == "metaclass" or keyword.arg is None for keyword in node.keywords):
            findings.append(program.error("dynamic", node, f"class {node.name} has a metaclass"))
        for member in node.body:
            names = [member.name] if isinstance(member, Functions) else []
            if isinstance(member, ast.Assign):
                names = [target.id for target in member.targets if isinstance(target, ast.Name)]
            findings += [
                program.error("override", member, f"class {node.name} replaces nn.Module.{name}")
                for name in names
                if name in rules.FORBIDDEN_OVERRIDES
            ]
    return findings


def _contract(program: Program) -> list[StaticFinding]:
    """Whether there is a class Mixer with the methods the harness calls."""
    classes = {node.name: node for node in program.tree.body if isinstance(node, ast.ClassDef)}
    if "Mixer" not in classes:
        return [StaticFinding("contract", "error", 1, "defines no class Mixer at module level", "high")]
    findings = []
    for name, expected in rules.REQUIRED_ARGUMENTS.items():
        method = _method(classes, "Mixer", name)
        if method is None:
            text = f"Mixer has no {name}({', '.join(expected)})"
            findings.append(program.error("contract", classes["Mixer"], text))
            continue
        findings += _judge_signature(program, method, expected)
    step = _method(classes, "Mixer", "step")
    if step is not None:
        findings += _judge_signature(program, step, ["self", "x_t", "state"], by_name=False)
    return findings


def _method(classes: dict[str, ast.ClassDef], owner: str, name: str) -> ast.FunctionDef | None:
    """The method as the class or, failing that, a base class in the same file defines it."""
    pending, seen = [owner], set()
    while pending:
        current = pending.pop(0)
        if current in seen or current not in classes:
            continue
        seen.add(current)
        for member in classes[current].body:
            if isinstance(member, ast.FunctionDef) and member.name == name:
                return member
        pending += [base.id for base in classes[current].bases if isinstance(base, ast.Name)]
    return None


def _judge_signature(
    program: Program, method: ast.FunctionDef, expected: list[str], by_name: bool = True
) -> list[StaticFinding]:
    arguments = method.args
    positional = [argument.arg for argument in [*arguments.posonlyargs, *arguments.args]]
    required = positional[: len(positional) - len(arguments.defaults)]
    keyword_only = [
        a.arg for a, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True) if default is None
    ]
    wanted = ", ".join(expected)
    matches = (
        positional[: len(expected)] == expected
        if by_name and method.name == "__init__"
        else (len(positional) >= len(expected))
    )
    if not matches or len(required) > len(expected) or keyword_only:
        return [program.error("contract", method, f"{method.name} must be callable as {method.name}({wanted})")]
    return []
