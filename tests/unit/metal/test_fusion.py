"""Which patterns of decoders are one operation. That they compute the same is held by tests/contract/decoders."""

from collections import Counter

import pytest

from contract.decoders.cases import CONFIGS, SeededWeights
from triune.engine.models import write_model
from triune.graph.paged_attention import OP_TYPE
from triune.metal.fusion import ROTARY, SWIGLU, fuse


@pytest.mark.parametrize(
    ("case", "kinds"),
    [
        ("llama 2", {ROTARY: 2, SWIGLU: 2}),
        ("part of a head", {ROTARY: 2, SWIGLU: 2}),
        # Queries and keys are normalized before they are turned.
        ("qwen 3", {OP_TYPE: 2, SWIGLU: 2}),
        ("gemma 1", {ROTARY: 2}),
        ("gpt 2", {OP_TYPE: 2}),
    ],
)
def test_patterns_of_architectures(case: str, kinds: dict[str, int]) -> None:
    graph = write_model(CONFIGS[case], SeededWeights(CONFIGS[case]), "paged").model.graph
    before = graph.SerializeToString(deterministic=True)
    found = Counter(node.op_type for node in fuse(graph).node)
    assert {kind: found[kind] for kind in (ROTARY, SWIGLU, OP_TYPE) if found[kind]} == kinds
    assert graph.SerializeToString(deterministic=True) == before
