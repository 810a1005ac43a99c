"""Agents that are language models: prompts, the server, what may be believed of an answer, and its record."""
