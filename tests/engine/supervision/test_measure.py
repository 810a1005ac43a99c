"""The attack probe, the drill and the doctor against the real machine."""

from __future__ import annotations

import json
import os
from pathlib import Path

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


async def test_without_bubblewrap_the_level_is_one(unshare_launcher: Launcher) -> None:
    report = await measure(unshare_launcher)
    assert set(report.succeeded) <= {"unix_path", "unix_abstract", "privilege", "fork_bomb"}
    assert report.level == 1


async def test_a_hostile_account_of_the_attacks_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "attacks.json"
    os.mkfifo(path)
    assert attack._read_results(path) == {}
    path.unlink()
    (tmp_path / "real.json").write_text('[{"attack": "tcp", "stopped": true, "detail": ""}]')
    path.symlink_to(tmp_path / "real.json")
    assert attack._read_results(path) == {}
    path.unlink()
    path.write_text('[{"attack": "tcp", "stopped": "yes"}]')
    assert attack._read_results(path) == {}


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


def test_the_advice_for_a_refused_user_namespace(monkeypatch) -> None:
    monkeypatch.setattr(attack.shutil, "which", lambda name: f"/usr/bin/{name}")
    refused = "/proc/sys/kernel/apparmor_restrict_unprivileged_userns"
    real = attack.Path.read_text
    monkeypatch.setattr(attack.Path, "read_text", lambda path: "1\n" if str(path) == refused else real(path))
    why = Isolation(trouble=("bubblewrap fails: setting up uid map: Permission denied", "unshare fails: no"))
    monkeypatch.setattr(attack.os, "geteuid", lambda: 1000)
    assert attack.advice(why, 1).startswith("sysctl -w kernel.apparmor_restrict_unprivileged_userns=0")
    monkeypatch.setattr(attack.os, "geteuid", lambda: 0)
    assert attack.advice(why, 1) == why.trouble[0]


def test_the_advice_for_the_kernels_limits(monkeypatch) -> None:
    monkeypatch.setattr(attack.Path, "is_dir", lambda path: True)
    monkeypatch.setattr(attack.os, "geteuid", lambda: 1000)
    assert "systemd-run --user --scope -p Delegate=yes" in attack.advice(Isolation(bwrap="/usr/bin/bwrap"), 2)
    monkeypatch.setattr(attack.os, "geteuid", lambda: 0)
    assert "systemd-run --scope -p Delegate=yes" in attack.advice(Isolation(bwrap="/usr/bin/bwrap"), 2)
    assert attack.advice(Isolation(bwrap="/usr/bin/bwrap"), 3) == ""


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
