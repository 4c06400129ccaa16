"""The options of the Core AI runtime in a model's config. Their names begin with `coreai.`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from triune.core.errors import InvalidArgumentError
from triune.core.requests import Parameter
from triune.coreai.lowering import LowerOptions
from triune.graph.conversion.options import Precision
from triune.graph.conversion.shapes import InputShape, parse_shapes
from triune.runtimes.options import check_names, choice, integer

FUNCTION = "coreai.function"
STATES = "coreai.states"
EXECUTOR = "coreai.executor"
PRECISION = "coreai.precision"
SHAPES = "coreai.shapes"
CONVERSION_SECONDS = "coreai.conversion_seconds"
OPTION_NAMES = (FUNCTION, STATES, EXECUTOR, PRECISION, SHAPES, CONVERSION_SECONDS)


@dataclass(frozen=True, slots=True)
class Settings:
    """The values of a model's options for Core AI.

    Attributes:
        function: the function of the asset to serve; None means "main", or the only one.
        has_explicit_states: whether the states of the function become inputs and outputs of the model.
        executor: the library that computes on an emulated unit: ONNX Runtime, with the asset converted to ONNX, or
            Apple's slow interpreter.
        precision: the floating-point format of a converted model.
        shapes: the input shapes of a model to convert.
        conversion_seconds: the time limit of a conversion.
    """

    function: str | None = None
    has_explicit_states: bool = False
    executor: Literal["onnxruntime", "interpreter"] = "onnxruntime"
    precision: Precision = Precision.FP16
    shapes: Mapping[str, InputShape] = field(default_factory=dict[str, InputShape])
    conversion_seconds: int = 600

    def lower_options(self) -> LowerOptions:
        """The options for converting an ONNX model to Core AI that follow from these settings."""
        return LowerOptions(precision=self.precision, shapes=self.shapes)


def read_settings(options: Mapping[str, Parameter]) -> Settings:
    """Parse the options. Raises InvalidArgumentError for an unknown option or a wrong value."""
    check_names("coreai", options, OPTION_NAMES)
    given = {name: str(value) for name, value in options.items()}
    executor = choice(EXECUTOR, given.get(EXECUTOR, "onnxruntime"), ("ONNXRUNTIME", "INTERPRETER"))
    try:
        shapes = parse_shapes([each for each in given.get(SHAPES, "").split(";") if each.strip()])
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"the config's parameters: {error}") from error
    several = [name for name, shape in shapes.items() if shape.is_enumerated]
    if several:
        raise InvalidArgumentError(
            f"parameter '{SHAPES}' gives '{several[0]}' several shapes, each of which would be a function; give a range"
        )
    if STATES in given:
        choice(STATES, given[STATES], ("EXPLICIT",))
    return Settings(
        given.get(FUNCTION),
        STATES in given,
        "interpreter" if executor == "INTERPRETER" else "onnxruntime",
        Precision(choice(PRECISION, given.get(PRECISION, "fp16"), ("FP16", "FP32")).lower()),
        shapes,
        integer(CONVERSION_SECONDS, given.get(CONVERSION_SECONDS, "600"), at_least=1),
    )
