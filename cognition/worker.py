"""The process of the local sentence model: `python -m cognition.worker` answers lines of JSON until its input ends."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec


class Question(msgspec.Struct, frozen=True):
    """Texts to embed."""

    texts: list[str]


class Answer(msgspec.Struct, frozen=True):
    """Their vectors, or why there are none."""

    vectors: list[list[float]] = []
    error: str = ""


def _load() -> Any:
    """The model from the files of its package. `disable_download` keeps it off the network."""
    import wordllama

    # The package looks for its own tokenizer in a folder of the wrong name, and only then in the cache: so be it that.
    home = Path(wordllama.__file__).parent
    return wordllama.WordLlama.load(config="l2_supercat", dim=256, cache_dir=home, disable_download=True)


def main() -> None:
    """Answer every line; an error is an answer, too."""
    model: Any = None
    for line in sys.stdin.buffer:
        try:
            question = msgspec.json.decode(line, type=Question)
            if model is None:
                model = _load()
            answer = Answer(model.embed(question.texts, norm=True).tolist())
        except ImportError as error:
            answer = Answer(error=f"no sentence model is installed ({error}): pip install 'asi[embeddings]'")
        except Exception as error:  # a foreign library's errors must reach the parent as one line
            answer = Answer(error=f"{type(error).__name__}: {error}"[:300])
        sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
