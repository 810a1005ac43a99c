"""From a genome to a program under the contract: only the pieces that it uses, always in the same order.

The order never changes with the genome, so that one changed gene is a few changed lines in the diff that a person
reviews. Everything lives in one method `mix`, which carries a dictionary of states; `forward` starts it empty and
`step` hands it on, so that decoding cannot drift from training.
"""

from __future__ import annotations

import re
import textwrap

from engine.agents.evolver.genome import Genome, family

_FEATURES = {
    "silu": "F.silu",
    "elu": "elu_plus_one",
    "relu": "relu_feature",
    "squared_relu": "squared_relu",
    "softmax": "softmax_feature",
}
_HALF_LIVES = {"short": "16, 16", "long": "256, 256"}

# Callables of a rendered body that are not building blocks of `ops`.
_ELSEWHERE = {"sum"}

_TAIL = '''
    def forward(self, x: Tensor) -> Tensor:
        """The whole sequence."""
        return self.mix(x)[0]

    def step(self, x_t: Tensor, state):
        """One token `[batch, d_model]`."""
        y, state = self.mix(x_t.unsqueeze(1), state)
        return y.squeeze(1), state
'''


def render(genome: Genome) -> str:
    """The program of a normalised genome."""
    built, mixed = _built(genome), _mixed(genome)
    body = "\n".join([*built, *mixed])
    imports = []
    if "math." in body:
        imports += ["import math", ""]
    if re.search(r"\btorch\.", body):
        imports.append("import torch")
    imports.append("from torch import Tensor, nn")
    if re.search(r"\bF\.", body):
        imports.append("from torch.nn import functional as F")
    used = sorted(set(re.findall(r"(?<![.\w])\w+(?=\()", body)) - _ELSEWHERE)
    imports += ["", f"from engine.linear_attention.ops import {', '.join(used)}"]
    if len(imports[-1]) > 120:
        names = "".join(f"    {name},\n" for name in used)
        imports[-1] = f"from engine.linear_attention.ops import (\n{names})"
    parts = [
        f'"""{_document(genome)}\n"""',
        "",
        *imports,
        "",
        "",
        "class Mixer(nn.Module):",
        f'    """{_headline(genome)}"""',
        "",
        "    def __init__(self, d_model: int, n_heads: int, layer_idx: int, max_len: int) -> None:",
        "        super().__init__()",
        *(f"        {line}" for line in built),
        "",
        "    def mix(self, x: Tensor, state=None):",
        '        """`[batch, time, d_model]` to the same, and the state to continue from."""',
        *(f"        {line}" for line in mixed),
    ]
    return "\n".join(parts) + "\n" + _TAIL


def _headline(genome: Genome) -> str:
    name = family(genome)
    return f"{name[0].upper()}{name[1:]}; each head keeps a memory S [d_key, d_value]."


def _document(genome: Genome) -> str:
    """The module's docstring: the recurrence as a formula, and a line for each part around it."""
    decay = {"none": "", "constant": "a ", "head": "a_t ", "channel": "diag(a_t) "}[genome.decay]
    strength = {"fixed": "", "coupled": "s_t ", "gate": "b_t ", "reflect": "b_t "}[genome.strength]
    if genome.write == "add":
        lines = [f"S_t = {decay}S_{{t-1}} + {strength}k_t v_t^T"]
    else:
        lines = [f"S_t = {decay}S_{{t-1}} + {strength}k_t (v_t - ({decay}S_{{t-1}})^T k_t)^T"]
    if genome.steps == 2:
        lines.append("    twice per token, each time with a key and a value of its own; a_t only once")
    lines.append("o_t = S_t^T q_t / sum_s k_s^T q_t" if genome.output_norm == "denominator" else "o_t = S_t^T q_t")
    name = family(genome)
    text = [f"{name[0].upper()}{name[1:]}, composed by the evolver.", ""]
    text += [f"    {line}" for line in lines]
    notes = _notes(genome)
    if notes:
        text.append("")
        text += [part for note in notes for part in textwrap.wrap(f"* {note}", 116, subsequent_indent="  ")]
    return "\n".join(text)


