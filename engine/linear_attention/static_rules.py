"""The lists behind `static`: what a program may import and reach, and how large it may be."""

from __future__ import annotations

MAX_BYTES = 64 * 1024
MAX_LINES = 2000
MAX_LITERAL_CHARACTERS = 4096
MAX_LITERAL_ELEMENTS = 1024
MAX_INTEGER_DIGITS = 40

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
        "locals",
        "memoryview",
        "open",
        "quit",
        "vars",
    }
)
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
GLOBAL_STATE_TORCH = frozenset({"backends", "manual_seed", "random", "seed", "use_deterministic_algorithms"})
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
