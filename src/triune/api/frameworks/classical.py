"""Exports models of scikit-learn, XGBoost and LightGBM by skl2onnx and onnxmltools. The ONNX files have operators of
the domain ai.onnx.ml, which later conversions decompose to core operators.
"""

import copy
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from onnx import ModelProto, TensorProto, helper

from triune.api.frameworks.labels import choose_by_scores
from triune.api.frameworks.missing import directions_of_missing
from triune.api.frameworks.result import Export, ExporterError, Request, library
from triune.core.datatypes import Array
from triune.core.errors import InvalidArgumentError, UnsupportedError

_DEFAULT_INPUT: Final = "x"

_KINDS_OF_SKL2ONNX: Final = "skl2onnx.common.data_types"
_KINDS_OF_ONNXMLTOOLS: Final = "onnxmltools.convert.common.data_types"

_HARMLESS: Final = ("numpy.dtype",)
"""Harmless types that skops (0.16) does not trust by default. They run no code, and occur in imputers."""

_OPSETS: Final = {"": 18, "ai.onnx.ml": 3}
"""The newest operator sets, by domain, that all converters of skl2onnx (1.20) support."""


def export_sklearn(request: Request) -> Export:
    """Export an estimator or a pipeline of scikit-learn, or a .skops file. A classifier's scores are exported as a
    tensor, not as a list of dictionaries.

    Its input is "x" [N, features] of fp32, or those of `request.inputs`, one for each column or group of columns.

    Raises:
        ExporterError: skl2onnx lacks an estimator, which the message names.
        InvalidArgumentError: a .skops file has types that may run code.
    """
    exporter, base = library("skl2onnx"), library("sklearn.base")
    model = _from_skops(request.source) if isinstance(request.source, (str, Path)) else request.source
    names = _inputs(request, getattr(model, "n_features_in_", None))
    options = {id(model): {"zipmap": False}} if base.is_classifier(model) else None
    types = _types(names, library(_KINDS_OF_SKL2ONNX))

    def to_onnx() -> ModelProto:
        try:
            with directions_of_missing():
                return exporter.to_onnx(model, initial_types=types, options=options, target_opset=_OPSETS)
        except NameError as error:
            # LinearSVC has no option `zipmap`, since its scores are always a tensor. In a pipeline the exporter sets
            # the option for the last step itself, unless that step has an option already: so give it another one.
            if "Option 'zipmap' not in" not in str(error):
                raise
            last = {id(_last_step(model)): {"nocl": False}}
            with directions_of_missing():
                return exporter.to_onnx(model, initial_types=types, options=last, target_opset=_OPSETS)

    written = _written(to_onnx, "scikit-learn")
    choose_by_scores(written)
    _save(written, request.target)
    outputs = [value.name for value in written.graph.output]
    return Export(lambda inputs: _sklearn_outputs(model, outputs, names, inputs), {}, takes_rows=True)


def export_xgboost(request: Request) -> Export:
    """Export a model of XGBoost: an estimator, a Booster, or a file (.json, .ubj). Its input is "x" [N, features] of
    fp32.

    Raises:
        ExporterError: onnxmltools cannot convert the model.
        InvalidArgumentError: the file is not a model of XGBoost.
    """
    xgboost, convert = library("xgboost"), library("onnxmltools.convert")
    model = request.source
    if isinstance(model, (str, Path)):
        model = xgboost.Booster()
        try:
            model.load_model(str(request.source))
        except (xgboost.core.XGBoostError, ValueError) as error:
            raise InvalidArgumentError(
                f"'{Path(request.source).name}' is no model of XGBoost: {_first_line(error)}"
            ) from error
    is_booster = isinstance(model, xgboost.Booster)
    booster = model if is_booster else model.get_booster()
    names = _inputs(request, booster.num_features())
    # Convert a copy without the names of features: onnxmltools supports features only by their numbers.
    plain = copy.deepcopy(model)
    (plain if is_booster else plain.get_booster()).feature_names = None
    written = _written(
        lambda: convert.convert_xgboost(plain, initial_types=_types(names, library(_KINDS_OF_ONNXMLTOOLS))), "XGBoost"
    )
    _save(written, request.target)
    outputs = [value.name for value in written.graph.output]

    def compute(inputs: Mapping[str, Array]) -> Sequence[Array]:
        rows = np.concatenate([inputs[name] for name in names], axis=1)
        # After early stopping an estimator uses no tree behind the best round; a Booster uses all.
        best = None if is_booster else getattr(booster, "best_iteration", None)
        scores = booster.inplace_predict(rows, iteration_range=(0, 0 if best is None else best + 1))
        return _both(scores, outputs)

    return Export(compute, {}, takes_rows=True)


