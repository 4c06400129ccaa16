"""Build a model with some of its layers compressed."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, Final

from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, version_converter

from triune.compression import activations
from triune.compression.awq import awq
from triune.compression.found import FEWEST, Kept, Weight, find_weights
from triune.compression.halves import half_form
from triune.compression.integers import quantized
from triune.compression.moments import Moments, Site
from triune.compression.observer import Range, observe
from triune.compression.options import Activations, Method, Options, Per, WeightForm
from triune.compression.prepare import prepare
from triune.compression.products import moments_of, rows_of, scale_inputs, sites_of
from triune.compression.rewrite import Change, compressed, needed_opset, opset_of
from triune.compression.scaling import Scaling
from triune.compression.smooth import smooth
from triune.core.datatypes import Array
from triune.core.errors import UnsupportedError
from triune.graph.custom import NO_CUSTOM_OPS, CustomOps
from triune.graph.custom.library_types import typed_by_libraries
from triune.graph.custom.resolve import numpy_nodes
from triune.graph.custom.stages import typed_model
from triune.graph.passes.infer import Infer
from triune.graph.values import constant_tensor, nodes_within, subgraphs_of
from triune.graph.weight_files import WeightFile, array_of
from triune.graph.weights import Large


@dataclass(frozen=True, slots=True)
class Built:
    """A model with compressed layers.

    Attributes:
        model: the model; its large weights may be in the scratch file.
        changes: how each weight was changed, by the name of its layer.
    """

    model: ModelProto
    changes: Mapping[str, Change] = field(default_factory=dict[str, Change])


class Plan:
    """A model, and which of its layers can be compressed.

    A layer is a weight, by its name; with activations in 8 bits also a node that multiplies a weight, by its name.

    Attributes:
        options: the user's options.
        source: the prepared model, which is equivalent to the user's.
        weights: the weights that can be compressed.
        kept: the weights that cannot, with the reason.
        layers: the names of all layers, in order.
        scaled: the products whose inputs AWQ or SmoothQuant scales.
        unranged: the names of the nodes whose activations stay floats, since one of them was 0 in all samples.
        file: the scratch file.
        ops: the custom operators that numpy computes.
    """

    def __init__(
        self,
        model: ModelProto,
        options: Options,
        samples: Sequence[Mapping[str, Array]],
        file: WeightFile,
        *,
        is_standard: bool,
        ops: CustomOps = NO_CUSTOM_OPS,
    ) -> None:
        """Prepare a model, and find the ranges of its activations.

        Args:
            model: a result of `graph.load`; changed.
            options: the options of the compression.
            samples: inputs to take ranges from.
            file: the scratch file for large weights.
            is_standard: whether only standard operators may be written.
            ops: the custom operators that numpy computes, which stay as they are.

        Raises:
            InvalidArgumentError: the model's activations are quantized already, or the samples do not fit.
            UnsupportedError: the model has nothing to compress, or is too large for activations in 8 bits.
        """
        self.options: Final = options
        self.file: Final = file
        self.ops: Final = ops
        self._is_standard = is_standard
        is_static = options.activations is Activations.INT8
        if options.activations is not None:
            activations.require_floats(model)
        if is_static:
            activations.require_small(model)
        self.source: Final = self._typed(prepare(model, file))
        self._base = self.source
        self.scaled: Final[dict[Site, Scaling]] = {}
        self._moments: dict[str, Moments] = {}
        found, kept = find_weights(self.source)
        if options.method.is_awq or options.method is Method.SMOOTHQUANT:
            self.scaled.update(self._scalings(found, samples))
            self._base = scale_inputs(self.source, self.scaled, found, file)
            found, kept = find_weights(self._base)
        if options.method.is_gptq:
            for site, moments in moments_of(self._base, sites_of(self._base, found), samples, ops):
                self._moments |= dict.fromkeys(site.weights, moments)
        self._nodes: tuple[str, ...] = ()
        self._ranges: Mapping[str, Range] = {}
        self.unranged: tuple[str, ...] = ()
        if is_static:
            self._ranges = observe(self._base, activations.values_of(self._base), samples, options.calibration, ops)
            nodes = activations.layers_of(self._base)
            unranged = set(activations.without_range(self._base, self._ranges))
            self._nodes = tuple(each for each in nodes if each not in unranged)
            self.unranged = tuple(each for each in nodes if each in unranged)
            # Leave out the weights that `self._nodes` read: the quantizer of activations quantizes them, too.
            found = [each for each in found if not set(self._nodes).intersection(name for name, _ in each.readers)]
        self.weights: Final[Sequence[Weight]] = found
        self.kept: Final[Sequence[Kept]] = kept
        self.layers: Final[Sequence[str]] = (*(each.name for each in found), *self._nodes)
        if not self.layers:
            raise UnsupportedError(f"there is nothing to compress in the model: {_reasons(kept, self.source)}")

    def build(self, forms: Mapping[str, WeightForm]) -> Built:
        """Build the model with these layers compressed, each in its form.

        Raises:
            InternalError: ONNX Runtime's quantizer fails.
        """
        names = {each.name for each in self.weights}
        own = {name: form for name, form in forms.items() if name in names}
        model, changes = compressed(
            self._base,
            own,
            self.weights,
            self.options,
            self.file,
            is_standard=self._is_standard,
            moments=self._moments,
        )
        nodes = [name for name in self._nodes if name in forms]
        if nodes:
            model = activations.quantized(
                self._typed(model), self._ranges, nodes, is_per_channel=self.options.per is Per.CHANNEL
            )
            noise = activations.weights_db(self._base, model, nodes)
            changes |= {name: Change(decibels) for name, decibels in noise.items()}
        return Built(model, changes)

    def everything(self, form: WeightForm) -> dict[str, WeightForm]:
        """The form `form` for every layer, by the name of the layer."""
        return dict.fromkeys(self.layers, form)

    def rungs(self, name: str) -> Sequence[WeightForm | None]:
        """The forms of a layer, from the requested one to floats (None): int4, a palette or zeros, int8, 16 bits."""
        form = self.options.weights
        weight = next((each for each in self.weights if each.name == name), None)
        if weight is None or self.options.is_float:
            return form, None
        has_integers = opset_of(self._base) >= needed_opset(Options(WeightForm.INT8))
        above = [WeightForm.INT8] if form is not WeightForm.INT8 and has_integers else []
        # Core ML and Core AI programs compute in fp16, so that their uncompressed weights take 16 bits.
        if not self._is_standard and weight.tensor.data_type == TensorProto.FLOAT:
            above.append(half_form(array_of(weight.tensor)))
        return form, *above, None

    def _scalings(
        self, weights: Sequence[Weight], samples: Sequence[Mapping[str, Array]]
    ) -> Iterator[tuple[Site, Scaling]]:
        """Yield the matrix products (`Site`) whose inputs should be scaled, each with its scaling: where this reduces
        the error of the product.
        """
        options = self.options
        bits = 8 if options.weights is WeightForm.INT8 else 4
        by_name = {weight.name: weight for weight in weights}
        find = smooth if options.method is Method.SMOOTHQUANT else awq
        for site, moments in moments_of(self.source, sites_of(self.source, weights), samples, self.ops):
            group = options.group if options.group is not None and site.width % options.group == 0 else site.width

            def rounded(rows: NDArray[Any], group: int = group) -> NDArray[Any]:
                form = quantized(rows, bits, axis=None, block_axis=1, block=group, is_symmetric=options.is_symmetric)
                return form.whole()

            scaling = find([rows_of(by_name[name]) for name in site.weights], moments, rounded)
            if scaling.exponent:
                yield site, scaling

    def _typed(self, model: ModelProto) -> ModelProto:
        """The model with the types of its values, converted to the operator set that its compressed weights need if its
        own is older.
        """
        large = Large(self.file)
        large.take(model)
        needed = needed_opset(self.options)
        if opset_of(model) < needed:
            try:
                model = version_converter.convert_version(model, needed)
            except RuntimeError as error:
                raise UnsupportedError(
                    f"this form needs operator set {needed}, to which ONNX does not bring the model: {error}; export "
                    "it for that set, or compress to int8 without groups"
                ) from error
        model = Infer()(model)
        if nodes := numpy_nodes(model, self.ops):
            model, _ = typed_model(model, self.ops, nodes)
        large.give_back(model)
        return typed_by_libraries(model, self.ops)


def _reasons(kept: Sequence[Kept], model: ModelProto) -> str:
    inner = [graph for node in nodes_within(model.graph.node) for graph in subgraphs_of(node)]
    constants = [tensor for graph in inner for node in graph.node if (tensor := constant_tensor(node)) is not None]
    constants += [tensor for graph in inner for tensor in graph.initializer]
    if any(prod(each.dims) >= FEWEST for each in constants):
        return (
            "its weights are in branches or loops, where they are not compressed; decide its branches first (triune "
            "convert --constant input=value -o model.mlpackage), and compress the result"
        )
    if not kept:
        return "it has no weights of 1,024 elements or more"
    return "; ".join(f"'{each.name}': {each.reason}" for each in kept[:5])
