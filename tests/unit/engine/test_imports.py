"""Decoders that were written by hand as exporters write them: what is understood, and what is refused."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper

from support.decoder_steps import Texts
from support.exported import (
    HEADS,
    KV_HEADS,
    POSITIONS,
    SIZE,
    VOCABULARY,
    WIDTH,
    Written,
    runtime_logits,
)
from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.engine.imports.export import import_decoder
from triune.runtimes.reference_decoder import ReferenceDecoder

Q, KV = HEADS * SIZE, KV_HEADS * SIZE
PASTS = ("past_key_values.0.key", "past_key_values.0.value")
OUTPUTS = ("present.0.key", "present.0.value")
Attend = Callable[[Written, str], str]


def texts() -> list[NDArray[np.int64]]:
    rng = np.random.default_rng(3)
    return [rng.integers(0, VOCABULARY, length) for length in (21, 9)]


def save(tmp_path: Path, model: ModelProto) -> Path:
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    return path


def check(tmp_path: Path, model: ModelProto) -> None:
    """The paged form answers as ONNX Runtime does with the original."""
    paged = import_decoder(save(tmp_path, model), POSITIONS)
    found = Texts(ReferenceDecoder(paged, num_blocks=8, block_size=5), texts()).read_all(
        {0: 8, 1: 3}, {1: 1, 0: 1}, {0: 9, 1: 4}, {0: 3, 1: 1}
    )
    for got, text in zip(found, texts(), strict=True):
        np.testing.assert_allclose(got, runtime_logits(model, text, (5, 1, 2)), rtol=1e-4, atol=1e-4)


def refused(tmp_path: Path, model: ModelProto, *words: str) -> None:
    with pytest.raises(UnsupportedError) as caught:
        import_decoder(save(tmp_path, model), POSITIONS)
    for each in words:
        assert each in str(caught.value)


def group_query(*, packed: bool = False, tables: int = 0, ids: bool = False, **attributes: float) -> Attend:
    """GroupQueryAttention, with rotary tables for so many features."""

    def attend(model: Written, x: str) -> str:
        if packed:
            parts = [model.op("MatMul", x, model.weight(WIDTH, Q + 2 * KV)), "", ""]
        else:
            parts = [model.op("MatMul", x, model.weight(WIDTH, width)) for width in (Q, KV, KV)]
        given = [*parts, *PASTS, *model.lengths(), *(model.tables(tables) if tables else ("", ""))]
        if ids:
            given.append(model.input("position_ids", "batch", "tokens"))
        result = model.name()
        rotary = {"do_rotary": 1} if tables else {}
        model.microsoft(
            "GroupQueryAttention",
            given,
            [result, *OUTPUTS],
            num_heads=HEADS,
            kv_num_heads=KV_HEADS,
            **rotary,
            **attributes,
        )
        return result

    return attend


@pytest.mark.parametrize(
    "attend",
    [
        group_query(),
        group_query(packed=True),
        group_query(tables=SIZE),
        group_query(tables=SIZE, packed=True),
        group_query(tables=SIZE, rotary_interleaved=1),
        group_query(tables=SIZE, packed=True, ids=True),
        group_query(scale=0.7),
        group_query(local_window_size=4),
        group_query(local_window_size=4, tables=SIZE, packed=True, softcap=1.5),
        group_query(softcap=0.5),
    ],
    ids=[
        "plain",
        "packed",
        "rotary",
        "packed rotary",
        "interleaved",
        "positions",
        "scale",
        "window",
        "window and cap",
        "cap",
    ],
)
def test_group_query_attention(tmp_path: Path, attend: Attend) -> None:
    check(tmp_path, Written().model(attend))


def written_out(
    *,
    cap: float = 0.0,
    window: int = 0,
    repeats: str = "expand",
    masks: str = "where",
    bias: bool = False,
    first: int = 0,
    order: str = "block",
) -> Attend:
    """Attention written out, as exporters of different ages do."""

    def attend(m: Written, x: str) -> str:
        heads = []
        for count in (HEADS, KV_HEADS, KV_HEADS):
            part = m.op("MatMul", x, m.weight(WIDTH, count * SIZE))
            heads.append(m.op("Transpose", m.op("Reshape", part, m.ints(0, 0, count, SIZE)), perm=[0, 2, 1, 3]))
        for part, past, present in zip(heads[1:], PASTS, OUTPUTS, strict=True):
            m.put("Concat", [past, part], [present], axis=2)
        batch, new = (m.op("Gather", m.op("Shape", "input_ids"), m.constant(at, np.int64), axis=0) for at in (0, 1))
        total = m.op("Gather", m.op("Shape", OUTPUTS[0]), m.constant(2, np.int64), axis=0)
        many = [_repeated(m, each, batch, total, repeats, order) for each in OUTPUTS]
        scores = m.op("MatMul", heads[0], m.op("Transpose", many[0], perm=[0, 1, 3, 2]))
        scores = m.op("Div", scores, m.constant(SIZE**0.5, np.float32))
        if cap:
            limit = m.constant(cap, np.float32)
            scores = m.op("Mul", m.op("Tanh", m.op("Div", scores, limit)), limit)
        past = m.op("Sub", total, new)
        one, zero = m.constant(1, np.int64), m.constant(first, np.int64)
        queries = m.op("Unsqueeze", m.op("Range", past, total, one), m.ints(1))
        keys = m.op("Add", m.op("Range", m.constant(0, np.int64), total, one), zero)
        seen = m.op("LessOrEqual", keys, queries)
        if window:
            seen = m.op("And", seen, m.op("Less", m.op("Sub", queries, keys), m.constant(window, np.int64)))
        seen = m.op("And", seen, m.op("Cast", m.op("Unsqueeze", "attention_mask", m.ints(1, 2)), to=TensorProto.BOOL))
        low, none = m.constant(-1e30, np.float32), m.constant(0, np.float32)
        if masks == "where":
            scores = m.op("Where", seen, scores, low)
        else:
            scores = m.op("Add", scores, m.op("Where", seen, none, low))
        if bias:
            distance = m.op("Cast", m.op("Sub", keys, queries), to=TensorProto.FLOAT)
            scores = m.op("Add", scores, m.op("Mul", distance, m.constant(0.1, np.float32)))
        mixed = m.op("MatMul", m.op("Softmax", scores, axis=-1), many[1])
        return m.op("Reshape", m.op("Transpose", mixed, perm=[0, 2, 1, 3]), m.ints(0, 0, Q))

    return attend


def _repeated(m: Written, name: str, batch: str, total: str, repeats: str, order: str) -> str:
    """[batch, kv heads, total, size] to [batch, heads, total, size]."""
    times = HEADS // KV_HEADS
    if repeats == "concat":
        return m.op("Concat", *[name] * times, axis=1)
    apart = m.op("Unsqueeze", name, m.ints(2 if order == "block" else 1))
    rows, columns = (m.op("Unsqueeze", each, m.ints(0)) for each in (batch, total))
    sizes = [m.ints(KV_HEADS), m.ints(times)] if order == "block" else [m.ints(times), m.ints(KV_HEADS)]
    wide = m.op("Expand", apart, m.op("Concat", rows, *sizes, columns, m.ints(SIZE), axis=0))
    return m.op("Reshape", wide, m.op("Concat", rows, m.ints(HEADS), columns, m.ints(SIZE), axis=0))


@pytest.mark.parametrize(
    "attend",
    [
        written_out(),
        written_out(masks="add"),
        written_out(window=5),
        written_out(cap=0.7),
        written_out(cap=0.7, window=5, masks="add"),
    ],
    ids=["where", "add", "window", "cap", "all"],
)
def test_written_out_attention(tmp_path: Path, attend: Attend) -> None:
    check(tmp_path, Written().model(attend))


def test_multi_head_attention_with_a_mask(tmp_path: Path) -> None:
    def attend(m: Written, x: str) -> str:
        parts = [m.op("MatMul", x, m.weight(WIDTH, Q)) for _ in range(3)]
        new, total = (
            m.op("Gather", m.op("Shape", name), m.constant(1, np.int64), axis=0)
            for name in ("input_ids", "attention_mask")
        )
        one = m.constant(1, np.int64)
        queries = m.op("Unsqueeze", m.op("Range", m.op("Sub", total, new), total, one), m.ints(1))
        seen = m.op("LessOrEqual", m.op("Range", m.constant(0, np.int64), total, one), queries)
        mask = m.op("Where", seen, m.constant(0, np.float32), m.constant(-1e30, np.float32))
        mask = m.op("Unsqueeze", mask, m.ints(0, 1))
        result = m.name()
        m.microsoft(
            "MultiHeadAttention", [*parts, "", "", mask, *PASTS], [result, *OUTPUTS], num_heads=HEADS, scale=0.3
        )
        return result

    check(tmp_path, Written().model(attend, kv_heads=HEADS))


def test_rotary_embedding_and_positions_computed_of_the_mask(tmp_path: Path) -> None:
    def attend(m: Written, x: str) -> str:
        counted = m.op("Sub", m.op("CumSum", "attention_mask", m.constant(1, np.int64)), m.constant(1, np.int64))
        new = m.op("Slice", m.op("Shape", "input_ids"), m.ints(1), m.ints(2))
        end = m.ints(np.iinfo(np.int64).max)
        positions = m.op("Slice", counted, m.op("Neg", new), end, m.ints(1))
        parts = [m.op("MatMul", x, m.weight(WIDTH, width)) for width in (Q, KV, KV)]
        tables = m.tables(SIZE)
        turned = []
        for part in parts[:2]:
            turned.append(m.name())
            m.microsoft("RotaryEmbedding", [part, positions, *tables], turned[-1:])
        result = m.name()
        m.microsoft(
            "GroupQueryAttention",
            [*turned, parts[2], *PASTS, *m.lengths()],
            [result, *OUTPUTS],
            num_heads=HEADS,
            kv_num_heads=KV_HEADS,
        )
        return result

    check(tmp_path, Written().model(attend))


@pytest.mark.parametrize(("bits", "zeros"), [(4, ""), (4, "whole"), (4, "float"), (8, ""), (8, "whole")])
@pytest.mark.parametrize("block", [16, 32, 64])
def test_packed_products(tmp_path: Path, bits: int, zeros: str, block: int) -> None:
    def attend(m: Written, x: str) -> str:
        parts = []
        for width in (Q, KV, KV):
            # Of 64, the one block is half full.
            blocks = -(-WIDTH // block)
            codes = m.rng.integers(0, 256, (width, blocks, block * bits // 8), np.uint8)
            scales = m.rng.normal(size=(width, blocks)).astype(np.float32) / 2**bits
            given = [x, m.keep(codes), m.keep(scales.reshape(-1))]
            if zeros == "float":
                given.append(m.keep(m.rng.normal(8, 1, size=(width, blocks)).astype(np.float32)))
            if zeros == "whole":
                given.append(m.keep(m.rng.integers(0, 256, width * -(-blocks * bits // 8), np.uint8)))
            parts.append(m.name())
            sizes = {"K": WIDTH, "N": width, "bits": bits, "block_size": block}
            m.microsoft("MatMulNBits", given, parts[-1:], **sizes)
        result = m.name()
        m.microsoft(
            "GroupQueryAttention",
            [*parts, *PASTS, *m.lengths()],
            [result, *OUTPUTS],
            num_heads=HEADS,
            kv_num_heads=KV_HEADS,
        )
        return result

    check(tmp_path, Written().model(attend))


@pytest.mark.parametrize(
    "attend",
    [group_query(tables=SIZE, packed=True), written_out(window=5, masks="add")],
    ids=["group query", "written"],
)
def test_a_decoder_in_fp16(tmp_path: Path, attend: Attend) -> None:
    expected = runtime_logits(Written().model(attend), texts()[0], (5,))
    paged = import_decoder(save(tmp_path, halved(Written().model(attend))), POSITIONS)
    assert all(each.type.tensor_type.elem_type == TensorProto.FLOAT for each in paged.model.graph.output)
    (found,) = Texts(ReferenceDecoder(paged, num_blocks=8), texts()[:1]).read_all({0: 21})
    np.testing.assert_allclose(found, expected, rtol=1e-2, atol=1e-2)


def halved(model: ModelProto) -> ModelProto:
    """The model in fp16."""

    def narrow(tensor: TensorProto) -> None:
        if tensor.data_type == TensorProto.FLOAT:
            array = np.clip(onnx.numpy_helper.to_array(tensor), -60000, 60000).astype(np.float16)
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))

    for tensor in model.graph.initializer:
        narrow(tensor)
    for node in model.graph.node:
        for attribute in node.attribute:
            narrow(attribute.t)
    for value in (*model.graph.input, *model.graph.output):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = TensorProto.FLOAT16
    return model


def test_large_weights_of_other_files_are_mapped_and_not_copied(tmp_path: Path) -> None:
    model = Written().model(group_query())
    wide = np.zeros((VOCABULARY * 40, WIDTH), np.float32)
    wide[:VOCABULARY] = onnx.numpy_helper.to_array(model.graph.initializer[0])
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(wide, model.graph.initializer[0].name))
    expected = runtime_logits(model, texts()[0], (5,))
    path = tmp_path / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, size_threshold=1000)
    paged = import_decoder(path, POSITIONS)
    assert [each.nbytes for each in paged.weights.values()] == [wide.nbytes]
    (found,) = Texts(ReferenceDecoder(paged, num_blocks=8), texts()[:1]).read_all({0: 21})
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_a_merged_export_takes_its_branch_with_caches(tmp_path: Path) -> None:
    model = Written().model(group_query())
    graph = model.graph
    branch = helper.make_graph(list(graph.node), "with", [], list(graph.output), list(graph.initializer))
    other = helper.make_graph(
        [helper.make_node("Identity", ["input_ids"], [f"{each.name}/other"]) for each in graph.output],
        "without",
        [],
        [helper.make_tensor_value_info(f"{each.name}/other", TensorProto.FLOAT, None) for each in graph.output],
    )
    for node in other.node:
        node.op_type, node.input[0] = "Cast", "attention_mask"
        node.attribute.append(helper.make_attribute("to", TensorProto.FLOAT))
    names = [each.name for each in graph.output]
    choice = helper.make_node("If", ["use_cache_branch"], names, then_branch=branch, else_branch=other)
    inputs = [*graph.input, helper.make_tensor_value_info("use_cache_branch", TensorProto.BOOL, [1])]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names]
    merged = helper.make_model(
        helper.make_graph([choice], "merged", inputs, outputs), opset_imports=model.opset_import, ir_version=8
    )
    paged = import_decoder(save(tmp_path, merged), POSITIONS)
    (found,) = Texts(ReferenceDecoder(paged, num_blocks=8), texts()[:1]).read_all({0: 21})
    np.testing.assert_allclose(found, runtime_logits(model, texts()[0], (5,)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("attend", "words"),
    [
        (written_out(bias=True), ["layer 0", "a bias is added to the scores", "before Softmax"]),
        (written_out(first=-1), ["layer 0", "the mask is not the causal one"]),
        (written_out(order="round"), ["layer 0", "does not compute the products of queries and keys"]),
        (written_out(repeats="concat"), ["is read by Concat", "expected is a MatMul"]),
        (group_query(smooth_softmax=1), ["layer 0 (GroupQueryAttention", "sink of attention"]),
    ],
    ids=["bias", "mask", "other heads", "unknown", "sink"],
)
def test_other_attention_is_refused_by_name(tmp_path: Path, attend: Attend, words: list[str]) -> None:
    refused(tmp_path, Written().model(attend), *words, "name the backend 'onnxruntime'")


def test_reordered_groups_are_refused(tmp_path: Path) -> None:
    def attend(m: Written, x: str) -> str:
        y = m.name()
        given = [x, m.keep(np.zeros((WIDTH, 1, 16), np.uint8)), m.keep(np.zeros(WIDTH, np.float32)), ""]
        given.append(m.keep(np.zeros(WIDTH, np.int32)))
        m.microsoft("MatMulNBits", given, [y], K=WIDTH, N=WIDTH, bits=4, block_size=32)
        return group_query()(m, y)

    refused(tmp_path, Written().model(attend), "MatMulNBits", "g_idx")


def _nodes(model: ModelProto, op_type: str) -> list[NodeProto]:
    return [node for node in model.graph.node if node.op_type == op_type]


def _cut(node: NodeProto, field: str, count: int) -> None:
    del getattr(node, field)[count:]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: _cut(_nodes(m, "GroupQueryAttention")[0], "attribute", 0), "the attribute 'num_heads' is missing"),
        (lambda m: _cut(_nodes(m, "GroupQueryAttention")[0], "input", 7), "'do_rotary', and no tables of cosines"),
        (lambda m: _cut(_nodes(m, "GroupQueryAttention")[0], "output", 0), "GroupQueryAttention '.*it has no output"),
        (lambda m: m.graph.initializer[0].dims.append(2), r"constant '.+' has \d+ bytes; its type and its shape \["),
        (lambda m: setattr(m.graph.initializer[0], "data_type", 77), "constant '.+' is of the unknown type 77"),
        (
            lambda m: setattr(m.graph.input[1].type.tensor_type, "elem_type", TensorProto.STRING),
            "input '.+' of the decoder is STRING; known are integers",
        ),
    ],
)
def test_a_broken_decoder_is_refused_with_the_name_of_what_is_broken(
    tmp_path: Path, change: Callable[[ModelProto], object], words: str
) -> None:
    model = Written().model(group_query(tables=SIZE))
    change(model)
    with pytest.raises((InvalidArgumentError, UnsupportedError), match=words):
        import_decoder(save(tmp_path, model), POSITIONS)


def test_a_mask_that_is_read_elsewhere_is_refused(tmp_path: Path) -> None:
    def attend(m: Written, x: str) -> str:
        total = m.op("ReduceSum", m.op("Cast", "attention_mask", to=TensorProto.FLOAT), m.ints(1), keepdims=1)
        x = m.op("Mul", x, m.op("Unsqueeze", total, m.ints(2)))
        return group_query()(m, x)

    refused(tmp_path, Written().model(attend), "Cast", "reads 'attention_mask'", "neither attention nor positions")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda graph: graph.input.add(name="inputs_embeds"), "has the input 'inputs_embeds'; known are"),
        (lambda graph: graph.input.pop(), "caches of the layers [0]"),
        (lambda graph: graph.input[0].type.tensor_type.shape.dim[0].__setattr__("dim_value", 1), "fixed shape [1, 0]"),
        (lambda graph: graph.output[0].__setattr__("name", "scores"), "no output 'logits'"),
        (lambda graph: graph.input[2].type.tensor_type.shape.dim[2].__setattr__("dim_value", 8), "[free, heads, free"),
    ],
)
def test_other_inputs_and_outputs_are_refused(tmp_path: Path, change, words: str) -> None:
    model = Written().model(group_query())
    change(model.graph)
    refused(tmp_path, model, words)


def test_caches_that_leave_the_size_of_a_head_to_the_config(tmp_path: Path) -> None:
    model = Written().model(group_query(tables=SIZE, packed=True))
    expected = runtime_logits(model, texts()[0], (5,))
    for value in (*model.graph.input, *model.graph.output):
        if "key" in value.name or "value" in value.name:
            value.type.tensor_type.shape.dim[3].dim_param = "size"
    refused(tmp_path, model, "have the shapes [0, 2, 0, 0]")
    with pytest.raises(UnsupportedError, match="have 128 features; by the caches they have 64"):
        import_decoder(tmp_path / "model.onnx", POSITIONS, SIZE // 2)
    paged = import_decoder(tmp_path / "model.onnx", POSITIONS, SIZE)
    (found,) = Texts(ReferenceDecoder(paged, num_blocks=8), texts()[:1]).read_all({0: 21})
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
