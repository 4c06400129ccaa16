"""Put compressed weights into a graph, in the nodes by which runtimes read them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper

from triune.compression.blocks import matmul_n_bits, padded_rows
from triune.compression.dynamic import DynamicProducts
from triune.compression.found import Weight
from triune.compression.gptq import gptq
from triune.compression.integers import quantized
from triune.compression.moments import Moments
from triune.compression.noise import sqnr_db
from triune.compression.options import Activations, Options, Per, WeightForm
from triune.compression.palettes import palettized
from triune.compression.zeros import pruned, pruned_n_of_m
from triune.graph.names import Names
from triune.graph.packed import Packed, as_dequantize, small_tensor
from triune.graph.weight_files import WeightFile, array_of

_FIRST_CHANNELS = 13
"""The first operator set whose DequantizeLinear has a scale for each channel."""
_FIRST_BLOCKS = 21
"""The first operator set whose DequantizeLinear has blocks and integers of 4 bits."""
_FIRST_IR_OF_4_BITS = 10


@dataclass(frozen=True, slots=True)
class Change:
    """How a weight was compressed.

    Attributes:
        sqnr_db: the signal-to-quantization-noise ratio of its elements, in dB; infinite if nothing was lost.
        note: what differs from what was asked for, and why; "" if nothing does.
    """

    sqnr_db: float
    note: str = ""


def opset_of(model: ModelProto) -> int:
    """The version of ONNX's standard operator set that a model imports; 1 if it names none."""
    return next((each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), 1)


def needed_opset(options: Options) -> int:
    """The first operator set that can hold weights in the form that `options` ask for, and in each higher precision
    that a search may try.
    """
    if options.weights in (WeightForm.INT4, WeightForm.PALETTE) or options.group is not None:
        return _FIRST_BLOCKS
    return 1 if options.weights in (WeightForm.SPARSE, WeightForm.FP16, WeightForm.FP32) else _FIRST_CHANNELS


def compressed(
    model: ModelProto,
    forms: Mapping[str, WeightForm],
    weights: Sequence[Weight],
    options: Options,
    file: WeightFile,
    *,
    is_standard: bool,
    moments: Mapping[str, Moments],
) -> tuple[ModelProto, dict[str, Change]]:
    """Make a copy of a model with compressed weights.

    Args:
        model: a result of `prepare`.
        forms: the form of each weight that is compressed, by name.
        weights: the weights of the model.
        options: how to compress.
        file: the scratch file for large weights.
        is_standard: whether only standard ONNX operators are written, and none that only one runtime has.
        moments: for the weights that GPTQ rounds, the second moments of their inputs; the others are rounded to the
            nearest level.

    Returns:
        the model, and what became of each weight.
    """
    copy = ModelProto()
    copy.CopyFrom(model)
    rewriting = _Rewriting(copy, options, file, moments, is_standard=is_standard)
    changes = {each.name: rewriting.compress(each, forms[each.name]) for each in weights if each.name in forms}
    rewriting.finish()
    return copy, changes


