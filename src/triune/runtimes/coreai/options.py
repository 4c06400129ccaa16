"""The settings of the Core AI runtime out of a model's config. All of them begin with `coreai.`."""

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
    """What a config says.

    Attributes:
        function: of an asset, which of its functions is served; None is "main", or the only one.
        has_explicit_states: the states of the function become inputs and outputs.
        executor: what computes an emulated unit: ONNX Runtime on what is raised, or Apple's interpreter, which is slow.
        precision: that a converted model computes in.
        shapes: of the inputs of a model to be converted.
        conversion_seconds: what a conversion may take.
    """

    function: str | None = None
    has_explicit_states: bool = False
    executor: Literal["onnxruntime", "interpreter"] = "onnxruntime"
    precision: Precision = Precision.FP16
    shapes: Mapping[str, InputShape] = field(default_factory=dict[str, InputShape])
    conversion_seconds: int = 600

    def lower_options(self) -> LowerOptions:
        """How to convert a model."""
        return LowerOptions(precision=self.precision, shapes=self.shapes)


def read_settings(options: Mapping[str, Parameter]) -> Settings:
    """Raises InvalidArgumentError for an option that is unknown or wrong."""
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
