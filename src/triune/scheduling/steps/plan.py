"""Which steps an answer needs, and what waits for what."""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from triune.config.ensemble.steps import Step


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps for some outputs of a graph. A step runs if an output needs it, directly or through other steps.

    Attributes:
        steps: those that run, by number.
        readers: the steps that wait for a tensor, by its name.
        num_waits: how many tensors a step waits for, by its number.
        num_reads: who takes a tensor, steps and the answer together: it is dropped after the last.
    """

    steps: Mapping[int, Step]
    readers: Mapping[str, Sequence[int]]
    num_waits: Mapping[int, int]
    num_reads: Mapping[str, int]


def plan(steps: Sequence[Step], outputs: Collection[str]) -> Plan:
    """The plan for some outputs.

    Args:
        steps: of the graph, in which each tensor has at most one writer and no step waits for itself.
        outputs: tensors of the graph.
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
