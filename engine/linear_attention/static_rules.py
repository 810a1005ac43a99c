"""The lists behind `static`: what a program may import and reach, and how large it may be."""

from __future__ import annotations

MAX_BYTES = 64 * 1024
MAX_LINES = 2000
MAX_LITERAL_CHARACTERS = 4096
MAX_LITERAL_ELEMENTS = 1024
MAX_INTEGER_DIGITS = 40
# Beyond these a literal is lawful, but somebody should look at what it holds.
LONG_LITERAL_CHARACTERS = 512
LONG_LITERAL_ELEMENTS = 128
LONG_INTEGER_DIGITS = 20

ALLOWED_MODULES = frozenset(
    {
        "__future__",
        "dataclasses",
        "einops",
        "einops.layers.torch",
        "engine.linear_attention",
        "engine.linear_attention.ops",
        "math",
        "torch",
        "torch.autograd",
        "torch.fft",
        "torch.linalg",
        "torch.nn",
        "torch.nn.functional",
        "torch.nn.init",
        "torch.nn.parameter",
        "torch.nn.utils",
        "torch.nn.utils.parametrizations",
        "torch.special",
        "torch.utils.checkpoint",
        "typing",
    }
)
FORBIDDEN_NAMES = frozenset(
    {
        "__builtins__",
        "__import__",
        "breakpoint",
        "compile",
        "eval",
        "exec",
        "exit",
        "globals",
        "help",
        "input",
        "locals",
        "memoryview",
        "open",
        "quit",
        "vars",
    }
)
NAME_KINDS = {"open": "file", "input": "file", "exit": "process", "quit": "process", "breakpoint": "process"}
# Catching or raising these plays with the end of the process.
ENDINGS = frozenset({"BaseException", "GeneratorExit", "KeyboardInterrupt", "SystemExit"})
ACCESSORS = frozenset({"getattr", "setattr", "delattr", "hasattr"})
ALLOWED_DUNDERS = frozenset(
    {
        "__all__",
        "__call__",
        "__contains__",
        "__enter__",
        "__exit__",
        "__future__",
        "__getitem__",
        "__init__",
        "__iter__",
        "__len__",
        "__name__",
        "__post_init__",
        "__repr__",
        "__str__",
        "__version__",
    }
)
# Modules that can be reached as attributes of allowed ones, and frames and code objects reached from functions.
FORBIDDEN_ATTRIBUTES = frozenset(
    (  # noqa: SIM905 - one name per line would hide the list
        "builtins cpp_extension ctypes cuda_extension f_back f_builtins f_globals f_locals func_globals "
        "gi_code gi_frame importlib inspect load_library multiprocessing os pickle shutil signal socket "
        "subprocess sys tb_frame tb_next threading "
    ).split()
)
FORBIDDEN_TORCH = frozenset(
    {
        "classes",
        "compiler",
        "distributed",
        "from_file",
        "hub",
        "jit",
        "library",
        "load",
        "monitor",
        "onnx",
        "ops",
        "overrides",
        "package",
        "profiler",
        "save",
        "serialization",
        "storage",
        "testing",
        "utils",
    }
)
# What a module is for, by its name: the kind of a finding about using it.
MODULE_KINDS = {
    name: kind
    for kind, names in {
        "process": "_thread asyncio concurrent multiprocessing os psutil pty resource signal subprocess threading",
        "file": "fileinput glob io mmap numpy pathlib pickle shelve shutil sqlite3 tarfile tempfile zipfile",
        "network": "aiohttp ftplib http httpx poplib requests smtplib socket socketserver ssl telnetlib urllib xmlrpc",
        "dynamic": "ast builtins cffi code codecs ctypes dis gc imp importlib inspect marshal pkgutil runpy sys types",
        "obfuscation": "base64 binascii bz2 gzip lzma zlib",
    }.items()
    for name in names.split()
}
OS_PROCESS = ("_exit", "abort", "exec", "fork", "kill", "nice", "popen", "posix_spawn", "sched", "spawn", "system")
TORCH_KINDS = {
    "cpp_extension": "process",
    "distributed": "network",
    "from_file": "file",
    "hub": "network",
    "jit": "dynamic",
    "load": "file",
    "multiprocessing": "process",
    "onnx": "file",
    "package": "file",
    "profiler": "file",
    "save": "file",
    "serialization": "file",
    "storage": "file",
}
# Methods that reach outside wherever they stand; what they belong to cannot be known from the tree.
METHOD_KINDS = {
    "from_file": "file",
    "fromfile": "file",
    "memmap": "file",
    "read_bytes": "file",
    "read_text": "file",
    "share_memory_": "process",
    "tofile": "file",
    "write_bytes": "file",
    "write_text": "file",
}
DECODING_METHODS = frozenset(
    {"a85decode", "b64decode", "b85decode", "from_bytes", "fromhex", "maketrans", "to_bytes", "unhexlify"}
)
DECODING_NAMES = frozenset({"bytearray", "bytes", "chr", "ord"})
CHANGING_METHODS = frozenset({"append", "clear", "extend", "insert", "pop", "remove", "setdefault", "update"})
# Assigned on an instance, these hide what the class says.
INSTANCE_OVERRIDES = frozenset({"_apply", "forward", "load_state_dict", "named_parameters", "parameters", "state_dict"})
OUR_PACKAGES = frozenset({"asi_tui", "cognition", "engine", "store"})
# Files of a run: the first are known by name alone, the others where they stand in a path.
STOP_FILES = frozenset(
    {"KILLED", "allowed_signers", "asi.duckdb", "engine.lock", "engine.sock", "engine.token", "run.toml", "sealed.key"}
)
ROOT_FOLDERS = frozenset(
    {"bin", "dev", "etc", "home", "lib", "mnt", "opt", "proc", "root", "run", "sys", "tmp", "usr", "var"}
)
STOP_FOLDERS = frozenset({"blobs", "journal", "procs", "trials"})
GLOBAL_STATE_TORCH = frozenset(
    {"backends", "manual_seed", "manual_seed_all", "random", "seed", "use_deterministic_algorithms"}
)
# A mixer that answers these itself could hide parameters from the budget or survive the harness's copies.
FORBIDDEN_OVERRIDES = frozenset(
    (  # noqa: SIM905 - one name per line would hide the list
        "_apply apply buffers bfloat16 children cpu cuda double eval float half load_state_dict modules "
        "named_buffers named_children named_modules named_parameters parameters requires_grad_ state_dict to "
        "train type zero_grad "
    ).split()
)
REQUIRED_ARGUMENTS = {
    "__init__": ["self", "d_model", "n_heads", "layer_idx", "max_len"],
    "forward": ["self", "x"],
}
