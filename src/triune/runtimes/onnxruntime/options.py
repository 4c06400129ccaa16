"""The options of a model for ONNX Runtime, which are those of Triton's onnxruntime backend, as strings."""

from collections.abc import Mapping
from typing import Any

import onnxruntime

from triune.core.errors import InvalidArgumentError
from triune.core.requests import Parameter
from triune.graph.arenas import NO_LOG
from triune.graph.session import ACCURACY
from triune.runtimes import options as read

_SHRINKAGE = "memory.enable_memory_arena_shrinkage"
_SPINNING = ("session.intra_op.allow_spinning", "session.inter_op.allow_spinning")
_SWITCHES = (
    "session.set_denormal_as_zero",
    "session.use_device_allocator_for_initializers",
)
_LEVELS = {"-1": "ORT_ENABLE_BASIC", "0": "ORT_ENABLE_ALL", "1": "ORT_ENABLE_EXTENDED", "2": "ORT_DISABLE_ALL"}
KNOWN_OPTIONS = (
    "intra_op_thread_count",
    "inter_op_thread_count",
    "execution_mode",
    "optimization.graph.level",
    "enable_mem_arena",
    "enable_mem_pattern",
    _SHRINKAGE,
    ACCURACY,
    *_SPINNING,
    *_SWITCHES,
)

# `Any`, since onnxruntime has no type hints.
_library: Any = onnxruntime


def session_options_of(num_threads: int, options: Mapping[str, Parameter]) -> Any:
    """Make SessionOptions from a model's options. Raises InvalidArgumentError for an unknown option or a wrong
    value.
    """
    read.check_names("onnxruntime", options, KNOWN_OPTIONS)
    settings = _library.SessionOptions()
    # Errors are raised, so ONNX Runtime need not log them.
    settings.log_severity_level = NO_LOG
    settings.intra_op_num_threads = num_threads
    settings.inter_op_num_threads = 1
    settings.execution_mode = _library.ExecutionMode.ORT_SEQUENTIAL
    # Let waiting threads sleep, not spin: spinning takes cores from other units and from the front ends.
    for name in _SPINNING:
        settings.add_session_config_entry(name, "1" if read.boolean(name, options.get(name, "0")) else "0")
    for name, value in options.items():
        match name:
            case "intra_op_thread_count":
                settings.intra_op_num_threads = read.num_threads(name, value) or num_threads
            case "inter_op_thread_count":
                settings.inter_op_num_threads = read.num_threads(name, value) or num_threads
            case "execution_mode":
                is_parallel = read.choice(name, value, ("0", "1")) == "1"
                mode = _library.ExecutionMode
                settings.execution_mode = mode.ORT_PARALLEL if is_parallel else mode.ORT_SEQUENTIAL
            case "optimization.graph.level":
                level = _LEVELS[read.choice(name, value, tuple(_LEVELS))]
                settings.graph_optimization_level = getattr(_library.GraphOptimizationLevel, level)
            case "enable_mem_arena":
                settings.enable_cpu_mem_arena = read.boolean(name, value)
            case "enable_mem_pattern":
                settings.enable_mem_pattern = read.boolean(name, value)
            case _ if name == ACCURACY:
                settings.add_session_config_entry(name, read.choice(name, value, ("0", "1", "2", "3", "4")))
            case _ if name in _SWITCHES:
                settings.add_session_config_entry(name, "1" if read.boolean(name, value) else "0")
            case _:
                pass
    return settings


def run_options_of(options: Mapping[str, Parameter]) -> Any:
    """Make RunOptions from a model's options. Raises the errors of `session_options_of`."""
    settings = _library.RunOptions()
    settings.log_severity_level = NO_LOG
    if _SHRINKAGE in options:
        arena = read.choice(_SHRINKAGE, options[_SHRINKAGE], ("CPU:0",)).lower()
        if not read.boolean("enable_mem_arena", options.get("enable_mem_arena", "1")):
            raise InvalidArgumentError(f"parameter '{_SHRINKAGE}' needs an arena, which 'enable_mem_arena' turns off")
        settings.add_run_config_entry(_SHRINKAGE, arena)
    return settings
