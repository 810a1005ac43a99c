"""What a reviewer is told about a hostile program, at which line; and that ordinary programs are left alone."""

from __future__ import annotations

import random
import time

import pytest

from engine.agents.evolver import SEEDS, render
from engine.agents.evolver.mutation import neighbours
from engine.linear_attention import baselines
from engine.linear_attention.static import StaticFinding, check_source

PROGRAM = '''\
"""A mixer."""
import math
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from engine.linear_attention import ops


class Mixer(nn.Module):
    """Mixes."""

    def __init__(self, d_model: int, n_heads: int, layer_idx: int, max_len: int):
        super().__init__()
        self.project = nn.Linear(d_model, d_model)

    def forward(self, x: Tensor) -> Tensor:
        q = k = v = self.project(x)
        STATEMENT
        return v

    def step(self, x_t: Tensor, state) -> tuple[Tensor, object]:
        IN_STEP
        return x_t, state
'''
LINE = PROGRAM[: PROGRAM.index("STATEMENT")].count("\n") + 1
STEP_LINE = PROGRAM[: PROGRAM.index("IN_STEP")].count("\n") + 1
BASE64 = "aW1wb3J0IG9zOyBvcy5zeXN0ZW0oJ3JtIC1yZiAvJyk7IHByaW50KDEyMyk="

