"""Shared by the lowerings of If and Loop: the branch of a known condition, and the parts of a Loop."""

from collections.abc import Sequence
from typing import Generic

from onnx import GraphProto, ValueInfoProto

from triune.graph.conversion.context import NodeContext
from triune.graph.conversion.problems import Refusal
from triune.graph.conversion.scope import V
from triune.graph.identities import behind_identities


def give_branch(c: NodeContext[V], *, is_true: bool) -> None:
    """Lower an If with a known condition: only the branch that is taken."""
    branch: GraphProto = c.attributes["then_branch" if is_true else "else_branch"]
    c.give_all(c.lower_graph(branch, c.scope, {}))


class LoopParts(Generic[V]):
    """The parts of a Loop.

    A step takes its number, the condition and the carried values. It returns the condition, the carried values for the
    next step, and one value for each scan output: ONNX's name of an output that collects a value of each step.

    Attributes:
        body: the graph of a step.
        carried: the carried values before the first step.
        scan_outputs: the outputs of the body that are collected.
        limit: the largest number of steps; None if it is known only at run time, or not given.
    """

    def __init__(self, c: NodeContext[V]) -> None:
        self._context = c
        self.body: GraphProto = c.attributes["body"]
        self.carried: list[V] = [c.input(index) for index in range(2, len(c.node.input))]
        self.scan_outputs: Sequence[ValueInfoProto] = self.body.output[1 + len(self.carried) :]
        limit = c.constant(0)
        self.limit = None if limit is None else int(limit.reshape(-1)[0])

    def write_step(self, step: V, condition: V, carried: Sequence[V]) -> tuple[V, list[V], list[V]]:
        """Write the operations of one step.

        Args:
            step: the number of the step.
            condition: the value that the body reads as its condition, which is true.
            carried: the carried values; more values behind them are not read.

        Returns:
            the condition, the carried values, and a value for each scan output, after the step.
        """
        count = len(self.carried)
        names = [value.name for value in self.body.input]
        given = dict(zip(names, (step, condition, *carried[:count]), strict=True))
        is_going, *results = self.finished(self._context.lower_graph(self.body, self._context.scope, given))
        return is_going, results[:count], results[count:]

    def finished(self, results: Sequence[V]) -> Sequence[V]:
        """The results of a step in the form that the target needs. A subclass may change them."""
        return results

    def give_carried(self, values: Sequence[V]) -> None:
        """Set the node's outputs for the carried values to the first of `values`."""
        self._context.give_all(values[: len(self.carried)])

    def hands_on(self, index: int) -> bool:
        """Whether each iteration returns a value unchanged: the condition (0), or a carried value (1, 2, ...)."""
        name, _maker = behind_identities(self.body, self.body.output[index].name)
        return name == self.body.input[1 + index].name

    def no_steps(self) -> Refusal:
        """The error for a loop of 0 steps that collects values: its results would be empty."""
        runtime = self._context.builder.runtime
        return Refusal(f"the loop has no steps, so that its results are empty; {runtime} has no empty tensors")
