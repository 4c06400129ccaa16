"""Attention with all supported forms of its operands."""

from typing import Any

import numpy as np

from support.contrib.case import Case, floats, microsoft

BATCH, LENGTH, HEADS, SIZE, PAST = 2, 4, 2, 6, 3
WIDTH = HEADS * SIZE
X = floats(BATCH, LENGTH, WIDTH)
PLAIN = np.array([[1, 1, 1, 0], [1, 1, 0, 0]], np.int32)
HOLES = np.array([[0, 1, 1, 0], [1, 0, 1, 1]], np.int32)
WITH_PAST = np.array([[1, 1, 0, 1, 1, 1, 0], [1, 1, 1, 1, 0, 1, 1]], np.int32)
CUBE = np.tril(np.ones((LENGTH, LENGTH), np.int32))[None] * PLAIN[:, None]
KEYS, VALUES = floats(BATCH, LENGTH, WIDTH, seed=1), floats(BATCH, LENGTH, WIDTH, seed=2)
CACHE = floats(2, BATCH, HEADS, PAST, SIZE)
PRESENT = {"y": np.float32, "present": np.float32}
ENDS, BOTH_ENDS = np.array([3, 2], np.int32), np.array([4, 3, 1, 0], np.int32)


def _as(kind: Any, inputs: dict[str, Any]) -> dict[str, Any]:
    """Return the inputs, with all floats cast to another type."""
    return {
        name: each.astype(kind) if each is not None and each.dtype == np.float32 else each
        for name, each in inputs.items()
    }


def _attention(name: str, *, present: bool = False, kind: Any = np.float32, **changes: Any) -> Case:
    attributes = {"num_heads": HEADS, **changes.pop("attributes", {})}
    reason = changes.pop("reason", "")
    inputs: dict[str, Any] = {"x": X, "w": floats(WIDTH, 3 * WIDTH, scale=0.5), "b": floats(3 * WIDTH)}
    inputs = _as(kind, inputs | {"mask": None, "past": None, "bias": None} | changes)
    weights = [each for each in ("w", "b") if inputs[each] is not None]
    outputs = dict.fromkeys(PRESENT if present else ["y"], kind)
    atol = 1e-4 if kind is np.float32 else 2e-2
    return microsoft(
        f"Attention {name}", inputs, weights=weights, outputs=outputs, attributes=attributes, atol=atol, reason=reason
    )


def _quantized(name: str, *, present: bool = False, kind: Any = np.float32, **changes: Any) -> Case:
    rng = np.random.default_rng(4)
    attributes = {"num_heads": HEADS, **changes.pop("attributes", {})}
    inputs: dict[str, Any] = {"x": rng.integers(0, 256, X.shape).astype(np.uint8)}
    inputs |= {"w": rng.integers(-60, 60, (WIDTH, 3 * WIDTH)).astype(np.int8), "b": floats(3 * WIDTH)}
    inputs |= {"xs": np.array(0.02, np.float32), "ws": np.array(0.01, np.float32), "mask": None}
    inputs |= {"xz": np.array(128, np.uint8), "wz": np.array(0, np.int8), "past": None} | changes
    inputs = _as(kind, inputs)
    weights = [each for each in ("w", "b", "xs", "ws", "xz", "wz") if inputs[each] is not None]
    outputs = dict.fromkeys(PRESENT if present else ["y"], kind)
    atol = 1e-3 if kind is np.float32 else 2e-2
    return microsoft(f"QAttention {name}", inputs, weights=weights, outputs=outputs, attributes=attributes, atol=atol)


def _many(name: str, *, present: bool = False, reason: str = "", **changes: Any) -> Case:
    attributes = {"num_heads": HEADS, **changes.pop("attributes", {})}
    inputs: dict[str, Any] = {
        "q": X,
        "k": floats(BATCH, LENGTH, WIDTH, seed=1),
        "v": floats(BATCH, LENGTH, WIDTH, seed=2),
    }
    inputs |= {"b": None, "mask": None, "bias": None, "past_k": None, "past_v": None} | changes
    outputs = {"y": np.float32} | ({"present_k": np.float32, "present_v": np.float32} if present else {})
    weights = ["b"] if inputs["b"] is not None else []
    return microsoft(
        f"MultiHeadAttention {name}",
        inputs,
        weights=weights,
        outputs=outputs,
        attributes=attributes,
        atol=1e-4,
        reason=reason,
    )


