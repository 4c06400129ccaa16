import subprocess
import sys

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from triune.core.decoder import DecoderStep
from triune.core.step_rows import rows_of, slots_of
from triune.graph.held import HeldModel
from triune.graph.inference import infer_shapes
from triune.graph.load import require_valid
from triune.graph.paged_attention import DOMAIN, VERSION, PagedAttention, paged_attention
from triune.graph.written_out import written_out

HEADS, KV_HEADS, HEAD, BLOCK = 4, 2, 8, 4


BIAS = np.random.default_rng(3).standard_normal((HEADS, 7), np.float32)
"""By distance, of which the last stands for all greater ones."""


def causal(query, key, value, *, window=0, softcap=0.0, scale=None, bias=None) -> NDArray[np.float64]:
    """Attention of one whole sequence, [tokens, heads, size] each, by a matrix of scores."""
    key, value = (np.repeat(each, query.shape[1] // each.shape[1], axis=1) for each in (key, value))
    scores = np.einsum("qhd,khd->hqk", query, key, dtype=np.float64) * (scale or query.shape[2] ** -0.5)
    if softcap:
        scores = softcap * np.tanh(scores / softcap)
    distance = np.arange(len(query))[:, None] - np.arange(len(query))
    if bias is not None:
        scores = scores + bias[:, np.clip(distance, 0, bias.shape[1] - 1)]
    is_seen = (distance >= 0) & ((distance < window) if window else True)
    scores = np.where(is_seen, scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return np.einsum("hqk,khd->qhd", weights / weights.sum(-1, keepdims=True), value)


class Sequences:
    """Random whole sequences, and caches with the blocks of all of them in a random order."""

    def __init__(self, lengths: list[int], kv_heads: int = KV_HEADS, attend=paged_attention) -> None:
        self._attend = attend
        self._rng = rng = np.random.default_rng(sum(lengths))
        self.kv_heads = kv_heads
        self.whole = [
            tuple(rng.standard_normal((length, heads, HEAD), np.float32) for heads in (HEADS, kv_heads, kv_heads))
            for length in lengths
        ]
        counts = [-(-length // BLOCK) for length in lengths]
        order = rng.permutation(sum(counts) + 2)[: sum(counts)].astype(np.int32)
        self.blocks = np.split(order, np.cumsum(counts)[:-1])
        shape = sum(counts) + 2, kv_heads, BLOCK, HEAD
        # What no token was written to must never be read.
        self.caches = [np.full(shape, np.nan, np.float32) for _ in range(2)]
        self.past = [0] * len(lengths)

    def step(self, news: dict[int, int], **attributes) -> list[NDArray[np.float32]]:
        """Run the next tokens of some sequences together; `news` is their numbers by sequence."""
        parts = [
            [each[self.past[which] : self.past[which] + count] for each in self.whole[which]]
            for which, count in news.items()
        ]
        packed = [np.concatenate(each).reshape(sum(news.values()), -1) for each in zip(*parts, strict=True)]
        blocks = [self.blocks[which] for which in news]
        output, *self.caches = self._attend(
            *packed,
            *self.caches,
            np.array([self.past[which] for which in news], np.int32),
            np.cumsum([0, *news.values()]).astype(np.int32),
            np.concatenate(blocks),
            np.cumsum([0, *map(len, blocks)]).astype(np.int32),
            num_heads=HEADS,
            num_kv_heads=self.kv_heads,
            **attributes,
        )
        for which, count in news.items():
            self.past[which] += count
        return np.split(output.reshape(-1, HEADS, HEAD), np.cumsum(list(news.values()))[:-1])


def by_operators(
    query, key, value, key_cache, value_cache, *indices, distance_bias=None, num_heads, num_kv_heads, **options
) -> tuple[NDArray[np.float32], ...]:
    """The same as `paged_attention`, by the operators of `written_out`."""
    shapes = {
        "query": ("tokens", num_heads * HEAD),
        **dict.fromkeys(("key", "value"), ("tokens", num_kv_heads * HEAD)),
        **dict.fromkeys(("key_cache", "value_cache"), ("blocks", num_kv_heads, "size", HEAD)),
    }
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    names = ("past_lengths", "subsequence_begins", "block_indices", "block_indices_begins")
    inputs += [helper.make_tensor_value_info(name, TensorProto.INT32, ("n",)) for name in names]
    bias = [] if distance_bias is None else [numpy_helper.from_array(distance_bias, "bias")]
    node = helper.make_node(
        "PagedAttention",
        [*shapes, *names, *(each.name for each in bias)],
        ["logits", "new_keys", "new_values"],
        domain=DOMAIN,
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        **options,
    )
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)]
    graph = helper.make_graph([node], "attention", inputs, outputs, initializer=bias)
    imports = [helper.make_opsetid("", 23), helper.make_opsetid(DOMAIN, VERSION)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=10)
    written = written_out(HeldModel(model, {}), TensorProto.FLOAT, BLOCK).whole()
    step = DecoderStep(np.zeros(len(query), np.int64), np.zeros(0, np.int64), *indices, np.zeros(0, np.int64))
    given = {"query": query, "key": key, "value": value, "key_cache": key_cache, "value_cache": value_cache}
    feed = given | {"past_lengths": step.past_lengths} | rows_of(step)
    declared = {value.name for value in written.graph.input}
    assert feed.keys() <= declared
    output, *new = ReferenceEvaluator(written).run(None, feed)
    slots = slots_of(step, BLOCK)
    caches = [key_cache.copy(), value_cache.copy()]
    for cache, rows in zip(caches, new, strict=True):
        cache[slots // BLOCK, :, slots % BLOCK] = rows.reshape(len(slots), num_kv_heads, HEAD)
    return output, *caches


@pytest.mark.parametrize("attend", [paged_attention, by_operators])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"sliding_window": 3},
        {"sliding_window": 100},
        {"softcap": 0.7},
        {"scale": 0.11},
        {"distance_bias": BIAS},
        {"distance_bias": BIAS, "scale": 1.0, "sliding_window": 4, "softcap": 2.0},
    ],
)
def test_steps_of_several_sequences_give_what_plain_attention_gives(kv_heads, options, attend) -> None:
    lengths = [11, 4, 17]
    sequences = Sequences(lengths, kv_heads, attend)
    names = {"sliding_window": "window", "distance_bias": "bias"}
    plain = {names.get(name, name): value for name, value in options.items()}
    expected = [causal(*each, **plain) for each in sequences.whole]
    done: list[list[NDArray[np.float32]]] = [[], [], []]
    for news in ({0: 5, 2: 9}, {2: 1, 0: 2}, {1: 3, 2: 4, 0: 1}, {0: 3, 1: 1, 2: 3}):
        for which, output in zip(news, sequences.step(news, **options), strict=True):
            done[which].append(output)
    for got, truth in zip(done, expected, strict=True):
        np.testing.assert_allclose(np.concatenate(got), truth, atol=1e-5)


@pytest.mark.parametrize("attend", [paged_attention, by_operators])
def test_a_sequence_without_numbers_spoils_no_other(attend) -> None:
    """Where a key and a value are NaN, the other sequences of the step get their answers."""
    sequences = Sequences([9, 6], attend=attend)
    expected = causal(*sequences.whole[1], bias=BIAS)
    for part in sequences.whole[0]:
        part[:] = np.nan
    parts = [sequences.step(news, distance_bias=BIAS)[-1] for news in ({0: 5, 1: 3}, {0: 4, 1: 1}, {1: 2})]
    np.testing.assert_allclose(np.concatenate(parts), expected, atol=1e-5)


def test_only_the_places_of_new_tokens_are_written() -> None:
    sequences = Sequences([6])
    before = [each.copy() for each in sequences.caches]
    sequences.step({0: 5})
    for cache, old, which in zip(sequences.caches, before, (1, 2), strict=True):
        written = np.concatenate(cache[sequences.blocks[0]].transpose(0, 2, 1, 3))
        np.testing.assert_array_equal(written[:5], sequences.whole[0][which][:5])
        assert np.isnan(written[5:]).all()
        untouched = np.setdiff1d(np.arange(len(cache)), sequences.blocks[0])
        np.testing.assert_array_equal(cache[untouched], old[untouched])


def test_too_few_blocks_and_unknown_blocks_are_errors() -> None:
    sequences = Sequences([9])
    sequences.blocks[0] = sequences.blocks[0][:2]
    with pytest.raises(ValueError, match="sequence 0 has 9 tokens, and its 2 blocks of 4 hold 8"):
        sequences.step({0: 9})
    sequences.blocks[0] = np.array([0, 5, 1], np.int32)
    with pytest.raises(ValueError, match=r"sequence 0 has blocks \[0, 5, 1\]; the cache has 5"):
        sequences.step({0: 9})


def model(elem_type: int = TensorProto.FLOAT) -> ModelProto:
    """A model of one such node, and one behind it."""
    shapes: dict[str, list[int | str]] = {
        "query": ["tokens", HEADS * HEAD],
        "key": ["tokens", KV_HEADS * HEAD],
        "value": ["tokens", KV_HEADS * HEAD],
        "key_cache": ["blocks", KV_HEADS, BLOCK, HEAD],
        "value_cache": ["blocks", KV_HEADS, BLOCK, HEAD],
    }
    indices = {"past": ["n"], "begins": ["m"], "blocks": ["k"], "block_begins": ["m"]}
    inputs = [helper.make_tensor_value_info(name, elem_type, shape) for name, shape in shapes.items()]
    inputs += [helper.make_tensor_value_info(name, TensorProto.INT32, shape) for name, shape in indices.items()]
    nodes = [
        helper.make_node(
            "PagedAttention",
            [each.name for each in inputs],
            ["attended", "new_keys", "new_values"],
            domain=DOMAIN,
            num_heads=HEADS,
            num_kv_heads=KV_HEADS,
        ),
        helper.make_node("Identity", ["attended"], ["out"]),
    ]
    outputs = [helper.make_tensor_value_info(name, elem_type, None) for name in ("out", "new_keys", "new_values")]
    imports = [helper.make_opsetid("", 23), helper.make_opsetid(DOMAIN, VERSION)]
    return helper.make_model(
        helper.make_graph(nodes, "attention", inputs, outputs), opset_imports=imports, ir_version=10
    )


def test_types_and_shapes_behind_the_operator_are_inferred() -> None:
    inferred = infer_shapes(model(), check_type=True, strict_mode=True)
    found = {
        value.name: [dim.dim_value or dim.dim_param for dim in value.type.tensor_type.shape.dim]
        for value in (*inferred.graph.output, *inferred.graph.value_info)
    }
    assert found == {
        "attended": ["tokens", 32],
        "out": ["tokens", 32],
        "new_keys": ["blocks", 2, 4, 8],
        "new_values": ["blocks", 2, 4, 8],
    }


def test_the_checker_knows_the_operator() -> None:
    require_valid(model())
    wrong = model()
    del wrong.graph.node[0].attribute[:]
    with pytest.raises(Exception, match="'num_(kv_)?heads' is missing"):
        require_valid(wrong)


def test_the_evaluator_runs_it() -> None:
    rng = np.random.default_rng(0)
    query, key, value = (rng.standard_normal((3, size), np.float32) for size in (32, 16, 16))
    feed = {
        "query": query,
        "key": key,
        "value": value,
        **{name: np.zeros((2, KV_HEADS, BLOCK, HEAD), np.float32) for name in ("key_cache", "value_cache")},
        "past": np.array([0], np.int32),
        "begins": np.array([0, 3], np.int32),
        "blocks": np.array([1], np.int32),
        "block_begins": np.array([0, 1], np.int32),
    }
    output, keys, _ = ReferenceEvaluator(
        onnx.load_from_string(model().SerializeToString()), new_ops=[PagedAttention]
    ).run(None, feed)
    expected = causal(*(each.reshape(3, -1, HEAD) for each in (query, key, value)))
    np.testing.assert_allclose(output, expected.reshape(3, -1), atol=1e-5)
    np.testing.assert_array_equal(keys[1, :, :3], key.reshape(3, KV_HEADS, HEAD).transpose(1, 0, 2))


def test_models_that_load_at_once_register_the_operator_once() -> None:
    program = """
import sys, threading
from concurrent.futures import ThreadPoolExecutor
from triune.graph.paged_attention import register
sys.setswitchinterval(1e-6)
barrier = threading.Barrier(16)
def load(_):
    barrier.wait()
    register()
with ThreadPoolExecutor(16) as threads:
    list(threads.map(load, range(16)))
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
