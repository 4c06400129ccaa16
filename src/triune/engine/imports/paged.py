"""Rewrites an exported decoder over packed tokens and paged caches."""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper

from triune.core.errors import UnsupportedError
from triune.engine.imports.found import FoundAttention
from triune.engine.imports.interface import Interface, Past
from triune.engine.imports.probe import Probe
from triune.graph.builder import Builder
from triune.graph.index import Index, label
from triune.graph.names import rename
from triune.graph.paged_attention import DOMAIN, OP_TYPE, VERSION

_INDICES: Final = (
    ("past_lengths", "sequences"),
    ("subsequence_begins", "sequences + 1"),
    ("block_indices", "blocks"),
    ("block_indices_begins", "sequences + 1"),
)
_UNARY: Final = ("Cast", "Identity", "Tanh", "Mul", "Div", "Add", "Sub", "Clip")
"""Operators that may follow the matrix product that gives the logits, such as soft caps and scales."""


class Paging:
    """Rewrites a decoder over [batch, tokens], whose caches are inputs and outputs, in the paged form of
    `engine.models.forms`.

    Each packed token becomes a row of the batch that has one token. The decoder computes each row by itself, so all
    operators but attention stay as they are. Attention is replaced by `PagedAttention`, which sees the other tokens of
    the sequence. Masks are removed, and positions are an input.
    """

    def __init__(self, interface: Interface, found: Sequence[FoundAttention], probes: Sequence[Probe]) -> None:
        """Args:
        interface: the decoder's inputs and outputs.
        found: the attention of each layer.
        probes: the graph computed for several sizes, which shows which values are positions.
        """
        self._interface = interface
        self._found = found
        self._probes = probes

    def __call__(self, model: ModelProto) -> ModelProto:
        """Rewrite `model`, a result of `prepare`, in the paged form. It is changed in place, and returned.

        Raises:
            UnsupportedError: the masks or the number of earlier tokens are read elsewhere than in attention.
        """
        graph = model.graph
        _free_names(graph, self._interface)
        index = Index(graph, "paged")
        build = index.build
        ids = build.cast(build.op("Unsqueeze", "input_ids", build.ints(1)), index.values.elem_type(_old("input_ids")))
        rows = build.op("Unsqueeze", "position_ids", build.ints(1))
        begin = index.take()
        by_output = {each.output: (layer, each) for layer, each in enumerate(self._found)}
        nodes: list[NodeProto] = []
        for node in graph.node:
            if node.output[0] in by_output:
                layer, attention = by_output[node.output[0]]
                _attend(build, attention, self._interface.pasts[layer], layer, rows, _type(index, attention))
                nodes += index.take()
            else:
                nodes.append(node)
        positions = self._positions(nodes, index, rows)
        nodes = [*begin, *positions.nodes, *nodes]
        _rename(nodes, {_old("input_ids"): ids, **positions.names})
        nodes += self._logits(nodes, index)
        nodes = _read(nodes, ["logits", *_new_caches(self._interface)])
        self._require_no_past(nodes)
        index.replace(nodes)
        self._declare(model, index)
        return model

    def _positions(self, nodes: Sequence[NodeProto], index: Index, rows: str) -> "_Positions":
        """Find the values that, in all probes, are the positions of the new tokens or the number of sequences, and
        build their replacements from `rows`, the positions of the packed tokens.
        """
        found = _Positions(index.build)
        sources = {_old(name) for name in (self._interface.mask, self._interface.positions) if name}
        tainted = sources | {name for past in self._interface.pasts for name in (past.key, past.value)}
        names = [_old(self._interface.positions)] if self._interface.positions else []
        for node in nodes:
            if tainted.intersection(node.input):
                tainted.update(node.output)
                names += node.output
        for name in names:
            kind = index.values.elem_type(name)
            shapes = [self._shape_of_positions(probe, name) for probe in self._probes]
            if None not in shapes and len(set(map(str, shapes))) == 1 and kind:
                found.add(name, rows, kind, shapes[0] or "")
        found.nodes = index.take()
        return found

    def _shape_of_positions(self, probe: Probe, name: str) -> str | None:
        """What a value holds, and its number of dimensions: "rows 3" if it holds the positions of the new tokens in the
        shape [batch or 1, 1, new], "number 1" if it holds the number of sequences in a shape of one dimension. None if
        it holds neither.
        """
        known, sizes = probe.known(_original(name)), probe.sizes
        if known is None or known.dtype.kind not in "if":
            return None
        if known.size == 1 and known.reshape(-1)[0] == sizes.batch:
            return f"number {known.ndim}"
        if known.ndim < 2 or known.shape[-1] != sizes.new or known.shape[0] not in (1, sizes.batch):
            return None
        if any(size != 1 for size in known.shape[1:-1]):
            return None
        return f"rows {known.ndim}" if (known == sizes.positions).all() else None

    def _logits(self, nodes: Sequence[NodeProto], index: Index) -> list[NodeProto]:
        """Compute logits of the wanted tokens only: gather their rows from the operand of the last matrix product."""
        build = index.build
        producers = {name: node for node in nodes for name in node.output}
        last = producers.get(_old("logits"))
        while last is not None and last.op_type in _UNARY:
            others = [name for name in last.input[1:] if name]
            if any(not index.is_constant(name) for name in others):
                break
            last = producers.get(last.input[0])
        if last is not None and last.op_type == "MatMul" and _is_of_weights(last.input[1], producers):
            wanted = build.op("Gather", last.input[0], "logits_indices", axis=0)
            position = next(at for at, node in enumerate(nodes) if node is last)
            last.input[0] = wanted
            assert isinstance(nodes, list)
            nodes[position:position] = index.take()
            logits = _old("logits")
        else:
            logits = build.op("Gather", _old("logits"), "logits_indices", axis=0)
        logits = build.op("Squeeze", logits, build.ints(1))
        build.put("Cast", [logits], ["logits"], to=TensorProto.FLOAT)
        return index.take()

    def _require_no_past(self, nodes: Sequence[NodeProto]) -> None:
        pasts = {name for past in self._interface.pasts for name in (past.key, past.value)}
        gone = pasts | {_old(name) for name in (self._interface.mask, self._interface.positions) if name}
        for node in nodes:
            if found := sorted(gone.intersection(node.input)):
                raise UnsupportedError(
                    f"{label(node)} reads '{_original(found[0])}', and what follows is neither attention nor "
                    "positions: it can be served as a tensor model"
                )

    def _declare(self, model: ModelProto, index: Index) -> None:
        """Declare the inputs and outputs of the paged form."""
        graph, interface = model.graph, self._interface
        gone = {_old(name) for name in (interface.ids, interface.mask, interface.positions) if name}
        gone |= {name for past in interface.pasts for name in (past.key, past.value)}
        inputs = [value for value in graph.input if value.name not in gone]
        tensor = helper.make_tensor_value_info
        logits = self._probes[0].shape(interface.logits)
        vocab_size = logits[-1] if logits else None
        given = [tensor(name, TensorProto.INT64, ["tokens"]) for name in ("input_ids", "position_ids")]
        given += [tensor(name, TensorProto.INT32, [size]) for name, size in _INDICES]
        given.append(tensor("logits_indices", TensorProto.INT64, ["wanted"]))
        outputs = [tensor("logits", TensorProto.FLOAT, ["wanted", vocab_size])]
        for layer, past in enumerate(interface.pasts):
            shape = ["num_blocks", past.num_heads, "block_size", past.head_size]
            for kind in ("key", "value"):
                given.append(tensor(f"{kind}_cache.{layer}", TensorProto.FLOAT, shape))
                outputs.append(tensor(f"{kind}_cache.{layer}.new", TensorProto.FLOAT, shape))
        del graph.input[:], graph.output[:], graph.value_info[:]
        graph.input.extend([*given, *inputs])
        graph.output.extend(outputs)
        model.opset_import.append(helper.make_opsetid(DOMAIN, VERSION))