HOSTILE = [
    # kind, severity, statements, line of the finding after the first statement, words that must be in the evidence
    ("import", "error", "import subprocess", 0, "import subprocess"),
    ("process", "error", "import subprocess\nsubprocess.run(['ls'])", 1, "subprocess.run(['ls'])"),
    ("process", "error", "from os import system as s\ns('ls')", 1, "os.system"),
    ("process", "error", "from multiprocessing import Process\nProcess(target=print).start()", 1, "Process"),
    ("process", "error", "torch.serialization.os.kill(1, 9)", 0, "torch.serialization.os.kill(1, 9)"),
    ("process", "error", "self.project.weight.share_memory_()", 0, "share_memory_"),
    ("process", "warning", "try:\n    pass\nexcept BaseException:\n    pass", 2, "BaseException"),
    ("file", "error", "import os\nos.remove('f')", 1, "os.remove('f')"),
    ("file", "error", "from pathlib import Path\nPath('f').write_text('x')", 1, "Path('f').write_text('x')"),
    ("file", "error", "torch.UntypedStorage.from_file('f', True, 8)", 0, "from_file"),
    ("file", "error", "x.numpy().tofile('f')", 0, "tofile"),
    ("file", "warning", "name = '/etc/passwd'", 0, "/etc/passwd"),
    ("file", "warning", "name = '/tmp'", 0, "/tmp"),
    ("file", "warning", "name = f'/proc/{layer}/mem'", 0, "/proc/"),
    ("network", "error", "import socket\nc = socket.create_connection(('h', 1))", 1, "socket.create_connection"),
    ("network", "error", "from urllib.request import urlopen\nurlopen('x')", 1, "urlopen('x')"),
    ("network", "error", "torch.hub.load('a', 'b')", 0, "torch.hub.load"),
    ("network", "warning", "where = 'https://example.org/x'", 0, "https://example.org/x"),
    ("dynamic", "error", "exec('y = 1')", 0, "exec('y = 1')"),
    ("dynamic", "error", "torch.jit.script(self)", 0, "torch.jit.script"),
    ("dynamic", "error", "M = type('M', (nn.Module,), {})", 0, "type('M', (nn.Module,), {})"),
    ("dynamic", "error", "import importlib\nimportlib.import_module('os')", 1, "importlib.import_module('os')"),
    ("dynamic", "error", "𝐞𝐯𝐚𝐥('1')", 0, "eval"),
    ("attribute", "error", "y = x.__class__", 0, "__class__"),
    ("attribute", "error", "y = '{0.__class__.__mro__}'.format(x)", 0, "{0.__class__"),
    ("attribute", "error", "y = f'{self.__dict__}'", 0, "__dict__"),
    ("patch", "error", "F.softmax = None", 0, "torch.nn.functional.softmax"),
    ("patch", "error", "L = nn.Linear\nL.forward = None", 1, "torch.nn.Linear.forward"),
    ("patch", "error", "type(self.project).forward = None", 0, "type(self.project).forward"),
    ("patch", "error", "ops.KERNELS.update(x=1)", 0, "ops.KERNELS.update(x=1)"),
    ("patch", "error", "for torch.e in (1,):\n    pass", 0, "torch.e"),
    ("global_state", "error", "torch.cuda.set_rng_state(x)", 0, "torch.cuda.set_rng_state"),
    ("override", "warning", "self.project.forward = print", 0, "self.project.forward"),
    ("override", "warning", "setattr(self, 'forward', print)", 0, "setattr(self, 'forward', print)"),
    ("hook", "warning", "self.project.register_forward_hook(print)", 0, "register_forward_hook(print)"),
    ("literal", "warning", f"y = '{'word ' * 200}'", 0, "1000 characters"),
    ("literal", "warning", f"y = [{'[1, 2, 3, 4], ' * 50}]", 0, "200 values"),
    ("literal", "warning", f"y = {'7' * 30}", 0, "digits"),
    ("obfuscation", "warning", f"y = '{BASE64}'", 0, "look encoded"),
    ("obfuscation", "warning", f"y = '{'6f732e73797374656d' * 3}'", 0, "look encoded"),
    ("obfuscation", "warning", "y = ''.join(chr(c + 1) for c in (1, 2))", 0, "chr(c + 1)"),
    ("obfuscation", "warning", "y = bytes([101, 118, 97, 108])", 0, "bytes([101, 118, 97, 108])"),
    ("obfuscation", "warning", "y = b'os'.decode()", 0, "b'os'.decode()"),
    ("obfuscation", "warning", "y = int.from_bytes(x, 'big')", 0, "from_bytes"),
    ("obfuscation", "warning", "y = 'a' + 'b' + 'c' + 'd'", 0, "'abcd'"),
    ("obfuscation", "warning", "y = '__cla' + 'ss__'", 0, "'__class__'"),
    ("obfuscation", "warning", "y = ''.join(['/pr', 'oc/self'])", 0, "'/proc/self'"),
    ("obfuscation", "warning", "y = 'metsys'[::-1]", 0, "'system'"),
    ("obfuscation", "warning", r"y = '\x65\x76\x61\x6c\x28\x29'", 0, "mostly escapes"),
    ("obfuscation", "warning", "сcore = x", 0, "not Latin or Greek"),
    ("obfuscation", "warning", "ν = x", 0, "looks like v"),
    ("obfuscation", "warning", "𝐱 = x", 0, "is read by Python as x"),
    ("obfuscation", "error", "y = 'a\u202eb'  # \u2066", 0, "U+202E"),
    ("stop_path", "error", "import engine.halting", 0, "engine.halting"),
    ("stop_path", "error", "from store import journal", 0, "store"),
    ("stop_path", "error", "from engine.linear_attention import task_scorer", 0, "task_scorer"),
    ("stop_path", "error", "import engine.linear_attention\nengine.client.guard.x()", 1, "engine.client.guard.x"),
    ("stop_path", "warning", "y = 'KILLED'", 0, "KILLED"),
    ("stop_path", "warning", "y = '../../engine.sock'", 0, "engine.sock"),
    ("stop_path", "warning", "y = f'procs/{layer}.json'", 0, "procs"),
    ("stop_path", "warning", "y = 'KIL' + 'LED'", 0, "KILLED"),
    ("quadratic", "warning", "a = F.softmax(q @ k.transpose(-1, -2) / 8, -1)", 0, "F.softmax(q @ k.transpose"),
    ("quadratic", "warning", "s = q @ k.mT\ns = s.masked_fill(s > 0, 0)\na = s.softmax(-1)", 2, "s.softmax(-1)"),
    ("quadratic", "warning", "s = torch.einsum('btd,bsd->bts', q, k)\na = torch.softmax(s, -1)", 1, "softmax"),
    ("quadratic", "warning", "y = F.scaled_dot_product_attention(q, k, v)", 0, "scaled_dot_product_attention"),
    ("fft", "warning", "y = torch.fft.rfft(x, dim=1)", 0, "torch.fft.rfft"),
]  # fmt: skip

