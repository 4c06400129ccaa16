"""A model's completed configuration, from config.pbtxt and the model file."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from triune.config.plan import PlanRequest
from triune.config.policy import BatchingPolicy
from triune.config.write import write_json
from triune.core.datatypes import DataType
from triune.core.units import Unit
from triune.graph.optimizing.level import Level
from triune.protos.model_config_pb2 import ModelConfig as ModelConfigMessage


@dataclass(frozen=True, slots=True)
class TensorConfig:
    """An input or output as clients see it.

    Attributes:
        name: the tensor's name.
        datatype: its element type.
        dims: the shape of one row, without the batch dimension; -1 is a free dimension.
        reshape: the shape of one row in the model, if it differs from `dims`; the number of elements is the same.
        is_optional: whether a request may leave the input out.
        labels: for classification, the label of each index of an output; empty if the config names no label file.
    """

    name: str
    datatype: DataType
    dims: tuple[int, ...]
    reshape: tuple[int, ...] | None = None
    is_optional: bool = False
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class WarmupSample:
    """A request to run before a model is ready.

    Attributes:
        name: its name in the config.
        num_runs: how often it runs.
        batch_size: the number of rows.
        inputs: for each input its datatype, the shape of one row, and where the data comes from:
            "zero", "random", or the path of a raw file below the model's `warmup` folder.
    """

    name: str
    num_runs: int
    batch_size: int
    inputs: Mapping[str, tuple[DataType, tuple[int, ...], str]]


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The complete configuration of one version of a model.

    Attributes:
        message: the completed config as Triton's protobuf message. It is not changed any more.
        encoded: the serialized message, for the config endpoints. The thread that loads the model makes it, once.
        json: the message in JSON, for the config endpoints.
        name: the model's name, which is its folder's name.
        backend: the backend's name. For a model that a runtime compiles from a file, it is that runtime's name.
        path: the version's model file; the version's folder if the backend has no model file.
        inputs: the inputs by name, in order.
        outputs: the outputs by name, in order.
        units: the units that the model runs on, the preferred one first.
        num_instances: the number of executables on each unit.
        batching: how its requests are queued and batched.
        warmup: the samples that run before it is ready.
        parameters: the config's `parameters` without those that `parameters_of` leaves out, such as `units`.
        is_decoupled: whether a request may have any number of responses.
        metric_tags: labels to add to its metrics.
        has_own_process: whether each executable runs in a separate process.
        level: how far its graph is optimized before it is compiled; None leaves the file as it is.
        plan: how the model is divided into segments; None if it is not.
        num_runs: the number of models that run for one request. It is 1 for a model that is not an ensemble. An
            ensemble counts itself and the `num_runs` of the models of its steps.
        num_levels: how many levels of ensembles there are: 0 for a model that is not an ensemble.
    """

    message: ModelConfigMessage
    name: str
    backend: str
    path: Path
    inputs: Mapping[str, TensorConfig]
    outputs: Mapping[str, TensorConfig]
    units: tuple[Unit, ...]
    num_instances: int
    batching: BatchingPolicy
    warmup: tuple[WarmupSample, ...]
    parameters: Mapping[str, str]
    is_decoupled: bool
    metric_tags: Mapping[str, str]
    has_own_process: bool = False
    level: Level | None = None
    plan: PlanRequest | None = None
    num_runs: int = 1
    num_levels: int = 0
    encoded: bytes = field(init=False, repr=False, compare=False)
    json: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Encode the message."""
        object.__setattr__(self, "encoded", self.message.SerializeToString())
        object.__setattr__(self, "json", write_json(self.message))
