"""From people's answers to decisions: undo, several people, expiry, votes, signatures, and what an approval is good for."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from engine.approving import allowance, next_request, still_holds
from engine.client.protocol import Command
from engine.client.rundir import RunPaths
from engine.deciding import Deciding
from engine.decoys import Decoys
from engine.experiment import Machine
from engine.governance import Governing, Unusable, adopt_policy, adopt_signers
from engine.halting import Refusal
from engine.runtime import Runtime
from store import events as ev
from store.audit import verify_run
from store.config import Gate, RunConfig
from store.policy import built_in
from store.signatures import Statement, genesis_of, made_now, said, sign, statement_text
from store.state import Experiment, Request

UNDO = 0.4


class House:
    """A run without a loop: one experiment at its gate, and the people who are asked about it."""

    def __init__(self, root: Path, gate: Gate) -> None:
        paths = RunPaths(root)
        paths.create()
        self.config = RunConfig(name=root.name, gate=gate)
        self.runtime = Runtime(root, self.config)
        self.runtime.emit(ev.RunCreated(root.name, ev.FORMAT, "0", ""))
        self.paused: list[str] = []
        self.cancelled: list[tuple[str, str, str]] = []
        self.lab: Any = SimpleNamespace(
            runtime=self.runtime, halting=SimpleNamespace(pause=self._pause), cancel=self._cancel, policy=None
        )
        self.deciding = Deciding(self.lab)
        self.governing = Governing(self.lab, self.deciding)

    async def _pause(self, reason: str, actor: str) -> str:
        self.paused.append(reason)
        return ""

    async def _cancel(self, experiment: str, who: str, reason: str) -> None:
        self.cancelled.append((experiment, who, reason))

    async def propose(self, name: str = "e0001", text: str = "program") -> str:
        program = await self.runtime.put(f"{text} of {name}")
        self.runtime.emit(ev.ExperimentOpened(name, "model"))
        self.runtime.emit(ev.ProposalDrafted(name, name, "", "", program))
        self.runtime.emit(ev.RiskAssessed(name, program, "probe", [], 100.0))
        return program

    async def asked(self, people: int = 1, risk: ev.Risk = "R1", seconds: float = 60.0, name: str = "e0001") -> Request:
        program = self.runtime.state.experiments[name].program if name in self.runtime.state.experiments else ""
        program = program or await self.propose(name)
        request = next_request(self.runtime.state)
        await self.runtime.commit(
            ev.ApprovalRequested(request, name, program, "probe", "a rule", time.time() + seconds, people, risk=risk)
        )
        return self.runtime.state.requests[request]

    async def say(self, name: str, who: str, target: str, **more: Any) -> str:
        command = Command(1, name, who, target, **more)  # type: ignore[arg-type]
        answers = {"undo": self.deciding.undo, "vote": self.deciding.open_vote}
        return await answers.get(name, self.deciding.answer)(command)

    async def decided(self, request: str, seconds: float = 5.0) -> Request:
        async with asyncio.timeout(seconds):
            await self.runtime.until(lambda state: state.requests[request].decision is not None)
        return self.runtime.state.requests[request]


@contextlib.asynccontextmanager
async def house(root: Path, **gate: Any) -> AsyncIterator[House]:
    made = House(root / "run", Gate(**{"undo_seconds": UNDO, **gate}))
    settling = asyncio.create_task(made.deciding.run())
    try:
        yield made
    finally:
        settling.cancel()
        await asyncio.gather(settling, return_exceptions=True)
        await made.runtime.close()
    report = verify_run(root / "run")
    assert report.ok, report.problems


async def test_an_approval_can_be_taken_back_and_then_takes_effect(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        request = await home.asked()
        assert "undo" in await home.say("approve", "ada", request.id, program=request.program, seconds=12.0, seen=1.0)
        assert home.runtime.state.experiments["e0001"].step == "gate"
        with pytest.raises(Refusal, match="approval already"):
            await home.say("approve", "ada@10.0.0.9", request.id)
        with pytest.raises(Refusal, match="approved by ada already"):
            await home.say("approve", "bob", request.id)
        with pytest.raises(Refusal, match="no answer of yours"):
            await home.say("undo", "bob", request.id)
        await home.say("undo", "ada", request.id)
        await asyncio.sleep(2 * UNDO)
        assert home.runtime.state.requests[request.id].decision is None
        await home.say("approve", "ada", request.id, program=request.program[:12])
        found = await home.decided(request.id)
        assert (found.decision, found.who) == ("approve", "ada")
        entry = home.runtime.state.experiments["e0001"]
        assert (entry.step, entry.approved_program, entry.approved_tier) == ("train", request.program, "probe")
        assert entry.approved_until > time.time() + 3600
        with pytest.raises(Refusal, match="decided already: approve by ada"):
            await home.say("reject", "bob", request.id, reason="too late")


async def test_a_rejection_stops_an_approval_that_has_not_taken_effect(tmp_path: Path) -> None:
    async with house(tmp_path, undo_seconds=30.0) as home:
        request = await home.asked()
        await home.say("approve", "ada", request.id)
        await home.say("reject", "bob", request.id, reason="leaks\x1b[2J time")
        found = await home.decided(request.id)
        assert (found.decision, found.who, found.reason) == ("reject", "bob", "leaks [2J time")


async def test_two_people_are_two_logins_whatever_windows_they_have(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        request = await home.asked(people=2, risk="R2")
        with pytest.raises(Refusal, match="--code"):
            await home.say("approve", "ada", request.id)
        with pytest.raises(Refusal, match="is about program"):
            await home.say("approve", "ada", request.id, program="0000")
        assert "2 people have to agree" in await home.say("approve", "ada", request.id, program=request.program[:4])
        with pytest.raises(Refusal, match="another person"):
            await home.say("approve", "ada@192.0.2.7", request.id, program=request.program)
        assert home.runtime.state.requests[request.id].decision is None
        await home.say("approve", "bob", request.id, program=request.program)
        assert (await home.decided(request.id)).who == "ada, bob"


async def test_the_gravest_needs_reasons_and_waits(tmp_path: Path) -> None:
    async with house(tmp_path, cool_off_minutes=0.02) as home:
        request = await home.asked(people=2, risk="R3")
        code = request.program[:4]
        with pytest.raises(Refusal, match="needs a reason"):
            await home.say("approve", "ada", request.id, program=code)
        await home.say("approve", "ada", request.id, program=code, reason="read it twice")
        begin = time.time()
        await home.say("approve", "bob", request.id, program=code, reason="so did I")
        found = await home.decided(request.id)
        assert found.decided - begin > 1.0
        assert found.reason == "read it twice; so did I"
        never = await home.asked(risk="R4", name="e0002")
        with pytest.raises(Refusal, match="only be rejected"):
            await home.say("approve", "ada", never.id, program=never.program)


async def test_what_nobody_decides_is_a_refusal_and_what_was_approved_in_time_is_not(tmp_path: Path) -> None:
    async with house(tmp_path, undo_seconds=20.0) as home:
        lost, kept = await home.asked(seconds=0.5), await home.asked(seconds=2.0, name="e0002")
        await home.say("approve", "ada", kept.id)
        assert (await home.decided(lost.id)).decision == "expire"
        found = await home.decided(kept.id)
        assert found.decision == "approve"
        assert found.decided < kept.expires
        with pytest.raises(Refusal, match="decided already: expire by clock"):
            await home.say("approve", "ada", lost.id)
        with pytest.raises(Refusal, match="no pending request"):
            await home.say("approve", "ada", "R9999")


async def test_an_answer_that_comes_after_the_end_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with house(tmp_path) as home:
        request, grave = await home.asked(seconds=50.0), await home.asked(people=2, risk="R3", name="e0002")
        clock = time.time
        monkeypatch.setattr(time, "time", lambda: clock() + 70.0)  # the clock is set, before anybody has noticed
        with pytest.raises(Refusal, match="decided already: expire by clock"):
            await home.say("approve", "ada", request.id)
        with pytest.raises(Refusal, match="decided already: expire by clock"):
            await home.say("undo", "ada", grave.id)


async def test_the_wait_of_the_gravest_is_never_shortened(tmp_path: Path) -> None:
    async with house(tmp_path, cool_off_minutes=0.03) as home:
        request = await home.asked(people=2, risk="R3", seconds=1.0)
        for who in ("ada", "bob"):
            await home.say("approve", who, request.id, program=request.program, reason="read it")
        await asyncio.sleep(1.3)
        assert home.runtime.state.requests[request.id].decision is None
        with pytest.raises(Refusal, match="approved by ada, bob already"):
            await home.say("approve", "cyd", request.id, program=request.program, reason="me too")
        assert (await home.decided(request.id)).decision == "approve"
        late = await home.asked(people=2, risk="R3", seconds=1.0, name="e0002")
        for who in ("ada", "bob"):
            await home.say("approve", who, late.id, program=late.program, reason="read it")
        await asyncio.sleep(1.3)
        await home.say("reject", "cyd", late.id, reason="wait, no")
        assert (await home.decided(late.id)).decision == "reject"


@pytest.mark.parametrize("who", ["policy", "engine@192.0.2.7", "the fork", "", "@"])
async def test_nobody_approves_under_the_name_of_what_is_no_person(tmp_path: Path, who: str) -> None:
    async with house(tmp_path) as home:
        request = await home.asked()
        with pytest.raises(Refusal, match="name"):
            await home.say("approve", who, request.id)


async def test_a_name_that_looks_like_two_is_one(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        request = await home.asked()
        await home.say("approve", "ada, bob\x1b[2J@\x07", request.id)
        assert (await home.decided(request.id)).who == "ada_ bob [2J"
        prefixed = await home.asked(name="e0002")
        await home.say("approve", "person:ada", prefixed.id, seconds=1e308, seen=1e308)
        assert (await home.decided(prefixed.id)).who == "person_ada"
        assert prefixed.votes[0].seconds <= 86_400


async def test_a_vote_that_passes_before_the_loop_has_begun_is_carried_out(tmp_path: Path) -> None:
    begun = False

    async def cancel(experiment: str, who: str, reason: str) -> None:
        if not begun:
            raise Refusal("the loop has not begun yet")
        await home.runtime.commit(ev.ExperimentClosed(experiment, "rejected", reason))

    async with house(tmp_path, supervisors=["ada", "bob"]) as home:
        home.lab.cancel = cancel
        await home.propose()
        await home.say("vote", "ada", "e0001")
        await home.say("approve", "ada", "R0001")
        await home.say("approve", "bob", "R0001")
        assert home.runtime.state.experiments["e0001"].open
        begun = True
        again = Deciding(home.lab)  # as an engine that starts after a crash in between
        working = asyncio.create_task(again.run())
        async with asyncio.timeout(5.0):
            await home.runtime.until(lambda state: not state.experiments["e0001"].open)
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)


async def test_nothing_is_approved_while_the_run_may_only_propose(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        request = await home.asked()
        await home.governing.autonomy(Command(1, "autonomy", "ada", "A0"))
        with pytest.raises(Refusal, match="propose only"):
            await home.say("approve", "ada", request.id)
        with pytest.raises(Refusal, match="no autonomy level"):
            await home.governing.autonomy(Command(1, "autonomy", "ada", "A9"))
        await home.say("reject", "ada", request.id)
        assert (await home.decided(request.id)).decision == "reject"


async def test_what_was_approved_waits_too_while_the_run_may_only_propose(tmp_path: Path) -> None:
    async with house(tmp_path, undo_seconds=0.0) as home:
        request = await home.asked()
        await home.say("approve", "ada", request.id)
        await home.governing.autonomy(Command(1, "autonomy", "ada", "A0"))
        home.lab.decoys, home.lab.tier = Decoys(), "probe"
        machine: Any = Machine(home.lab, "e0001")
        launched: list[int] = []

        async def train_seed(seed: int, parked: object) -> None:
            launched.append(seed)

        machine.parked, machine.wanted_seed, machine.train_seed = (lambda: None), (lambda: 0), train_seed
        waiting = asyncio.create_task(machine.train())
        await asyncio.sleep(0.2)
        assert not waiting.done()
        assert launched == []
        await home.governing.autonomy(Command(1, "autonomy", "ada", "A2"))
        async with asyncio.timeout(5.0):
            await waiting
            await machine.train()
        assert launched == [0]
        assert len(home.runtime.state.requests) == 1


async def test_supervisors_vote(tmp_path: Path) -> None:
    async with house(tmp_path, supervisors=["ada", "bob", "cyd"]) as home:
        with pytest.raises(Refusal, match="no open experiment"):
            await home.say("vote", "ada", "e7")
        said_back = await home.say("vote", "ada", "pause", reason="the fan")
        assert said_back.startswith("R0001: 2 of 3")
        with pytest.raises(Refusal, match="voted on already"):
            await home.say("vote", "bob", "pause")
        with pytest.raises(Refusal, match="eve is no supervisor"):
            await home.say("approve", "eve", "R0001")
        await home.say("reject", "bob", "R0001")
        await home.say("approve", "ada", "R0001")
        await asyncio.sleep(0.1)
        assert (home.runtime.state.requests["R0001"].decision, home.paused) == (None, [])
        await home.say("approve", "cyd", "R0001")
        await home.decided("R0001")
        await asyncio.sleep(0.1)
        assert home.paused == ["by vote R0001: ada, cyd"]
        await home.propose()
        await home.say("vote", "ada", "e0001")
        await home.say("reject", "bob", "R0002")
        await home.say("reject", "cyd", "R0002")
        assert (await home.decided("R0002")).decision == "reject"
        assert home.cancelled == []


async def test_a_vote_needs_people_who_are_listed(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        with pytest.raises(Refusal, match="two or more supervisors"):
            await home.say("vote", "ada", "pause")


def test_an_approval_is_for_bytes_a_tier_a_time_and_a_budget() -> None:
    entry = Experiment("e1", "model", program="p", cpu_seconds=10.0, predicted_cpu_seconds=1000.0)
    entry.approved_program, entry.approved_tier, entry.approved_until = "p", "probe", 100.0
    entry.approved_cpu_seconds = allowance(entry, seeds=3, factor=2.0)
    assert entry.approved_cpu_seconds == 6010.0
    assert still_holds(entry, "probe", 99.0)
    assert not still_holds(entry, "probe", 100.0)
    assert not still_holds(entry, "explore", 99.0)
    assert not still_holds(msgspec.structs.replace(entry, program="q"), "probe", 99.0)
    assert not still_holds(msgspec.structs.replace(entry, cpu_seconds=6010.0), "probe", 99.0)


async def test_a_policy_that_is_wrong_leaves_the_old_one(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        home.lab.policy = await adopt_policy(home.runtime, home.config)
        before = home.runtime.state.policy
        with pytest.raises(Refusal, match=r"policy\.toml:.*stays in force"):
            await home.governing.policy(Command(1, "policy", "ada", program='version = 1\nname = "x"\nrules = []\n'))
        assert home.runtime.state.policy == before
        said_back = await home.governing.policy(Command(1, "policy", "ada", program=built_in("paranoid")))
        assert "paranoid" in said_back
        assert (home.lab.policy.name, home.runtime.state.policy_name) == ("paranoid", "paranoid")
        # The file says something else by now: what a person put in force is what counts.
        (home.runtime.paths.root / "policy.toml").write_text(built_in("trusting"))
        assert (await adopt_policy(home.runtime, home.config)).name == "paranoid"
        hostile = 'version = 1\nname = "x"\na' + ".b" * 100_000 + " = 1\n"
        with pytest.raises(Refusal, match="more than 32 parts"):
            await home.governing.policy(Command(1, "policy", "ada", program=hostile))
        with pytest.raises(Refusal, match="not valid TOML"):
            await home.governing.policy(Command(1, "policy", "ada", program="version = " + "9" * 5_000))
        open_to_all = 'version = 1\nname = "open"\ndefault = "allow"\n'
        assert "warning" in await home.governing.policy(Command(1, "policy", "ada", program=open_to_all))


# --- signatures -------------------------------------------------------------------------------------------------------


def new_key(folder: Path, name: str) -> tuple[Path, str]:
    path = folder / name
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(path)], check=True)
    return path, path.with_suffix(".pub").read_text().rsplit(" ", 1)[0]


def signed(home: House, key: Path, name: str, target: str, request: Request | None = None, **more: Any) -> ev.Signed:
    program, tier = (request.program, request.tier) if request else ("", "")
    wanted = Statement(
        home.runtime.state.name, genesis_of(home.runtime.paths.journal), name, target, more.get("program", program),
        tier, said(more.get("reason", "")), more.get("who", "ada"),
    )  # fmt: skip
    return sign(statement_text(made_now(wanted)), key)


async def test_with_signers_the_key_decides_who_it_was(tmp_path: Path) -> None:
    (ada, public), (phone, other), (eve, _) = (new_key(tmp_path, name) for name in ("ada", "phone", "eve"))
    bob, bobs = new_key(tmp_path, "bob")
    signers = tmp_path / "signers"
    signers.write_text(f'ada namespaces="asi" {public}\nada namespaces="asi" {other}\nbob {bobs}\n')
    async with house(tmp_path, allowed_signers=str(signers)) as home:
        await adopt_signers(home.runtime, home.config)
        assert home.runtime.state.people == ["ada", "bob"]
        request = await home.asked(people=2, risk="R2")
        await home.runtime.flush()

        async def approve(key: Path | None, who: str = "ada", about: Request = request, **more: Any) -> str:
            given = signed(home, key, "approve", about.id, about, who=who, **more) if key else None
            return await home.say("approve", who, request.id, program=request.program, signed=given)

        with pytest.raises(Refusal, match="asks for signatures"):
            await approve(None)
        with pytest.raises(Refusal, match="signer|known|principal|allowed"):
            await approve(eve)
        with pytest.raises(Refusal, match="another order: program"):
            await approve(ada, program="0" * 64)
        used = signed(home, ada, "approve", request.id, request)
        await home.say("approve", "ada", request.id, program=request.program, signed=used)
        await home.say("undo", "ada", request.id, signed=signed(home, ada, "undo", request.id, request))
        with pytest.raises(Refusal, match="used before"):
            await home.say("approve", "ada", request.id, program=request.program, signed=used)
        await approve(ada)
        with pytest.raises(Refusal, match="another person"):  # her other key, and another login: still the same person
            await approve(phone, who="bob")
        await approve(bob, who="root")
        assert (await home.decided(request.id)).who == "ada, bob"
        keys = {vote.key for vote in home.runtime.state.requests[request.id].votes}
        assert len(keys) == 2
        assert all(key.startswith("SHA256:") for key in keys)


async def test_signers_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    (tmp_path / "signers").write_text("ada ssh-ed25519 nonsense\n")
    async with house(tmp_path, allowed_signers=str(tmp_path / "signers")) as home:
        with pytest.raises(Unusable, match="allowed_signers"):
            await adopt_signers(home.runtime, home.config)


async def test_signers_that_were_changed_are_a_warning(tmp_path: Path) -> None:
    _, public = new_key(tmp_path, "ada")
    (tmp_path / "signers").write_text(f"ada {public}\n")
    async with house(tmp_path, allowed_signers=str(tmp_path / "signers")) as home:
        await adopt_signers(home.runtime, home.config)
        assert home.runtime.state.notes == []
        await adopt_signers(home.runtime, RunConfig(name="run"))
        assert "not asked for any more" in home.runtime.state.notes[-1].text
        assert home.runtime.state.notes[-1].level == "warning"