def _notes(genome: Genome) -> list[str]:
    strengths = {
        "fixed": "",
        "gate": "b_t in (0, 1): how strongly a token writes, from the token.",
        "reflect": "b_t in (0, 2): above 1 a key is turned over and not only erased, so that a state can alternate.",
        "coupled": "s_t > 0 is a step size: it scales the write and, through a_t, the forgetting.",
    }
    memories = {
        "short": "half-life 16 tokens",
        "long": "half-life 256 tokens",
        "spread": "half-lives spread over heads",
    }
    skips = {
        "none": "",
        "value": "The present value also passes the memory by, scaled per head.",
        "bonus": "The present token also reads its own value, weighted by query and key.",
    }
    notes = [
        strengths[genome.strength],
        f"a from the {'token' if genome.decay in ('head', 'channel') else 'head'}, {memories[genome.memory]} at first."
        if genome.decay != "none"
        else "",
        "A second memory forgets eight times more slowly; each head mixes the two reads."
        if genome.timescales == 2
        else "",
        f"{'Keys' if genome.convolution == 'keys' else 'Queries, keys and values'} see the last four tokens."
        if genome.convolution != "none"
        else "",
        f"{'The input' if genome.shift == 'input' else 'Each key'} is mixed with the previous token's."
        if genome.shift != "none"
        else "",
        "The query is corrected by a learned share of the key." if genome.feedback == "subtract" else "",
        skips[genome.skip],
        f"A gate blends in softmax attention over the last {genome.window} tokens." if genome.window else "",
    ]
    return [note for note in notes if note]


def _widths(genome: Genome) -> tuple[str, str]:
    """Total widths of the keys and of the values of one step, as source."""
    key = {"square": "d_model", "shared_keys": "d_model // n_heads"}.get(genome.widths, "d_model // 2")
    value = "3 * d_model // 2" if genome.widths == "wide_values" else "d_model"
    return key, value


def _built(genome: Genome) -> list[str]:
    """The statements of `__init__`."""
    key, value = _widths(genome)
    widths = [key, key, value]
    if genome.steps == 2:
        widths = [key, f"2 * {key}" if " " not in key else f"2 * ({key})", f"2 * {value}"]
    if genome.gate != "none":
        widths.append(value)
    heads_key = "1" if genome.widths == "shared_keys" else "n_heads"
    lines = ["self.n_heads = n_heads", f"self.widths = [{', '.join(widths)}]"]
    if genome.shift == "input":
        lines.append("self.shift = nn.Parameter(torch.full((d_model,), -1.0))")
    lines.append("self.project = nn.Linear(d_model, sum(self.widths), bias=False)")
    if genome.convolution == "all":
        lines.append("self.convolution = ShortConvolution(sum(self.widths[:3]), 4, activation=None)")
    if genome.convolution == "keys":
        lines.append("self.convolution = ShortConvolution(self.widths[1], 4, activation=None)")
    if genome.shift == "keys":
        lines.append("self.shift = nn.Parameter(torch.full((self.widths[1],), -1.0))")
    if genome.strength in ("gate", "reflect"):
        lines.append(f"self.strength = nn.Linear(d_model, {'2 * ' if genome.steps == 2 else ''}n_heads)")
    lines += _built_decay(genome)
    if genome.timescales == 2:
        lines.append("self.slow = nn.Parameter(torch.zeros(n_heads, 1))")
    if genome.feedback == "subtract":
        lines.append("self.feedback = nn.Parameter(torch.zeros(n_heads, 1))")
    if genome.skip == "value":
        lines.append("self.skip = nn.Parameter(torch.ones(n_heads, 1))")
    if genome.skip == "bonus":
        lines.append(f"self.bonus = nn.Parameter(torch.zeros(n_heads, self.widths[0] // {heads_key}))")
    if genome.output_norm == "rms":
        lines.append(f"self.norm = RMSNorm({value} // n_heads)")
    if genome.window:
        lines.append("self.nearness = nn.Linear(d_model, n_heads)")
    lines.append(f"self.output = nn.Linear({value}, d_model, bias=False)")
    return lines


