"""A training process on disk: tensors and numbers, from which training goes on to the same result.

A checkpoint is written and read inside the sandbox only, and it is untrusted even there: candidate code may have
written it. It is opened as a plain file of bounded size, loaded without executing anything, and held against a strict
schema and the model that the program builds. What it holds can only be the worker's own loss: the scorer outside
keeps its own account.

There is no random state in it, because there is none between steps: initial weights, batches and noise are functions
of task, seed and step. Hyperparameters are not in it either; they are the harness's.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Mapping
from pathlib import Path

import msgspec
import torch
from torch import Tensor, nn

CHECKPOINT = "checkpoint.pt"
MAX_CHECKPOINT_BYTES = 64 << 20
MOMENTS = {"step", "exp_avg", "exp_avg_sq"}


class CheckpointError(Exception):
    """A checkpoint that cannot be written or used; the message is one line."""


class Identity(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a checkpoint belongs to."""

    trial: str
    program: str
    task: str
    seed: int


class Checkpoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A task's training after `step` steps.

    buffers: all of them, also those that a state dict leaves out. moments: AdamW's state by parameter number.
    """

    identity: Identity
    step: int
    tokens: int
    flops: float
    parameters: dict[str, Tensor]
    buffers: dict[str, Tensor]
    moments: dict[int, dict[str, Tensor]]

    def restore(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Put the tensors where they were; raises CheckpointError when they do not fit this model."""
        parameters = dict(model.named_parameters(remove_duplicate=False))
        _expect_alike(self.parameters, parameters)
        # A buffer may have been filled since the model was built, so it is put in place rather than copied into.
        slots = {
            f"{prefix}.{name}" if prefix else name: (module, name)
            for prefix, module in model.named_modules(remove_duplicate=False)
            for name in module._buffers
        }
        if not self.buffers.keys() <= slots.keys():
            raise CheckpointError(f"{CHECKPOINT} does not fit the model: it has other buffers")
        trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        for index, moments in self.moments.items():
            if not 0 <= index < len(trained):
                raise CheckpointError(f"{CHECKPOINT} does not fit the optimiser: there is no parameter {index}")
            _expect_alike(moments, {name: trained[index] for name in MOMENTS} | {"step": torch.zeros(())})
        with torch.no_grad():
            for name, value in self.parameters.items():
                parameters[name].copy_(value)
        for name, value in self.buffers.items():
            module, leaf = slots[name]
            module._buffers[leaf] = value
        optimizer.load_state_dict({"state": self.moments, "param_groups": optimizer.state_dict()["param_groups"]})


def capture(
    identity: Identity, step: int, tokens: int, flops: float, model: nn.Module, optimizer: torch.optim.Optimizer
) -> Checkpoint:
    """The training process as it stands; shares its tensors."""
    return Checkpoint(
        identity=identity,
        step=step,
        tokens=tokens,
        flops=flops,
        parameters={name: item.detach() for name, item in model.named_parameters(remove_duplicate=False)},
        buffers={name: item.detach() for name, item in model.named_buffers(remove_duplicate=False)},
        moments=optimizer.state_dict()["state"],
    )


def save(folder: Path, checkpoint: Checkpoint) -> None:
    """Write `checkpoint.pt`, whole or not at all. Raises OSError, and CheckpointError when it would be too large."""
    stream = io.BytesIO()
    torch.save(msgspec.structs.asdict(checkpoint) | {"identity": msgspec.structs.asdict(checkpoint.identity)}, stream)
    content = stream.getvalue()
    if len(content) > MAX_CHECKPOINT_BYTES:
        raise CheckpointError(f"a checkpoint of {len(content)} bytes is larger than {MAX_CHECKPOINT_BYTES}")
    temporary = folder / f"{CHECKPOINT}.new"
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)
    os.replace(temporary, folder / CHECKPOINT)


def load(folder: Path, identity: Identity, step: int) -> Checkpoint | None:
    """The checkpoint of `identity` after `step` steps.

    None when there is none, or only one of another step or task: then the task starts over, which gives the same
    result. Raises CheckpointError for anything else that is there in its place.
    """
    try:
        content = read_plain(folder / CHECKPOINT, MAX_CHECKPOINT_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CheckpointError(f"{CHECKPOINT} cannot be read: {error.strerror}") from error
    try:
        plain = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        found = msgspec.convert(plain, Checkpoint)
    except Exception as error:
        raise CheckpointError(f"{CHECKPOINT} is no checkpoint of plain tensors and numbers") from error
    if msgspec.structs.replace(found.identity, task=identity.task) != identity:
        raise CheckpointError(f"{CHECKPOINT} belongs to another trial")
    return found if found.identity == identity and found.step == step else None


def read_plain(path: Path, most: int) -> bytes:
    """Read a file that anybody may have put there. Raises OSError when it is a link, no plain file, or too large."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with open(path, "rb", opener=lambda name, _: os.open(name, flags)) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(0, "it is no plain file")
        if status.st_size > most:
            raise OSError(0, f"it has more than {most} bytes")
        return file.read(most)


def _expect_alike(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    def form(tensors: Mapping[str, Tensor]) -> dict[str, tuple[torch.Size, torch.dtype]]:
        return {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}

    if form(found) != form(wanted):
        raise CheckpointError(f"{CHECKPOINT} does not fit the model: names, shapes or types of tensors differ")
