"""What a program is written with: long literals, strings that name places, and text that is meant not to be read."""

from __future__ import annotations

import ast
import io
import re
import tokenize
import unicodedata
from collections.abc import Iterator
from itertools import pairwise

from engine.linear_attention import static_rules as rules
from engine.linear_attention.static_tree import Program, StaticFinding, excerpt, is_dunder

ENCODED_CHARACTERS, HEX_CHARACTERS = 40, 32
BYTES = 16
ESCAPES, ESCAPED_SHARE = 6, 0.5
PIECES = 4

_ENCODED = re.compile(r"[A-Za-z0-9+/_=-]+\Z")
_HEX = re.compile(r"(0[xX])?[0-9a-fA-F]+\Z")
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|N\{[^}]*\}|[0-7]{1,3})")
_FIELD = re.compile(r"\{[^{}]*\.__\w+")
_SEPARATORS = str.maketrans("", "", "_-=")
# Greek letters that nobody can tell from a Latin one.
_TWINS = str.maketrans("ονΑΒΕΖΗΙΚΜΝΟΡΤΥΧ", "ovABEZHIKMNOPTYX")


def check(program: Program) -> list[StaticFinding]:
    """Everything about the program's literals and its spelling."""
    return [*_literals(program), *_assembled(program), *_spelling(program)]


# --- literals --------------------------------------------------------------------------------------------------------


def _literals(program: Program) -> Iterator[StaticFinding]:
    for node in program.nodes:
        if isinstance(node, ast.Constant) and id(node) not in program.remarks:
            if isinstance(node.value, str | bytes):
                yield from _judge_length(program, node, len(node.value))
            if isinstance(node.value, str):
                yield from _judge_string(program, node, node.value)
            elif isinstance(node.value, bytes) and len(node.value) > BYTES:
                text = f"holds {len(node.value)} bytes"
                yield program.warning("obfuscation", node, text, "medium")
            elif isinstance(node.value, int):
                yield from _judge_integer(program, node, abs(node.value))
        elif isinstance(node, ast.List | ast.Tuple | ast.Set | ast.Dict):
            yield from _judge_container(program, node)


def _judge_length(program: Program, node: ast.Constant, length: int) -> Iterator[StaticFinding]:
    if length > rules.MAX_LITERAL_CHARACTERS:
        yield program.error("size", node, f"a literal of {length} characters")
    elif length > rules.LONG_LITERAL_CHARACTERS:
        yield program.warning("literal", node, f"a literal of {length} characters", "medium")


def _judge_integer(program: Program, node: ast.Constant, value: int) -> Iterator[StaticFinding]:
    if value >= 10**rules.MAX_INTEGER_DIGITS:
        yield program.error("size", node, f"an integer of more than {rules.MAX_INTEGER_DIGITS} digits")
    elif value >= 10**rules.LONG_INTEGER_DIGITS:
        yield program.warning("literal", node, f"an integer of more than {rules.LONG_INTEGER_DIGITS} digits")


def _judge_container(program: Program, node: ast.List | ast.Tuple | ast.Set | ast.Dict) -> Iterator[StaticFinding]:
    own = len(node.values) if isinstance(node, ast.Dict) else len(node.elts)
    if own > rules.MAX_LITERAL_ELEMENTS:
        yield program.error("size", node, f"a literal of {own} elements")
        return
    if isinstance(program.parents.get(id(node)), ast.List | ast.Tuple | ast.Set | ast.Dict):
        return  # counted with the one around it
    held = sum(isinstance(inner, ast.Constant) for inner in ast.walk(node))
    if held > rules.LONG_LITERAL_ELEMENTS:
        yield program.warning("literal", node, f"a literal of {held} values", "medium")


def _judge_string(program: Program, node: ast.AST, text: str) -> Iterator[StaticFinding]:
    """What a string's words say: a place, an address, something encoded, or a field that reaches for an attribute."""
    shown = excerpt(text)
    if (name := _stop_file(text)) is not None:
        message = f"names {name}, which belongs to what supervises and stops the program"
        yield program.warning("stop_path", node, message, "high")
    elif _is_path(text):
        yield program.warning("file", node, f"names a file: {shown}", "medium")
    if _ADDRESS.match(text):
        yield program.warning("network", node, f"names an address: {shown}", "medium")
    elif looks_encoded(text):
        yield program.warning("obfuscation", node, f"{len(text)} characters that look encoded", "medium")
    if _FIELD.search(text):
        yield program.error("attribute", node, "a format that reaches for an attribute of Python's own")


def _stop_file(text: str) -> str | None:
    """The part of a path that is the supervisor's, None where there is none."""
    if len(text) > rules.LONG_LITERAL_CHARACTERS or any(c.isspace() for c in text):
        return None
    parts = text.split("/")
    return next(
        (part for part in parts if part in rules.STOP_FILES or (len(parts) > 1 and part in rules.STOP_FOLDERS)), None
    )


def _is_path(text: str) -> bool:
    if len(text) > rules.LONG_LITERAL_CHARACTERS or any(c.isspace() for c in text):
        return False
    if text.startswith(("../", "~/")):
        return True
    first, *more = text[1:].split("/")
    return text.startswith("/") and first.isalnum() and (bool(more) or first in rules.ROOT_FOLDERS)


