"""The trusted half of a trial: it owns the sealed data, asks the worker for logits and computes every score itself.

No torch and no candidate code here. SIGTERM asks it to leave: it has the worker write a checkpoint, keeps its own
account, and answers with `parked`.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from engine.linear_attention.leaving import Leaving


def main() -> int:
    """Command line of the scorer: `SPEC.json --read-fd R --write-fd W`; prints one `TrialResult`."""
    leaving = Leaving()
    leaving.obey(signal.SIGTERM)
    # Loading these takes a while, in which the process is not to die of the signal that it is to answer.
    import msgspec

    from engine.linear_attention.scoring import score_trial
    from engine.linear_attention.tiers import ScorerSpec
    from engine.linear_attention.wire import Channel

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("spec", type=Path)
    parser.add_argument("--read-fd", type=int, required=True)
    parser.add_argument("--write-fd", type=int, required=True)
    arguments = parser.parse_args()
    spec = msgspec.json.decode(arguments.spec.read_bytes(), type=ScorerSpec)
    result = score_trial(spec, Channel(arguments.read_fd, arguments.write_fd), leaving)
    sys.stdout.buffer.write(msgspec.json.encode(result) + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
