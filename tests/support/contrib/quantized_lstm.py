"""ONNX Runtime's quantized LSTM."""

from typing import Any

import numpy as np

from support.contrib.case import Case, floats, microsoft

STEPS, BATCH, INPUTS, HIDDEN = 4, 2, 3, 5
RNG = np.random.default_rng(8)


def _levels(kind: Any, *shape: int) -> Any:
    low, high = (-64, 64) if kind == np.int8 else (64, 192)
    return RNG.integers(low, high, shape).astype(kind)


def _case(
    name: str, *, directions: int = 1, kind: Any = np.int8, by_column: bool = False, reason: str = "", **changes: Any
) -> Case:
    attributes = {"hidden_size": HIDDEN, **changes.pop("attributes", {})}
    form = (directions, 4 * HIDDEN) if by_column else (directions,)
    zero = np.full(form, 0 if kind == np.int8 else 128, kind)
    outputs = changes.pop("outputs", {"y": np.float32})
    inputs: dict[str, Any] = {"x": floats(STEPS, BATCH, INPUTS), "w": _levels(kind, directions, INPUTS, 4 * HIDDEN)}
    inputs |= {"r": _levels(kind, directions, HIDDEN, 4 * HIDDEN), "b": floats(directions, 8 * HIDDEN)}
    inputs |= {"lengths": None, "h": None, "c": None, "p": None}
    inputs |= {"ws": RNG.uniform(0.005, 0.02, form).astype(np.float32), "wz": zero}
    inputs |= {"rs": RNG.uniform(0.005, 0.02, form).astype(np.float32), "rz": zero} | changes
    weights = [each for each in ("w", "r", "b", "p", "ws", "wz", "rs", "rz") if inputs[each] is not None]
    return microsoft(
        f"DynamicQuantizeLSTM {name}",
        inputs,
        weights=weights,
        outputs=outputs,
        attributes=attributes,
        atol=1e-4,
        reason=reason,
    )


ALL = {"y": np.float32, "h_out": np.float32, "c_out": np.float32}
STATES = {"h": floats(1, BATCH, HIDDEN), "c": floats(1, BATCH, HIDDEN, seed=1)}
CASES = [
    _case(""),
    _case("uint8", kind=np.uint8),
    _case("one row", x=floats(STEPS, 1, INPUTS)),
    _case("columns", by_column=True),
    _case("without bias", b=None),
    _case("states", outputs=ALL, **STATES),
    _case("last state", outputs={"y": None, "h_out": np.float32}),
    _case("reverse", outputs=ALL, attributes={"direction": "reverse"}),
    _case("both ways", directions=2, outputs=ALL, attributes={"direction": "bidirectional"}),
    _case("peepholes", p=floats(1, 3 * HIDDEN)),
    _case("zeros", x=np.zeros((STEPS, BATCH, INPUTS), np.float32)),
    _case("lengths", lengths=np.array([4, 2], np.int32), reason="lengths"),
    _case("clip", attributes={"clip": 0.5}, reason="clip"),
]
