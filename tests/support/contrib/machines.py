"""Operators of ai.onnx.ml for linear models and support vector machines."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from support.contrib.case import Case, classical, floats

X = floats(7, 4)
BOTH = {"label": np.int64, "scores": np.float32}
TRANSFORMS = ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO")


def _list(*shape: int, seed: int = 0) -> list[float]:
    return floats(*shape, seed=seed).reshape(-1).tolist()


def _linear(
    name: str, labels: Sequence[int], *, x: Any = X, count: int = 0, reason: str = "", **attributes: Any
) -> Case:
    count = count or len(labels)
    attributes = {"coefficients": _list(count, 4), "intercepts": _list(count), "classlabels_ints": labels, **attributes}
    return classical(
        f"LinearClassifier {name}", {"x": x}, outputs=BOTH, attributes=attributes, atol=1e-4, reason=reason
    )


def _regressor(name: str, count: int = 1, *, x: Any = X, **attributes: Any) -> Case:
    attributes = {"coefficients": _list(count, 4), "intercepts": _list(count), "targets": count, **attributes}
    return classical(f"LinearRegressor {name}", {"x": x}, attributes=attributes, atol=1e-4)


def _machine(
    name: str, sizes: Sequence[int], *, kernel: str = "RBF", probabilities: bool = False, transform: str = "NONE"
) -> Case:
    count, total = len(sizes), sum(sizes)
    pairs = count * (count - 1) // 2
    attributes: dict[str, Any] = {
        "classlabels_ints": [3, 1, 8, 5][:count],
        "coefficients": _list(count - 1, total),
        "kernel_params": [0.4, 0.2, 3.0],
        "kernel_type": kernel,
        "post_transform": transform,
        "rho": _list(pairs),
        "support_vectors": _list(total, 4, seed=1),
        "vectors_per_class": sizes,
    }
    if probabilities:
        attributes |= {"prob_a": [-abs(each) - 0.5 for each in _list(pairs, seed=2)], "prob_b": _list(pairs, seed=3)}
    return classical(f"SVMClassifier {name}", {"x": X}, outputs=BOTH, attributes=attributes, atol=1e-4)


def _without_vectors(name: str, count: int, *, sign: bool = False, transform: str = "NONE") -> Case:
    coefficients = _list(count, 4)
    attributes = {
        "classlabels_ints": [3, 1, 8][:count],
        "coefficients": [abs(each) for each in coefficients] if sign else coefficients,
        "kernel_params": [0.4, 0.2, 3.0],
        "rho": [0.1],
        "post_transform": transform,
    }
    return classical(f"SVMClassifier {name}", {"x": X}, outputs=BOTH, attributes=attributes, atol=1e-4)


def _svr(name: str, **attributes: Any) -> Case:
    attributes = {
        "coefficients": _list(5),
        "kernel_params": [0.4, 0.2, 3.0],
        "kernel_type": "RBF",
        "n_supports": 5,
        "rho": [0.3],
        "support_vectors": _list(5, 4, seed=1),
        **attributes,
    }
    return classical(f"SVMRegressor {name}", {"x": X}, attributes=attributes, atol=1e-4)


CASES = [
    *(_linear(f"3 classes {transform}", [4, 7, 2], post_transform=transform) for transform in TRANSFORMS),
    *(_linear(f"2 classes {transform}", [4, 7], post_transform=transform) for transform in TRANSFORMS),
    *(_linear(f"2 classes, 1 score {each}", [4, 7], count=1, post_transform=each) for each in TRANSFORMS),
    _linear("vector", [4, 7, 2], x=X[0]),
    _linear("int64", [4, 7, 2], x=np.arange(8).reshape(2, 4)),
    _linear("double", [4, 7, 2], x=X.astype(np.float64)),
    _linear("2 classes, 1 score PROBIT", [4, 7], count=1, post_transform="PROBIT", reason="one score of the two"),
    _regressor(""),
    _regressor("3 targets", 3),
    _regressor("without intercepts", 2, intercepts=None),
    *(_regressor(f"3 targets {transform}", 3, post_transform=transform) for transform in TRANSFORMS[1:]),
    _regressor("LOGISTIC", post_transform="LOGISTIC"),
    *(_machine(f"3 classes {kernel}", [2, 3, 2], kernel=kernel) for kernel in ("LINEAR", "POLY", "RBF", "SIGMOID")),
    *(_machine(f"2 classes {kernel}", [2, 3], kernel=kernel) for kernel in ("LINEAR", "POLY", "RBF", "SIGMOID")),
    *(_machine(f"2 classes {each}", [2, 3], transform=each) for each in TRANSFORMS[1:]),
    *(_machine(f"4 classes {each}", [2, 3, 1, 2], transform=each) for each in TRANSFORMS),
    *(
        _machine(f"{len(sizes)} probabilities", sizes, probabilities=True)
        for sizes in ([2, 3], [2, 3, 2], [2, 3, 1, 2])
    ),
    _machine("probabilities SOFTMAX", [2, 3, 2], probabilities=True, transform="SOFTMAX"),
    *(_without_vectors(f"without vectors, {count} classes", count) for count in (2, 3)),
    _without_vectors("without vectors, 2 classes, positive", 2, sign=True),
    _without_vectors("without vectors, LOGISTIC", 3, transform="LOGISTIC"),
    *(_svr(kernel, kernel_type=kernel) for kernel in ("LINEAR", "POLY", "RBF", "SIGMOID")),
    _svr("POLY of degree 2", kernel_type="POLY", kernel_params=[0.4, 0.2, 2.0]),
    _svr("POLY of degree 4", kernel_type="POLY", kernel_params=[0.4, 0.2, 4.0]),
    _svr("one class", one_class=1),
    _svr("without vectors", n_supports=0, support_vectors=None, coefficients=_list(4)),
]
