"""The domain: linear-attention mixers, how they are vetted, trained and scored.

Everything that imports torch lives here. This package itself imports nothing, so that the engine can name its
modules without loading torch.
"""
