"""Normalizations with other operations fused into them."""

from typing import Any

import numpy as np

from support.contrib.case import Case, floats, microsoft

X, SKIP, GAMMA, BETA, BIAS = floats(2, 3, 8), floats(2, 3, 8, seed=1), floats(8), floats(8, seed=1), floats(8, seed=2)
SUM = {"y": np.float32, "mean": None, "deviation": None, "sum": np.float32}
RNG = np.random.default_rng(5)
WORDS = RNG.integers(0, 10, (2, 5)).astype(np.int32)
SEGMENTS = RNG.integers(0, 2, (2, 5)).astype(np.int32)
TABLES = {"words": floats(10, 8), "places": floats(7, 8), "segments": floats(2, 8), "gamma": GAMMA, "beta": BETA}
MASK = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 0]], np.int32)


def _skip(name: str, *, simplified: bool = False, **changes: Any) -> Case:
    inputs: dict[str, Any] = {"x": X, "skip": SKIP, "gamma": GAMMA, "beta": BETA, "bias": None, **changes}
    options = {each: inputs.pop(each) for each in ("attributes", "outputs") if each in inputs}
    if simplified:
        del inputs["beta"]
    weights = [each for each in ("gamma", "beta", "bias") if inputs.get(each) is not None]
    op = "SkipSimplifiedLayerNormalization" if simplified else "SkipLayerNormalization"
    return microsoft(f"{op} {name}".strip(), inputs, weights=weights, **options)


def _embedding(name: str, **changes: Any) -> Case:
    inputs = {"ids": WORDS, "kinds": SEGMENTS, **TABLES, "mask": None, "at": None, **changes}
    outputs = inputs.pop("outputs", {"y": np.float32, "mask_index": np.int32})
    attributes = inputs.pop("attributes", {"epsilon": 1e-5})
    weights = [each for each in TABLES if inputs[each] is not None]
    return microsoft(f"EmbedLayerNormalization {name}", inputs, weights=weights, outputs=outputs, attributes=attributes)


def _quantized_embedding(name: str, kind: Any = np.uint8, **changes: Any) -> Case:
    levels = {key: RNG.integers(0, 100, each.shape).astype(kind) for key, each in TABLES.items()}
    given = {key: None if key in changes else each for key, each in levels.items()}
    inputs: dict[str, Any] = {"ids": WORDS, "kinds": SEGMENTS, **given, "mask": MASK}
    held = [key for key in levels if given[key] is not None]
    inputs |= {f"{key}_s": np.array(0.01 + place / 100, np.float32) for place, key in enumerate(levels)}
    inputs |= {f"{key}_z": np.array(40 + place, kind) for place, key in enumerate(levels)}
    inputs |= {f"{key}_{end}": None for key in levels if key not in held for end in "sz"} | changes
    weights = [*held, *(f"{key}_{end}" for key in held for end in "sz")]
    return microsoft(
        f"QEmbedLayerNormalization {name}",
        inputs,
        weights=weights,
        outputs={"y": np.float32, "mask_index": np.int32},
        attributes={"epsilon": 1e-5},
        atol=1e-4,
    )


CASES = [
    *(
        each
        for simplified in (False, True)
        for each in (
            _skip("", simplified=simplified),
            _skip("epsilon", simplified=simplified, attributes={"epsilon": 0.1}),
            _skip("bias", simplified=simplified, bias=BIAS),
            _skip("sum", simplified=simplified, bias=BIAS, outputs=SUM),
            _skip("sum without bias", simplified=simplified, outputs=SUM),
            _skip("skip of one batch", simplified=simplified, skip=SKIP[:1], outputs=SUM),
            _skip("skip of two dimensions", simplified=simplified, skip=SKIP[0], outputs=SUM),
            _skip("two dimensions", simplified=simplified, x=X[0], skip=SKIP[0]),
        )
    ),
    _skip("without beta", beta=None),
    _skip("without beta, with bias", beta=None, bias=BIAS, outputs=SUM),
    _embedding("mask", mask=MASK),
    _embedding("without mask"),
    _embedding("without segments", kinds=None, segments=None, mask=MASK),
    _embedding("places", at=np.array([[6, 5, 4, 3, 2], [0, 1, 2, 3, 4]], np.int32), mask=MASK),
    _embedding("places of one row", at=np.array([[6, 5, 4, 3, 2]], np.int32), mask=MASK),
    _embedding("sum", mask=MASK, outputs={"y": np.float32, "mask_index": np.int32, "sum": np.float32}),
    _embedding("epsilon", mask=MASK, attributes={"epsilon": 0.5}),
    _embedding("index type", mask=MASK, attributes={"mask_index_type": 0}),
    _quantized_embedding("of uint8"),
    _quantized_embedding("of int8", np.int8),
    _quantized_embedding("without mask", mask=None),
    _quantized_embedding("without segments", kinds=None, segments=None),
]
