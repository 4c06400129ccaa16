"""Decoders with explicit caches of two sizes, in ONNX's evaluator."""

from collections.abc import Mapping, Sequence

import numpy as np
from onnx import helper
from onnx.reference import ReferenceEvaluator

from triune.core.datatypes import Array, DataType
from triune.core.explicit_cache import ExplicitSize
from triune.core.tensors import Signature, TensorSpec
from triune.core.units import Unit
from triune.engine.models import write_explicit
from triune.engine.models.builder import Weights
from triune.engine.weights.config import Gpt2Config, LlamaConfig
from triune.graph.held import HeldModel
from triune.graph.paged_attention import cache_heads
from triune.runtimes.ladder import Ladder, functions_of
from triune.runtimes.ladder.decoder import LadderDecoder


class GraphFunction:
    """A graph as one function of a ladder (see `runtimes.ladder`)."""

    def __init__(self, model: HeldModel) -> None:
        whole = model.whole()
        self._evaluator = ReferenceEvaluator(whole)
        self._names = [value.name for value in whole.graph.output]
        inputs, outputs = (
            tuple(
                TensorSpec(
                    value.name,
                    DataType.of(np.empty(0, helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))),
                    tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim),
                )
                for value in values
            )
            for values in (whole.graph.input, whole.graph.output)
        )
        self.signature = Signature(inputs, outputs)

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Compute outputs."""
        found = dict(zip(self._names, self._evaluator.run(None, dict(inputs)), strict=True))
        return {name: found[name] for name in outputs}

    def close(self) -> None:
        """Do nothing: there are no resources to free."""


def graph_ladder(
    config: LlamaConfig | Gpt2Config, weights: Weights, contexts: Sequence[int], *, prefill: int = 8
) -> Ladder:
    """A ladder of graphs. The prefill computes this many tokens in a call."""
    sizes = {
        name: ExplicitSize(size.context, min(size.tokens, prefill)) for name, size in functions_of(contexts).items()
    }
    return Ladder(
        contexts,
        lambda name: GraphFunction(write_explicit(config, weights, sizes[name], num_positions=max(contexts))),
    )


def graph_decoder(
    config: LlamaConfig | Gpt2Config, weights: Weights, paged: HeldModel, num_blocks: int
) -> LadderDecoder:
    """A decoder with a ladder of two sizes: 16 tokens, and as many as the model has positions."""
    most = config.max_position_embeddings if isinstance(config, LlamaConfig) else config.n_positions
    return LadderDecoder(
        graph_ladder(config, weights, (16, most)),
        unit=Unit.ANE,
        precision="fp32",
        heads=list(cache_heads(paged.model.graph).values()),
        vocab_size=config.vocab_size,
        num_blocks=num_blocks,
    )
