"""The evolver's search space: a mixer as a handful of named choices, each of them a gene.

A genome is a point of the space, `normalise` the only place where genes constrain each other, `active` the genes that
have an effect in a genome, and `SEEDS` the genomes of the linear-time baselines that the search descends from.
"""

from __future__ import annotations

from typing import Any, Literal, get_args, get_type_hints

import msgspec

Value = str | int


class Genome(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One mixer.

    write: how a token enters the state: added, or by the delta rule (erase what the key held, then write).
    steps: delta-rule steps per token (DeltaProduct, arXiv 2502.10297).
    strength: of the write: 1; a gate in (0, 1); in (0, 2), which admits negative eigenvalues (arXiv 2411.12537); or
        coupled to the decay by one step size, so that what forgets much also writes much (Mamba-2).
    decay: of the state: none; a constant per head (RetNet); from the data per head (Mamba-2) or per channel (GLA).
    memory: the decay's half-life at initialisation: 16 tokens, 256, or spread over the heads.
    timescales: 2 keeps a second state that decays eight times more slowly and mixes both reads.
    feature: map on queries and keys (`silu` acts on values too). key_norm: L2 normalisation after it.
    position: rotary embedding of queries and keys.
    widths: of keys and values per head, relative to d_model / n_heads: 1 and 1, 1/2 and 1, 1/2 and 3/2, or one
        query and key of width 1 shared by all heads.
    convolution: short causal convolution on keys alone or on queries, keys and values.
    shift: learned mix with the previous token, of the input or of the keys.
    window: length of a window-attention branch, mixed in by a learned gate; 0 is none.
    feedback: `subtract` corrects the query by a learned share of the key (Comba, arXiv 2506.02475).
    skip: lets the present value pass the state by: scaled per head, or weighted by query and key (RWKV's bonus).
    gate: on the output. output_norm: RMS per head, or division by the sum of weights (`denominator`).
    """

    write: Literal["add", "delta"] = "add"
    steps: Literal[1, 2] = 1
    strength: Literal["fixed", "gate", "reflect", "coupled"] = "fixed"
    decay: Literal["none", "constant", "head", "channel"] = "none"
    memory: Literal["short", "long", "spread"] = "spread"
    timescales: Literal[1, 2] = 1
    feature: Literal["identity", "silu", "elu", "relu", "squared_relu", "softmax"] = "identity"
    key_norm: Literal["none", "l2"] = "none"
    position: Literal["none", "rotary"] = "none"
    widths: Literal["square", "narrow_keys", "wide_values", "shared_keys"] = "square"
    convolution: Literal["none", "keys", "all"] = "none"
    shift: Literal["none", "input", "keys"] = "none"
    window: Literal[0, 16, 32] = 0
    feedback: Literal["none", "subtract"] = "none"
    skip: Literal["none", "value", "bonus"] = "none"
    gate: Literal["none", "swish", "sigmoid"] = "none"
    output_norm: Literal["none", "rms", "denominator"] = "rms"


GENES: dict[str, tuple[Value, ...]] = {gene: get_args(hint) for gene, hint in get_type_hints(Genome).items()}
"""Every gene with its possible values, in the order of the struct."""

POSITIVE_FEATURES = frozenset({"elu", "softmax"})
"""Feature maps that are positive everywhere, so that a sum of weights may divide the read."""

_ENCODER = msgspec.json.Encoder(order="deterministic")
_DECODER = msgspec.json.Decoder(Genome)
_LIMIT = 4096


def encode(genome: Genome) -> str:
    """The genome as JSON, always the same text for the same genome."""
    return _ENCODER.encode(genome).decode()


def decode(text: str) -> Genome | None:
    """Parse what `encode` wrote, normalised; None for anything else."""
    if not text or len(text) > _LIMIT:
        return None
    try:
        return normalise(_DECODER.decode(text))
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def replace(genome: Genome, **genes: Any) -> Genome:
    """The genome with some genes changed, normalised."""
    return normalise(msgspec.structs.replace(genome, **genes))


def _normalise_write(genes: dict[str, Any]) -> None:
    if genes["write"] == "add":
        genes["steps"] = 1
        if genes["strength"] == "reflect":
            genes["strength"] = "gate"
    else:
        genes["key_norm"] = "l2"
    if genes["steps"] == 2:
        genes.update(timescales=1, window=0, skip="none")
        if genes["widths"] != "square" or genes["gate"] != "none":
            genes["widths"] = "narrow_keys"
        if genes["decay"] == "channel":
            genes["decay"] = "head"
    if genes["write"] == "add" or genes["steps"] == 2:
        genes["feedback"] = "none"
    if genes["decay"] == "none":
        genes.update(memory="spread", timescales=1)
    if genes["strength"] == "coupled" and (genes["write"] == "delta" or genes["decay"] != "head"):
        genes["strength"] = "gate"


def _normalise_read(genes: dict[str, Any]) -> None:
    if genes["feature"] == "squared_relu":
        genes["key_norm"] = "l2"
    if genes["feature"] == "softmax" and genes["write"] == "add":
        genes["key_norm"] = "none"
    if genes["convolution"] != "none" and genes["shift"] == "keys":
        genes["shift"] = "none"
    plain_sum = genes["write"] == "add" and genes["decay"] == "none" and genes["feature"] in POSITIVE_FEATURES
    if genes["output_norm"] == "denominator":
        if plain_sum:
            genes["position"] = "none"
        else:
            genes["output_norm"] = "rms"
    if genes["output_norm"] == "none" and genes["write"] == "add":
        genes["output_norm"] = "rms"


def normalise(genome: Genome) -> Genome:
    """The valid genome nearest to `genome`; genes without effect get one canonical value.

    The rules keep a mixer stable (the delta rule needs unit keys, an unbounded state a normalised read), meaningful
    (no memory without decay, no denominator without positive weights) and within 6 d_model² parameters.
    """
    genes = msgspec.structs.asdict(genome)
    _normalise_write(genes)
    _normalise_read(genes)
    return Genome(**genes)


def active(genome: Genome) -> dict[str, Value]:
    """The genes that mean something in this genome: `memory` says nothing without decay, `steps` without erasing."""
    silent: set[str] = set()
    if genome.decay == "none":
        silent |= {"memory", "timescales"}
    if genome.write == "add":
        silent |= {"steps", "feedback"}
    if genome.steps == 2:
        silent |= {"timescales", "feedback", "window", "skip"}
    genes: dict[str, Value] = msgspec.structs.asdict(genome)
    return {gene: value for gene, value in genes.items() if gene not in silent}


def differences(old: Genome, new: Genome) -> dict[str, tuple[Value, Value]]:
    """Gene → (old value, new value) for every gene that differs."""
    before, after = msgspec.structs.asdict(old), msgspec.structs.asdict(new)
    return {gene: (before[gene], after[gene]) for gene in GENES if before[gene] != after[gene]}


def distance(a: Genome, b: Genome) -> int:
    """The number of genes in which two genomes differ."""
    return len(differences(a, b))


_FAMILIES: dict[tuple[str, str], str] = {
    ("add", "none"): "linear attention",
    ("add", "constant"): "retention",
    ("add", "head"): "Mamba-2",
    ("add", "channel"): "gated linear attention",
    ("delta", "none"): "DeltaNet",
    ("delta", "constant"): "DeltaNet with constant decay",
    ("delta", "head"): "Gated DeltaNet",
    ("delta", "channel"): "Kimi delta attention",
}


def family(genome: Genome) -> str:
    """The name under which the literature knows the genome's recurrence."""
    name = _FAMILIES[genome.write, genome.decay]
    return name if genome.steps == 1 else name.replace("DeltaNet", "DeltaProduct")


_DELTA = Genome(write="delta", strength="gate", feature="silu", key_norm="l2")

SEEDS: dict[str, Genome] = {
    "linear_attention": Genome(feature="elu", output_norm="denominator"),
    "retnet": Genome(decay="constant", position="rotary", gate="swish"),
    "mamba2": Genome(
        strength="coupled", decay="head", feature="silu", widths="shared_keys", skip="value", gate="swish"
    ),
    "gla": Genome(decay="channel", memory="short", gate="swish"),
    "deltanet": _DELTA,
    "deltanet_negative": msgspec.structs.replace(_DELTA, strength="reflect"),
    "gated_deltanet": msgspec.structs.replace(_DELTA, decay="head", gate="swish"),
    "kda": msgspec.structs.replace(_DELTA, decay="channel", gate="swish"),
    "delta_product": msgspec.structs.replace(_DELTA, strength="reflect", steps=2),
}
"""The linear-time baselines as genomes. Softmax attention is outside the space: its cost is quadratic."""
