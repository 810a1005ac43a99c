"""What can be said about a program without running it: is it well-formed, and does it keep to its contract?

This works on the syntax tree alone and needs no torch, so the engine runs it outside the sandbox too. It is a hint and
never the wall: Python cannot be confined by reading it, so what is not found here may still be there, and the sandbox
is the boundary for every program. What this buys is a clear sentence for the many programs that stray by accident, no
cheap way to stray on purpose, and a reviewer who knows which line to read first.
"""

from __future__ import annotations

import ast

from engine.linear_attention import static_cost, static_form, static_reach, static_text
from engine.linear_attention import static_rules as rules
from engine.linear_attention.static_tree import Program, StaticFinding

__all__ = ["StaticFinding", "check_source", "errors"]


def check_source(source: str, allow_fla: bool = False) -> list[StaticFinding]:
    """Everything found in one program's source, in line order; empty for a clean program.

    allow_fla: whether `fla` may be imported, which is so where there is a CUDA device to run its kernels.
    """
    findings = _check_size(source)
    tree = _parse(source, findings)
    if tree is None:
        return findings
    program = Program(source, tree)
    findings += static_reach.check(program, allow_fla)
    findings += static_text.check(program)
    findings += static_form.check(program)
    findings += static_cost.check(program)
    return sorted(set(findings), key=lambda finding: (finding.line, finding.kind, finding.message))


def errors(findings: list[StaticFinding]) -> list[StaticFinding]:
    """The findings that fail the static gate."""
    return [finding for finding in findings if finding.severity == "error"]


def _error(kind: str, line: int, message: str) -> StaticFinding:
    return StaticFinding(kind, "error", line, message, "high")


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
