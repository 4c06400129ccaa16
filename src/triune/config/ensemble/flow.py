"""Check an ensemble's data flow: every output can be computed from the inputs.

Source of the rules and of the messages: Triton's `model_config_utils.cc`, ValidateEnsembleSchedulingConfig.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from triune.core.errors import InvalidArgumentError


class Mapped(Protocol):
    """A step of an ensemble: its number, and the tensors of the ensemble that it reads and writes."""

    @property
    def number(self) -> int:
        """The step's index in the config."""
        ...

    @property
    def inputs(self) -> Mapping[str, str]:
        """The ensemble's tensors that the step reads, by the name of the model's input."""
        ...

    @property
    def outputs(self) -> Mapping[str, str]:
        """The ensemble's tensors that the step writes, by the name of the model's output."""
        ...


def check_flow(name: str, inputs: Sequence[str], outputs: Sequence[str], steps: Sequence[Mapped]) -> None:
    """Raise InvalidArgumentError unless every step can run, and every tensor is written once and read.

    Args:
        name: the ensemble's name.
        inputs: the names of its inputs.
        outputs: the names of its outputs.
        steps: its steps.
    """
    writer = _writers(name, steps)
    read = {tensor for step in steps for tensor in step.inputs.values()}
    for each in inputs:
        if each in writer:
            raise InvalidArgumentError(
                f"ensemble tensor '{each}' can appear in an output map only once for ensemble '{name}' step "
                f"{writer[each].number}: it is an input of the ensemble; name the step's output otherwise"
            )
        if each not in read:
            raise InvalidArgumentError(
                f"ensemble input '{each}' for ensemble {name}' is not used: no step has it in its input_map"
            )
    known = _reachable(inputs, steps)
    for each in outputs:
        if each not in writer and each not in read:
            raise InvalidArgumentError(
                f"ensemble output '{each}' for ensemble {name}' is not used: no step has it in its output_map"
            )
        if each not in known:
            raise InvalidArgumentError(
                f"output '{each}' for ensemble '{name}' is not written{_why(each, writer, known)}"
            )
    for each in sorted(read | writer.keys()):
        if each not in outputs and (each not in known or each not in read):
            raise InvalidArgumentError(f"ensemble tensor '{each}' is unused in ensemble '{name}'{_where(each, steps)}")


def _writers(name: str, steps: Sequence[Mapped]) -> dict[str, Mapped]:
    """The step that writes each tensor, by the tensor's name. Raises InvalidArgumentError if two steps write one
    tensor.
    """
    writer: dict[str, Mapped] = {}
    for step in steps:
        for tensor in step.outputs.values():
            if tensor in writer:
                raise InvalidArgumentError(
                    f"ensemble tensor '{tensor}' can appear in an output map only once for ensemble '{name}' step "
                    f"{step.number}; step {writer[tensor].number} writes it, too"
                )
            writer[tensor] = step
    return writer


def _reachable(inputs: Iterable[str], steps: Sequence[Mapped]) -> set[str]:
    """The tensors that can be computed: the inputs, and the outputs of each step whose inputs can all be computed."""
    readers: dict[str, list[Mapped]] = defaultdict(list)
    missing = {step.number: len(set(step.inputs.values())) for step in steps}
    for step in steps:
        for tensor in set(step.inputs.values()):
            readers[tensor].append(step)
    known, new = set(inputs), list(inputs)
    while new:
        for step in readers[new.pop()]:
            missing[step.number] -= 1
            if not missing[step.number]:
                new += [tensor for tensor in step.outputs.values() if tensor not in known]
                known.update(step.outputs.values())
    return known


def _why(tensor: str, writer: Mapping[str, Mapped], known: set[str]) -> str:
    """Explain why a tensor cannot be computed: no step writes it, the step that writes it waits for itself, or a tensor
    that its computation needs is missing.
    """
    last, seen = tensor, set[str]()
    while (step := writer.get(last)) is not None:
        before = [each for each in step.inputs.values() if each not in known and each not in seen]
        if not before:
            break
        last = before[0]
        seen.add(last)
    if last == tensor:
        return (
            ": the step that writes it waits for itself" if tensor in writer else ": no step has it in its output_map"
        )
    return f": at least one of its depending tensors, '{last}', is not connected"


def _where(tensor: str, steps: Iterable[Mapped]) -> str:
    writers = [step.number for step in steps if tensor in step.outputs.values()]
    readers = [step.number for step in steps if tensor in step.inputs.values()]
    if not writers:
        return f": step {readers[0]} reads it, and no step writes it"
    if not readers:
        return f": step {writers[0]} writes it, and no step or output takes it"
    return f": step {writers[0]} never runs, since it waits for itself or for what no step writes"
