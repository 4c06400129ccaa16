"""The settings of the Core ML runtime out of a model's config. All of them begin with `coreml.`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.core.requests import Parameter
from triune.core.tensors import Signature
from triune.coreml.lowering.options import LowerOptions, Target
from triune.graph.conversion.options import Precision
from triune.graph.conversion.shapes import InputShape, Range, parse_shapes
from triune.runtimes.options import check_names, choice, integer

EXECUTOR = "coreml.executor"
PRECISION = "coreml.precision"
TARGET = "coreml.target"
SHAPES = "coreml.shapes"
MAX_BATCH_SIZE = "coreml.max_batch_size"
OPTION_NAMES = (EXECUTOR, PRECISION, TARGET, SHAPES, MAX_BATCH_SIZE)


@dataclass(frozen=True, slots=True)
class Settings:
    """What a config says.

    Attributes:
        executor: what computes an emulated unit: ONNX Runtime, or Triune's slow reference.
        precision: that a converted model computes in.
        target: the oldest system that runs a converted model.
        shapes: of the inputs of a model to be converted, where they have free dimensions.
        max_batch_size: the most rows of a converted model's free first dimension; 0 if that is no batch dimension.
    """

    executor: Literal["onnxruntime", "reference"] = "onnxruntime"
    precision: Precision = Precision.FP16
    target: Target = Target.IOS18
    shapes: Mapping[str, InputShape] = field(default_factory=dict[str, InputShape])
    max_batch_size: int = 0

    def lower_options(self, signature: Signature, name: str) -> LowerOptions:
        """How to convert a model of that signature.

        Raises:
            UnsupportedError: Core ML needs limits for a dimension that nothing here gives.
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
        return LowerOptions(precision=self.precision, target=self.target, shapes=shapes)


def read_settings(options: Mapping[str, Parameter]) -> Settings:
    """Raises InvalidArgumentError for an option that is unknown or wrong."""
    check_names("coreml", options, OPTION_NAMES)
    given = {name: str(value) for name, value in options.items()}
    is_reference = choice(EXECUTOR, given.get(EXECUTOR, "onnxruntime"), ("ONNXRUNTIME", "REFERENCE")) == "REFERENCE"
    try:
        target = Target.parse(given.get(TARGET, Target.IOS18.label))
        shapes = parse_shapes([each for each in given.get(SHAPES, "").split(";") if each.strip()])
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"the config's parameters: {error}") from error
    return Settings(
        "reference" if is_reference else "onnxruntime",
        Precision(choice(PRECISION, given.get(PRECISION, "fp16"), ("FP16", "FP32")).lower()),
        target,
        shapes,
        integer(MAX_BATCH_SIZE, given.get(MAX_BATCH_SIZE, "0")),
    )
