"""The building blocks of `ops` in words, for those who write programs: read from the sources, without torch."""

from __future__ import annotations

import ast
import functools
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "ops"


@functools.cache
def building_blocks() -> str:
    """Every exported name of `ops` with its signature and the first line of what it says about itself."""
    package = ast.parse((FOLDER / "__init__.py").read_text(encoding="utf-8"))
    lines = [f"engine.linear_attention.ops: {ast.get_docstring(package) or ''}", ""]
    for node in package.body:
        if isinstance(node, ast.ImportFrom) and node.module:
            wanted = [alias.name for alias in node.names]
            source = FOLDER / f"{node.module.rsplit('.', 1)[-1]}.py"
            lines += _of_module(ast.parse(source.read_text(encoding="utf-8")), wanted)
    return "\n".join(lines) + "\n"


def _of_module(module: ast.Module, wanted: list[str]) -> list[str]:
    known = {node.name: node for node in module.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    return [_line(known[name]) for name in wanted if name in known]


def _line(node: ast.FunctionDef | ast.ClassDef) -> str:
    about = (ast.get_docstring(node) or "").split("\n", 1)[0]
    return f"- {node.name}{_signature(node)}: {about}"


def _signature(node: ast.FunctionDef | ast.ClassDef) -> str:
    """Arguments and result; of a class those of its constructor."""
    if isinstance(node, ast.FunctionDef):
        result = f" -> {ast.unparse(node.returns)}" if node.returns is not None else ""
        return f"({ast.unparse(node.args)}){result}"
    inner = next((one for one in node.body if isinstance(one, ast.FunctionDef) and one.name == "__init__"), None)
    return f"({ast.unparse(inner.args).removeprefix('self').removeprefix(', ')})" if inner is not None else "()"
