"""Quantized tensors."""

from typing import Any

import numpy as np

from support.contrib.case import Case, microsoft

ALL = np.arange(256).astype(np.uint8)
KINDS = {"uint8": np.uint8, "int8": np.int8}
POINTS = {"uint8": (120, 3, 128), "int8": (-7, 20, 5)}


def scalar(value: float, kind: Any = np.float32) -> Any:
    return np.array(value, kind)


def _levels(kind: str, *shape: int, seed: int = 0) -> Any:
    limits = np.iinfo(KINDS[kind])
    return np.random.default_rng([seed, *shape]).integers(limits.min, limits.max + 1, shape).astype(KINDS[kind])


def _binary(op: str, kind: str, scales: tuple[float, float, float], name: str, **changes: Any) -> Case:
    points = [scalar(each, KINDS[kind]) for each in POINTS[kind]]
    inputs: dict[str, Any] = {"a": _levels(kind, 8, 32), "as": scalar(scales[0]), "az": points[0]}
    inputs |= {"b": _levels(kind, 8, 32, seed=1), "bs": scalar(scales[1]), "bz": points[1]}
    inputs |= {"cs": scalar(scales[2]), "cz": points[2]} | changes
    weights = [each for each in inputs if each not in ("a", "b") and inputs[each] is not None]
    return microsoft(f"{op} {kind} {name}", inputs, weights=weights, outputs={"y": KINDS[kind]}, atol=1)


def _unary(op: str, kind: str, name: str, scales: tuple[float, float], x: Any = None, **options: Any) -> Case:
    zero = [scalar(each, KINDS[kind]) for each in POINTS[kind][:2]]
    x = ALL.view(KINDS[kind]).reshape(4, 64) if x is None else x
    inputs: dict[str, Any] = {"x": x, "xs": scalar(scales[0]), "xz": zero[0], "ys": scalar(scales[1]), "yz": zero[1]}
    inputs |= options.pop("changes", {})
    weights = [each for each in inputs if each != "x" and inputs[each] is not None]
    outputs = {"y": KINDS[kind]}
    return microsoft(f"{op} {kind} {name}".strip(), inputs, weights=weights, outputs=outputs, **{"atol": 1, **options})


def _pool(kind: str, name: str, scales: tuple[float, float] = (0.02, 0.018), **attributes: Any) -> Case:
    x = _levels(kind, *((2, 5, 7, 3) if attributes.get("channels_last") else (2, 3, 5, 7)))
    attributes = {"kernel_shape": [2, 3], **attributes}
    return _unary("QLinearAveragePool", kind, name, scales, x, attributes=attributes, atol=0)


def _concat(name: str, axis: int, scales: tuple[float, ...]) -> Case:
    inputs: dict[str, Any] = {"ys": scalar(0.05), "yz": scalar(128, np.uint8)}
    weights = ["ys", "yz"]
    for place, scale in enumerate(scales):
        inputs |= {f"x{place}": _levels("uint8", 2, 3, 4, seed=place), f"s{place}": scalar(scale)}
        inputs |= {f"z{place}": scalar(100 + place, np.uint8)}
        weights += [f"s{place}", f"z{place}"]
    return microsoft(
        f"QLinearConcat {name}", inputs, weights=weights, outputs={"y": np.uint8}, attributes={"axis": axis}
    )


def _where(name: str, kind: str, condition: Any) -> Case:
    points = [scalar(each, KINDS[kind]) for each in POINTS[kind]]
    inputs = {"c": condition, "x": _levels(kind, 4, 8), "xs": scalar(0.03), "xz": points[0]}
    inputs |= {"y0": _levels(kind, 4, 8, seed=1), "ys": scalar(0.05), "yz": points[1]}
    inputs |= {"zs": scalar(0.06), "zz": points[2]}
    weights = ["xs", "xz", "ys", "yz", "zs", "zz"]
    return microsoft(f"QLinearWhere {name}", inputs, weights=weights, outputs={"y": KINDS[kind]}, atol=1)


def _conv(name: str, *, channels_last: int, columns: bool = False, **attributes: Any) -> Case:
    x = _levels("uint8", *((1, 6, 5, 4) if channels_last else (1, 4, 6, 5)))
    scale = np.linspace(0.01, 0.03, 6).astype(np.float32) if columns else scalar(0.02)
    # The weights have 7 bits, since on CPUs without VNNI ONNX Runtime's products of uint8 and int8 saturate, unlike
    # Triune's.
    weights = _levels("int8", 6, 4, 3, 3) // 2
    zero = np.zeros(6, np.int8) if columns else scalar(0, np.int8)
    inputs = {"x": x, "xs": scalar(0.02), "xz": scalar(120, np.uint8), "w": weights, "ws": scale}
    inputs |= {"wz": zero, "ys": scalar(0.9), "yz": scalar(110, np.uint8)}
    inputs |= {"b": np.arange(-300, 300, 100).astype(np.int32)}
    return microsoft(
        f"QLinearConv {name}",
        inputs,
        weights=[each for each in inputs if each != "x"],
        outputs={"y": np.uint8},
        attributes={"channels_last": channels_last, **attributes},
        atol=1,
    )


def _linear(op: str, name: str, kind: Any, inputs: dict[str, Any], **attributes: Any) -> Case:
    weights = [each for each in inputs if each != "x"]
    return microsoft(f"{op} {name}", inputs, weights=weights, outputs={"y": kind}, attributes=attributes)


