"""The names of a Core ML program's tensors on the command line: its own, or those that they had in its source."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from triune.core.errors import InvalidArgumentError
from triune.coreml.source import SourceTensor

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Names:
    """The inputs, or the outputs, of a model.

    Attributes:
        model: what messages call it.
        kind: "input" or "output".
        own: the model's names, in its order.
        sources: what the tensors were called before the model was converted, by its own names.
    """

    model: str
    kind: str
    own: Sequence[str]
    sources: Mapping[str, SourceTensor] = field(default_factory=dict[str, SourceTensor])

    def find(self, name: str) -> str:
        """The model's own name of a tensor, of which `name` is its own or its source's. Its own is the stronger.

        Raises:
            InvalidArgumentError: it is neither; the message lists both.
        """
        if name in self.own:
            return name
        found = next((own for own in self.own if own in self.sources and self.sources[own].name == name), None)
        if found is None:
            known = ", ".join(map(self.shown, self.own)) or "none"
            raise InvalidArgumentError(f"'{self.model}' has no {self.kind} '{name}'; it has {known}")
        return found

    def translate(self, values: Mapping[str, _T], required: Mapping[str, str]) -> dict[str, _T]:
        """Values by the model's own names.

        Args:
            values: by either name.
            required: what must be given, by the model's own names: "fp32 of [1, 3]".

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
        """`'a_b' (in its source 'a.b')`: both names, where there are two."""
        source = self.sources.get(own)
        return f"'{own}'" if source is None or source.name == own else f"'{own}' (in its source '{source.name}')"