class _Positions:
    """Values of positions and masks that are replaced, and the nodes that compute the replacements."""

    def __init__(self, build: Builder) -> None:
        self._build = build
        self._made: dict[tuple[int, str], str] = {}
        self.names: dict[str, str] = {}
        self.nodes: list[NodeProto] = []

    def add(self, name: str, rows: str, elem_type: int, form: str) -> None:
        """Replace the value `name`, of the type `elem_type`, by nodes that compute it from `rows`, the positions of the
        packed tokens. `form`, a result of `Paging._shape_of_positions`, says what the value holds.
        """
        key = elem_type, form
        if key not in self._made:
            build, (kind, rank) = self._build, form.split()
            if kind == "rows":
                x = build.op("Reshape", rows, build.ints(-1, *[1] * (int(rank) - 1)))
            else:
                x = build.op("Shape", rows, start=0, end=1)
                x = x if rank == "1" else build.op("Reshape", x, build.constant(np.ones(int(rank), np.int64)))
            self._made[key] = build.cast(x, elem_type)
        self.names[name] = self._made[key]


def _attend(build: Builder, found: FoundAttention, past: Past, layer: int, rows: str, elem_type: int) -> None:
    """Build `PagedAttention` in the place of a layer's attention, after the rotary embedding if that was a part of it.
    `rows` has the positions, [tokens, 1]; `elem_type` is the type of queries, keys and values.
    """
    heads = found.num_heads, past.num_heads, past.num_heads
    if found.packed:
        sizes = build.ints(*(each * past.head_size for each in heads))
        parts = build.ops("Split", 3, found.packed, sizes, axis=2)
    else:
        parts = [found.query, found.key, found.value]
    if found.rotary is not None:
        turn = found.rotary
        parts[:2] = [
            build.op(
                "RotaryEmbedding",
                *(part, turn.cosines, turn.sines, rows),
                num_heads=count,
                rotary_embedding_dim=turn.num_features,
                interleaved=int(turn.is_interleaved),
            )
            for part, count in zip(parts[:2], heads[:2], strict=True)
        ]
    packed = [
        build.op("Reshape", part, build.ints(-1, count * past.head_size))
        for part, count in zip(parts, heads, strict=True)
    ]
    is_cast = elem_type != TensorProto.FLOAT
    packed = [build.cast(part, TensorProto.FLOAT) if is_cast else part for part in packed]
    caches = [f"{kind}_cache.{layer}" for kind in ("key", "value")]
    result = build.name()
    build.put(
        OP_TYPE,
        [*packed, *caches, *(name for name, _ in _INDICES)],
        [result, *(f"{name}.new" for name in caches)],
        domain=DOMAIN,
        num_heads=found.num_heads,
        num_kv_heads=past.num_heads,
        scale=found.scale,
        sliding_window=found.sliding_window,
        softcap=found.softcap,
    )
    if is_cast:
        result = build.cast(result, elem_type)
    # A Reshape is enough in both layouts: for one token in each row, [rows, heads, 1, size] has the same memory layout
    # as [rows, 1, heads * size].
    shape = (-1, 1, found.num_heads * past.head_size) if found.is_flat else (-1, found.num_heads, 1, past.head_size)
    build.put("Reshape", [result, build.ints(*shape)], [found.output])


