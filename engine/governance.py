"""What rules a run: its policy, the keys that must sign, how far it goes by itself; and orders about one experiment."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import get_args

from engine.approving import case_of
from engine.client.protocol import Command, PolicyView
from engine.deciding import Deciding
from engine.halting import Refusal
from engine.laboratory import Laboratory
from engine.runtime import Runtime
from store import events as ev
from store.config import RunConfig
from store.policy import Policy, PolicyError, built_in, default_name, parse_policy, rule_for, warning
from store.signatures import SignatureError, read_signers, said
from store.state import Experiment

MAX_POLICY = 256 * 1024
MAX_SIGNERS = 256 * 1024


class Unusable(Exception):
    """The policy or the signers with which a run should begin cannot be used; one line."""


async def adopt_policy(runtime: Runtime, config: RunConfig) -> Policy:
    """The policy that is in force: what the journal says, else the run's `policy.toml`, else the built-in one.

    From then on a change of the file changes nothing: a policy is changed by a person's command, and on record.

    Raises:
        Unusable: it is no policy.
    """
    file = runtime.paths.root / "policy.toml"
    try:
        if runtime.state.policy:
            text = await runtime.text(runtime.state.policy)
            policy = parse_policy(text, f"policy {runtime.state.policy_name}")
            if await asyncio.to_thread(file.exists) and await asyncio.to_thread(_read, file, MAX_POLICY) != text:
                runtime.note("policy.toml is not the policy in force; to change it: asi policy set policy.toml")
            return policy
        if await asyncio.to_thread(file.exists):
            text, who = await asyncio.to_thread(_read, file, MAX_POLICY), "policy.toml"
        else:
            text, who = built_in(default_name(config.agents.kind)), "default"
        policy = parse_policy(text, "policy.toml")
    except (PolicyError, OSError) as error:
        raise Unusable(str(error)) from error
    sha = await runtime.put(text)
    await runtime.commit(ev.PolicyAdopted(sha, policy.name, who, warning=warning(policy)))
    return policy


async def adopt_signers(runtime: Runtime, config: RunConfig) -> None:
    """Put the configured allowed_signers file in force, where it differs from what is.

    Raises:
        Unusable: it cannot be read, or is no such file.
    """
    text = ""
    if config.gate.allowed_signers:
        path = Path(config.gate.allowed_signers)
        try:
            text = await asyncio.to_thread(_read, path, MAX_SIGNERS)
            people = read_signers(text)
        except (OSError, SignatureError) as error:
            raise Unusable(f"[gate] allowed_signers: {path.name}: {error}") from error
    sha = await runtime.put(text) if text else ""
    if sha != runtime.state.signers:
        if runtime.state.signers:
            change = f"are now those of {', '.join(people)}" if text else "are not asked for any more"
            runtime.note(f"[gate] allowed_signers was changed: signatures {change}", "warning")
        await runtime.commit(ev.SignersAdopted(sha, people if text else []))


def _read(path: Path, limit: int) -> str:
    with path.expanduser().open("rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise OSError(f"{path.name} is larger than {limit // 1024} kB")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise OSError(f"{path.name} is not UTF-8 text") from error


class Governing:
    """The commands of people that change what a run may do."""

    def __init__(self, laboratory: Laboratory, deciding: Deciding) -> None:
        self.lab, self.runtime = laboratory, laboratory.runtime
        self.persons = deciding.persons

    async def policy(self, command: Command) -> str:
        """Put another policy in force; an invalid one is refused and the old one stays."""
        if len(command.program.encode()) > MAX_POLICY:
            raise Refusal(f"the policy is larger than {MAX_POLICY // 1024} kB")
        try:
            policy = await asyncio.to_thread(parse_policy, command.program)
        except PolicyError as error:
            raise Refusal(f"{error}; the policy {self.runtime.state.policy_name} stays in force") from error
        sha = await self.runtime.put(command.program)
        person = await self.persons.identify(command, "policy", sha)
        odd = await asyncio.to_thread(warning, policy)
        self.lab.policy = policy  # with the event, which is folded before anything else is asked
        await self.runtime.commit(
            ev.PolicyAdopted(sha, policy.name, person.name, said(command.reason), odd, person.signed), person.actor
        )
        return f"policy {policy.name} ({sha[:12]}) is in force" + (f"; warning: {odd}" if odd else "")

    async def autonomy(self, command: Command) -> str:
        """How far the run goes by itself."""
        levels = get_args(ev.Autonomy)
        if command.target not in levels:
            raise Refusal(f"no autonomy level {command.target[:20]!r}; levels: {', '.join(levels)}")
        level: ev.Autonomy = command.target  # type: ignore[assignment]
        person = await self.persons.identify(command, level)
        if level == self.runtime.state.autonomy:
            return f"autonomy is {level} already"
        await self.runtime.commit(ev.AutonomyChanged(level, said(command.reason), person.signed), person.actor)
        return f"autonomy is {level}"

    async def hold(self, command: Command) -> str:
        """Nothing new starts for one experiment; a trial of it that runs finishes."""
        entry = self._open(command.target)
        if entry.held:
            raise Refusal(f"{entry.id} is held already")
        person = await self.persons.identify(command, entry.id)
        await self.runtime.commit(ev.ExperimentHeld(entry.id, said(command.reason)), person.actor)
        return f"{entry.id} is held; asi release {entry.id}"

    async def release(self, command: Command) -> str:
        """A held experiment goes on."""
        entry = self._open(command.target)
        if not entry.held:
            raise Refusal(f"{entry.id} is not held")
        person = await self.persons.identify(command, entry.id)
        await self.runtime.commit(ev.ExperimentReleased(entry.id), person.actor)
        return f"{entry.id} goes on"

    async def cancel(self, command: Command) -> str:
        """End one experiment; the rest goes on."""
        entry = self._open(command.target)
        if entry.origin == "baseline":
            raise Refusal(f"{entry.id} is a baseline: without it there is nothing to compare with")
        person = await self.persons.identify(command, entry.id)
        await self.lab.cancel(entry.id, person.name, said(command.reason)[:400])
        return f"{entry.id} is cancelled"

    def _open(self, experiment: str) -> Experiment:
        entry = self.runtime.state.experiments.get(experiment)
        if entry is None or not entry.open:
            raise Refusal(f"no open experiment {experiment[:40]!r}")
        return entry

    async def view(self, request: str) -> PolicyView:
        """The policy in force, and a rule that would have allowed what `request` is about."""
        state = self.runtime.state
        text = await self.runtime.text(state.policy)
        found = state.requests.get(request)
        rule = ""
        if found is not None and found.subject == "program":
            entry = state.experiments[found.experiment]
            rule = rule_for(case_of(entry, found.tier), f"like {found.experiment}, which was approved")
        return PolicyView(state.policy_name, state.policy, text, rule)
