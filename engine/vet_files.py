"""`asi vet`: the whole vetting battery on program files, sandboxed, without a run.

Exit code 0 when every program passes, 1 when one fails, 2 when a file cannot be read.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

import msgspec

from engine.client.rundir import RunPaths
from engine.domain import VetReport
from engine.linear_attention.domain import LinearAttention
from engine.sandboxes import Ended, Sandboxes
from engine.supervision.arming import launcher
from engine.supervision.attack import measure
from engine.trials import TrialRunner, VettingFailed

MAX_SOURCE = 256 * 1024


class FileReport(msgspec.Struct, frozen=True):
    """One file's report, as `--json` prints it; `error` when vetting itself gave no report."""

    file: str
    passed: bool
    sandbox_level: str
    report: VetReport | None
    error: str = ""


async def vet_files(files: list[tuple[str, str]], quadratic: bool, show: bool) -> list[FileReport]:
    """Vet sources one after the other, each in its own sandbox."""
    domain = LinearAttention()
    spec = domain.vet_spec("probe", quadratic)
    reports = []
    with tempfile.TemporaryDirectory(prefix="asi-vet-") as folder:
        root = Path(folder)
        RunPaths(root).create()
        start = launcher(root)
        start.level = (await measure(start)).level
        runner = TrialRunner(root, domain, Sandboxes(start, memory_mb=2048, disk_mb=128), lambda message: None)
        for number, (name, source) in enumerate(files):
            try:
                report = await runner.vet(f"vet-{number}", source, spec)
                reports.append(FileReport(name, report.passed, f"L{start.level}", report))
            except (VettingFailed, Ended) as error:
                reports.append(FileReport(name, False, f"L{start.level}", None, str(error)))
            if show:
                print(_text(reports[-1]), flush=True)
    return reports


def _text(entry: FileReport) -> str:
    verdict = "PASSED" if entry.passed else "FAILED"
    lines = [f"{entry.file}: {verdict} (sandbox {entry.sandbox_level})"]
    if entry.report is None:
        return "\n".join([*lines, f"  {_inert(entry.error)}"])
    report = entry.report
    for gate in report.gates:
        lines.append(f"  {'ok  ' if gate.passed else 'FAIL'}  {gate.gate:<11} {_inert(gate.evidence)}")
    lines.append(
        f"  {report.parameters:,} parameters, {report.state_floats:,} state floats a layer, "
        f"cost grows as T^{report.cost_exponent:.2f}, {report.seconds:.1f} s"
    )
    return "\n".join(lines)


def _inert(text: str) -> str:
    """Evidence may quote what the program raised: nothing in it may reach the terminal as control characters."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text[:1_000])


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(prog="asi vet")
    parser.add_argument("files", nargs="+")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--allow-quadratic", action="store_true")
    options = parser.parse_args(arguments)
    sources = []
    for name in options.files:
        try:
            raw = Path(name).read_bytes()
            if len(raw) > MAX_SOURCE:
                raise ValueError(f"larger than {MAX_SOURCE // 1024} kB")
            sources.append((name, raw.decode()))
        except OSError as error:
            print(f"asi: {name}: {error.strerror}", file=sys.stderr)
            return 2
        except ValueError as error:
            print(f"asi: {name}: not a program: {error}", file=sys.stderr)
            return 2
    reports = asyncio.run(vet_files(sources, options.allow_quadratic, show=not options.json))
    if options.json:
        print(msgspec.json.encode(reports).decode())
    return 0 if all(entry.passed for entry in reports) else 1


if __name__ == "__main__":
    sys.exit(main())
