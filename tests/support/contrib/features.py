"""Operators of ai.onnx.ml for features and labels."""

from typing import Any

import numpy as np
from onnx import numpy_helper

from support.contrib.case import Case, classical, floats

X = floats(4, 3, scale=3)
INTS = np.array([[1, 5, -3], [7, 1, 0]], np.int64)
NAN = np.array([[1, np.nan, 3], [np.nan, 5, -1]], np.float32)
ZEROS = np.array([[0, 0, 0], [1, -2, 2], [-1, -2, -3], [0, 0, 5]], np.float32)


def _case(name: str, x: Any, kind: Any = np.float32, *, reason: str = "", **attributes: Any) -> Case:
    return classical(name, {"x": x}, outputs={"y": kind}, attributes=attributes, reason=reason)


def _tensor(values: list[Any], kind: Any) -> Any:
    return numpy_helper.from_array(np.array(values, kind), "tensor")


CASES = [
    _case("Scaler columns", X, offset=[1.0, 2.0, -1.0], scale=[0.5, 2.0, -3.0]),
    _case("Scaler numbers", X, offset=[1.5], scale=[0.5]),
    _case("Scaler int64", INTS, offset=[1.0, 2.0, -1.0], scale=[0.5, 2.0, -3.0]),
    _case("Scaler double", X.astype(np.float64), offset=[1.0, 2.0, -1.0], scale=[0.5, 2.0, -3.0]),
    _case("Scaler vector", X[0], offset=[1.0, 2.0, -1.0], scale=[0.5, 2.0, -3.0]),
    *(_case(f"Normalizer {norm}", X, norm=norm) for norm in ("MAX", "L1", "L2")),
    *(_case(f"Normalizer {norm} zeros", ZEROS, norm=norm) for norm in ("MAX", "L1", "L2")),
    *(_case(f"Normalizer {norm} vector", X[0], norm=norm) for norm in ("MAX", "L1", "L2")),
    _case("Normalizer int64", INTS, norm="L2"),
    _case("Imputer nan", NAN, imputed_value_floats=[9.0], replaced_value_float=float("nan")),
    _case("Imputer nan by columns", NAN, imputed_value_floats=[7.0, 8.0, 9.0], replaced_value_float=float("nan")),
    _case("Imputer value", NAN, imputed_value_floats=[7.0, 8.0, 9.0], replaced_value_float=-1.0),
    _case("Imputer int64", INTS, np.int64, imputed_value_int64s=[70, 80, 90], replaced_value_int64=1),
    _case("Binarizer", X, threshold=0.5),
    _case("Binarizer zero", ZEROS),
    _case("LabelEncoder int to int", INTS, np.int64, keys_int64s=[1, 7, 0], values_int64s=[10, 70, 99]),
    _case("LabelEncoder default", INTS, np.int64, keys_int64s=[1, 7], values_int64s=[10, 70], default_int64=-5),
    _case("LabelEncoder int to float", INTS, keys_int64s=[1, 7, 0], values_floats=[1.5, 7.5, 0.25], default_float=-2.5),
    _case("LabelEncoder float to int", ZEROS, np.int64, keys_floats=[1.0, -2.0, 0.0], values_int64s=[10, 20, 30]),
    _case("LabelEncoder float to float", ZEROS, keys_floats=[1.0, -2.0], values_floats=[10.0, 0.5]),
    _case("LabelEncoder nan", NAN, np.int64, keys_floats=[1.0, float("nan"), 5.0], values_int64s=[10, 20, 30]),
    _case(
        "LabelEncoder tensors",
        INTS,
        np.int64,
        keys_tensor=_tensor([1, 7], np.int64),
        values_tensor=_tensor([4, 6], np.int64),
        default_tensor=_tensor([-9], np.int64),
    ),
    _case(
        "LabelEncoder tensors of doubles",
        NAN.astype(np.float64),
        np.float64,
        keys_tensor=_tensor([1, np.nan], np.float64),
        values_tensor=_tensor([4, 6], np.float64),
        default_tensor=_tensor([-9], np.float64),
    ),
    _case("LabelEncoder text", INTS, reason="text", keys_int64s=[1], values_strings=["one"]),
    _case("OneHotEncoder", INTS, cats_int64s=[1, 7, 5]),
    _case("OneHotEncoder floats", np.array([1.9, 7, -1], np.float32), cats_int64s=[1, 7, 5], zeros=1),
    _case("OneHotEncoder zeros", INTS, cats_int64s=[1, 7, 5, 0, -3], zeros=0),
    classical("ArrayFeatureExtractor", {"x": X, "at": np.array([2, 0], np.int64)}, weights=["at"]),
    classical("ArrayFeatureExtractor vector", {"x": X[0], "at": np.array([2, 0], np.int64)}, weights=["at"]),
    classical("FeatureVectorizer", {"a": X, "b": X[:, :2]}, attributes={"inputdimensions": [3, 2]}),
    classical("FeatureVectorizer int64", {"a": INTS}, attributes={"inputdimensions": [3]}),
    classical("FeatureVectorizer widths", {"a": X, "b": X[:, :2]}, attributes={"inputdimensions": [2, 4]}),
]
