"""The prompts of the language models, as Markdown files."""
