"""Every planted violator is caught by the gate that should catch it, and nothing lawful is."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from engine.domain import VetReport, VetSpec
from engine.linear_attention import baselines
from engine.linear_attention.vetting import form, process
from engine.linear_attention.vetting.battery import GATES
from engine.linear_attention.vetting.counting import exponent
from engine.linear_attention.vetting.identity import functional_hash
from engine.linear_attention.vetting.subject import Subject

PLANTED = Path(__file__).parent / "planted"

# program: the gate that must fail first, and what its evidence must say
CAUGHT = {
    "absolute_length": ("prefix", r"first 1 tokens alone .* T=128, by 0\.\d+"),
    "batch_mean": ("batch", r"changing sample 0 changed sample 1 by 0\.\d+ .*eval mode"),
    "batch_norm": ("causal", r"train mode"),
    "bidirectional_convolution": ("causal", r"from t=1 on changed the output at t=0 .*T=2"),
    "carries_state": ("stateless", r"same call twice"),
    "changes_input": ("stateless", r"input in place"),
    "constructor_raises": ("load", r"NameError.*line 9 of the program"),
    "counts_calls": ("stateless", r"same call twice"),
    "dead_weights": ("gradient", r"unused\.bias, unused\.weight"),
    "detached": ("gradient", r"detached"),
    "exits": ("shapes", r"SystemExit.*line 12"),
    "fourier_causal": ("causal", r"rounding"),
    "fourier_mixing": ("causal", r"changed the output"),
    "global_memory": ("stateless", r"the global SEEN"),
    "growing_state": ("budget", r"state grows: 8192 .* 16384"),
    "huge_allocation": ("shapes", r"allocate"),
    "ignores_late_tokens": ("shapes", r"from t=64 on does not depend"),
    "imports_os": ("static", r"line 3: imports os"),
    "leak_after_steps": ("causal", r"after training steps"),
    "leak_argmax": ("causal", r"eval mode, at initialisation"),
    "leak_gradients_only": ("causal", r"train mode, at initialisation"),
    "leak_long_only": ("causal", r"T=129, .*shorter sequences do not show it"),
    "leak_normalised": ("causal", r"eval mode"),
    "leak_plain": ("causal", r"from t=1 on changed the output at t=0 by 0\.\d+ \(T=2, eval mode, at initialisation"),
    "leak_second_layer": ("causal", r"after weight jitter"),
    "leak_tiny": ("causal", r"by \d\.\d+e-05"),
    "leak_train_only": ("causal", r"train mode, at initialisation"),
    "leak_zero_gate": ("causal", r"eval mode, after weight jitter"),
    "needs_multiple_of_chunk": ("shapes", r"batch 1, T=17"),
    "no_mixer": ("static", r"no class Mixer"),
    "not_deterministic": ("stateless", r"random state"),
    "overflows": ("stability", r"for inputs of size 100"),
    "patches_torch": ("static", r"overwrites torch\.nn\.functional\.cross_entropy"),
    "quadratic_convolution": ("complexity", r"quadratic matrix work"),
    "quadratic_elementwise": ("complexity", r"quadratic elementwise work"),
    "quadratic_linear_attention": ("complexity", r"quadratic matrix work"),
    "quadratic_prefixes": ("complexity", r"quadratic elementwise work"),
    "returns_nan": ("gradient", r"output itself is NaN from t=5"),
    "returns_tuple": ("shapes", r"returned tuple"),
    "softmax_fused": ("complexity", r"quadratic: fused softmax attention"),
    "softmax_written_out": ("complexity", r"quadratic: softmax attention over all pairs"),
    "too_many_parameters": ("budget", r"264256 parameters, the limit is 200000"),
    "wrong_shape": ("shapes", r"\[1, 17, 63\]"),
    "wrong_step": ("decode", r"first at t=1"),
}
ELSEWHERE = {"crashes", "exits_hard", "infinite_loop"}
HONEST = ("honest", "honest_cached", "honest_window")


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    process.warm_up()


def planted(name: str) -> str:
    return (PLANTED / f"{name}.py").read_text()


def failures(report: VetReport) -> dict[str, str]:
    return {gate.gate: gate.evidence for gate in report.gates if not gate.passed}


def test_every_planted_program_is_expected_somewhere() -> None:
    names = {path.stem for path in PLANTED.glob("*.py")}
    assert names == set(CAUGHT) | ELSEWHERE | set(HONEST)


@pytest.mark.parametrize("name", sorted(CAUGHT))
def test_violator_is_caught_with_evidence(name: str) -> None:
    gate, evidence = CAUGHT[name]
    report = process.vet(planted(name), VetSpec())
    first = report.first_failure()
    assert not report.passed
    assert first is not None
    assert first.gate == gate, failures(report)
    assert re.search(evidence, first.evidence), first.evidence


@pytest.mark.parametrize("name", ["fourier_mixing", "fourier_causal"])
def test_fourier_mixers_are_called_what_they_are(name: str) -> None:
    report = process.vet(planted(name), VetSpec())
    assert "a Fourier transform over time" in failures(report)["complexity"]


@pytest.mark.parametrize("name", HONEST)
def test_lawful_programs_pass(name: str) -> None:
    report = process.vet(planted(name), VetSpec())
    assert failures(report) == {}
    assert report.passed
    assert [gate.gate for gate in report.gates] == ["static", *GATES]


@pytest.mark.parametrize("name", [name for name in baselines.names() if name != "softmax_attention"])
def test_linear_baselines_pass_everything(name: str) -> None:
    report = process.vet(baselines.source(name), VetSpec())
    assert failures(report) == {}
    assert report.passed
    assert report.cost_exponent == pytest.approx(1.0, abs=0.05)
    assert 0 < report.parameters <= VetSpec().max_parameters
    assert 0 < report.state_floats <= VetSpec().max_state_floats
    assert report.flops_per_token > report.parameters
    assert report.step_seconds > 0
    assert report.dead_parameters == []
    assert report.offers_step


def test_softmax_fails_on_cost_alone_and_passes_as_the_quadratic_reference() -> None:
    source = baselines.source("softmax_attention")
    assert set(failures(process.vet(source, VetSpec()))) == {"complexity", "budget"}
    allowed = process.vet(source, VetSpec(allow_quadratic=True))
    assert allowed.passed
    assert allowed.cost_exponent > 1.6


@pytest.mark.parametrize("spec", [VetSpec(d_model=32, n_heads=4, train_length=64), VetSpec(train_length=200)])
def test_other_sizes_are_vetted_at_those_sizes(spec: VetSpec) -> None:
    assert process.vet(baselines.source("gated_deltanet"), spec).passed
    assert failures(process.vet(planted("leak_plain"), spec)).keys() == {"causal", "prefix"}


def test_an_endless_program_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "CPU_SECONDS_PER_GATE", 1)
    report = process.vet(planted("infinite_loop"), VetSpec())
    assert failures(report).keys() == {"shapes"}
    assert "more than 1 CPU seconds" in failures(report)["shapes"]


@pytest.mark.parametrize(("name", "words"), [("exits_hard", "ended the process"), ("crashes", "was killed")])
def test_a_program_that_takes_its_process_down_fails_the_gate_it_was_in(
    name: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert failures(process.vet(planted(name), VetSpec())).keys() == {"static"}
    monkeypatch.setattr(form, "check_source", lambda source: [])
    report = process.vet(planted(name), VetSpec())
    assert failures(report).keys() == {"shapes"}
    assert words in failures(report)["shapes"]


def test_after_a_death_the_battery_goes_on_with_the_next_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(form, "check_source", lambda source: [])
    source = planted("exits_hard").replace("x.shape[1] > 64", "x.shape[0] == 4")
    report = process.vet(source, VetSpec())
    assert failures(report).keys() == {"causal"}
    assert [gate.gate for gate in report.gates] == ["static", *GATES]


@pytest.mark.parametrize(
    "forged",
    [b"all is well\n", b'{"gate":{"gate":"identity","passed":true,"evidence":""},"facts":{}}\n', b"x" * 200_000],
    ids=["no JSON", "another gate", "no end"],
)
def test_what_is_no_verdict_on_the_gate_in_progress_fails_it(forged: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_run_child", lambda source, spec, names, writer: os.write(writer, forged))
    report = process.vet(planted("honest"), VetSpec())
    assert "no verdict" in failures(report)["load"]


RENAMED = """
from torch import Tensor, nn
import torch