class _Rewriting:
    def __init__(
        self,
        model: ModelProto,
        options: Options,
        file: WeightFile,
        moments: Mapping[str, Moments],
        *,
        is_standard: bool,
    ) -> None:
        self._model = model
        self._moments = moments
        self._options = options
        self._file = file
        self._is_standard = is_standard
        self._names = Names(model.graph)
        # Ask for a name once before any change, since `Names` collects the graph's names at the first call.
        self._names.value("compressed")
        self._first: list[NodeProto] = []
        self._instead: dict[str, list[NodeProto]] = {}
        self._added: list[TensorProto] = []
        self._gone: set[str] = set()
        self._nodes = {node.name: node for node in model.graph.node}
        self._dynamic = DynamicProducts(self._names.value, self._add)

    def compress(self, weight: Weight, form: WeightForm) -> Change:
        original = array_of(weight.tensor)
        values, note = self._with_zeros(weight, original, form), ""
        match form:
            case WeightForm.INT8 | WeightForm.INT4:
                whole, note = self._integers(weight, values, 8 if form is WeightForm.INT8 else 4)
            case WeightForm.PALETTE:
                whole, note = self._palette(weight, values)
            case WeightForm.FP16 | WeightForm.BF16:
                whole, note = self._half(weight, values, form)
            case WeightForm.SPARSE | WeightForm.FP32:
                self._add(self._file.tensor(weight.name, values))
                whole = values
        self._gone.add(weight.name)
        return Change(sqnr_db(original, whole), note)

    def finish(self) -> None:
        graph = self._model.graph
        nodes = [*self._first]
        for node in graph.node:
            nodes += self._instead.get(node.name, [node])
        copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
        kept = [TensorProto.FromString(each.SerializeToString()) for each in graph.initializer]
        kept = [each for each in kept if each.name not in self._gone]
        del graph.node[:]
        graph.node.extend(copies)
        del graph.initializer[:]
        graph.initializer.extend([*kept, *self._added])
        small = (TensorProto.INT4, TensorProto.UINT4)
        if any(each.data_type in small for each in self._added):
            self._model.ir_version = max(self._model.ir_version, _FIRST_IR_OF_4_BITS)
        domains = {node.domain for node in graph.node}
        if "com.microsoft" in domains and all(each.domain != "com.microsoft" for each in self._model.opset_import):
            self._model.opset_import.append(helper.make_opsetid("com.microsoft", 1))

    def _with_zeros(self, weight: Weight, values: NDArray[Any], form: WeightForm) -> NDArray[Any]:
        options = self._options
        # Set no weight to zero in a layer whose form was replaced, for accuracy, by one that keeps more of its weights.
        # INT8 in place of INT4 is no such form: the zeros stay.
        if form is not options.weights and not {form, options.weights} <= {WeightForm.INT4, WeightForm.INT8}:
            return values
        if options.sparsity is not None:
            return pruned(values, options.sparsity)
        return values if options.n_m is None else pruned_n_of_m(values, *options.n_m, weight.inner)

    def _integers(self, weight: Weight, values: NDArray[Any], bits: int) -> tuple[NDArray[Any], str]:
        options, note = self._options, ""
        # Leave out the group of palettes: it is the number of output channels that share a palette, not of weights that
        # share a scale.
        group = None if options.weights is WeightForm.PALETTE else options.group
        readers = [self._nodes[name] for name, _ in weight.readers]
        is_product = values.ndim == 2 and all(
            node.op_type == "MatMul" and node.input[1] == weight.name and node.input[0] != weight.name
            for node in readers
        )
        if group is not None and bits == 4 and is_product and not self._is_standard:
            return self._n_bits(weight, values, group, readers)
        size = weight.shape[weight.inner]
        if group is not None and size % group:
            note = f"a scale for each channel: groups of {group} do not divide its {size} input channels"
            group = None
        packed = self._learned(weight, values, bits, group) or quantized(
            values,
            bits,
            axis=None if options.per is Per.TENSOR or group is not None else weight.axis,
            block_axis=None if group is None else weight.inner,
            block=group or 0,
            is_symmetric=options.is_symmetric,
        )
        if options.activations is Activations.DYNAMIC and is_product and packed.scale.dtype == np.float32:
            levels, scales = self._dynamic.constants(weight.name, packed)
            for node in readers:
                self._instead[node.name] = list(self._dynamic.product(node, levels, scales))
        elif self._is_rows(weight, packed, readers) and not self._is_standard:
            self._gather(weight, packed, readers)
        else:
            node, constants = as_dequantize(packed, weight.name, self._names.prefix(f"{weight.name}/{bits} bits"))
            self._first.append(node)
            for each in constants:
                self._add(each)
        return packed.whole(), note

    def _learned(self, weight: Weight, values: NDArray[Any], bits: int, group: int | None) -> Packed | None:
        """The quantized weight by GPTQ; None where weights are rounded to the nearest level."""
        moments = self._moments.get(weight.name)
        if moments is None or bits != (8 if self._options.weights is WeightForm.INT8 else 4):
            return None
        rows = values if weight.axis == 0 else values.T
        packed = gptq(rows, moments, bits, group, is_symmetric=self._options.is_symmetric)
        return packed if weight.axis == 0 else packed.transposed(1, 0)

    def _half(self, weight: Weight, values: NDArray[Any], form: WeightForm) -> tuple[NDArray[Any], str]:
        """Store a weight in 16 bits, with a Cast to its own type before its readers. Returns the values that the
        readers get, and a note if the weight stays in fp32; "" otherwise.
        """
        kind = TensorProto.FLOAT16 if form is WeightForm.FP16 else TensorProto.BFLOAT16
        with np.errstate(over="ignore"):
            stored = values.astype(helper.tensor_dtype_to_np_dtype(kind))
        if not np.isfinite(stored.astype(np.float32)).all():
            self._add(self._file.tensor(weight.name, values))
            return values, f"it stays in fp32: it has weights beyond {form.value}"
        if weight.tensor.data_type == kind:
            self._add(self._file.tensor(weight.name, values))
            return values, ""
        name = self._names.value(f"{weight.name}/{form.value}")
        self._add(self._file.tensor(name, stored))
        cast = helper.make_node("Cast", [name], [weight.name], name=f"{name}/cast", to=weight.tensor.data_type)
        self._first.append(cast)
        return stored.astype(values.dtype), ""

    def _is_rows(self, weight: Weight, packed: Packed, readers: Sequence[NodeProto]) -> bool:
        """Whether only Gather reads the weight, and each of its rows has a scale. If so, the rewritten graph gathers
        rows and dequantizes only these, whereas a DequantizeLinear would dequantize the whole table in each run.
        """
        is_by_row = list(packed.axes) == [0] and not packed.is_blocked
        is_gathered = all(node.op_type == "Gather" and weight.name not in node.input[1:] for node in readers)
        return is_by_row and is_gathered and packed.elem_type in (TensorProto.INT8, TensorProto.UINT8)

    def _gather(self, weight: Weight, packed: Packed, readers: Sequence[NodeProto]) -> None:
        names = {part: self._names.value(f"{weight.name}/{part}") for part in ("rows", "scales", "zeros")}
        kind = weight.tensor.data_type
        self._add(small_tensor(names["rows"], packed.elem_type, packed.data))
        self._add(self._file.tensor(names["scales"], packed.scale))
        if packed.zero_point is not None:
            self._add(small_tensor(names["zeros"], packed.elem_type, packed.zero_point))
        for node in readers:
            place, result = node.input[1], node.output[0]
            own = {part: self._names.value(f"{result}/{part}") for part in ("q", "row", "scale", "z", "zero", "less")}
            row = own["row"]
            nodes = [
                helper.make_node("Gather", [names["rows"], place], [own["q"]], name=own["q"], axis=0),
                helper.make_node("Cast", [own["q"]], [row], name=row, to=kind),
                helper.make_node("Gather", [names["scales"], place], [own["scale"]], name=own["scale"], axis=0),
            ]
            if packed.zero_point is not None:
                nodes += [
                    helper.make_node("Gather", [names["zeros"], place], [own["z"]], name=own["z"], axis=0),
                    helper.make_node("Cast", [own["z"]], [own["zero"]], name=own["zero"], to=kind),
                    helper.make_node("Sub", [row, own["zero"]], [own["less"]], name=own["less"]),
                ]
                row = own["less"]
            nodes.append(helper.make_node("Mul", [row, own["scale"]], [result], name=node.name))
            self._instead[node.name] = nodes

    def _n_bits(
        self, weight: Weight, values: NDArray[Any], group: int, readers: Sequence[NodeProto]
    ) -> tuple[NDArray[Any], str]:
        rows, is_symmetric = padded_rows(values, group), self._options.is_symmetric
        moments = self._moments.get(weight.name)
        if moments is None:
            packed = quantized(rows, 4, axis=None, block_axis=1, block=group, is_symmetric=is_symmetric)
        else:
            packed = gptq(rows, moments.padded(rows.shape[1]), 4, group, is_symmetric=is_symmetric)
        found = matmul_n_bits(packed, len(values))
        prefix = self._names.prefix(f"{weight.name}/4 bits")
        operands = [f"{prefix}/{part}" for part in ("blocks", "scales", "zeros")][: 2 + (found.zeros is not None)]
        for name, array in zip(operands, (found.blocks, found.scales, found.zeros), strict=False):
            if array is not None:
                self._add(self._file.tensor(name, array))
        size, count = weight.shape
        for node in readers:
            own = helper.make_node(
                "MatMulNBits",
                [node.input[0], *operands],
                list(node.output),
                name=node.name,
                domain="com.microsoft",
                K=size,
                N=count,
                bits=4,
                block_size=group,
            )
            self._instead[node.name] = [own]
        note = f"the last group has {size % group} weights" if size % group else ""
        return found.whole, note

    def _palette(self, weight: Weight, values: NDArray[Any]) -> tuple[NDArray[Any], str]:
        bits = self._options.bits
        found = palettized(values, bits, axis=weight.axis, rows=self._options.group)
        kind = TensorProto.UINT4 if bits <= 4 else TensorProto.UINT8
        if self._is_standard:
            # Store the palette's values as a plain weight. When a Core ML program is written of it, it gets Core ML's
            # own form for weights of few values.
            self._add(self._file.tensor(weight.name, found.whole()))
            return found.whole(), ""
        prefix = self._names.prefix(f"{weight.name}/palette")
        self._add(self._file.moved(small_tensor(f"{prefix}/indices", kind, found.indices)))
        self._add(self._file.tensor(f"{prefix}/table", found.tables.reshape(-1)))
        place = f"{prefix}/place"
        self._first.append(helper.make_node("Cast", [f"{prefix}/indices"], [place], name=place, to=TensorProto.INT32))
        if found.starts is not None:
            self._add(self._file.tensor(f"{prefix}/starts", found.starts))
            whole = f"{prefix}/places"
            self._first.append(helper.make_node("Add", [place, f"{prefix}/starts"], [whole], name=whole))
            place = whole
        self._first.append(
            helper.make_node("Gather", [f"{prefix}/table", place], [weight.name], name=f"{prefix}/weight", axis=0)
        )
        return found.whole(), ""

    def _add(self, tensor: TensorProto) -> None:
        self._added.append(self._file.moved(tensor))