def export_lightgbm(request: Request) -> Export:
    """Export a model of LightGBM: an estimator, a Booster, or a .txt file. Its input is "x" [N, features] of fp32.

    Raises:
        ExporterError: onnxmltools cannot convert the model.
        InvalidArgumentError: the file is not a model of LightGBM.
    """
    lightgbm, convert = library("lightgbm"), library("onnxmltools.convert")
    model = request.source
    if isinstance(model, (str, Path)):
        try:
            model = lightgbm.Booster(model_file=str(model))
        except lightgbm.basic.LightGBMError as error:
            raise InvalidArgumentError(
                f"'{Path(request.source).name}' is no model of LightGBM: {_first_line(error)}"
            ) from error
    booster = model if isinstance(model, lightgbm.Booster) else model.booster_
    names = _inputs(request, booster.num_feature())
    written = _written(
        lambda: convert.convert_lightgbm(
            booster, initial_types=_types(names, library(_KINDS_OF_ONNXMLTOOLS)), zipmap=False
        ),
        "LightGBM",
    )
    classes = _classes_of(model)
    if classes is not None:
        _set_labels(written, classes)
    _save(written, request.target)
    outputs = [value.name for value in written.graph.output]

    def compute(inputs: Mapping[str, Array]) -> Sequence[Array]:
        rows = np.concatenate([inputs[name] for name in names], axis=1)
        found = _both(np.asarray(booster.predict(rows)), outputs)
        return found if classes is None else [classes[found[0]], *found[1:]]

    notes = [
        "LightGBM compares features with fp64 thresholds: a feature within a rounding of fp32 may go the other way",
    ]
    if classes is None and any(node.op_type == "TreeEnsembleClassifier" for node in written.graph.node):
        notes.append(
            "a Booster or .txt of LightGBM has no labels of classes: those that the model gives are the places of the "
            "labels in their order, 0, 1 and so on; convert the estimator (LGBMClassifier) for the labels themselves"
        )
    return Export(compute, {}, tuple(notes), takes_rows=True)


def _classes_of(model: Any) -> Array | None:
    """The labels of a LightGBM classifier's classes, INT64 or strings [classes]; None for other models, and for a
    Booster, which knows its classes by their indices only.

    Raises:
        UnsupportedError: the labels are neither whole numbers nor strings.
    """
    classes = np.asarray(model.classes_) if hasattr(model, "classes_") else None
    if classes is None:
        return None
    if all(isinstance(each, str) for each in classes.tolist()):
        return classes.astype(np.object_)
    if classes.dtype.kind not in "biuf" or (classes != classes.astype(np.int64)).any():
        raise UnsupportedError(
            f"the labels of the classes are {', '.join(map(str, classes[:3]))}; ONNX's labels are whole numbers or "
            "strings: train the classifier with such labels"
        )
    return classes.astype(np.int64)


def _set_labels(written: ModelProto, classes: Array) -> None:
    """Change the labels that a classifier made by onnxmltools gives: from the indices of classes to `classes`."""
    (classifier,) = (node for node in written.graph.node if node.op_type == "TreeEnsembleClassifier")
    kept = [each for each in classifier.attribute if not each.name.startswith("classlabels_")]
    kind = "classlabels_int64s" if classes.dtype == np.int64 else "classlabels_strings"
    del classifier.attribute[:]
    classifier.attribute.extend([*kept, helper.make_attribute(kind, classes.tolist())])
    if classes.dtype == np.int64:
        return
    label = written.graph.output[0]
    label.type.tensor_type.elem_type = TensorProto.STRING
    (cast,) = (node for node in written.graph.node if label.name in node.output)
    cast.op_type = "Identity"
    del cast.attribute[:]


def _last_step(model: Any) -> Any:
    """The estimator that answers: the model, or the last one of a pipeline."""
    while hasattr(model, "steps"):
        model = model.steps[-1][1]
    return model


def _from_skops(path: Path | str) -> Any:
    skops = library("skops.io")
    try:
        found = skops.get_untrusted_types(file=str(path))
        unknown = [each for each in found if each not in _HARMLESS]
        model = None if unknown else skops.load(str(path), trusted=found)
    except Exception as error:
        raise InvalidArgumentError(f"'{Path(path).name}' is no file of skops: {error}") from error
    if unknown:
        raise InvalidArgumentError(
            f"'{Path(path).name}' has types that skops does not know as harmless: {', '.join(unknown)}; load it in "
            "Python with those that you trust, and give triune.convert the estimator"
        )
    return model