def _rotary(name: str, x: Any, places: Any, *, half: int = SIZE // 2, reason: str = "", **attributes: Any) -> Case:
    angles = np.outer(np.arange(10), 1 / 7.0 ** np.arange(half)).astype(np.float32)
    inputs = {"x": x, "at": places, "cos": np.cos(angles), "sin": np.sin(angles)}
    return microsoft(
        f"RotaryEmbedding {name}", inputs, weights=["cos", "sin"], attributes=attributes, reason=reason, atol=1e-4
    )


_ROW, _START = np.array([[2, 3, 4, 5], [0, 5, 1, 9]], np.int64), np.array([3], np.int64)
KEY_HEADS = 2
QUERY_HEADS = 4
KEY_SIZE = 32


def _group(
    name: str,
    *,
    length: int = LENGTH,
    past: int = 0,
    total: int = 0,
    seqlens: tuple[int, ...] = (),
    packed: bool = False,
    batch: int = BATCH,
    is_total_given: bool = False,
    heads: int = QUERY_HEADS,
    reason: str = "",
    **changes: Any,
) -> Case:
    attributes = {"num_heads": heads, "kv_num_heads": KEY_HEADS, **changes.pop("attributes", {})}
    total = total or length + past
    seqlens = seqlens or (total - 1,) * batch
    widths = [heads * KEY_SIZE, KEY_HEADS * KEY_SIZE, KEY_HEADS * KEY_SIZE]
    parts = [floats(batch, length, width, seed=seed) for seed, width in enumerate(widths)]
    inputs: dict[str, Any] = dict(zip("qkv", parts, strict=True))
    if packed:
        inputs = {"q": np.concatenate(parts, axis=2), "k": None, "v": None}
    cache = [floats(batch, KEY_HEADS, past, KEY_SIZE, seed=seed) for seed in (5, 6)] if past else [None, None]
    inputs |= {"past_k": cache[0], "past_v": cache[1], "seqlens": np.array(seqlens, np.int32)}
    inputs |= {"total": np.array(total, np.int32), "cos": None, "sin": None, "at": None, "bias": None, "sink": None}
    if attributes.get("do_rotary"):
        half = changes.pop("half", KEY_SIZE // 2)
        angles = np.outer(np.arange(32), 1 / 9.0 ** np.arange(half)).astype(np.float32)
        inputs |= {"cos": np.cos(angles), "sin": np.sin(angles)}
    inputs |= changes
    kept = ("cos", "sin", "sink") if is_total_given else ("total", "cos", "sin", "sink")
    weights = [each for each in kept if inputs[each] is not None]
    return microsoft(
        f"GroupQueryAttention {name}",
        inputs,
        weights=weights,
        outputs={"y": np.float32, "present_k": np.float32, "present_v": np.float32},
        attributes=attributes,
        atol=1e-4,
        reason=reason,
    )


_CROSS = {"k": floats(BATCH, 5, WIDTH, seed=1), "v": floats(BATCH, 5, WIDTH, seed=2)}
_BIAS = floats(BATCH, HEADS, LENGTH, LENGTH)
_MANY_PAST = {"past_k": CACHE[0], "past_v": CACHE[1]}
ROTATED = {"do_rotary": 1}

CASES = [
    _attention(""),
    _attention("without bias", b=None),
    _attention("of halves", kind=np.float16),
    _attention("of halves without bias, present", b=None, present=True, kind=np.float16),
    _attention("scale", attributes={"scale": 0.1}),
    _attention("mask of two dimensions", mask=PLAIN),
    _attention("mask with holes", mask=HOLES),
    _attention("mask and filter value", mask=HOLES, attributes={"mask_filter_value": -1.5}),
    _attention("mask of three dimensions", mask=CUBE),
    _attention("mask of ends", mask=ENDS),
    _attention("mask of ends and starts", mask=BOTH_ENDS),
    _attention("mask of packed sequences", mask=np.arange(8).astype(np.int32), reason="packed"),
    _attention("mask of four dimensions", mask=np.ones((BATCH, 1, 8, 8), np.int32), reason="dimensions"),
    _attention("one direction", attributes={"unidirectional": 1}),
    _attention("one direction and mask", mask=HOLES, attributes={"unidirectional": 1}),
    _attention("present", present=True),
    _attention("past", past=CACHE, present=True),
    _attention("past in one direction", past=CACHE, present=True, attributes={"unidirectional": 1}),
    _attention("past and mask", past=CACHE, present=True, mask=WITH_PAST),
    _attention("past, mask, one direction", past=CACHE, present=True, mask=WITH_PAST, attributes={"unidirectional": 1}),
    _attention("bias of scores", bias=_BIAS),
    _attention("bias of scores of one head", bias=_BIAS[:, :1]),
    _attention("bias of scores of one batch, and mask", bias=_BIAS[:1], mask=PLAIN),
    _attention(
        "widths",
        w=floats(WIDTH, 2 * WIDTH + 8, scale=0.5),
        b=floats(2 * WIDTH + 8),
        attributes={"qkv_hidden_sizes": [WIDTH, WIDTH, 8]},
    ),
    _attention(
        "narrow queries",
        w=floats(WIDTH, 8 + 8 + WIDTH, scale=0.5),
        b=floats(8 + 8 + WIDTH),
        mask=PLAIN,
        attributes={"qkv_hidden_sizes": [8, 8, WIDTH]},
    ),
    _quantized(""),
    _quantized("of halves", kind=np.float16),
    _quantized("of halves, past", past=CACHE, present=True, kind=np.float16),
    _quantized("mask", mask=HOLES),
    _quantized("ends", mask=ENDS),
    _quantized("columns", ws=np.linspace(0.005, 0.02, 3 * WIDTH).astype(np.float32), wz=np.zeros(3 * WIDTH, np.int8)),
    _quantized("one direction", attributes={"unidirectional": 1}),
    _quantized("past", past=CACHE, present=True, attributes={"unidirectional": 1}),
    _quantized("without zero points", xz=None, wz=None),
    _many(""),
    _many("bias", b=floats(3 * WIDTH)),
    _many("scale", attributes={"scale": 0.1}),
    _many("cross", **_CROSS),
    _many("cross with bias", b=floats(3 * WIDTH), **_CROSS),
    _many("other width of values", v=floats(BATCH, LENGTH, 8), b=floats(2 * WIDTH + 8)),
    _many("mask", mask=PLAIN),
    _many("mask with holes and filter value", mask=HOLES, attributes={"mask_filter_value": -2.0}),
    _many("mask of ends", mask=ENDS),
    _many("mask of three dimensions", mask=CUBE),
    _many("bias of scores", bias=_BIAS),
    _many("bias of scores of one batch and mask", bias=_BIAS[:1], mask=PLAIN),
    _many("one direction", attributes={"unidirectional": 1}),
    _many("one direction across", attributes={"unidirectional": 1}, **_CROSS),
    _many(
        "one direction across fewer keys",
        attributes={"unidirectional": 1},
        k=floats(BATCH, 2, WIDTH, seed=1),
        v=floats(BATCH, 2, WIDTH, seed=2),
    ),
    _many("one direction and mask", mask=HOLES, attributes={"unidirectional": 1}),
    _many("past", present=True, **_MANY_PAST),
    _many("past in one direction", present=True, attributes={"unidirectional": 1}, **_MANY_PAST),
    _many("past, mask and bias", present=True, mask=WITH_PAST, b=floats(3 * WIDTH), **_MANY_PAST),
    _many("present", present=True),
    _many("keys and values by heads", k=floats(BATCH, HEADS, 5, SIZE, seed=1), v=floats(BATCH, HEADS, 5, SIZE, seed=2)),
    _rotary("", X, _ROW),
    _rotary("start", X, _START),
    _rotary("interleaved", X, _ROW, interleaved=1),
    _rotary("heads", floats(BATCH, HEADS, LENGTH, SIZE), _ROW),
    _rotary("heads interleaved from a start", floats(BATCH, HEADS, LENGTH, SIZE), _START, interleaved=1),
    _rotary("a part", X, _ROW, half=2, rotary_embedding_dim=4, num_heads=HEADS),
    _rotary("a part interleaved", X, _ROW, half=2, rotary_embedding_dim=4, num_heads=HEADS, interleaved=1),
    _rotary("scale", X, _ROW, scale=1.0),
    _rotary("packed", X, _ROW, reason="packed", is_packed_batching=1),
    _group("prompt"),
    _group("prompt, scale", attributes={"scale": 0.3}),
    _group("prompt, as many heads", heads=KEY_HEADS),
    _group("prompt, packed", packed=True),
    _group("prompt, buffer", past=9, total=LENGTH, seqlens=(3, 3)),
    _group("rotary", attributes=ROTATED),
    _group("rotary, packed", packed=True, attributes=ROTATED),
    _group("rotary, interleaved", attributes={**ROTATED, "rotary_interleaved": 1}),
    _group("rotary, a part", half=8, attributes=ROTATED),
    _group("next token", length=1, past=5),
    _group("next token, rotary", length=1, past=5, attributes=ROTATED),
    _group("next token, packed", length=1, past=5, packed=True, attributes=ROTATED),
    _group("next token, rows of different lengths", length=1, past=5, seqlens=(5, 3), attributes=ROTATED),
    _group("next token, buffer", length=1, past=9, total=6, seqlens=(5, 3), attributes=ROTATED),
    _group("next tokens", batch=1, length=3, past=5, attributes=ROTATED),
    _group("window", attributes={"local_window_size": 2}),
    _group("window, next token", length=1, past=5, attributes={"local_window_size": 3}),
    _group("softcap", attributes={"softcap": 0.5}),
    _group("smooth softmax", attributes={"smooth_softmax": 1}),
    _group("sink", sink=floats(QUERY_HEADS)),
    _group("bias of scores", bias=floats(BATCH, QUERY_HEADS, LENGTH, LENGTH)),
    _group("bias of scores of all heads", bias=floats(1, 1, LENGTH, LENGTH), attributes={"softcap": 0.7}),
    _group("bias of scores, next token", length=1, past=5, bias=floats(BATCH, 1, 1, 6)),
    _group("places", at=_ROW + 2, attributes=ROTATED),
    _group("places, next token", length=1, past=5, at=_ROW[:, :1] + 2, attributes=ROTATED),
    _group("total is not known", is_total_given=True, reason="total_sequence_length"),
    _group("quantized cache", attributes={"k_quant_type": "PER_TENSOR"}, reason="quantized"),
]
