"""What a program reaches for: modules, names, attributes, hooks, and things that belong to everybody."""

from __future__ import annotations

import ast

from engine.linear_attention import static_rules as rules
from engine.linear_attention.static_tree import Program, StaticFinding, is_dunder, module_of

OFFERED = "engine.linear_attention.ops"
ALLOWED = f"torch, math, typing, dataclasses, einops and {OFFERED}"


def check(program: Program, allow_fla: bool) -> list[StaticFinding]:
    """Everything that the program reaches for and should not."""
    return [*_imports(program, allow_fla), *_names(program), *_paths(program), *_instances(program)]


# --- imports ---------------------------------------------------------------------------------------------------------


def _imports(program: Program, allow_fla: bool) -> list[StaticFinding]:
    findings: list[StaticFinding] = []
    for node in program.nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                findings += _judge_import(program, node, alias.name, allow_fla)
        elif isinstance(node, ast.ImportFrom):
            module = module_of(node)
            refused = _judge_import(program, node, module, allow_fla)
            findings += refused
            for alias in node.names:
                full = f"{module}.{alias.name}"
                if alias.name == "*":
                    findings.append(
                        program.error("import", node, f"import the names of {module} one by one, not with *")
                    )
                if not refused and full not in rules.ALLOWED_MODULES:
                    findings += _judge_path(program, node, full)
    return findings


def _judge_import(program: Program, node: ast.AST, module: str, allow_fla: bool) -> list[StaticFinding]:
    root = module.split(".")[0]
    if root == "fla":
        if allow_fla:
            return []
        return [program.error("import", node, f"imports fla, which needs a CUDA device; use {OFFERED}")]
    if module in rules.ALLOWED_MODULES or module.startswith(f"{OFFERED}."):
        return []
    findings = [program.error("import", node, f"imports {module}; a program may import {ALLOWED}")]
    if root in rules.OUR_PACKAGES:
        findings.append(_stop_path(program, node, module))
    return findings


def _stop_path(program: Program, node: ast.AST, path: str) -> StaticFinding:
    return program.error("stop_path", node, f"reaches {path}, which belongs to what supervises and stops the program")


# --- dotted paths that begin at an import ----------------------------------------------------------------------------


def _judge_path(program: Program, node: ast.AST, path: str) -> list[StaticFinding]:
    """What is wrong with reaching `path`, a dotted name that starts at an imported module."""
    root, *parts = path.split(".")
    if kind := rules.MODULE_KINDS.get(root):
        kind = "file" if root == "os" and not _starts_process(parts) else kind
        return [program.error(kind, node, f"uses {path}")]
    forbidden = next((part for part in parts if part in rules.FORBIDDEN_ATTRIBUTES), None)
    if forbidden:
        after = parts[parts.index(forbidden) + 1 :]
        kind = rules.MODULE_KINDS.get(forbidden) or rules.TORCH_KINDS.get(forbidden, "attribute")
        kind = "file" if forbidden == "os" and not _starts_process(after) else kind
        return [program.error(kind, node, f"reaches the module {forbidden} through {path}")]
    if path in rules.ALLOWED_MODULES:
        return [program.error("attribute", node, f"passes the module {path} around as a value; import it instead")]
    if root == "torch" and parts and (wrong := _judge_torch(program, node, path, parts)):
        return wrong
    if root == "engine" and not (path.startswith(OFFERED) or OFFERED.startswith(path)):
        unoffered = program.error("import", node, f"reaches {path}; only {OFFERED} is offered")
        return [unoffered, _stop_path(program, node, path)]
    if any(part.startswith("_") for part in parts):
        return [program.error("attribute", node, f"uses {path}, which is private")]
    return []


def _judge_torch(program: Program, node: ast.AST, path: str, parts: list[str]) -> list[StaticFinding]:
    if path.startswith("torch.utils.checkpoint"):
        return []
    if any(part.startswith("set_") or part in rules.GLOBAL_STATE_TORCH for part in (parts[0], parts[-1])):
        return [program.error("global_state", node, f"uses {path}, which changes things for everybody")]
    within = next((part for part in parts if part in ("hub", "cpp_extension")), parts[0])
    if within in rules.FORBIDDEN_TORCH or within in rules.TORCH_KINDS or "torch" in parts:
        kind = rules.TORCH_KINDS.get(within, "attribute")
        return [program.error(kind, node, f"uses {path}, which is not part of a mixer")]
    if parts[0] == "fft":
        return [program.warning("fft", node, f"mixes by a Fourier transform, {path}")]
    return []


def _starts_process(parts: list[str]) -> bool:
    return bool(parts) and parts[0].startswith(rules.OS_PROCESS)


def _paths(program: Program) -> list[StaticFinding]:
    """How imported things are used: which paths are reached, and whether anything in them is overwritten."""
    findings: list[StaticFinding] = []
    inner = {id(node.value) for node in program.nodes if isinstance(node, ast.Attribute)}
    modules = {name for name, path in program.bound.items() if path in rules.ALLOWED_MODULES}
    for node in program.nodes:
        if isinstance(node, ast.Attribute):
            path = program.dotted(node)
            if path is not None and isinstance(node.ctx, ast.Store | ast.Del):
                findings.append(program.error("patch", node, f"overwrites {path}, which belongs to everybody"))
            elif path is not None and id(node) not in inner:
                findings += _judge_path(program, node, path)
        elif isinstance(node, ast.Name) and node.id in program.bound:
            if isinstance(node.ctx, ast.Store | ast.Del):
                findings.append(program.error("patch", node, f"rebinds the imported name {node.id}"))
            elif id(node) not in inner:
                if node.id in modules:
                    text = f"passes the module {program.bound[node.id]} around as a value"
                    findings.append(program.error("attribute", node, text))
                elif program.bound[node.id].split(".")[0] in rules.MODULE_KINDS:
                    findings += _judge_path(program, node, program.bound[node.id])
        elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
            path = program.dotted(node.value)
            if path is not None:
                findings.append(program.error("patch", node, f"writes into {path}, which belongs to everybody"))
    return findings


