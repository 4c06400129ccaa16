"""Products of quantized matrices."""

from typing import Any

import numpy as np

from support.contrib.case import Case, floats, microsoft

RNG = np.random.default_rng(7)
A = RNG.integers(0, 256, (3, 8)).astype(np.uint8)
BATCH = RNG.integers(0, 256, (2, 3, 8)).astype(np.uint8)
# The weights have 7 bits, since on CPUs without VNNI ONNX Runtime's products of uint8 and int8 saturate, unlike
# Triune's.
SEVEN = RNG.integers(-64, 64, (8, 5)).astype(np.int8)
WEIGHTS = {"uint8": RNG.integers(0, 256, (8, 5)).astype(np.uint8), "int8": SEVEN}
ZEROS = {"uint8": np.array(130, np.uint8), "int8": np.array(-5, np.int8)}
ONE, COLUMNS = np.array(0.02, np.float32), np.linspace(0.01, 0.03, 5).astype(np.float32)


def _to_float(name: str, a: Any = A, kind: str = "int8", **changes: Any) -> Case:
    inputs: dict[str, Any] = {"a": a, "b": WEIGHTS[kind], "as": np.array(0.03, np.float32), "bs": ONE}
    inputs |= {"az": np.array(120, np.uint8), "bz": ZEROS[kind], "bias": None} | changes
    weights = [each for each in inputs if each not in ("a",) and inputs[each] is not None]
    outputs, atol = {"y": inputs["as"].dtype.type}, 1e-4 if inputs["as"].dtype == np.float32 else 1e-2
    return microsoft(f"MatMulIntegerToFloat {name}", inputs, weights=weights, outputs=outputs, atol=atol)


def _dynamic(name: str, a: Any, kind: str = "int8", **changes: Any) -> Case:
    inputs: dict[str, Any] = {"a": a, "b": WEIGHTS[kind], "bs": ONE, "bz": ZEROS[kind], "bias": None, **changes}
    weights = [each for each in inputs if each != "a" and inputs[each] is not None]
    return microsoft(f"DynamicQuantizeMatMul {name}", inputs, weights=weights, atol=1e-4)


def _gemm(name: str, kind: str = "int8", *, is_float: bool = False, **changes: Any) -> Case:
    attributes = changes.pop("attributes", {})
    inputs: dict[str, Any] = {"a": A, "as": np.array(0.03, np.float32), "az": np.array(120, np.uint8)}
    inputs |= {"b": WEIGHTS[kind], "bs": ONE, "bz": ZEROS[kind], "c": np.arange(-200, 300, 100).astype(np.int32)}
    inputs |= {
        "ys": None if is_float else np.array(0.6, np.float32),
        "yz": None if is_float else np.array(99, np.uint8),
    }
    inputs |= changes
    if attributes.get("transA"):
        inputs["a"] = inputs["a"].T.copy()
    if attributes.get("transB"):
        inputs["b"] = inputs["b"].T.copy()
    weights = [each for each in inputs if each != "a" and inputs[each] is not None]
    outputs = {"y": np.float32 if is_float else np.uint8}
    atol = 1e-4 if is_float else 1
    return microsoft(f"QGemm {name}", inputs, weights=weights, outputs=outputs, attributes=attributes, atol=atol)


CASES = [
    _to_float(""),
    _to_float("uint8", kind="uint8"),
    _to_float("of halves", bias=floats(5).astype(np.float16), **{name: np.float16([0.02]) for name in ("as", "bs")}),
    _to_float("bias", bias=floats(5)),
    _to_float("columns", bs=COLUMNS, bz=np.arange(-2, 3).astype(np.int8)),
    _to_float("without zero points", az=None, bz=None),
    _to_float("batch", BATCH, bias=floats(5)),
    _dynamic("", floats(3, 8)),
    _dynamic("uint8", floats(3, 8, scale=9), kind="uint8"),
    _dynamic("zeros", np.zeros((3, 8), np.float32), bias=floats(5)),
    _dynamic("positive", np.abs(floats(3, 8))),
    _dynamic("batch with bias", floats(2, 3, 8), bias=floats(5)),
    _dynamic("columns", floats(3, 8), bs=COLUMNS, bz=np.arange(-2, 3).astype(np.int8)),
    _dynamic("without a zero point", floats(3, 8), bz=None),
    _gemm(""),
    _gemm("uint8", kind="uint8"),
    _gemm("float", is_float=True),
    _gemm("without bias", c=None),
    _gemm("columns", bs=COLUMNS, bz=np.arange(-2, 3).astype(np.int8)),
    _gemm("float columns", is_float=True, bs=COLUMNS, bz=np.arange(-2, 3).astype(np.int8)),
    _gemm("transposed", attributes={"transA": 1, "transB": 1}),
    _gemm("alpha", attributes={"alpha": 0.5}),
    _gemm("float alpha", is_float=True, attributes={"alpha": 0.5}),
]
