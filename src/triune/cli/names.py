"""Tensor names on the command line: a program's own names, or the names in the model that it was converted from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from triune.core.errors import InvalidArgumentError
from triune.coreml.source import SourceTensor

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Names:
    """The names of a model's inputs or outputs.

    Attributes:
        model: the model's name in error messages.
        kind: "input" or "output".
        own: the model's own names, in its order.
        sources: own name to the name that the tensor had before the conversion.
    """

    model: str
    kind: str
    own: Sequence[str]
    sources: Mapping[str, SourceTensor] = field(default_factory=dict[str, SourceTensor])

    def find(self, name: str) -> str:
        """Get the own name for an own or a source name. If `name` is both, the own name is meant.

        Raises:
            InvalidArgumentError: the name is unknown; the message lists all names.
        """
        if name in self.own:
            return name
        found = next((own for own in self.own if own in self.sources and self.sources[own].name == name), None)
        if found is None:
            known = ", ".join(map(self.shown, self.own)) or "none"
            raise InvalidArgumentError(f"'{self.model}' has no {self.kind} '{name}'; it has {known}")
        return found

    def translate(self, values: Mapping[str, _T], required: Mapping[str, str]) -> dict[str, _T]:
        """Replace source names by own names.

        Args:
            values: the values by own or source name.
            required: own name to a description such as "fp32 of [1, 3]", for each required tensor.

        Raises:
            InvalidArgumentError: a name is unknown, two name the same tensor, or one of `required` is missing.
        """
        found: dict[str, _T] = {}
        for name, value in values.items():
            own = self.find(name)
            if own in found:
                raise InvalidArgumentError(
                    f"{self.kind} {self.shown(own)} is given twice, once by each name; use the model's own names"
                )
            found[own] = value
        missing = [name for name in self.own if name in required and name not in found]
        if missing:
            name = missing[0]
            raise InvalidArgumentError(
                f"{self.kind} {self.shown(name)} is missing: give --{self.kind} {name}=FILE, {required[name]}"
            )
        return found

    def shown(self, own: str) -> str:
        """Format a name for a message: `'a_b' (in its source 'a.b')`, with the source name if it differs."""
        source = self.sources.get(own)
        return f"'{own}'" if source is None or source.name == own else f"'{own}' (in its source '{source.name}')"
