"""Determines the framework of a model without importing any framework."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

from triune.api.frameworks.result import Export, Request
from triune.core.errors import InvalidArgumentError, UnsupportedError

Exporter: TypeAlias = Callable[[Request], Export]


@dataclass(frozen=True, slots=True)
class Framework:
    """A framework whose models can be exported to ONNX.

    Attributes:
        title: its name, for messages.
        extra: the pip extra of triune that installs its exporter.
        modules: the modules that must be importable.
        load: the function that imports the exporter.
        is_quick: whether its models answer so quickly that an export is compared with the model by default
            (`verify=None`).
    """

    title: str
    extra: str
    modules: tuple[str, ...]
    load: Callable[[], Exporter]
    is_quick: bool = False

    def exporter(self) -> Exporter:
        """Import and return the exporter.

        Raises:
            UnsupportedError: a library is not installed; the message says how to install it.
        """
        missing = [name for name in self.modules if importlib.util.find_spec(name) is None]
        if missing:
            raise UnsupportedError(
                f"models of {self.title} need {' and '.join(missing)}, which "
                f"{'is' if len(missing) == 1 else 'are'} not installed: pip install 'triune[{self.extra}]'"
            )
        return self.load()


def _torch() -> Exporter:
    from triune.api.frameworks.pytorch import export

    return export


def _keras() -> Exporter:
    from triune.api.frameworks.tensorflow import export_keras

    return export_keras


def _saved_model() -> Exporter:
    from triune.api.frameworks.tensorflow import export_saved_model

    return export_saved_model


def _tflite() -> Exporter:
    from triune.api.frameworks.tensorflow import export_tflite

    return export_tflite


def _jax() -> Exporter:
    from triune.api.frameworks.jax import export

    return export


def _sklearn() -> Exporter:
    from triune.api.frameworks.classical import export_sklearn

    return export_sklearn


def _xgboost() -> Exporter:
    from triune.api.frameworks.classical import export_xgboost

    return export_xgboost


def _lightgbm() -> Exporter:
    from triune.api.frameworks.classical import export_lightgbm

    return export_lightgbm


_OF_TENSORFLOW = ("tensorflow", "keras", "tf2onnx")
PYTORCH: Final = Framework("PyTorch", "torch", ("torch", "onnxscript"), _torch)
KERAS: Final = Framework("Keras", "tensorflow", _OF_TENSORFLOW, _keras)
SAVED_MODEL: Final = Framework("TensorFlow", "tensorflow", _OF_TENSORFLOW, _saved_model)
TFLITE: Final = Framework("TensorFlow Lite", "tensorflow", _OF_TENSORFLOW, _tflite)
JAX: Final = Framework("JAX", "jax", ("jax", "jax2onnx"), _jax)
SKLEARN: Final = Framework("scikit-learn", "sklearn", ("sklearn", "skl2onnx", "skops"), _sklearn, is_quick=True)
XGBOOST: Final = Framework("XGBoost", "xgboost", ("xgboost", "onnxmltools"), _xgboost, is_quick=True)
LIGHTGBM: Final = Framework("LightGBM", "lightgbm", ("lightgbm", "onnxmltools"), _lightgbm, is_quick=True)

_BY_SUFFIX: Final = {
    ".pt2": PYTORCH,
    ".keras": KERAS,
    ".tflite": TFLITE,
    ".skops": SKLEARN,
    ".ubj": XGBOOST,
    ".json": XGBOOST,
    ".txt": LIGHTGBM,
}

_BY_PACKAGE: Final = {
    # Models of XGBoost and LightGBM are also scikit-learn estimators, and Keras models may be PyTorch modules, so the
    # order matters.
    "xgboost": XGBOOST,
    "lightgbm": LIGHTGBM,
    "keras": KERAS,
    "torch": PYTORCH,
    "sklearn": SKLEARN,
    "equinox": JAX,
    "flax": JAX,
    "jax": JAX,
    "jaxlib": JAX,
}

_PICKLES: Final = (".joblib", ".pkl", ".pickle", ".pt", ".pth", ".h5")

SUFFIXES: Final = ", ".join(_BY_SUFFIX)
"""The suffixes of files of other frameworks, for messages."""


def framework_of(source: Any) -> Framework | None:
    """The framework of a model; None for a path to a file or folder of no known framework.

    Args:
        source: a path, an object of a framework, or a function of JAX.

    Raises:
        InvalidArgumentError: a file is a pickle, which is code; or an object is of no known framework.
    """
    if isinstance(source, (str, Path)):
        return _framework_of_file(Path(source))
    packages = {each.__module__.partition(".")[0] for each in type(source).__mro__}
    for package, framework in _BY_PACKAGE.items():
        if package in packages:
            return framework
    if callable(source):
        return JAX
    raise InvalidArgumentError(
        f"a model is a path, a function of JAX, or an object of PyTorch, Keras, scikit-learn, XGBoost or LightGBM; "
        f"{type(source).__name__} is none of them"
    )


def _framework_of_file(path: Path) -> Framework | None:
    if path.suffix in _PICKLES:
        remedy = (
            "save it with torch.export.save as .pt2, or load it in Python and give triune.convert the module"
            if path.suffix in (".pt", ".pth")
            else "save it with keras.Model.save as .keras"
            if path.suffix == ".h5"
            else "save it as .skops, .ubj or .txt, or load it in Python and give triune.convert the object"
        )
        raise InvalidArgumentError(
            f"'{path.name}' may run any code when it is loaded, as pickles do, and is not read: {remedy}"
        )
    if path.is_dir() and (path / "saved_model.pb").is_file():
        return SAVED_MODEL
    return _BY_SUFFIX.get(path.suffix)
