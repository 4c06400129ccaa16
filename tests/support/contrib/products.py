"""Matrix products with other operations fused into them."""

from typing import Any

import numpy as np

from support.contrib.case import Case, floats, microsoft


def _product(name: str, a: tuple[int, ...], b: tuple[int, ...], **attributes: Any) -> Case:
    return microsoft(f"FusedMatMul {name}", {"a": floats(*a), "b": floats(*b)}, attributes=attributes)


def _gemm(name: str, **attributes: Any) -> Case:
    inputs = {"a": floats(3, 4), "b": floats(4, 5), "c": floats(5)}
    return microsoft(f"FusedGemm {name}", inputs, weights=["b", "c"], attributes=attributes)


def _conv(name: str, *, bias: bool = True, added: bool = False, **attributes: Any) -> Case:
    inputs = {
        "x": floats(2, 4, 6, 5),
        "w": floats(6, 4, 3, 3),
        "b": floats(6) if bias else None,
        "z": floats(2, 6, 4, 3) if added else None,
    }
    weights = ["w", *(["b"] if bias else [])]
    return microsoft(f"FusedConv {name}", inputs, weights=weights, attributes=attributes)


def _range(name: str, start: Any, limit: Any, delta: Any = None) -> Case:
    inputs = {"start": start, "limit": limit, "delta": delta}
    weights = [each for each in inputs if inputs[each] is not None and each != "limit"]
    return microsoft(f"Range {name}", inputs, weights=weights, outputs={"y": start.dtype.type})


CASES = [
    *(
        microsoft(f"CDist {metric}", {"a": floats(5, 3), "b": floats(4, 3, seed=1)}, attributes={"metric": metric})
        for metric in ("sqeuclidean", "euclidean")
    ),
    _range("by a step", np.array(2, np.float32), np.array(9, np.float32), np.array(1.5, np.float32)),
    _range("by one", np.array(2, np.int64), np.array(7, np.int64)),
    _range("down, of vectors", *(np.array([each], np.int32) for each in (5, -4, -3))),
    _product("plain", (3, 4), (4, 5)),
    _product("alpha", (3, 4), (4, 5), alpha=0.125),
    _product("transposed", (4, 3), (5, 4), transA=1, transB=1, alpha=2.0),
    _product("batched", (2, 3, 4), (4, 5), alpha=-1.0),
    _product("batched transposed", (2, 4, 3), (2, 5, 4), transA=1, transB=1),
    _product("a's batch transposed", (3, 2, 4), (2, 4, 5), transBatchA=1),
    _product("b's batch transposed", (2, 3, 4), (4, 2, 5), transBatchB=1),
    _product("both batches transposed", (3, 2, 4), (4, 2, 5), transBatchA=1, transBatchB=1),
    _product("all transposed", (4, 2, 3, 6), (5, 2, 3, 4), transBatchA=1, transBatchB=1, transA=1, transB=1),
    _product("four dimensions", (2, 3, 4, 5), (2, 3, 6, 5), transB=1, alpha=0.5),
    *(_gemm(name, activation=name) for name in ("Relu", "Tanh", "Sigmoid", "Softplus", "Softsign")),
    _gemm("LeakyRelu", activation="LeakyRelu", activation_alpha=0.3),
    _gemm("Elu", activation="Elu", activation_alpha=0.3),
    _gemm("HardSigmoid", activation="HardSigmoid", activation_alpha=0.3, activation_beta=0.4),
    _gemm("scaled", activation="Relu", alpha=0.5, beta=2.0),
    *(_conv(name, activation=name) for name in ("Relu", "Tanh", "Sigmoid")),
    _conv("LeakyRelu", activation="LeakyRelu", activation_params=[0.3]),
    _conv("Clip", activation="Clip", activation_params=[-1.0, 6.0]),
    _conv("HardSigmoid", activation="HardSigmoid", activation_params=[0.2, 0.6]),
    _conv("sum", activation="Relu", added=True),
    _conv("sum without activation", added=True),
    _conv("without bias", activation="Relu", bias=False),
    _conv("pads and strides", activation="Relu", pads=[1, 1, 0, 1], strides=[2, 1], dilations=[1, 2]),
    _conv("auto_pad", activation="Relu", auto_pad="SAME_UPPER", kernel_shape=[3, 3]),
]
