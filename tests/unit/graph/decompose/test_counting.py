"""What is in a tensor, and how often."""

import numpy as np

from support.graphs import answers, model_of
from triune.graph.normalize import foreign_ops, normalize


def test_runs_of_tokens_are_no_further_apart_than_the_row_is_long() -> None:
    """max_skip_count may say any number."""
    text = """agraph (int64[5] x) => (float[2] y) {
      y = TfIdfVectorizer <mode="TF", min_gram_length=2, max_gram_length=2, max_skip_count=%d, ngram_counts=[0, 0],
        ngram_indexes=[0, 1], pool_int64s=[1, 2, 1, 5]> (x) }"""
    x = {"x": np.array([1, 2, 3, 2, 5])}
    normal = normalize(model_of(text % (2**63 - 1), opset=21))
    assert foreign_ops(normal) == []
    (found,) = answers(normal, x)
    # (1, 2) side by side and two apart, (1, 5) four apart.
    np.testing.assert_array_equal(found, [2, 1])
    np.testing.assert_array_equal(answers(model_of(text % 4, opset=21), x)[0], found)
