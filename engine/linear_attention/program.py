"""Turn the source of a program into its `Mixer` class. Executes the source: call it only inside the sandbox."""

from __future__ import annotations

import hashlib
import linecache
import sys
import types

from torch import nn


def load_mixer(source: str) -> type[nn.Module]:
    """Execute a program's source in a module of its own and return its `Mixer`.

    Raises ValueError when the source does not compile or defines no `Mixer` that is an `nn.Module`; whatever the
    program itself raises while it is executed passes through.
    """
    name = f"mixer_{hashlib.sha256(source.encode()).hexdigest()[:16]}"
    try:
        code = compile(source, f"<{name}>", "exec")
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"the program does not compile: {error}") from error
    module = types.ModuleType(name)
    # dataclasses look their module up by name, and tracebacks quote the source from linecache.
    sys.modules[name] = module
    linecache.cache[f"<{name}>"] = (len(source), None, source.splitlines(keepends=True), f"<{name}>")
    exec(code, module.__dict__)
    mixer = module.__dict__.get("Mixer")
    if mixer is None:
        raise ValueError("the program defines no class named Mixer")
    if not (isinstance(mixer, type) and issubclass(mixer, nn.Module)):
        raise ValueError("Mixer must be a class that derives from torch.nn.Module")
    return mixer