def _inputs(request: Request, num_features: int | None) -> dict[str, tuple[np.dtype[Any], Sequence[int | None]]]:
    """The inputs by name, each with its dtype and its shape without the batch dimension (None is a free dimension)."""
    if request.inputs:
        return {name: (array.dtype, list(array.shape[1:])) for name, array in request.inputs.items()}
    if num_features is None:
        raise InvalidArgumentError("the model does not say how many features it takes; give an example with inputs")
    if len(request.shapes) > 1:
        raise InvalidArgumentError("the model has several inputs; give an example of each with inputs")
    name = next(iter(request.shapes), _DEFAULT_INPUT)
    return {name: (np.dtype(np.float32), [num_features])}


def _types(inputs: Mapping[str, tuple[np.dtype[Any], Sequence[int | None]]], kinds: Any) -> list[tuple[str, Any]]:
    """The inputs as (name, type) with the type classes of the exporter's module `kinds`."""
    table = {
        "f4": kinds.FloatTensorType,
        "f8": kinds.DoubleTensorType,
        "i8": kinds.Int64TensorType,
        "i4": kinds.Int32TensorType,
        "b1": kinds.BooleanTensorType,
    }
    found: list[tuple[str, Any]] = []
    for name, (dtype, dims) in inputs.items():
        kind = kinds.StringTensorType if dtype.kind in "OUS" else table.get(dtype.str[1:])
        if kind is None:
            raise InvalidArgumentError(
                f"input '{name}' is given as {dtype}; models of scikit-learn, XGBoost and LightGBM take float32, "
                "float64, int32, int64, bool or text"
            )
        found.append((name, kind([None, *dims])))
    return found


def _written(convert: Callable[[], ModelProto], title: str) -> ModelProto:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return convert()
    except Exception as error:
        # Give the user the first lines of the error, which name the estimator. The exporters raise errors of any type.
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise ExporterError(
            f"the exporter of {title} cannot convert it: {type(error).__name__}: {' '.join(lines[:3])}"[:600]
        ) from error


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _save(model: ModelProto, path: Path) -> None:
    """Save a model. If it imports an operator set several times, only the newest version is kept."""
    versions: dict[str, int] = {}
    for each in model.opset_import:
        versions[each.domain] = max(versions.get(each.domain, 0), each.version)
    versions.setdefault("", 9)
    del model.opset_import[:]
    model.opset_import.extend(helper.make_opsetid(domain, version) for domain, version in versions.items())
    path.write_bytes(model.SerializeToString())


def _sklearn_outputs(
    model: Any, outputs: Sequence[str], inputs: Mapping[str, Any], values: Mapping[str, Array]
) -> Sequence[Array]:
    rows: Any = next(iter(values.values()))
    if len(inputs) > 1:
        # The model was fitted on columns with names, so pandas is installed.
        rows = library("pandas").DataFrame({name: values[name].reshape(len(values[name])) for name in inputs})
        return _answers_of(model, outputs, rows)
    try:
        return _answers_of(model, outputs, rows)
    except (AttributeError, TypeError, ValueError):
        # Estimators that split texts into words take a list of texts, where exported models take a column of them.
        if rows.dtype.kind not in "OU" or rows.ndim != 2 or rows.shape[1] != 1:
            raise
        return _answers_of(model, outputs, rows[:, 0])


def _answers_of(model: Any, outputs: Sequence[str], rows: Any) -> Sequence[Array]:
    if len(outputs) > 1:
        found = [model.predict(rows)]
        if hasattr(model, "predict_proba"):
            found.append(model.predict_proba(rows))
        elif hasattr(model, "decision_function"):
            found.append(model.decision_function(rows))
        return [np.asarray(each) for each in found]
    return [np.asarray(model.predict(rows) if hasattr(model, "predict") else model.transform(rows))]


def _both(scores: Array, outputs: Sequence[str]) -> Sequence[Array]:
    """Compute labels and probabilities from a classifier's scores, as its exported model does. The scores of a
    regressor are returned as they are.
    """
    if len(outputs) == 1:
        return [scores.reshape(len(scores), -1)]
    two = np.stack([1 - scores, scores], axis=1) if scores.ndim == 1 else scores
    return [two.argmax(axis=1), two]
