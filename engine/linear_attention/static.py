"""What can be said about a program without running it: is it well-formed, and does it keep to its contract?

This works on the syntax tree alone and needs no torch, so the engine runs it outside the sandbox too. It is the first
line, not the wall: Python cannot be confined by reading it, so a program that passes is still executed in the sandbox
only. What this buys is a clear sentence for the many programs that stray by accident, and no cheap way to stray on
purpose.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from typing import Literal

import msgspec

from engine.linear_attention import static_rules as rules

Severity = Literal["error", "warning"]


class StaticFinding(msgspec.Struct, frozen=True):
    """One thing seen in the source. An "error" fails the gate; a "warning" is for the reviewer's eye.

    `kind` is the stable word that a policy names: syntax, size, import, dynamic, attribute, patch, global_state,
    override, contract, hook, global.
    """

    kind: str
    severity: Severity
    line: int
    message: str


def check_source(source: str, allow_fla: bool = False) -> list[StaticFinding]:
    """Everything found in one program's source, in line order; empty for a clean program.

    allow_fla: whether `fla` may be imported, which is so where there is a CUDA device to run its kernels.
    """
    findings = _check_size(source)
    tree = _parse(source, findings)
    if tree is None:
        return findings
    modules, imports = _imports(tree, allow_fla)
    findings += imports
    findings += _literals(tree)
    findings += _names(tree)
    findings += _module_use(tree, modules)
    findings += _definitions(tree)
    findings += _contract(tree)
    return sorted(set(findings), key=lambda finding: (finding.line, finding.kind, finding.message))


def errors(findings: list[StaticFinding]) -> list[StaticFinding]:
    """The findings that fail the static gate."""
    return [finding for finding in findings if finding.severity == "error"]


def normalised_hash(source: str) -> str:
    """SHA-256 of what the source says: comments, docstrings, layout, annotations and local names do not count.

    Two programs with the same hash are the same program. Source that does not parse is hashed as it stands.
    """
    try:
        tree = _Normaliser().visit(ast.parse(source))
        text = ast.dump(tree)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        text = source
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _error(kind: str, node: ast.AST | int, message: str) -> StaticFinding:
    line = node if isinstance(node, int) else getattr(node, "lineno", 1)
    return StaticFinding(kind, "error", line, message)


def _check_size(source: str) -> list[StaticFinding]:
    findings = []
    size = len(source.encode("utf-8", "surrogatepass"))
    if size > rules.MAX_BYTES:
        findings.append(_error("size", 1, f"the source has {size} bytes; the limit is {rules.MAX_BYTES}"))
    lines = source.count("\n") + 1
    if lines > rules.MAX_LINES:
        findings.append(
            _error("size", rules.MAX_LINES + 1, f"the source has {lines} lines; the limit is {rules.MAX_LINES}")
        )
    return findings


def _parse(source: str, findings: list[StaticFinding]) -> ast.Module | None:
    if findings:
        return None
    try:
        return ast.parse(source)
    except SyntaxError as error:
        findings.append(_error("syntax", error.lineno or 1, f"does not parse: {error.msg}"))
    except (ValueError, RecursionError, MemoryError) as error:
        findings.append(_error("syntax", 1, f"does not parse: {type(error).__name__}"))
    return None


def _imports(tree: ast.Module, allow_fla: bool) -> tuple[dict[str, str], list[StaticFinding]]:
    """Names bound by imports, with their full dotted names, and what may not be imported."""
    bound: dict[str, str] = {}
    findings: list[StaticFinding] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                findings += _judge_import(node, alias.name, allow_fla)
                bound[alias.asname or alias.name.split(".")[0]] = (
                    alias.name if alias.asname else alias.name.split(".")[0]
                )
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            findings += _judge_import(node, module, allow_fla)
            for alias in node.names:
                full = f"{module}.{alias.name}"
                bound[alias.asname or alias.name] = full
                if alias.name == "*":
                    findings.append(_error("import", node, f"import the names of {module} one by one, not with *"))
                if full not in rules.ALLOWED_MODULES:
                    findings += _judge_path(node, full)
    return bound, findings


def _judge_import(node: ast.AST, module: str, allow_fla: bool) -> list[StaticFinding]:
    if module.split(".")[0] == "fla":
        if allow_fla:
            return []
        return [_error("import", node, "imports fla, which needs a CUDA device; use engine.linear_attention.ops")]
    if module in rules.ALLOWED_MODULES or module.startswith("engine.linear_attention.ops."):
        return []
    allowed = "torch, math, typing, dataclasses, einops and engine.linear_attention.ops"
    return [_error("import", node, f"imports {module}; a program may import {allowed}")]


def _judge_path(node: ast.AST, path: str) -> list[StaticFinding]:
    """What is wrong with reaching `path`, a dotted name that starts at an imported module."""
    root, *parts = path.split(".")
    forbidden = next((part for part in parts if part in rules.FORBIDDEN_ATTRIBUTES), None)
    if forbidden:
        return [_error("attribute", node, f"reaches the module {forbidden} through {path}")]
    if path in rules.ALLOWED_MODULES:
        return [_error("attribute", node, f"passes the module {path} around as a value; import it instead")]
    if root == "torch" and parts and not path.startswith("torch.utils.checkpoint"):
        first = parts[0]
        if first in rules.GLOBAL_STATE_TORCH or first.startswith("set_"):
            return [_error("global_state", node, f"uses {path}, which changes things for everybody")]
        if first in rules.FORBIDDEN_TORCH or "torch" in parts:
            return [_error("attribute", node, f"uses {path}, which is not part of a mixer")]
    offered = "engine.linear_attention.ops"
    if root == "engine" and not (path.startswith(offered) or offered.startswith(path)):
        return [_error("import", node, f"reaches {path}; only engine.linear_attention.ops is offered")]
    if any(part.startswith("_") for part in parts):
        return [_error("attribute", node, f"uses {path}, which is private")]
    return []


def _literals(tree: ast.Module) -> list[StaticFinding]:
    findings = []
    docstrings = {id(node) for node in _docstrings(tree)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant):
            value = node.value
            length = len(value) if isinstance(value, str | bytes) and id(node) not in docstrings else 0
            if length > rules.MAX_LITERAL_CHARACTERS:
                findings.append(_error("size", node, f"a literal of {length} characters"))
            if isinstance(value, int) and abs(value) >= 10**rules.MAX_INTEGER_DIGITS:
                findings.append(_error("size", node, f"an integer of more than {rules.MAX_INTEGER_DIGITS} digits"))
        elif isinstance(node, ast.List | ast.Tuple | ast.Set) and len(node.elts) > rules.MAX_LITERAL_ELEMENTS:
            findings.append(_error("size", node, f"a literal of {len(node.elts)} elements"))
        elif isinstance(node, ast.Dict) and len(node.values) > rules.MAX_LITERAL_ELEMENTS:
            findings.append(_error("size", node, f"a literal of {len(node.values)} elements"))
    return findings


def _docstrings(tree: ast.AST) -> Iterator[ast.Constant]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            first = node.body[0]
            value = first.value if isinstance(first, ast.Expr) else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                yield value


def _is_dunder(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")


def _names(tree: ast.Module) -> list[StaticFinding]:
    """Dynamic execution, attribute tricks and hooks, wherever they stand."""
    findings: list[StaticFinding] = []
    called = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            if node.id in rules.FORBIDDEN_NAMES:
                findings.append(_error("dynamic", node, f"uses {node.id}"))
            elif node.id in rules.ACCESSORS:
                findings += _judge_accessor(node, called.get(id(node)))
            elif _is_dunder(node.id) and node.id not in rules.ALLOWED_DUNDERS:
                findings.append(_error("attribute", node, f"uses {node.id}"))
        elif isinstance(node, ast.Attribute):
            if _is_dunder(node.attr) and node.attr not in rules.ALLOWED_DUNDERS:
                findings.append(_error("attribute", node, f"reaches for {node.attr}"))
            elif node.attr in rules.FORBIDDEN_ATTRIBUTES:
                findings.append(_error("attribute", node, f"reaches for .{node.attr}"))
            elif node.attr.startswith("register_") and "hook" in node.attr:
                everywhere = node.attr.startswith(("register_module", "register_multi"))
                findings.append(
                    StaticFinding(
                        "hook", "error" if everywhere else "warning", node.lineno, f"registers a hook by {node.attr}"
                    )
                )
        elif isinstance(node, ast.Global):
            findings.append(
                StaticFinding("global", "warning", node.lineno, f"changes module globals: {', '.join(node.names)}")
            )
    return findings


def _judge_accessor(node: ast.Name, call: ast.Call | None) -> list[StaticFinding]:
    if call is None or len(call.args) < 2:
        return [_error("dynamic", node, f"uses {node.id} as a value")]
    owner, attribute = call.args[0], call.args[1]
    if not (isinstance(attribute, ast.Constant) and isinstance(attribute.value, str)):
        return [_error("dynamic", node, f"{node.id} with a name that is computed; write the attribute out")]
    if _is_dunder(attribute.value) or attribute.value in rules.FORBIDDEN_ATTRIBUTES:
        return [_error("attribute", node, f"{node.id} reaches for {attribute.value}")]
    if node.id != "hasattr" and not (isinstance(owner, ast.Name) and owner.id == "self"):
        return [_error("dynamic", node, f"{node.id} on something other than self")]
    return []


def _module_use(tree: ast.Module, bound: dict[str, str]) -> list[StaticFinding]:
    """How imported modules are used: which paths are reached, and whether anything in them is overwritten."""
    findings: list[StaticFinding] = []
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    modules = {name for name, path in bound.items() if path in rules.ALLOWED_MODULES}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            path = _dotted(node, bound)
            if path is None:
                continue
            if isinstance(node.ctx, ast.Store | ast.Del):
                findings.append(_error("patch", node, f"overwrites {path}, which belongs to everybody"))
            elif id(node) not in inner:
                findings += _judge_path(node, path)
        elif isinstance(node, ast.Name) and node.id in bound:
            if isinstance(node.ctx, ast.Store | ast.Del):
                findings.append(_error("patch", node, f"rebinds the imported name {node.id}"))
            elif node.id in modules and id(node) not in inner:
                findings.append(_error("attribute", node, f"passes the module {bound[node.id]} around as a value"))
        elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
            path = _dotted(node.value, bound)
            if path is not None:
                findings.append(_error("patch", node, f"writes into {path}, which belongs to everybody"))
    return findings


def _dotted(node: ast.expr, bound: dict[str, str]) -> str | None:
    """`F.softmax` as "torch.nn.functional.softmax" when F was imported, else None."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name) or node.id not in bound:
        return None
    return ".".join([bound[node.id], *reversed(parts)])


