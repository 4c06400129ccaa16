"""The rule for Scan of operator set 8, whose inputs have a batch axis before the axis of steps."""

from collections.abc import Iterable, Mapping

from onnx import GraphProto, NodeProto, ValueInfoProto, helper

from triune.core.errors import UnsupportedError
from triune.graph.decompose.context import Context
from triune.graph.passes.upgrade.rule import Rule


def _scan(c: Context) -> None:
    """Write a Scan over the batch, in the form of operator set 9, whose body is a Scan over the sequence of one element
    of the batch.
    """
    if c.input(0):
        raise UnsupportedError(
            "it has sequences of different lengths in one batch, and ONNX does not say what its results are beyond "
            "their ends: leave out sequence_lens if all are of equal length, or export the model for operator set 9 "
            "or later"
        )
    body: GraphProto = c.attributes["body"]
    num_scanned: int = c.attributes["num_scan_inputs"]
    given = c.node.input[1:]
    num_states = len(given) - num_scanned
    prefix = c.build.name()
    inputs = _without_batch(f"{prefix}/in", body.input, num_states)
    outputs = _without_batch(f"{prefix}/out", body.output, num_states)
    row = NodeProto(op_type="Scan", name=f"{prefix}/row")
    row.input.extend(value.name for value in inputs)
    row.output.extend(value.name for value in outputs)
    row.attribute.append(helper.make_attribute("body", body))
    row.attribute.append(helper.make_attribute("num_scan_inputs", num_scanned))
    if directions := c.attributes.get("directions"):
        row.attribute.append(helper.make_attribute("scan_input_directions", directions))
    batch = helper.make_graph([row], f"{prefix}/batch", inputs, outputs)
    node = helper.make_node("Scan", given, c.node.output, c.node.name, body=batch, num_scan_inputs=len(given))
    c.build.nodes.append(node)


def _without_batch(prefix: str, values: Iterable[ValueInfoProto], num_states: int) -> list[ValueInfoProto]:
    """The types for one element of the batch: states keep their shapes; scanned inputs and outputs get a first axis of
    steps.
    """
    rows: list[ValueInfoProto] = []
    for index, value in enumerate(values):
        row = ValueInfoProto(name=f"{prefix}/{index}", type=value.type)
        if index >= num_states and value.type.tensor_type.HasField("shape"):
            shape = row.type.tensor_type.shape
            del shape.dim[:]
            shape.dim.add()
            shape.dim.extend(value.type.tensor_type.shape.dim)
        rows.append(row)
    return rows


TABLE: Mapping[str, tuple[int, Rule]] = {"Scan": (9, _scan)}
