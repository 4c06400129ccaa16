"""Which patterns of decoders are one operation. That they compute the same is held by tests/contract/decoders."""

from collections import Counter

import pytest

from contract.decoders.cases import CONFIGS, SeededWeights
from triune.engine.models import write_model
from triune.graph.paged_attention import OP_TYPE
from triune.metal.fusion import ADD_NORM, ROTARY, SWIGLU, fuse


@pytest.mark.parametrize(
    ("case", "kinds"),
    [
        # The last sum is normalized for those tokens alone whose logits are wanted.
        ("llama 2", {ROTARY: 2, SWIGLU: 2, ADD_NORM: 3}),
        ("part of a head", {ROTARY: 2, SWIGLU: 2, ADD_NORM: 3}),
        # Queries and keys are normalized before they are turned.
        ("qwen 3", {OP_TYPE: 2, SWIGLU: 2, ADD_NORM: 3}),
        ("gemma 1", {ROTARY: 2, ADD_NORM: 3}),
        ("gemma 2", {ROTARY: 3, ADD_NORM: 5}),
        ("gpt 2", {OP_TYPE: 2}),
    ],
)
def test_patterns_of_architectures(case: str, kinds: dict[str, int]) -> None:
    graph = write_model(CONFIGS[case], SeededWeights(CONFIGS[case]), "paged").model.graph
    before = graph.SerializeToString(deterministic=True)
    found = Counter(node.op_type for node in fuse(graph).node)
    assert {kind: found[kind] for kind in (ROTARY, SWIGLU, ADD_NORM, OP_TYPE) if found[kind]} == kinds
    assert graph.SerializeToString(deterministic=True) == before


def test_a_sum_with_a_constant_is_no_sum_of_the_pattern() -> None:
    config = CONFIGS["biases everywhere"]
    graph = fuse(write_model(config, SeededWeights(config), "paged").model.graph)
    constants = {tensor.name for tensor in graph.initializer}
    sums = [node for node in graph.node if node.op_type == ADD_NORM]
    assert len(sums) == 3
    assert not any(constants.intersection(node.input[:2]) for node in sums)
