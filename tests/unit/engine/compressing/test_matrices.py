"""A decoder's compressed matrices in its graph."""

import tracemalloc
from pathlib import Path

import numpy as np

from support.text_models import write_text_model
from triune.compression.options import Method, WeightForm
from triune.engine.compressing.graph import TextGraph
from triune.engine.compressing.matrices import Form, Matrices
from triune.engine.weights import open_checkpoint
from triune.engine.weights.config import LlamaConfig


def test_matrices_that_are_tried_are_held_as_codes_alone(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(write_text_model(tmp_path / "decoder"))
    assert isinstance(checkpoint.config, LlamaConfig)
    graph = TextGraph(checkpoint, 16)
    matrices = Matrices(graph, checkpoint.config, Form(WeightForm.INT8, 32, is_symmetric=True))
    tokens = list(range(1, 9))
    before = graph.logits(tokens)
    (made,) = matrices.make([Method.NEAREST], [tokens])
    tracemalloc.start()
    try:
        matrices.put(made, made.matrices)
        tried = graph.logits(tokens)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 0.1 * sum(graph.values[name].nbytes for name in matrices.names)
    other = TextGraph(checkpoint, 16)
    other.values.update({name: each.whole() for name, each in made.matrices.items()})
    np.testing.assert_array_equal(tried, other.logits(tokens))
    matrices.restore()
    np.testing.assert_array_equal(graph.logits(tokens), before)
