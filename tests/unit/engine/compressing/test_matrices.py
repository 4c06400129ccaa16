"""A decoder's compressed matrices in its graph."""

import gc
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path

import numpy as np

from support.text_models import write_text_model
from triune.compression.options import Method, WeightForm
from triune.engine.compressing.graph import TextGraph
from triune.engine.compressing.matrices import Form, Matrices
from triune.engine.models import write_model
from triune.engine.weights import open_checkpoint
from triune.engine.weights.config import LlamaConfig
from triune.graph.session import GraphSession

TOKENS = list(range(1, 9))


@contextmanager
def peak() -> Iterator[list[int]]:
    """The largest number of bytes that numpy and Python had in memory, as the only element once the context ends."""
    found: list[int] = []
    tracemalloc.start()
    try:
        yield found
        found.append(tracemalloc.get_traced_memory()[1])
    finally:
        tracemalloc.stop()


def test_matrices_that_are_tried_are_held_as_codes_alone(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(write_text_model(tmp_path / "decoder"))
    assert isinstance(checkpoint.config, LlamaConfig)
    graph = TextGraph(checkpoint, 16)
    matrices = Matrices(graph, checkpoint.config, Form(WeightForm.INT8, 32, is_symmetric=True))
    (before,) = graph.logits([TOKENS])
    (made,) = matrices.make([Method.NEAREST], [TOKENS])
    matrices.put(made, made.matrices)
    (tried,) = graph.logits([TOKENS])
    other = TextGraph(checkpoint, 16)
    wholes = {name: each.whole() for name, each in made.matrices.items()}
    other.changed = {name: lambda name=name: wholes[name] for name in wholes}
    np.testing.assert_array_equal(tried, *other.logits([TOKENS]))
    assert np.abs(tried - before).max() > 0
    matrices.restore()
    np.testing.assert_array_equal(*graph.logits([TOKENS]), before)


def test_layers_are_in_memory_one_at_a_time(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(
        write_text_model(tmp_path / "decoder", hidden_size=128, intermediate_size=256, num_hidden_layers=12)
    )
    assert isinstance(checkpoint.config, LlamaConfig)
    with peak() as while_computed:
        graph = TextGraph(checkpoint, 16)
        gc.collect()
        tracemalloc.reset_peak()
        (logits,) = graph.logits([TOKENS])
    total = 4 * sum(map(prod, graph.shapes.values()))
    assert while_computed[0] < total / 4
    whole = write_model(checkpoint.config, checkpoint, "plain", num_positions=16).whole()
    expected = GraphSession(whole, "the decoder").run({"input_ids": np.array([TOKENS])}, {})[0]["logits"]
    np.testing.assert_allclose(logits, expected[0], rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    matrices = Matrices(graph, checkpoint.config, Form(WeightForm.INT8, 32, is_symmetric=True))
    with peak() as while_rounded:
        (made,) = matrices.make([Method.NEAREST], [TOKENS, TOKENS[:4]])
        matrices.put(made, made.matrices)
        list(graph.logits([TOKENS]))
    # A byte for each weight, the scales and offsets, and a layer in fp32.
    assert while_rounded[0] < total * 0.7
