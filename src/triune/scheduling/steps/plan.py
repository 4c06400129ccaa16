"""Which steps the requested outputs need, and which tensors each step waits for."""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from triune.config.ensemble.steps import Step


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps that some outputs of a graph need, directly or through other steps.

    Attributes:
        steps: the steps that run, by number.
        readers: for each tensor, the numbers of the steps that read it.
        num_waits: for each step's number, the number of tensors that it waits for.
        num_reads: for each tensor, how often it is read, by steps and for the answer. The tensor is freed after the
            last read.
    """

    steps: Mapping[int, Step]
    readers: Mapping[str, Sequence[int]]
    num_waits: Mapping[int, int]
    num_reads: Mapping[str, int]


def plan(steps: Sequence[Step], outputs: Collection[str]) -> Plan:
    """Make the plan for some outputs.

    Args:
        steps: the steps of an acyclic graph, in which at most one step writes each tensor.
        outputs: the names of the requested tensors.
    """
    writer = {tensor: step for step in steps for tensor in step.outputs.values()}
    needed: dict[int, Step] = {}
    open_tensors = list(outputs)
    while open_tensors:
        step = writer.get(open_tensors.pop())
        if step is not None and step.number not in needed:
            needed[step.number] = step
            open_tensors += step.inputs.values()
    readers: dict[str, list[int]] = defaultdict(list)
    num_waits: dict[int, int] = {}
    for number, step in needed.items():
        tensors = set(step.inputs.values())
        num_waits[number] = len(tensors)
        for tensor in tensors:
            readers[tensor].append(number)
    num_reads = Counter({tensor: len(numbers) for tensor, numbers in readers.items()})
    num_reads.update(set(outputs))
    return Plan(needed, dict(readers), num_waits, num_reads)
