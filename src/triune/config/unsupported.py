"""Fields of configs that Triune does not support, which are errors, and fields that have no effect, which are logged.

No field is ignored silently.
"""

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from itertools import islice

from triune.config.encoder import ENCODER, GRAPH_BACKEND
from triune.config.parameters import PINNED_PARAMETER, option_names
from triune.config.speech import SPEECH, SPEECH_OPTION_NAMES
from triune.config.transformer import OPTION_NAMES, TRANSFORMER
from triune.core.errors import UnsupportedError
from triune.protos.model_config_pb2 import ModelConfig as ModelConfigMessage
from triune.runtimes.machine import Machine

_log = logging.getLogger(__name__)

BACKENDS_WITH_GRAPH_LEVEL = frozenset({"onnxruntime"})
"""The backends whose runtimes support `optimization.graph.level`."""

# At most this many parameters of a config are checked for effect, since checking a very long config would block the
# event loop.
_MOST_PARAMETERS = 256


@dataclass(frozen=True, slots=True)
class Field:
    """A config field that not every backend supports, and that must not be ignored.

    Attributes:
        is_asked: returns whether a config sets the field.
        remedy: what a user can do instead.
    """

    is_asked: Callable[[ModelConfigMessage], bool]
    remedy: str


FIELDS: Mapping[str, Field] = {
    "ensemble_scheduling": Field(
        lambda message: message.HasField("ensemble_scheduling") or message.platform == "ensemble",
        "call the models one after another from the client",
    ),
    "sequence_batching": Field(
        lambda message: message.HasField("sequence_batching"),
        "give the model's state as inputs and outputs, kept by the client",
    ),
    "batch_input": Field(
        lambda message: len(message.batch_input) > 0,
        "compute these inputs in the client; ragged inputs are padded",
    ),
    "batch_output": Field(
        lambda message: len(message.batch_output) > 0,
        "let the model give one row of output for each row of input",
    ),
    "model_operations.op_library_filename": Field(
        lambda message: len(message.model_operations.op_library_filename) > 0,
        "start the server with --custom-ops LIBRARY, which all models may use",
    ),
    "model_repository_agents": Field(
        lambda message: len(message.model_repository_agents.agents) > 0,
        "prepare the model before it is put into the repository",
    ),
    "model_transaction_policy.decoupled": Field(
        lambda message: message.model_transaction_policy.decoupled,
        "no runtime here gives a request any other number of responses than one: set it to false",
    ),
}
"""The fields by name. `Backend.supports` says which of them a backend supports."""


def refuse_unsupported(message: ModelConfigMessage, supports: Collection[str] = ()) -> None:
    """Raise UnsupportedError, naming the field and the remedy, if a config sets one of FIELDS not in `supports`."""
    for name, field in FIELDS.items():
        if name not in supports and field.is_asked(message):
            raise UnsupportedError(f"model '{message.name}': this version does not support '{name}'; {field.remedy}")


def hints_without_effect(message: ModelConfigMessage, machine: Machine, *, has_cache: bool = False) -> list[str]:
    """Texts that name the fields and parameters of a completed config that are set but have no effect.

    As in Triton, a model may have parameters that no backend reads; the config endpoints show them.
    """
    optimization = message.optimization
    fields = [
        ("runtime", bool(message.runtime)),
        ("cc_model_filenames", bool(message.cc_model_filenames)),
        (
            "optimization.graph",
            optimization.HasField("graph") and message.backend not in BACKENDS_WITH_GRAPH_LEVEL,
        ),
        (
            "response_cache (the server has no cache: start it with --cache-config=local,size=BYTES)",
            message.response_cache.enable and not has_cache,
        ),
        ("optimization.priority", optimization.priority != optimization.PRIORITY_DEFAULT),
        ("optimization.cuda", optimization.HasField("cuda")),
        ("optimization.execution_accelerators", optimization.HasField("execution_accelerators")),
        ("optimization.input_pinned_memory", optimization.HasField("input_pinned_memory")),
        ("optimization.output_pinned_memory", optimization.HasField("output_pinned_memory")),
        ("optimization.gather_kernel_buffer_threshold", optimization.gather_kernel_buffer_threshold != 0),
        ("optimization.eager_batching", optimization.eager_batching),
        (
            "instance_group.rate_limiter.resources",
            any(group.rate_limiter.resources for group in message.instance_group),
        ),
        ("instance_group.host_policy", any(group.host_policy for group in message.instance_group)),
    ]
    steps = message.ensemble_scheduling.step
    fields.append(("ensemble_scheduling.step.model_namespace", any(step.model_namespace for step in steps)))
    fields += [
        (f"model_warmup '{sample.name}' with batch_size 0", sample.batch_size == 0) for sample in message.model_warmup
    ]
    # `own` has the parameters that the backends for text and speech read themselves; for other backends, `option_names`
    # has the known ones.
    backend = GRAPH_BACKEND if message.backend == ENCODER else message.backend
    own = {TRANSFORMER: OPTION_NAMES, SPEECH: SPEECH_OPTION_NAMES}
    known = own[backend] if backend in own else option_names(backend, machine)
    names = sorted(islice(message.parameters, _MOST_PARAMETERS))
    fields += [(f"parameter '{name}'", name not in known and name != PINNED_PARAMETER) for name in names]
    more = len(message.parameters) - len(names)
    fields.append((f"{more} more parameters, which were not looked at for this list", more > 0))
    return [name for name, is_set in fields if is_set]


def log_hints(message: ModelConfigMessage, machine: Machine, *, has_cache: bool) -> None:
    """Log once, at INFO, which fields have no effect."""
    hints = hints_without_effect(message, machine, has_cache=has_cache)
    if hints:
        _log.info("model '%s': no effect in this version: %s", message.name, ", ".join(hints))
