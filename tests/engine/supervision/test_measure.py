"""The attack probe, the drill and the doctor against the real machine."""

from __future__ import annotations

import json

import msgspec

from engine import doctor
from engine.supervision import attack, probe, seccomp
from engine.supervision.attack import Attack, level_of, measure
from engine.supervision.drill import drill
from engine.supervision.isolation import Isolation
from engine.supervision.sandbox import Launcher


async def test_bubblewrap_stops_every_attack(launcher: Launcher) -> None:
    report = await measure(launcher)
    assert {found.attack for found in report.attacks} == {function.__name__ for function in probe.ATTACKS}
    root_stays_root = launcher.isolation.guest_uid is None and "privilege" in report.succeeded
    assert report.succeeded == [] or root_stays_root
    assert report.level == (1 if root_stays_root else launcher.isolation.ceiling)


async def test_without_any_protection_the_attacks_succeed(bare_launcher: Launcher) -> None:
    """The probe must be able to find something, or its silence means nothing."""
    isolation = msgspec.structs.replace(bare_launcher.isolation, landlock_abi=0, filter="")
    report = await measure(Launcher(bare_launcher.run_root, isolation))
    assert report.level == 0
    assert {"secret_file", "secret_symlink", "write_outside", "tcp", "udp", "unix_path", "other_processes",
            "signal_outside"} <= set(report.succeeded)  # fmt: skip


async def test_the_drill_proves_a_death(launcher: Launcher) -> None:
    report = await drill(launcher)
    assert report.proved
    assert report.processes >= 4
    assert report.level == launcher.level
    assert not list((launcher.run_root / "trials").iterdir())


def test_the_level_is_no_higher_than_the_worst_failure() -> None:
    stopped = [Attack("tcp", True, ""), Attack("unix_path", True, "")]
    assert level_of(3, stopped) == 3
    assert level_of(2, [*stopped[:1], Attack("unix_path", False, "")]) == 1
    assert level_of(3, [Attack("tcp", False, ""), stopped[1]]) == 0


def test_the_advice_names_the_missing_tool(monkeypatch) -> None:
    monkeypatch.setattr(attack.shutil, "which", lambda name: "/usr/bin/apt-get" if name == "apt-get" else None)
    assert attack.advice(Isolation(), 1).startswith("apt-get install bubblewrap")


def test_the_filter_is_well_formed() -> None:
    for machine in ("x86_64", "aarch64"):
        program = seccomp.program(machine)
        assert len(program) % 8 == 0
        assert len(program) // 8 < 4096
        for index in range(0, len(program), 8):
            code, yes, no = program[index], program[index + 2], program[index + 3]
            if code != seccomp.RETURN and code != seccomp.LOAD_WORD:
                assert index // 8 + 1 + max(yes, no) < len(program) // 8
    assert seccomp.program("riscv64") == b""


def test_the_doctor_speaks_text_and_json(means: Isolation, capsys) -> None:
    code = doctor.main(["--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["bwrap"] or not means.bwrap
    assert code == (1 if found["problems"] else 0)
    assert found["drill"]["proved"] is True
    doctor.main([])
    text = capsys.readouterr().out
    assert "level " in text
    assert all(name in text for name in ("secret file", "fork bomb", "drill"))
