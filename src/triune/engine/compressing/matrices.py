"""Compress a decoder's matrices by one method, and put them into its graph."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from triune.compression.awq import Scaling, awq
from triune.compression.halves import half_form
from triune.compression.moments import Moments, Site
from triune.compression.noise import sqnr_db
from triune.compression.options import Method, WeightForm
from triune.engine.compressing.graph import TextGraph
from triune.engine.compressing.stored import Stored, group_of, stored
from triune.engine.weights.config import LlamaConfig

TABLES: Final = ("model.embed_tokens.weight", "lm_head.weight")
"""The matrices with a row for each token. They are stored in 8 bits if other matrices have 4, as in llama.cpp, since no
later layer compensates their errors.
"""


@dataclass(frozen=True, slots=True)
class Form:
    """The form in which matrices are stored.

    Attributes:
        weights: INT4, INT8, FP16, BF16 or FP32.
        group: how many weights of a row share a scale; None if a whole row does.
        is_symmetric: whether the levels are symmetric around 0.
    """

    weights: WeightForm
    group: int | None
    is_symmetric: bool

    def of(self, name: str) -> WeightForm:
        """The form in which the matrix `name` is stored at first: INT8 for an embedding or the matrix of the logits
        (`TABLES`) if the others have INT4. A search may later choose a more precise one.
        """
        return WeightForm.INT8 if self.weights is WeightForm.INT4 and name in TABLES else self.weights


@dataclass(slots=True)
class Made:
    """The compressed matrices that one method computed.

    Attributes:
        method: the method.
        matrices: the matrices by name.
        inputs: by name of a matrix, the factors by which AWQ multiplied its columns.
        outputs: by name of a matrix, the factors by which AWQ divided its rows.
        vectors: the weights of norms that AWQ changed, in the form that the graph reads.
        noise: by name of a matrix, the error of its product's outputs on the samples, relative to their size.
        scaled: how AWQ scaled the inputs of each matrix product, by the name of the graph's value that has the inputs.
    """

    method: Method
    matrices: dict[str, Stored] = field(default_factory=dict[str, Stored])
    inputs: dict[str, NDArray[np.float32]] = field(default_factory=dict[str, NDArray[np.float32]])
    outputs: dict[str, NDArray[np.float32]] = field(default_factory=dict[str, NDArray[np.float32]])
    vectors: dict[str, NDArray[np.float32]] = field(default_factory=dict[str, NDArray[np.float32]])
    noise: dict[str, float] = field(default_factory=dict[str, float])
    scaled: dict[str, Scaling] = field(default_factory=dict[str, Scaling])


class Matrices:
    """The matrices of a decoder.

    Attributes:
        names: the names of all matrices that can be compressed, in order.
        notes: by name of a matrix, how its form differs from the requested form.
    """

    def __init__(self, graph: TextGraph, config: LlamaConfig, form: Form) -> None:
        """`graph` has the weights of the source."""
        self._graph = graph
        self._config = config
        self._form = form
        self.names: Final = [name for name, shape in graph.shapes.items() if len(shape) == 2]
        self.notes: Final[dict[str, str]] = {}
        for name in self.names:
            if form.weights in (WeightForm.INT4, WeightForm.INT8):
                note = group_of(form.group, graph.shapes[name][1])[1]
                if form.of(name) is not form.weights:
                    note = "; ".join(filter(None, ("int8: each row is a token", note)))
                if note:
                    self.notes[name] = note

    def make(self, methods: Sequence[Method], texts: Sequence[Sequence[int]]) -> list[Made]:
        """Compress all matrices by each method. `texts` are token ids from which GPTQ and AWQ learn."""
        self.restore()
        found = [Made(method) for method in methods]
        left = set(self.names)
        for site, moments in self._graph.moments(texts):
            for made in found:
                self._make_site(made, site, moments)
            left.difference_update(site.weights)
        for made in found:
            # The remaining matrices are rounded to the nearest level: the methods need a matrix product, but of these
            # matrices only rows are looked up.
            for name in sorted(left):
                made.matrices[name] = self._stored(made, name, self._form.of(name), None)
        return found

    def in_form(self, made: Made, name: str, form: WeightForm) -> Stored:
        """Store a matrix of `made` in another form. Its weights are rounded to the nearest level."""
        return self._stored(made, name, form, None)

    def put(self, made: Made, matrices: Mapping[str, Stored]) -> None:
        """Let the graph compute with `matrices`, and with the norms that `made` has changed."""
        vectors = {name: each.copy for name, each in made.vectors.items()}
        self._graph.changed = {**vectors, **{name: each.whole for name, each in matrices.items()}}

    def restore(self) -> None:
        """Put the weights of the source back into the graph."""
        self._graph.changed = {}

    def weights_db(self, made: Made, name: str, matrix: Stored) -> float:
        """The signal-to-quantization-noise ratio of a matrix, in dB (`sqnr_db`)."""
        return sqnr_db(self._floats(made, name), matrix.whole())

    def half(self, made: Made, name: str) -> WeightForm:
        """The 16-bit form, FP16 or BF16, in which a matrix loses less."""
        return half_form(self._floats(made, name))

    def _make_site(self, made: Made, site: Site, moments: Moments) -> None:
        fold = self._fold_of(site) if made.method.is_awq else None
        if fold is not None:
            scaling = awq(
                [self._floats(made, name) for name in site.weights],
                moments,
                lambda weight: self._rounded(site.weights[0], weight),
            )
            made.scaled[site.value] = scaling
            if scaling.exponent:
                for name in site.weights:
                    made.inputs[name] = scaling.scales
                moments = moments.divided(scaling.scales)
                self._fold(made, fold, scaling.scales)
        for name in site.weights:
            form = self._form.of(name)
            # GPTQ minimizes the error of products, not of single rows. So it is not used for an embedding, whose rows
            # are looked up.
            learns = made.method.is_gptq and name not in TABLES
            made.matrices[name] = self._stored(made, name, form, moments if learns else None)
            floats = self._floats(made, name)
            size = moments.error(floats)
            made.noise[name] = moments.error(made.matrices[name].whole() - floats) / size if size > 0 else 0.0

    def _fold_of(self, site: Site) -> str | None:
        """The name of the norm or matrix whose outputs only this matrix product reads, so that AWQ can divide them by
        the factors with which it multiplies the product's columns; None if there is none.
        """
        layer, _, kind = site.weights[0].removesuffix(".weight").rpartition(".")
        match kind:
            case "q_proj":
                return f"{layer.removesuffix('.self_attn')}.input_layernorm.weight"
            case "gate_proj":
                norm = "pre_feedforward_layernorm" if self._config.has_post_norms else "post_attention_layernorm"
                return f"{layer.removesuffix('.mlp')}.{norm}.weight"
            case "down_proj" if not self._config.mlp_bias:
                return f"{layer}.up_proj.weight"
            case _:
                return None

    def _fold(self, made: Made, name: str, scales: NDArray[np.float32]) -> None:
        if name in self.names:
            made.outputs[name] = scales
            # This matrix has been compressed already. Its rows are divided by the AWQ scales. That changes the scales
            # of its codes, but not the codes, which GPTQ may have found.
            made.matrices[name] = made.matrices[name].divided(scales)
        else:
            made.vectors[name] = self._graph.weight(name) / scales

    def _rounded(self, name: str, weight: NDArray[np.float32]) -> NDArray[np.float32]:
        group = group_of(self._form.group, weight.shape[1])[0]
        return stored(weight, self._form.of(name), group, None, is_symmetric=self._form.is_symmetric).whole()

    def _stored(self, made: Made, name: str, form: WeightForm, moments: Moments | None) -> Stored:
        floats = self._floats(made, name)
        group = group_of(self._form.group, floats.shape[1])[0]
        return stored(floats, form, group, moments, is_symmetric=self._form.is_symmetric)

    def _floats(self, made: Made, name: str) -> NDArray[np.float32]:
        """The matrix `name` of the source, FP32 [out, in], with the scales of AWQ applied."""
        values = self._graph.weight(name)
        if name in made.inputs:
            values = values * made.inputs[name]
        return values / made.outputs[name][:, np.newaxis] if name in made.outputs else values