# --- names and attributes, wherever they stand -----------------------------------------------------------------------


def _names(program: Program) -> list[StaticFinding]:
    """Dynamic execution, attribute tricks, hooks and methods that reach outside."""
    findings: list[StaticFinding] = []
    called = {id(node.func): node for node in program.nodes if isinstance(node, ast.Call)}
    for node in program.nodes:
        if isinstance(node, ast.Name):
            findings += _judge_name(program, node, called.get(id(node)))
        elif isinstance(node, ast.Attribute):
            findings += _judge_attribute(program, node)
        elif isinstance(node, ast.Global):
            text = f"changes module globals: {', '.join(node.names)}"
            findings.append(program.warning("global", node, text))
    return findings


def _judge_name(program: Program, node: ast.Name, call: ast.Call | None) -> list[StaticFinding]:
    if node.id in rules.FORBIDDEN_NAMES:
        return [program.error(rules.NAME_KINDS.get(node.id, "dynamic"), node, f"uses {node.id}")]
    if node.id in rules.ACCESSORS:
        return _judge_accessor(program, node, call)
    if node.id == "type" and call is not None and len(call.args) + len(call.keywords) > 1:
        return [program.error("dynamic", node, "makes a class by type")]
    if is_dunder(node.id) and node.id not in rules.ALLOWED_DUNDERS:
        return [program.error("attribute", node, f"uses {node.id}")]
    if node.id in rules.ENDINGS:
        return [program.warning("process", node, f"has to do with the end of the process by {node.id}")]
    if node.id in rules.DECODING_NAMES and call is not None:
        return [program.warning("obfuscation", node, f"makes text or bytes out of numbers by {node.id}", "medium")]
    return []


def _judge_attribute(program: Program, node: ast.Attribute) -> list[StaticFinding]:
    name = node.attr
    if is_dunder(name) and name not in rules.ALLOWED_DUNDERS:
        return [program.error("attribute", node, f"reaches for {name}")]
    if name in rules.FORBIDDEN_ATTRIBUTES:
        if program.dotted(node) is not None:  # judged as a path
            return []
        return [program.error("attribute", node, f"reaches for .{name}")]
    if name in rules.METHOD_KINDS and program.dotted(node) is None:
        return [program.error(rules.METHOD_KINDS[name], node, f"calls .{name}")]
    if name == "from_file":
        return [program.error("file", node, f"calls .{name}")]
    if name in rules.DECODING_METHODS:
        return [program.warning("obfuscation", node, f"decodes by .{name}", "medium")]
    if name == "decode" and isinstance(node.value, ast.Constant):
        return [program.warning("obfuscation", node, "decodes bytes", "medium")]
    if name.startswith("register_") and "hook" in name:
        everywhere = name.startswith(("register_module", "register_multi"))
        text = f"registers a hook by {name}"
        return [program.error("hook", node, text) if everywhere else program.warning("hook", node, text)]
    return []


def _judge_accessor(program: Program, node: ast.Name, call: ast.Call | None) -> list[StaticFinding]:
    if call is None or len(call.args) < 2:
        return [program.error("dynamic", node, f"uses {node.id} as a value")]
    owner, attribute = call.args[0], call.args[1]
    if not (isinstance(attribute, ast.Constant) and isinstance(attribute.value, str)):
        text = f"{node.id} with a name that is computed; write the attribute out"
        return [program.error("dynamic", node, text)]
    if is_dunder(attribute.value) or attribute.value in rules.FORBIDDEN_ATTRIBUTES:
        return [program.error("attribute", node, f"{node.id} reaches for {attribute.value}")]
    if node.id != "hasattr" and not (isinstance(owner, ast.Name) and owner.id == "self"):
        return [program.error("dynamic", node, f"{node.id} on something other than self")]
    if node.id != "hasattr" and node.id != "getattr" and attribute.value in rules.INSTANCE_OVERRIDES:
        return [program.warning("override", node, f"replaces {attribute.value} on the instance", "medium")]
    return []


# --- overwriting by a detour -----------------------------------------------------------------------------------------


def _instances(program: Program) -> list[StaticFinding]:
    """Methods replaced on an instance, and what belongs to everybody changed under another name."""
    findings: list[StaticFinding] = []
    for node in program.nodes:
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store | ast.Del):
            base = node.value
            if isinstance(base, ast.Name) and base.id in program.aliases:
                text = f"overwrites {program.aliases[base.id]}.{node.attr}, which belongs to everybody"
                findings.append(program.error("patch", node, text))
            elif isinstance(base, ast.Call) and isinstance(base.func, ast.Name) and base.func.id == "type":
                findings.append(program.error("patch", node, f"overwrites {node.attr} in a class reached by type"))
            elif node.attr in rules.INSTANCE_OVERRIDES and program.dotted(node) is None:
                findings.append(program.warning("override", node, f"replaces {node.attr} on an instance", "medium"))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            path = program.dotted(node.func.value)
            if node.func.attr in rules.CHANGING_METHODS and path is not None:
                findings.append(program.error("patch", node, f"changes {path}, which belongs to everybody"))
    return findings
