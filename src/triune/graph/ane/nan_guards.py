"""Remove from attention the nodes that replace NaN by 0."""

import numpy as np
from onnx import ModelProto, NodeProto

from triune.graph.ane.layout_pass import LayoutPass
from triune.graph.index import Index, label
from triune.graph.match.nan_guard import NanGuard, match_nan_guard
from triune.graph.match.no_match import NoMatchError


class NanGuards(LayoutPass):
    """Given attention with softmax(scores + mask), a Where that replaces NaN in it by 0, MatMul with values, and merged
    heads.

    Result: the same without that Where. Instead, one Where sets each row of the result to 0 whose mask is all -inf. If
    no row of the mask can be all -inf, there is no NaN, and the Where is just removed.

    If scores are finite, only rows that are all -inf give NaN. The mask must be a constant, or a Where of two
    constants.
    """

    name = "nan_guards"

    def __call__(self, model: ModelProto) -> ModelProto:
        """Remove from attention in `model`, in place, the nodes that replace NaN by 0."""
        index = self._index(model.graph)
        guards: dict[str, NanGuard] = {}
        for node in model.graph.node:
            try:
                found = match_nan_guard(index, node) if node.op_type == "Softmax" else None
            except NoMatchError as problem:
                self._report.leave(self.name, label(node), str(problem))
                continue
            if found is not None:
                guards[found.guard.output[0]] = found
        outputs = {found.output.output[0]: found for found in guards.values() if found.may_be_empty}
        empty_rows: dict[str, str] = {}
        nodes: list[NodeProto] = []
        for node in model.graph.node:
            name = node.output[0] if node.output else ""
            if name in guards:
                index.build.put("Identity", [guards[name].softmax.output[0]], [name])
                nodes += index.take()
                self._report.change(self.name, label(guards[name].softmax), "NaN replaced by the mask's rows")
            elif name in outputs:
                mask = outputs[name].mask
                if mask not in empty_rows:
                    empty_rows[mask] = _empty_rows(index, mask)
                nodes += [*index.take(), node]
                node.output[0] = index.build.name()
                zero = index.weight(np.zeros((), index.dtype(name)))
                index.build.put("Where", [empty_rows[mask], zero, node.output[0]], [name])
                nodes += index.take()
            else:
                nodes.append(node)
        index.replace(nodes)
        return model


def _empty_rows(index: Index, mask: str) -> str:
    """Build a boolean tensor (B, Q, 1): whether each row of a mask (B, 1, Q, K) is all -inf. Returns its name."""
    build = index.build
    largest = build.op("ReduceMax", mask, build.ints(-1), keepdims=1)
    is_empty = build.op("Equal", largest, index.weight(np.array(-np.inf, index.dtype(mask))))
    return build.op("Squeeze", is_empty, build.ints(1))