class Mixer(nn.Module):
    def __init__(self, d_model, n_heads, layer_idx, max_len):
        super().__init__()
        self.b = nn.Linear(d_model, d_model)
        self.a = nn.Linear(d_model, d_model, bias=False)
        self.scale = 1 / 16

    def forward(self, inputs):
        strength = self.b(inputs).sigmoid()
        total = torch.cumsum(self.a(inputs), 1)
        return total * self.scale * strength
"""


def test_functional_hash_sees_through_names_and_creation_order() -> None:
    spec = VetSpec()
    original = functional_hash(Subject(planted("honest"), spec))
    assert functional_hash(Subject(RENAMED, spec)) == original
    assert functional_hash(Subject(RENAMED.replace("sigmoid", "tanh"), spec)) != original
    assert functional_hash(Subject(planted("carries_state"), spec)) == original  # the same function, once


def test_functional_hash_tells_the_baselines_apart() -> None:
    hashes = {name: functional_hash(Subject(baselines.source(name), VetSpec())) for name in baselines.names()}
    assert len(set(hashes.values())) == len(hashes), hashes


def test_exponent_of_a_power_law() -> None:
    assert exponent(3.0, 3.0 * 2**1.5) == pytest.approx(1.5)
    assert exponent(0.0, 5.0) == 0.0