def _built_decay(genome: Genome) -> list[str]:
    lives = _HALF_LIVES.get(genome.memory)
    rates = f"log_rates(n_heads, {lives})" if lives else "log_rates(n_heads)"
    if genome.decay == "constant":
        constant = f"-math.log(2) * {rates}.exp()" if lives else "retention_decay(n_heads)"
        return [f'self.register_buffer("log_decay", {constant}, persistent=False)']
    if genome.decay == "head":
        return ["self.forget = nn.Linear(d_model, n_heads)", f"self.log_rate = nn.Parameter({rates})"]
    if genome.decay == "channel":
        keys = "n_heads * self.widths[1]" if genome.widths == "shared_keys" else "self.widths[1]"
        return [
            f"self.forget = nn.Sequential(nn.Linear(d_model, 16, bias=False), nn.Linear(16, {keys}))",
            f"self.log_rate = nn.Parameter({rates}.unsqueeze(-1))",
        ]
    return []


def _mixed(genome: Genome) -> list[str]:
    """The statements of `mix`."""
    kept: dict[str, str] = {"memory": "memory"}
    lines = ["past = state or {}"]
    positioned = genome.position == "rotary" or genome.window > 0
    if positioned:
        lines.append('position = past.get("position", 0)')
        kept["position"] = "position + x.shape[1]"
    if genome.shift == "input":
        lines += _shifted("x")
        kept["shifted"] = "shifted"
    lines += _projected(genome, kept)
    if genome.window:
        lines += [
            "near, window = sliding_window_attention(",
            f'    rotary(q, position), rotary(k, position), v, {genome.window}, initial_state=past.get("window")',
            ")",
        ]
        kept["window"] = "window"
    lines += _featured(genome)
    lines += _written(genome)
    lines += _read(genome, kept)
    lines += _returned(genome)
    lines += ["present = {", *(f'    "{name}": {value},' for name, value in kept.items()), "}"]
    return [*lines, "return self.output(out.flatten(2)), present"]


def _shifted(name: str) -> list[str]:
    return [
        "share = self.shift.sigmoid()",
        f'{name}, shifted = causal_convolution({name}, torch.stack([share, 1 - share], -1), None, past.get("shifted"))',
    ]


def _projected(genome: Genome, kept: dict[str, str]) -> list[str]:
    """Queries, keys, values and gate, still flat, through convolution or shift, then cut into heads."""
    gate = ", gate" if genome.gate != "none" else ""
    if genome.convolution == "all":
        kept["convolved"] = "convolved"
        tail = "qkv, gate" if gate else "qkv"
        source = "self.project(x).split([sum(self.widths[:3]), self.widths[3]], -1)" if gate else "self.project(x)"
        lines = [
            f"{tail} = {source}",
            'qkv, convolved = self.convolution.run(qkv, past.get("convolved"))',
            "q, k, v = qkv.split(self.widths[:3], -1)",
        ]
    else:
        lines = [f"q, k, v{gate} = self.project(x).split(self.widths, -1)"]
    if genome.convolution == "keys":
        kept["convolved"] = "convolved"
        lines.append('k, convolved = self.convolution.run(k, past.get("convolved"))')
    if genome.shift == "keys":
        kept["shifted"] = "shifted"
        lines += _shifted("k")
    if genome.steps == 2:
        lines.append("q = q.unflatten(-1, (self.n_heads, -1))")
        lines.append("k, v = (part.unflatten(-1, (2, self.n_heads, -1)) for part in (k, v))")
    elif genome.widths == "shared_keys":
        lines.append("q, k = (part.unsqueeze(2).expand(-1, -1, self.n_heads, -1) for part in (q, k))")
        lines.append("v = v.unflatten(-1, (self.n_heads, -1))")
    else:
        lines.append("q, k, v = (part.unflatten(-1, (self.n_heads, -1)) for part in (q, k, v))")
    return lines


