"""The offline agent: a typed genome over the building blocks of linear attention, and a search that explains itself."""

from engine.agents.evolver.agent import Evolver, NothingLeftToTryError
from engine.agents.evolver.genome import SEEDS, Genome, decode, encode
from engine.agents.evolver.render import render

__all__ = ["SEEDS", "Evolver", "Genome", "NothingLeftToTryError", "decode", "encode", "render"]
