"""The options of the Core ML runtime in a model's config. Their names begin with `coreml.`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.core.requests import Parameter
from triune.core.tensors import Signature
from triune.core.units import Unit
from triune.coreml.lowering.options import LowerOptions, Target
from triune.graph.conversion.options import Layout, Precision
from triune.graph.conversion.shapes import InputShape, Range, parse_shapes
from triune.runtimes.options import check_names, choice, integer

FUNCTION = "coreml.function"
STATES = "coreml.states"
EXECUTOR = "coreml.executor"
PRECISION = "coreml.precision"
LAYOUT = "coreml.layout"
TARGET = "coreml.target"
SHAPES = "coreml.shapes"
MAX_BATCH_SIZE = "coreml.max_batch_size"
CONVERSION_SECONDS = "coreml.conversion_seconds"
OPTION_NAMES = (FUNCTION, STATES, EXECUTOR, PRECISION, LAYOUT, TARGET, SHAPES, MAX_BATCH_SIZE, CONVERSION_SECONDS)


@dataclass(frozen=True, slots=True)
class Settings:
    """The values of a model's options for Core ML.

    Attributes:
        function: the function of the package to serve; None means the default one.
        has_explicit_states: whether the states of a package's function become inputs and outputs.
        executor: the executor that computes on an emulated unit: ONNX Runtime, or Triune's slow reference.
        precision: the floating-point format of a converted model.
        layout: the layout of a converted model; None means the Neural Engine's on `ane`, the source's on other units.
        target: the oldest system that can run a converted model.
        shapes: the shapes of a converted model's inputs with free dimensions.
        max_batch_size: the largest batch of a converted model whose first dimension is free; 0 for no batch dimension.
        conversion_seconds: the time limit of a conversion.
    """

    function: str | None = None
    has_explicit_states: bool = False
    executor: Literal["onnxruntime", "reference"] = "onnxruntime"
    precision: Precision = Precision.FP16
    layout: Layout | None = None
    target: Target = Target.IOS18
    shapes: Mapping[str, InputShape] = field(default_factory=dict[str, InputShape])
    max_batch_size: int = 0
    conversion_seconds: int = 600

    @property
    def is_of_programs(self) -> bool:
        """Whether an option names a function or states, which only ML Programs have."""
        return self.function is not None or self.has_explicit_states

    def check_for_onnx(self, path: Path) -> None:
        """Raise InvalidArgumentError if an option does not apply to the ONNX model at `path`."""
        if self.is_of_programs:
            name = STATES if self.function is None else FUNCTION
            raise InvalidArgumentError(
                f"parameter '{name}' is for Core ML packages, and '{path}' is an ONNX model: leave it out"
            )

    def lower_options(self, signature: Signature, name: str, unit: Unit) -> LowerOptions:
        """The conversion options for a model's signature and a unit.

        Raises:
            UnsupportedError: a dimension is free, and no option limits it, as Core ML requires.
        """
        shapes = dict(self.shapes)
        for spec in signature.inputs:
            if spec.name in shapes or -1 not in spec.shape:
                continue
            free = [axis for axis, size in enumerate(spec.shape) if size == -1]
            if free != [0] or not self.max_batch_size:
                raise UnsupportedError(
                    f"dimension {free[-1]} of input '{spec.name}' of '{name}' is free, and Core ML needs its limits: "
                    f"give them in the config's parameter '{SHAPES}', such as '{spec.name}=1,1..512'"
                )
            rows = 1 if self.max_batch_size == 1 else Range(1, self.max_batch_size)
            shapes[spec.name] = InputShape(((rows, *spec.shape[1:]),))
        layout = self.layout or (Layout.ANE if unit is Unit.ANE else Layout.SOURCE)
        return LowerOptions(precision=self.precision, target=self.target, shapes=shapes, layout=layout)


def read_settings(options: Mapping[str, Parameter]) -> Settings:
    """Parse the options. Raises InvalidArgumentError for an unknown option or a wrong value."""
    check_names("coreml", options, OPTION_NAMES)
    given = {name: str(value) for name, value in options.items()}
    is_reference = choice(EXECUTOR, given.get(EXECUTOR, "onnxruntime"), ("ONNXRUNTIME", "REFERENCE")) == "REFERENCE"
    try:
        target = Target.parse(given.get(TARGET, Target.IOS18.label))
        shapes = parse_shapes([each for each in given.get(SHAPES, "").split(";") if each.strip()])
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"the config's parameters: {error}") from error
    if STATES in given:
        choice(STATES, given[STATES], ("EXPLICIT",))
    return Settings(
        given.get(FUNCTION),
        STATES in given,
        "reference" if is_reference else "onnxruntime",
        Precision(choice(PRECISION, given.get(PRECISION, "fp16"), ("FP16", "FP32")).lower()),
        Layout(choice(LAYOUT, given[LAYOUT], ("ANE", "SOURCE")).lower()) if LAYOUT in given else None,
        target,
        shapes,
        integer(MAX_BATCH_SIZE, given.get(MAX_BATCH_SIZE, "0")),
        integer(CONVERSION_SECONDS, given.get(CONVERSION_SECONDS, "600"), at_least=1),
    )
