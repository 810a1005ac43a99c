"""What the static gate refuses, what it lets through, and which programs it takes for the same one."""

from __future__ import annotations

import pytest

from engine.linear_attention import baselines
from engine.linear_attention.likeness import normalised_hash
from engine.linear_attention.static import check_source, errors
from engine.linear_attention.static_rules import MAX_BYTES, MAX_LINES

HEADER = """
import math
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from engine.linear_attention import ops
from engine.linear_attention.ops import delta_rule
"""
BODY = """
class Mixer(nn.Module):
    def __init__(self, d_model: int, n_heads: int, layer_idx: int, max_len: int, extra: int = 3):
        super().__init__()
        self.project = nn.Linear(d_model, d_model)

    @torch.compile
    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            scale = math.sqrt(x.shape[-1])
        return F.silu(self.project(x)) / scale
"""


def kinds(source: str) -> set[str]:
    return {finding.kind for finding in errors(check_source(source))}


def in_forward(statement: str) -> str:
    return HEADER + BODY.replace("        with torch.no_grad():", f"        {statement}\n        with torch.no_grad():")


def test_ordinary_programs_are_clean() -> None:
    assert check_source(HEADER + BODY) == []
    for name in baselines.names():
        assert errors(check_source(baselines.source(name))) == [], name


@pytest.mark.parametrize(
    ("statement", "kind"),
    [
        ("import os", "import"),
        ("from os import path", "import"),
        ("import torch.utils.cpp_extension", "import"),
        ("from torch import hub", "network"),
        ("from torch import *", "import"),
        ("from . import tasks", "import"),
        ("import engine.linear_attention.tasks", "import"),
        ("from engine.linear_attention import tasks", "import"),
        ("import fla", "import"),
        ("exec('x = 1')", "dynamic"),
        ("run = eval", "dynamic"),
        ("compile('1', '', 'eval')", "dynamic"),
        ("__import__('os')", "dynamic"),
        ("globals()['F'] = None", "dynamic"),
        ("open('f', 'w')", "file"),
        ("getattr(self, 'pro' + 'ject')", "dynamic"),
        ("getattr(self, '__class__')", "attribute"),
        ("setattr(F, 'silu', None)", "dynamic"),
        ("x.__class__.__mro__", "attribute"),
        ("().__class__.__subclasses__()", "attribute"),
        ("self.forward.__globals__", "attribute"),
        ("torch.load('f')", "file"),
        ("torch.save(x, 'f')", "file"),
        ("torch._C._jit_init()", "attribute"),
        ("torch.ops.load_library('f')", "attribute"),
        ("torch.serialization.os.system('true')", "process"),
        ("F.torch.hub.load('a', 'b')", "network"),
        ("torch.manual_seed(0)", "global_state"),
        ("torch.set_num_threads(8)", "global_state"),
        ("torch.backends.mkldnn.enabled = False", "patch"),
        ("torch.nn.functional.softmax = None", "patch"),
        ("F.cross_entropy += 1", "patch"),
        ("nn.Linear.forward = None", "patch"),
        ("del torch.nn", "patch"),
        ("ops.KERNELS['x'] = 1", "patch"),
        ("torch = None", "patch"),
        ("t = torch", "attribute"),
        ("alias = torch.nn.functional", "attribute"),
        ("nn.modules.module.register_module_forward_hook(print)", "hook"),
        ("y = " + "9" * 60, "size"),
        ("y = '" + "a" * 5000 + "'", "size"),
        ("y = [" + "0," * 2000 + "]", "size"),
    ],
)
def test_refused(statement: str, kind: str) -> None:
    assert kind in kinds(in_forward(statement)), check_source(in_forward(statement))


@pytest.mark.parametrize(
    "member",
    [
        "def state_dict(self): return {}",
        "def __deepcopy__(self, memo): return self",
        "def __getattr__(self, name): return 1",
        "parameters = None",
    ],
)
def test_a_mixer_may_not_replace_what_the_harness_relies_on(member: str) -> None:
    assert "override" in kinds(HEADER + BODY + f"\n    {member}\n")


@pytest.mark.parametrize(
    "source",
    [
        BODY.replace("class Mixer", "class Other"),
        BODY.replace("d_model: int, n_heads: int", "n_heads: int, d_model: int"),
        BODY.replace("extra: int = 3", "extra: int"),
        BODY.replace("def forward(self, x: Tensor)", "def forward(self, x: Tensor, mask)"),
        BODY.replace("def forward", "def backward"),
        BODY + "\n    def step(self, x_t):\n        return x_t\n",
    ],
)
def test_the_contract(source: str) -> None:
    assert kinds(HEADER + source) == {"contract"}


@pytest.mark.parametrize(
    "source",
    ["def broken(:", "x = 1\0", "(" * 5000, "x = " + "-" * 200_000 + "1", "a" * (MAX_BYTES + 1), "\n" * MAX_LINES],
)
def test_malformed_source_is_a_finding_and_not_an_error(source: str) -> None:
    assert kinds(source) <= {"syntax", "size", "contract"}
    assert kinds(source)
    assert len(normalised_hash(source)) == 64


def test_findings_name_the_line_and_fla_is_for_gpus() -> None:
    source = HEADER + BODY + "\nimport fla\n"
    assert [finding.line for finding in errors(check_source(source))] == [source.count("\n")]
    assert check_source(source, allow_fla=True) == []


def test_normalised_hash_ignores_what_does_not_matter() -> None:
    same = (
        (HEADER + BODY).replace("scale", "divisor").replace(") / ", ")  /  ").replace("(self, x: Tensor)", "(self, z)")
    )
    same = same.replace("self.project(x)", "self.project(z)").replace("x.shape", "z.shape").replace(" -> Tensor", "")
    same = same.replace("class Mixer(nn.Module):", 'class Mixer(nn.Module):\n    """Says something."""\n    # more\n')
    assert normalised_hash(same) == normalised_hash(HEADER + BODY)


@pytest.mark.parametrize(
    ("old", "new"), [("silu", "relu"), ("/ scale", "* scale"), ("= 3", "= 4"), ("self.project", "self.p")]
)
def test_normalised_hash_sees_what_matters(old: str, new: str) -> None:
    assert normalised_hash((HEADER + BODY).replace(old, new)) != normalised_hash(HEADER + BODY)
