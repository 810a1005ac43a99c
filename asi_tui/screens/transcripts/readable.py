"""Replies in a form that a person can read."""

from __future__ import annotations

import json

LONGEST_JSON = 200_000
"""Characters of a reply beyond which it is shown as it is."""


def readable(text: str) -> str:
    """JSON replies as an outline of `key: value`; everything else as it is."""
    if len(text) > LONGEST_JSON or not text[:200].lstrip().startswith("{"):
        return text
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return text
    if not isinstance(content, dict):
        return text
    parts = []
    for key, value in content.items():
        if isinstance(value, str):
            parts.append(f"{key}:\n{value}\n" if "\n" in value else f"{key}: {value}")
        elif isinstance(value, list):
            parts += [f"{key}:", *(f"  • {_flat(one)}" for one in value)]
        else:
            parts.append(f"{key}: {_flat(value)}")
    return "\n".join(parts)


def _flat(value: object) -> str:
    """One entry of a reply in a line."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_flat(inner)}" for key, inner in value.items())
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
