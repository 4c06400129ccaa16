"""Reads the parameters of Triton's OpenVINO backend, by their old and new names."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from triune.core.errors import UnsupportedError
from triune.core.requests import Parameter
from triune.core.units import Unit
from triune.runtimes import options as read

OPTION_NAMES = (
    "INFERENCE_NUM_THREADS",
    "COMPILATION_NUM_THREADS",
    "NUM_STREAMS",
    "PERFORMANCE_HINT",
    "HINT_BF16",
    "TARGET_DEVICE",
    "ENABLE_BATCH_PADDING",
    "RESHAPE_IO_LAYERS",
    "SKIP_OV_DYNAMIC_BATCHSIZE",
    "CPU_EXTENSION_PATH",
    "CPU_THREADS_NUM",
    "CPU_BIND_THREAD",
    "CPU_THROUGHPUT_STREAMS",
    "ENFORCE_BF16",
    "SKIP_DYNAMIC_BATCHSIZE",
)


@dataclass(frozen=True, slots=True)
class Settings:
    """The values of a model's options for OpenVINO.

    Attributes:
        num_threads: the number of CPU threads of one call, at least 1.
        is_pinned: whether threads are bound to cores.
    """

    num_threads: int
    is_pinned: bool = False


def read_settings(unit: Unit, num_threads: int, options: Mapping[str, Parameter]) -> Settings:
    """Check every option, and return those that have an effect.

    These options have no effect: PERFORMANCE_HINT and NUM_STREAMS (an executable runs one call at a time, in one
    stream), SKIP_OV_DYNAMIC_BATCHSIZE and SKIP_DYNAMIC_BATCHSIZE (the model file determines the shapes), and
    COMPILATION_NUM_THREADS (the CPU plugin has no such property).

    Raises:
        InvalidArgumentError: an option is unknown, or its value is wrong.
        UnsupportedError: Triune has another setting for the option's purpose, which the message names.
    """
    read.check_names("openvino", options, OPTION_NAMES)
    settings = Settings(num_threads)
    for name, value in options.items():
        match name:
            case "INFERENCE_NUM_THREADS" | "CPU_THREADS_NUM":
                settings = replace(settings, num_threads=read.num_threads(name, value) or num_threads)
            case "COMPILATION_NUM_THREADS":
                read.num_threads(name, value)
            case "CPU_BIND_THREAD":
                settings = replace(settings, is_pinned=read.boolean(name, value))
            case "PERFORMANCE_HINT":
                read.choice(name, value, ("LATENCY", "THROUGHPUT", "CUMULATIVE_THROUGHPUT"))
            case "SKIP_OV_DYNAMIC_BATCHSIZE" | "SKIP_DYNAMIC_BATCHSIZE":
                read.boolean(name, value)
            case "NUM_STREAMS" | "CPU_THROUGHPUT_STREAMS":
                _require(str(value).strip().lower() in ("1", "auto"), name, value, "ask for more with instance_group")
            case "HINT_BF16" | "ENFORCE_BF16":
                is_bf16 = read.boolean(name, value)
                remedy = f"unit '{unit.value}' computes in {'bf16' if unit is Unit.AMX else 'fp32'}: name the unit"
                _require(is_bf16 == (unit is Unit.AMX), name, value, f"{remedy} in parameter 'units' instead")
            case "TARGET_DEVICE":
                _require(read.choice(name, value, ("CPU", "GPU", "NPU", "AUTO")) == "CPU", name, value, "write CPU")
            case "ENABLE_BATCH_PADDING" | "RESHAPE_IO_LAYERS":
                _require(not read.boolean(name, value), name, value, "export the model with a free batch dimension")
            case _:
                _require(not value, name, value, "kernels of one's own are not loaded; remove it")
    return settings


def _require(is_met: bool, name: str, value: Parameter, remedy: str) -> None:
    if not is_met:
        raise UnsupportedError(f"parameter '{name}' is {value!r}, which Triune does not support: {remedy}")
