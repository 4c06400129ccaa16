"""Names of tensors on the command line: those of the program, or those of the model that it was converted from."""

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
        own: the names in the model, in its order.
        sources: for each of these, the name that the tensor had before the conversion.
    """

    model: str
    kind: str
    own: Sequence[str]
    sources: Mapping[str, SourceTensor] = field(default_factory=dict[str, SourceTensor])

    def find(self, name: str) -> str:
        """Convert a name to the name in the model. `name` is a name in the model or in its source; if two tensors have
        it, one in the model and one in the source, the model's tensor is meant.

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
        """Replace names in the source by names in the model.

        Args:
            values: the values, by name in the model or in its source.
            required: for each required tensor, by its name in the model, a description such as "fp32 of [1, 3]".

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
        """Format a name for a message, with the name in the source if it differs: `'a_b' (in its source 'a.b')`."""
        source = self.sources.get(own)
        return f"'{own}'" if source is None or source.name == own else f"'{own}' (in its source '{source.name}')"
