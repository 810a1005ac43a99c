"""Checkpoints bring a training process back to the bit, and nothing in them is believed or executed."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import torch
from torch import nn

from engine.linear_attention import checkpoint
from engine.linear_attention.checkpoint import CHECKPOINT, Checkpoint, CheckpointError, Identity

IDENTITY = Identity("trial", "program", "recall", 3)


class Model(nn.Module):
    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.map = nn.Linear(width, width)
        self.other = nn.Linear(width, width)
        self.other.weight = self.map.weight
        self.unused = nn.Parameter(torch.zeros(width))
        self.register_buffer("kept", torch.zeros(width))
        self.register_buffer("constant", torch.rand(width), persistent=False)
        self.register_buffer("filled", None, persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.filled is None:
            self.filled = torch.rand(3, 4)
        self.kept = self.kept + 1
        return self.other(self.map(x)) * self.constant * self.filled.sum()


def build(seed: int, width: int = 4) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    model = Model(width)
    return model, torch.optim.AdamW(model.parameters(), lr=1e-2, fused=True)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        torch.manual_seed(step)
        optimizer.zero_grad(set_to_none=True)
        model(torch.randn(5, 4)).square().sum().backward()
        optimizer.step()


def everything(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[bytes]:
    taken = checkpoint.capture(IDENTITY, 0, 0, 0.0, model, optimizer)
    moments = [tensor for state in taken.moments.values() for tensor in state.values()]
    tensors = [*taken.parameters.values(), *taken.buffers.values(), *moments]
    return [tensor.numpy().tobytes() for tensor in tensors]


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    model, optimizer = build(0)
    train(model, optimizer, range(5))
    checkpoint.save(tmp_path, checkpoint.capture(IDENTITY, 5, 500, 0.1 + 0.2, model, optimizer))
    return tmp_path


def load(folder: Path, step: int = 5) -> Checkpoint:
    found = checkpoint.load(folder, IDENTITY, step)
    assert found is not None
    return found


def test_training_goes_on_to_the_bit(saved: Path) -> None:
    whole = build(0)
    train(*whole, range(9))
    other = build(1)
    found = load(saved)
    found.restore(*other)
    train(*other, range(5, 9))
    assert everything(*other) == everything(*whole)
    assert (found.step, found.tokens, found.flops) == (5, 500, 0.1 + 0.2)


def test_a_checkpoint_that_is_missing_or_of_another_step_means_starting_over(saved: Path) -> None:
    assert checkpoint.load(saved, IDENTITY, 4) is None
    assert checkpoint.load(saved, msgspec.structs.replace(IDENTITY, task="bytes"), 5) is None
    (saved / CHECKPOINT).unlink()
    assert checkpoint.load(saved, IDENTITY, 5) is None


@pytest.mark.parametrize("field", ["trial", "program", "seed"])
def test_a_checkpoint_of_another_trial_is_refused(field: str, saved: Path) -> None:
    other = msgspec.structs.replace(IDENTITY, **{field: 9 if field == "seed" else "other"})
    with pytest.raises(CheckpointError, match="another trial"):
        checkpoint.load(saved, other, 5)


class Bomb:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch exploded",)


def make_link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


def make_large(path: Path) -> None:
    os.truncate(path, checkpoint.MAX_CHECKPOINT_BYTES + 1)


def replace(**changes: object) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        content = torch.load(path, weights_only=True)
        torch.save(content | changes, path)

    return change


def make_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda path: path.write_bytes(b"rubbish"), "no checkpoint of plain tensors"),
        (lambda path: path.write_bytes(b""), "no checkpoint of plain tensors"),
        (lambda path: path.write_bytes(path.read_bytes()[:-200]), "no checkpoint of plain tensors"),
        (lambda path: path.write_bytes(pickle.dumps(Bomb(), protocol=2)), "no checkpoint of plain tensors"),
        (lambda path: torch.save({"step": Bomb()}, path), "no checkpoint of plain tensors"),
        (lambda path: torch.save([1, 2], path), "no checkpoint of plain tensors"),
        (replace(step="five"), "no checkpoint of plain tensors"),
        (replace(extra=1), "no checkpoint of plain tensors"),
        (replace(parameters={"map.weight": 1.0}), "no checkpoint of plain tensors"),
        (make_link, "cannot be read"),
        (make_fifo, "no plain file"),
        (make_folder, "cannot be read"),
        (make_large, "more than"),
    ],
)
def test_what_is_no_checkpoint_is_one_clear_line_and_is_not_executed(
    spoil: Callable[[Path], None], reason: str, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(saved)
    spoil(saved / CHECKPOINT)
    with pytest.raises(CheckpointError, match=reason) as error:
        checkpoint.load(saved, IDENTITY, 5)
    assert "\n" not in str(error.value)
    assert not (saved / "exploded").exists()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"parameters": {}}, "names, shapes or types"),
        ({"buffers": {"nowhere": torch.zeros(1)}}, "other buffers"),
        ({"moments": {7: {}}}, "no parameter 7"),
        ({"moments": {0: {"step": torch.zeros(())}}}, "names, shapes or types"),
        ({"moments": {0: dict.fromkeys(("step", "exp_avg", "exp_avg_sq"), torch.zeros(()))}}, "names, shapes or types"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused_before_anything_is_changed(
    changes: dict[str, object], reason: str, saved: Path
) -> None:
    replace(**changes)(saved / CHECKPOINT)
    other = build(1)
    before = everything(*other)
    with pytest.raises(CheckpointError, match=reason):
        load(saved).restore(*other)
    assert everything(*other) == before


def test_a_model_of_another_width_does_not_fit(saved: Path) -> None:
    with pytest.raises(CheckpointError, match="does not fit"):
        load(saved).restore(*build(0, width=5))


def test_a_link_in_the_place_of_the_checkpoint_is_not_written_through(saved: Path) -> None:
    target = saved / "precious"
    target.write_text("as it was")
    for name in (CHECKPOINT, f"{CHECKPOINT}.new"):
        (saved / name).unlink(missing_ok=True)
        (saved / name).symlink_to(target)
    checkpoint.save(saved, checkpoint.capture(IDENTITY, 6, 0, 1.0, *build(0)))
    assert target.read_text() == "as it was"
    assert load(saved, 6).step == 6


def test_a_checkpoint_that_would_be_too_large_is_not_written(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "MAX_CHECKPOINT_BYTES", 100)
    before = (saved / CHECKPOINT).read_bytes()
    with pytest.raises(CheckpointError, match="larger than"):
        checkpoint.save(saved, checkpoint.capture(IDENTITY, 6, 0, 1.0, *build(0)))
    assert (saved / CHECKPOINT).read_bytes() == before