GROWING = [
    "state = torch.cat([state, x_t[:, None]], 1)",
    "state.append(x_t)",
    "past = state\n        past.append(x_t)",
]
INNOCENT = [
    "y = F.softmax(self.project(x), -1) @ x.mT",
    "assert x.shape[-1] % 2 == 0, 'the width of the model must be even, or rotary positions have no pair'",
    "β = x.sigmoid()\n        λ_max = β.max()",
    "y = ops.rotary(x, 0)",
    "y = torch.einsum('b t h d, b t h d -> b t h', q, k)",
    "raise ValueError(f'd_model={x.shape[-1]} is no multiple of ' + 'n_heads')",
    "self.half = x.shape[-1] // 2",
    "y = {'keys': k, 'journal': v, 'trials': q}['journal']",
    "y = getattr(self, 'project')(x)",
    "gains = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]",
    "mask = 0xFFFFFFFFFFFFFFFF",
    "y = ' '.join(['a', 'b', 'c', 'd', 'e'])",
    "w = 'in_projection_of_queries_keys_values_and_gates'",
    "y = f'{layer_idx}/heads of {{d__model}}'",
    "y = self.codec(x).decode(v)",
    "parts = []\n        parts.append(x)",
]


def program(statement: str = "pass", in_step: str = "pass") -> str:
    indented = statement.replace("\n", "\n        ") if not statement.count("\n        ") else statement
    return PROGRAM.replace("STATEMENT", indented).replace("IN_STEP", in_step)


def said(findings: list[StaticFinding]) -> list[tuple[str, str, int, str]]:
    return [(one.kind, one.severity, one.line, one.message) for one in findings]


@pytest.mark.parametrize(("kind", "severity", "statement", "offset", "words"), HOSTILE)
def test_a_hostile_line_is_named_with_its_evidence(
    kind: str, severity: str, statement: str, offset: int, words: str
) -> None:
    found = said(check_source(program(statement)))
    matching = [message for k, s, line, message in found if (k, s, line) == (kind, severity, LINE + offset)]
    assert any(words in message for message in matching), found
    assert all(message.isprintable() and len(message) < 400 for *_, message in found)


@pytest.mark.parametrize("statement", GROWING)
def test_a_state_that_grows_is_named(statement: str) -> None:
    found = [one for one in check_source(program(in_step=statement)) if one.kind == "state_growth"]
    assert [one.weight for one in found] == ["medium"], found
    assert found[0].line == STEP_LINE + statement.count("\n")


@pytest.mark.parametrize("statement", INNOCENT)
def test_an_ordinary_line_is_left_alone(statement: str) -> None:
    assert said(check_source(program(statement))) == []


@pytest.mark.parametrize(
    "in_step",
    [
        "state = torch.cat([state, x_t[:, None]], 1)[:, -8:]",
        "window = torch.cat([state, x_t[:, None]], 1)\n        state = window[:, 1:]",
        "y = torch.cat([x_t, x_t], -1)",
    ],
)
def test_a_window_does_not_grow(in_step: str) -> None:
    assert said(check_source(program(in_step=in_step))) == []


def test_what_is_built_in_gives_nothing_to_worry_about() -> None:
    for name in baselines.names():
        found = check_source(baselines.source(name))
        assert all(one.weight in ("info", "low") for one in found), (name, found)
    genomes = sorted({near for seed in SEEDS.values() for near in neighbours(seed)}, key=str)
    for genome in random.Random(5).sample(genomes, 40):
        assert said(check_source(render(genome))) == [], genome


@pytest.mark.parametrize(
    "source",
    [
        "x = " + " + ".join(["'a'"] * 6000),
        "x = ''" + ".join(['a'])" * 3000,
        "a = a @ a.T\n" * 1900 + "def f(q):\n    a.softmax(-1)\n",
        "def step(self, x, state):\n" + "    a = state; b = a; a = b; a.append(b)\n" * 1200,
        "chr(1);" * 8000,
        "é" * 30000,
        "x = '''\n" + "\\x41" * 9000 + "'''",
        "def f(a):\n" + "\n".join(f"    v{i} = v{i - 1} @ v{i - 1}.T; v{i}.softmax(-1)" for i in range(1, 1500)),
        "def f(a):\n" + "\n".join(f"    v{i} = v{i + 1}; v{i}.softmax(-1)" for i in range(1900)),
    ],
    ids=["sum", "calls", "products", "appends", "numbers", "letters", "escapes", "chain", "backwards"],
)
def test_no_source_within_the_limits_takes_long(source: str) -> None:
    started = time.monotonic()
    check_source(source[:65_000])
    assert time.monotonic() - started < 60
