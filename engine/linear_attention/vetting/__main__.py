"""`python -m engine.linear_attention.vetting WORKDIR`: vet WORKDIR/program.py at the sizes in WORKDIR/spec.json.

Writes one VetReport as one line of JSON to the report descriptor and nothing else; whatever the program prints goes to
the standard error. The exit status is 0 when there is a report, whatever it says.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import msgspec

from engine.domain import VetSpec

MAX_PROGRAM_BYTES = 1024 * 1024
# Read by torch when it is imported: one thread makes repeated calls equal to the bit, and the battery is the CPU's.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "TORCHDYNAMO_DISABLE": "1", "CUDA_VISIBLE_DEVICES": ""}


def main() -> int:
    """Read the work directory, run the battery, write the report."""
    parser = argparse.ArgumentParser(prog="python -m engine.linear_attention.vetting", description=__doc__)
    parser.add_argument("workdir", type=Path)
    parser.add_argument("--report-fd", type=int, default=1, help="where the report goes (default: standard output)")
    arguments = parser.parse_args()
    try:
        spec = msgspec.json.decode((arguments.workdir / "spec.json").read_bytes(), type=VetSpec)
        with open(arguments.workdir / "program.py", "rb") as stream:
            source = stream.read(MAX_PROGRAM_BYTES).decode("utf-8", "replace")
        report_fd = os.dup(arguments.report_fd)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        print(f"vetting: {error}", file=sys.stderr)
        return 2
    if arguments.report_fd > 2:
        os.close(arguments.report_fd)
    os.dup2(2, 1)
    os.environ.update(ENVIRONMENT)

    from engine.linear_attention.vetting.process import vet, warm_up

    warm_up()
    report = vet(source, spec, private_fds=(report_fd,))
    with os.fdopen(report_fd, "wb") as stream:
        stream.write(msgspec.json.encode(report) + b"\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