def _featured(genome: Genome) -> list[str]:
    lines = []
    if genome.feature == "silu":
        lines.append("q, k, v = F.silu(q), F.silu(k), F.silu(v)")
    elif genome.feature != "identity":
        feature = _FEATURES[genome.feature]
        lines.append(f"q, k = {feature}(q), {feature}(k)")
    if genome.key_norm == "l2":
        lines.append("q, k = l2_normalize(q), l2_normalize(k)")
    if genome.position == "rotary":
        if genome.steps == 2:
            lines.append("q = rotary(q, position)")
            lines.append("k = torch.stack([rotary(part, position) for part in k.unbind(2)], 2)")
        else:
            lines.append("q, k = rotary(q, position), rotary(k, position)")
    if genome.feedback == "subtract":
        lines.append("q = q - self.feedback * k")
    return lines


def _written(genome: Genome) -> list[str]:
    """Decay and strength of the write."""
    lines = []
    if genome.decay == "constant":
        lines.append("log_decay = self.log_decay.expand(q.shape[:3])")
    elif genome.strength == "coupled":
        lines.append("size = F.softplus(self.forget(x))")
        lines.append("log_decay = -self.log_rate.exp() * size")
    elif genome.decay == "head":
        lines.append("log_decay = softplus_gate(self.forget(x), self.log_rate)")
    elif genome.decay == "channel":
        lines.append("log_decay = softplus_gate(self.forget(x).unflatten(-1, (self.n_heads, -1)), self.log_rate)")
    if genome.write == "delta":
        lines.append(_delta_strength(genome))
    elif genome.strength == "gate":
        lines.append("written = v * self.strength(x).sigmoid().unsqueeze(-1)")
    elif genome.strength == "coupled":
        lines.append("written = v * size.unsqueeze(-1)")
    return lines


def _delta_strength(genome: Genome) -> str:
    if genome.strength == "fixed":
        return "beta = torch.ones_like(k[..., 0])"
    factor = "2 * " if genome.strength == "reflect" else ""
    shape = ".unflatten(-1, (2, self.n_heads))" if genome.steps == 2 else ""
    return f"beta = {factor}self.strength(x).sigmoid(){shape}"


def _recurrence(genome: Genome, decay: str, state: str) -> str:
    """The call of the recurrence, with `decay` as its log decay and `state` as the name of what it keeps."""
    value = "written" if genome.write == "add" and genome.strength != "fixed" else "v"
    keywords = f'initial_state=past.get("{state}")'
    if genome.feature == "softmax" and genome.output_norm != "denominator":
        keywords += ", scale=1.0"
    if genome.write == "add":
        if genome.decay == "none":
            normalised = "normalize=True, " if genome.output_norm == "denominator" else ""
            return f"linear_attention(q, k, {value}, {normalised}{keywords})"
        return f"{'gla' if genome.decay == 'channel' else 'simple_gla'}(q, k, {value}, {decay}, {keywords})"
    if genome.steps == 2:
        return f"delta_product(q, k, v, beta{'' if genome.decay == 'none' else f', {decay}'}, {keywords})"
    if genome.decay == "none":
        return f"delta_rule(q, k, v, beta, {keywords})"
    return f"{'kda' if genome.decay == 'channel' else 'gated_delta_rule'}(q, k, v, {decay}, beta, {keywords})"


def _read(genome: Genome, kept: dict[str, str]) -> list[str]:
    lines = [f"out, memory = {_recurrence(genome, 'log_decay', 'memory')}"]
    if genome.timescales == 2:
        kept["slow"] = "slower"
        lines.append(f"slow, slower = {_recurrence(genome, 'log_decay / 8', 'slow')}")
        lines.append("out = out + self.slow.sigmoid() * (slow - out)")
    if genome.skip == "value":
        lines.append("out = out + self.skip * v")
    if genome.skip == "bonus":
        lines.append("out = out + (q * self.bonus * k).sum(-1, keepdim=True) * v")
    return lines


def _returned(genome: Genome) -> list[str]:
    """From the memory's answer to what the output projection gets."""
    lines = []
    if genome.output_norm == "rms":
        lines.append("out = self.norm(out)")
    if genome.window:
        lines.append("out = out + self.nearness(x).sigmoid().unsqueeze(-1) * (near - out)")
    if genome.gate != "none":
        squash = "F.silu(gate)" if genome.gate == "swish" else "gate.sigmoid()"
        lines.append(f"out = out * {squash}.unflatten(-1, (self.n_heads, -1))")
    return lines