def _type(index: Index, found: FoundAttention) -> int:
    return index.values.elem_type(found.packed or found.query) or TensorProto.FLOAT


def _new_caches(interface: Interface) -> list[str]:
    return [f"{kind}_cache.{layer}.new" for layer in range(len(interface.pasts)) for kind in ("key", "value")]


def _old(name: str) -> str:
    """The name that a value of the exported decoder, called `name`, has while the graph is rewritten."""
    return f"given/{name}"


def _original(name: str) -> str:
    return name.removeprefix("given/")


def _free_names(graph: GraphProto, interface: Interface) -> None:
    """Rename the values whose names the paged form needs."""
    reserved = ["input_ids", "position_ids", "logits_indices", "logits", *(name for name, _ in _INDICES)]
    new = {name: _old(name) for name in (*reserved, interface.mask) if name}
    for node in graph.node:
        name = node.name
        rename(node, new, "")
        node.name = name
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        value.name = new.get(value.name, value.name)


def _rename(nodes: Sequence[NodeProto], names: Mapping[str, str]) -> None:
    """Let nodes read other values: `names` has the new name for each old one."""
    for node in nodes:
        for at, name in enumerate(node.input):
            node.input[at] = names.get(name, name)


def _is_of_weights(name: str, producers: Mapping[str, NodeProto]) -> bool:
    """Whether a value is a weight, perhaps dequantized and transposed."""
    node = producers.get(name)
    return node is None or (
        node.op_type in ("DequantizeLinear", "Transpose", "Cast") and _is_of_weights(node.input[0], producers)
    )


def _read(nodes: Sequence[NodeProto], outputs: Sequence[str]) -> list[NodeProto]:
    """The nodes on which the values `outputs` depend, in order."""
    needed, kept = set(outputs), list[NodeProto]()
    for node in reversed(nodes):
        if needed.intersection(node.output):
            needed.update(name for name in node.input if name)
            kept.append(node)
    return kept[::-1]
