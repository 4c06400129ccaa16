"""The graph of a model that is to be cut, with the values that it has on sample input in fp32 on `cpu`."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from onnx import ModelProto, ValueInfoProto, helper

from triune.backends.tensor.compile import compile_one
from triune.config.model_config import ModelConfig
from triune.config.placement import recipe_on
from triune.config.samples import trial_inputs
from triune.core.datatypes import Array
from triune.core.errors import InvalidArgumentError, TriuneError, reworded
from triune.core.scratch import HeldFolder
from triune.core.units import Unit
from triune.graph.by_values import RANDOM
from triune.graph.declare_older import declare_older
from triune.graph.load import load
from triune.graph.normalize import normalize
from triune.graph.piece_folder import PieceFolder
from triune.graph.split import Piece, constant_nodes
from triune.graph.values import Values
from triune.graph.weight_files import WeightFile
from triune.planning.graph_ops import KEPT
from triune.runtimes.machine import Machine


@dataclass(frozen=True)
class CutGraph:
    """A graph that will be cut into segments.

    Attributes:
        model: the model in core operators, in which free dimensions stay free. Each node has a unique name.
        sample: the sample input that the model accepts.
        values: the values of the graph for the sample, computed on `cpu` in fp32; without constants.
        is_random: whether the model draws random numbers, so that its answers cannot be compared.
    """

    model: ModelProto
    sample: Mapping[str, Array]
    values: Mapping[str, Array]
    is_random: bool

    def with_sizes(self) -> ModelProto:
        """A copy of the model with the sizes that values have for the sample."""
        copy = ModelProto()
        copy.CopyFrom(self.model)
        typed = Values(copy.graph)
        infos: dict[str, ValueInfoProto] = {}
        for name, array in self.values.items():
            infos[name] = helper.make_tensor_value_info(name, typed.elem_type(name), array.shape)
        outer = {value.name for value in (*copy.graph.input, *copy.graph.output)}
        for value in (*copy.graph.input, *copy.graph.output):
            if value.name in infos:
                value.CopyFrom(infos[value.name])
        others = [value for value in copy.graph.value_info if value.name not in infos]
        del copy.graph.value_info[:]
        copy.graph.value_info.extend([*others, *(info for name, info in infos.items() if name not in outer)])
        return copy


@contextmanager
def cut_graph(config: ModelConfig, folder: Path, machine: Machine) -> Generator[CutGraph]:
    """Read a model, bring it to core operators, and compute all its values on sample input.

    Its large weights are in files that exist until the context ends.

    Args:
        config: the model's configuration.
        folder: the model's folder, for its warm-up files.
        machine: the machine with the runtimes.

    Raises:
        InvalidArgumentError: the model is broken, or accepts none of the sample inputs.
        UnsupportedError: it cannot be brought to core operators, or `cpu` cannot run it.
    """
    with WeightFile() as file:
        model = normalize(load(config.path), keep=KEPT, file=file)
        declare_older(model)
        _name_apart(model)
        sample, values = _computed(model, config, folder, machine)
        is_random = any(node.op_type in RANDOM for node in model.graph.node)
        yield CutGraph(model, sample, {**values, **sample}, is_random)


def _name_apart(model: ModelProto) -> None:
    """Give each node of the main graph a unique name, since plans name operations."""
    seen: set[str] = set()
    for node in model.graph.node:
        name, count = node.name, 1
        while node.name in seen:
            count += 1
            node.name = f"{name}.{count}"
        seen.add(node.name)


def _computed(
    model: ModelProto, config: ModelConfig, folder: Path, machine: Machine
) -> tuple[Mapping[str, Array], Mapping[str, Array]]:
    """Returns the first sample input that the model accepts, and all values of the graph for it."""
    whole = ModelProto()
    whole.CopyFrom(model)
    typed = Values(model.graph)
    skipped = constant_nodes(model.graph)
    outputs = [value.name for value in model.graph.output]
    for at, node in enumerate(model.graph.node):
        for name in node.output:
            kind = typed.type(name) if name and at not in skipped and name not in outputs else None
            if kind is not None and kind.WhichOneof("value") == "tensor_type":
                outputs.append(name)
                whole.graph.output.append(ValueInfoProto(name=name, type=kind))
    refusal = InvalidArgumentError("it takes no input")
    with HeldFolder() as held:
        path = PieceFolder(held).save(Piece(whole, tuple(config.inputs), tuple(outputs), 0, ()))
        try:
            truth = compile_one(path, recipe_on(Unit.CPU, machine.num_cores, config, machine), machine)
        except TriuneError as error:
            raise without_path(error, path, f"'{config.path}', brought to core operators as a plan needs it") from error
        try:
            for inputs in trial_inputs(config, folder):
                try:
                    return inputs, truth.run(inputs, outputs)
                except InvalidArgumentError as error:
                    refusal = error
        finally:
            truth.close()
    raise InvalidArgumentError(
        f"the model accepts none of the sample inputs, on which a plan is made and checked: {refusal}; give it a "
        "model_warmup sample"
    )


def without_path(error: TriuneError, path: Path, what: str) -> TriuneError:
    """The same error with `what` in place of the path of a temporary file, which no longer exists when the message is
    read.
    """
    return reworded(error, f"{error}".replace(f"'{path}'", what))
