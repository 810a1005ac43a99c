"""Where the blocks of a transcript come from: the journal's calls, the live streams, what trials printed."""

from __future__ import annotations

from asi_tui.library import Library, decoder
from asi_tui.model import Model
from asi_tui.screens.transcripts.blocks import OUTPUT, Block, HeardBlock, Kind
from asi_tui.screens.transcripts.readable import readable
from asi_tui.streams import Heard
from engine.client.protocol import TranscriptEntry
from store.state import Experiment

OUTPUT_LINES = 10_000
OUTPUT_SECONDS = 5.0
"""How often what a running trial prints is read again."""


class Gatherer:
    """Keeps the blocks of one experiment, so that a drawing builds only what has come since the last one."""

    def __init__(self) -> None:
        self.experiment = ""
        self.blocks: list[Block] = []
        self._kept: dict[str, Block] = {}
        self._heard: dict[int, HeardBlock] = {}
        self.on_its_way = False
        self.error = ""
        self.prefetch = False
        self.folds: dict[str, bool] = {}

    def gather(self, library: Library, model: Model, found: Experiment, role: str) -> list[Block]:
        """The blocks of an experiment now, oldest first; of one role, or of all (empty)."""
        if found.id != self.experiment:
            self.experiment, self._kept, self.prefetch = found.id, {}, False
            self.folds.clear()
        calls = [call for call in model.state.calls.values() if call.experiment == found.id]
        stamp = (len(calls), tuple(call.reply for call in calls), found.step)
        entry = library.get("transcript", found.id, stamp, decoder(list[TranscriptEntry]))
        turns: list[TranscriptEntry] = entry.value or []
        self.on_its_way, self.error = entry.value is None and not entry.error, entry.error
        blocks = [block for turn in turns for block in self._turn(library, found.id, turn)]
        if not turns and found.motivation:
            blocks.append(self._proposal(found))
        fresh = entry.stamp == stamp
        for stream in model.texts.of(found.id):
            if stream.over and fresh:
                continue  # its reply stands in the transcript by now
            block = self._block(f"live {stream.role} {stream.began}", "live", stream.role, stream.began)
            block.text, block.note = stream.text, "being read in" if stream.over else "as it is written"
            blocks.append(block)
        blocks += self._outputs(library, model, found, role)
        self.blocks = blocks
        return [block for block in blocks if role in ("", block.role)]

    def heard(self, model: Model) -> list[HeardBlock]:
        """All streams and the engine's own words, in the order of time."""
        known, now = self._heard, {}
        for one in model.texts.heard:
            now[one.number] = known.get(one.number) or HeardBlock(one)
        self._heard = now
        return list(now.values())

    def roles(self) -> list[str]:
        """Whose blocks there are."""
        return list(dict.fromkeys(block.role for block in self.blocks))

    def _block(self, key: str, kind: Kind, role: str, time: float) -> Block:
        block = self._kept.get(key)
        if block is None:
            block = self._kept[key] = Block(key, kind, role, time, self.experiment)
        block.folded = self.folds.get(key, kind in ("prompt", "output"))
        return block

    def _turn(self, library: Library, experiment: str, turn: TranscriptEntry) -> list[Block]:
        name = f"{turn.role} {turn.time}"
        prompt = self._block(f"prompt {name}", "prompt", turn.role, turn.time)
        if prompt.text is None and (self.prefetch or not prompt.folded):
            prompt.take(library.blob(turn.prompt) if turn.prompt else "")
        reply = self._block(f"reply {name}", "reply", turn.role, turn.time)
        if not reply.source and turn.text:
            reply.take(readable(turn.text))
        prompt.agent = reply.agent = turn.agent
        reply.seconds, reply.bad = turn.seconds, not turn.ok
        reply.note = "" if turn.ok else "could not be used"
        if reply.text is None and not turn.reply:
            reply.note, reply.folded = "not answered yet", True
        elif reply.text is None:
            reply.take("")
        return [prompt, reply]

    def _proposal(self, found: Experiment) -> Block:
        """What is known of a proposal that no agent's call stands behind."""
        block = self._block("proposal", "proposal", found.origin, found.opened)
        block.take(f"{found.motivation}\n\n{found.hypothesis}")
        return block

    def _outputs(self, library: Library, model: Model, found: Experiment, role: str) -> list[Block]:
        blocks = []
        for name in found.trials:
            trial = model.state.trials.get(name)
            if trial is None or trial.cached:
                continue
            block = self._block(f"output {name}", "output", OUTPUT, trial.started)
            block.folded = self.folds.get(block.key, role != OUTPUT)
            block.agent, block.note, block.bad = name, trial.status, trial.status == "failed"
            if self.prefetch or not block.folded:
                age = int(model.now // OUTPUT_SECONDS) if trial.status == "running" else 0
                entry = library.output(name, (trial.status, trial.ended, age), OUTPUT_LINES)
                block.take(entry.value)
                if entry.error and entry.value is None:
                    block.take(f"(the engine has no output: {entry.error})")
            blocks.append(block)
        return blocks


def experiment_of(item: Block | HeardBlock) -> str:
    """The experiment that a block belongs to."""
    found: Block | Heard = item.heard if isinstance(item, HeardBlock) else item
    return found.experiment
