"""How much of a run's time went into trials and vetting, and how much was the engine's own: `python -m bench.overhead`.

Reads the journal of a run. A slot is one processor; a slot-second is occupied while a trial or a vetting sandbox holds
it. Time in which the run was not running (paused, stopped, arming) does not count.
"""

from __future__ import annotations

import argparse
import os

from bench.machine import describe
from engine.client.rundir import RunPaths, resolve
from store import events as ev
from store.config import load
from store.folding import fold
from store.journal import read
from store.state import RunState


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(prog="python -m bench.overhead", description=__doc__)
    parser.add_argument("run", nargs="?")
    root = resolve(parser.parse_args().run)
    config = load(RunPaths(root).config)
    slots = config.trials.slots or len(os.sched_getaffinity(0))
    state, started, trials, vetting, working = RunState(), {}, 0.0, 0.0, 0.0
    last = 0.0
    for record in read(RunPaths(root).journal):
        event = record.data
        if state.phase == "running":
            working += record.time - last
        last = record.time
        state = fold(state, record)
        if isinstance(event, ev.TrialStarted):
            started[event.trial] = record.time
        elif isinstance(event, ev.TrialFinished | ev.TrialFailed | ev.TrialKilled) and event.trial in started:
            trials += record.time - started.pop(event.trial)
        elif isinstance(event, ev.ProgramVetted):
            vetting += event.seconds
    available = slots * working
    print(describe())
    if not available:
        raise SystemExit("this run has not worked yet")
    print(f"run {root.name}: {working:.0f} s of work on {slots} slots, {len(state.trials)} trials")
    print(f"  in trials   {trials / available:6.1%} of slot time")
    print(f"  in vetting  {vetting / available:6.1%}")
    print(f"  engine      {max(0.0, 1 - (trials + vetting) / available):6.1%}  (sandbox start, torch import, idle)")


if __name__ == "__main__":
    main()