def _both_ways(name: str, kind: Any, x: Any, scale: Any, zero: Any, **attributes: Any) -> list[Case]:
    """QuantizeLinear of floats, and DequantizeLinear of values that it could return."""
    limits = np.iinfo(kind)
    levels = np.random.default_rng(9).integers(limits.min, limits.max, x.shape, endpoint=True).astype(kind)
    return [
        _linear("QuantizeLinear", name, kind, {"x": x, "s": scale, "z": zero}, **attributes),
        _linear("DequantizeLinear", name, np.float32, {"x": levels, "s": scale, "z": zero}, **attributes),
    ]


SAME = (0.1, 0.1, 0.2)
HALVES = (np.arange(-40, 40).reshape(4, 20) * 0.25).astype(np.float32)
ROW = np.array([0.5, 0.25, 1.0, 2.0], np.float32)
CASES = [
    *(_binary(op, kind, (0.013, 0.021, 0.04), "") for op in ("QLinearAdd", "QLinearMul") for kind in KINDS),
    *(_binary(op, "uint8", SAME, "equal scales") for op in ("QLinearAdd", "QLinearMul")),
    *(_binary(op, "uint8", (0.5, 0.25, 1.0), "halves") for op in ("QLinearAdd", "QLinearMul")),
    *(_binary(op, "int8", (0.9, 0.8, 0.01), "saturating") for op in ("QLinearAdd", "QLinearMul")),
    *(
        _binary(op, "uint8", (0.1, 0.2, 0.3), name, b=b, bs=scalar(0.2))
        for op in ("QLinearAdd", "QLinearMul")
        for name, b in (("a row", ALL[:32]), ("a number", scalar(77, np.uint8)), ("a column", ALL[:8, None]))
    ),
    *(_unary("QLinearSigmoid", kind, "", (0.05, 1 / 256)) for kind in KINDS),
    *(_unary("QLinearLeakyRelu", kind, "", (0.05, 0.04)) for kind in KINDS),
    _unary("QLinearLeakyRelu", "uint8", "alpha", (0.05, 0.04), attributes={"alpha": 0.5}),
    *(_unary("QLinearSoftmax", kind, "", (0.05, 1 / 256), attributes={"opset": 13, "axis": -1}) for kind in KINDS),
    _unary(
        "QLinearSoftmax",
        "uint8",
        "another axis",
        (0.05, 1 / 256),
        _levels("uint8", 2, 3, 4),
        attributes={"opset": 13, "axis": 1},
    ),
    _unary(
        "QLinearSoftmax",
        "uint8",
        "axes from one on",
        (0.05, 1 / 256),
        _levels("uint8", 2, 3, 4),
        attributes={"opset": 12, "axis": 1},
    ),
    *(_pool(kind, "") for kind in KINDS),
    _pool("uint8", "pads", pads=[1, 1, 0, 2], strides=[2, 2]),
    _pool("uint8", "pads that count", pads=[1, 1, 0, 2], count_include_pad=1),
    _pool("uint8", "ceil", strides=[2, 2], ceil_mode=1),
    _pool("uint8", "ceil and pads that count", pads=[1, 0, 1, 1], strides=[2, 2], ceil_mode=1, count_include_pad=1),
    _pool("uint8", "channels last", channels_last=1, strides=[1, 2]),
    *(_pool(kind, "of many halves", (0.5, 0.25), kernel_shape=[2, 2]) for kind in KINDS),
    *(_unary("QLinearGlobalAveragePool", kind, "", (0.02, 0.018), _levels(kind, 2, 3, 5, 7)) for kind in KINDS),
    _unary(
        "QLinearGlobalAveragePool",
        "uint8",
        "channels last",
        (0.02, 0.018),
        _levels("uint8", 2, 5, 7, 3),
        attributes={"channels_last": 1},
    ),
    _concat("two", 1, (0.05, 0.02)),
    _concat("three along the last axis", -1, (0.05, 0.02, 0.1)),
    _where("", "uint8", np.random.default_rng(1).random((4, 8)) > 0.5),
    _where("a row", "int8", np.random.default_rng(1).random((1, 8)) > 0.5),
    _conv("channels first", channels_last=0),
    _conv("channels last", channels_last=1),
    _conv("scales of channels", channels_last=1, columns=True, pads=[1, 1, 1, 1], strides=[2, 1]),
    *_both_ways("uint8", np.uint8, HALVES, scalar(0.5), scalar(128, np.uint8)),
    *_both_ways("int8", np.int8, HALVES, scalar(0.5), scalar(-3, np.int8)),
    *_both_ways("uint16", np.uint16, HALVES, scalar(0.5), scalar(32768, np.uint16)),
    *_both_ways("int16", np.int16, HALVES * 1e4, scalar(0.5), scalar(-3, np.int16)),
    *_both_ways("an axis", np.uint8, HALVES, ROW, np.array([0, 128, 3, 255], np.uint8), axis=0),
    *_both_ways("an axis of int16", np.int16, HALVES, ROW, np.array([0, 128, 3, 255], np.int16), axis=0),
    _linear("DequantizeLinear", "int32", np.float32, {"x": np.arange(-9, 9, dtype=np.int32), "s": scalar(0.3)}),
    _linear("DequantizeLinear", "without a zero point", np.float32, {"x": ALL, "s": scalar(0.3)}),
    _linear("QuantizeLinear", "without a zero point", np.uint8, {"x": HALVES, "s": scalar(0.5)}),
]