def looks_encoded(text: str) -> bool:
    """Whether a text is a run of hexadecimal or base64 characters, too mixed to be a word."""
    if len(text) >= HEX_CHARACTERS and _HEX.match(text):
        return True
    if len(text) < ENCODED_CHARACTERS or not _ENCODED.match(text):
        return False
    text = text.translate(_SEPARATORS)
    changes = sum(_case(a) != _case(b) for a, b in pairwise(text))
    return changes > len(text) / 4


def _case(character: str) -> tuple[bool, bool, bool]:
    return character.islower(), character.isupper(), character.isdigit()


# --- strings put together --------------------------------------------------------------------------------------------


def _assembled(program: Program) -> Iterator[StaticFinding]:
    """Strings made of pieces, so that what they say is not there to be read."""
    for node in program.nodes:
        pieces = _pieces(program, node)
        if pieces is None:
            continue
        text = "".join(pieces)
        hidden = len(pieces) > 1 and _hides(text)
        if hidden or len(pieces) >= PIECES or _is_reversed(node):
            message = f"puts {excerpt(text)!r} together from pieces"
            yield program.warning("obfuscation", node, message, "medium")
            if _stop_file(text) and not any(_stop_file(piece) for piece in pieces):
                yield from _judge_string(program, node, text)


def _hides(text: str) -> bool:
    known = is_dunder(text) or text in rules.FORBIDDEN_NAMES or text in rules.FORBIDDEN_ATTRIBUTES
    return known or _is_path(text) or _stop_file(text) is not None or _ADDRESS.match(text) is not None


def _is_reversed(node: ast.AST) -> bool:
    return isinstance(node, ast.Subscript)


def _pieces(program: Program, node: ast.AST) -> list[str] | None:
    """The constant pieces of a sum, of a join or of a reversed string; None for anything else."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        above = program.parents.get(id(node))
        if isinstance(above, ast.BinOp) and isinstance(above.op, ast.Add):
            return None  # part of a longer sum
        return _strings(_summands(node))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "join":
        values = node.args[0] if node.args else None
        glue = node.func.value
        if isinstance(values, ast.List | ast.Tuple) and isinstance(glue, ast.Constant) and glue.value == "":
            return _strings(values.elts)
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Slice):
        step = node.slice.step
        backwards = isinstance(step, ast.UnaryOp) and isinstance(step.op, ast.USub)
        found = _strings([node.value])
        return [found[0][::-1]] if backwards and found else None
    return None


def _summands(node: ast.expr) -> list[ast.expr]:
    found: list[ast.expr] = []
    pending = [node]
    while pending:
        current = pending.pop()
        if isinstance(current, ast.BinOp) and isinstance(current.op, ast.Add):
            pending += [current.right, current.left]
        else:
            found.append(current)
    return found


def _strings(nodes: list[ast.expr]) -> list[str] | None:
    """The values of string constants; None where one is something else, or there are none."""
    values = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return values if values and len(values) == len(nodes) else None


# --- spelling --------------------------------------------------------------------------------------------------------


def _spelling(program: Program) -> Iterator[StaticFinding]:
    """Invisible characters, names that look like others, and strings that are mostly escapes."""
    for number, line in enumerate(program.lines, start=1):
        for character in sorted({c for c in line if _invisible(c)}):
            name = unicodedata.name(character, "control character")
            message = f"holds U+{ord(character):04X} ({name.lower()}), which hides what is written"
            yield StaticFinding("obfuscation", "error", number, message, "high")
    seen: set[str] = set()
    tokens = _tokens(program.source)
    latin = {token.string for token in tokens if token.type == tokenize.NAME}
    for token in tokens:
        if token.type == tokenize.NAME and not token.string.isascii() and token.string not in seen:
            seen.add(token.string)
            if why := _odd_name(token.string, latin):
                message = f"the name {excerpt(token.string)} {why}"
                yield StaticFinding("obfuscation", "warning", token.start[0], message, "medium")
        elif token.type == tokenize.STRING and _mostly_escapes(token.string):
            message = f"a string that is mostly escapes: {excerpt(token.string)}"
            yield StaticFinding("obfuscation", "warning", token.start[0], message, "medium")


def _invisible(character: str) -> bool:
    return not character.isascii() and unicodedata.category(character) in ("Cc", "Cf", "Co") and character != "\ufeff"


def _tokens(source: str) -> list[tokenize.TokenInfo]:
    """The source's tokens as far as they can be told apart."""
    found: list[tokenize.TokenInfo] = []
    try:
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            found.append(token)
    except (tokenize.TokenError, SyntaxError):
        pass
    return found


def _odd_name(name: str, known: set[str]) -> str:
    """Why a name outside ASCII deserves a look; empty for a Greek letter as in a formula."""
    plain = unicodedata.normalize("NFKC", name)
    if plain != name:
        return f"is read by Python as {excerpt(plain)}"
    letters = [c for c in name if not c.isascii()]
    if not all(unicodedata.name(c, "").startswith("GREEK") for c in letters):
        return "is written in letters that are not Latin or Greek"
    twin = name.translate(_TWINS)
    if twin != name and (twin in known or any(c.isascii() and c.isalpha() for c in name)):
        return f"looks like {excerpt(twin)}"
    return ""


def _mostly_escapes(literal: str) -> bool:
    prefix = literal[: len(literal) - len(literal.lstrip("rRbBuUfF"))]
    if "r" in prefix.lower():
        return False
    escapes = [match.end() - match.start() for match in _ESCAPE.finditer(literal)]
    return len(escapes) >= ESCAPES and sum(escapes) > ESCAPED_SHARE * len(literal)