def _definitions(tree: ast.Module) -> list[StaticFinding]:
    findings = []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            unusual = _is_dunder(node.name) and node.name not in rules.ALLOWED_DUNDERS
            findings += [_error("override", node, f"defines {node.name}")] * unusual
        if not isinstance(node, ast.ClassDef):
            continue
        if any(keyword.arg == "metaclass" or keyword.arg is None for keyword in node.keywords):
            findings.append(_error("dynamic", node, f"class {node.name} has a metaclass"))
        for member in node.body:
            names = [member.name] if isinstance(member, ast.FunctionDef | ast.AsyncFunctionDef) else []
            if isinstance(member, ast.Assign):
                names = [target.id for target in member.targets if isinstance(target, ast.Name)]
            findings += [
                _error("override", member, f"class {node.name} replaces nn.Module.{name}")
                for name in names
                if name in rules.FORBIDDEN_OVERRIDES
            ]
    return findings


def _contract(tree: ast.Module) -> list[StaticFinding]:
    """Whether there is a class Mixer with the methods the harness calls."""
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    if "Mixer" not in classes:
        return [_error("contract", 1, "defines no class Mixer at module level")]
    findings = []
    for name, expected in rules.REQUIRED_ARGUMENTS.items():
        method = _method(classes, "Mixer", name)
        if method is None:
            findings.append(_error("contract", classes["Mixer"], f"Mixer has no {name}({', '.join(expected)})"))
            continue
        findings += _judge_signature(method, expected)
    step = _method(classes, "Mixer", "step")
    if step is not None:
        findings += _judge_signature(step, ["self", "x_t", "state"], by_name=False)
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


def _judge_signature(method: ast.FunctionDef, expected: list[str], by_name: bool = True) -> list[StaticFinding]:
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
        return [_error("contract", method, f"{method.name} must be callable as {method.name}({wanted})")]
    return []


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
