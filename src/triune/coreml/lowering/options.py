"""The options of a conversion to Core ML."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from triune.core.errors import InvalidArgumentError
from triune.graph.conversion.options import ConversionOptions


class Target(Enum):
    """The oldest system that must run the package. The value is Core ML's specification version."""

    IOS15 = 6
    IOS16 = 7
    IOS17 = 8
    IOS18 = 9

    @property
    def label(self) -> str:
        """The name as Apple writes it: iOS18."""
        return self.name.replace("IOS", "iOS")

    @classmethod
    def parse(cls, text: str) -> "Target":
        """The target of a name such as iOS18, in letters of any case.

        Raises:
            InvalidArgumentError: there is no such target.
        """
        for target in cls:
            if target.label.lower() == text.lower():
                return target
        known = ", ".join(each.label for each in cls)
        raise InvalidArgumentError(f"deployment target '{text}' is not known; choose one of {known}")


@dataclass(frozen=True, kw_only=True)
class LowerOptions(ConversionOptions):
    """Options of `ConversionOptions`, and Core ML's own.

    Attributes:
        target: the oldest system that must run the package.
        states: inputs that become states of the program, such as caches of keys and values, each with the output that
            is its next value. Core ML's states are of fp16.
    """

    target: Target = Target.IOS18
    states: Mapping[str, str] = field(default_factory=dict[str, str])

    def __post_init__(self) -> None:
        ConversionOptions.__post_init__(self)
        if self.states and self.target is not Target.IOS18:
            raise InvalidArgumentError(
                f"states need iOS18, and the package is to run on {self.target.label}: leave one of them out"
            )
