"""Stores compiled executables for later trials, since most configurations do not change what is compiled."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from triune.backends.tensor.build import TensorBuild
from triune.backends.tensor.executable import SharedExecutable
from triune.config.placement import Recipe
from triune.core.units import Unit
from triune.core.verdict import Verdict
from triune.hardware.memory import usable_memory

_MOST: Final = 8
"""The most executables in the cache; the least recently used ones are closed first."""

_LEAST_FREE: Final = 0.25
"""No executable is kept while less than this fraction of the memory is free."""


class KeptExecutables:
    """A store of the executables that trials of one model have compiled, for later trials. The model's files must not
    change meanwhile. Used by one thread.
    """

    def __init__(self) -> None:
        self._last: TensorBuild | None = None
        self._executables: list[SharedExecutable] = []
        self._verdicts: dict[Recipe, Verdict] = {}

    def previous(self) -> TensorBuild | None:
        """A build with the stored executables, for `Backend.build`; None if there are none."""
        if self._last is None or not self._executables:
            return None
        return replace(self._last, executables=tuple(self._executables), verdicts=self._known())

    def keep(self, build: TensorBuild) -> None:
        """Cache the executables of a build, in addition to earlier ones. The build must not be closed yet."""
        old = [each for each in self._executables if each not in build.executables]
        new = [each if each in self._executables else each.hold() for each in build.executables]
        for each in new:
            if (verdict := build.verdicts.get(each.unit)) is not None:
                self._verdicts[each.recipe] = verdict
        memory = usable_memory()
        most = _MOST if memory.available > _LEAST_FREE * memory.total else 0
        self._last, self._executables = build, [*old, *new]
        while len(self._executables) > most:
            self._executables.pop(0).close()

    def close(self) -> None:
        """Free all executables that are kept."""
        while self._executables:
            self._executables.pop().close()

    def _known(self) -> Mapping[Unit, Verdict]:
        """The verdicts on units whose kept executables all have one recipe. A unit with executables of several recipes
        is left out, because it is not known which recipe a configuration needs.
        """
        recipes: dict[Unit, set[Recipe]] = {}
        for each in self._executables:
            recipes.setdefault(each.unit, set()).add(each.recipe)
        return {
            unit: self._verdicts[next(iter(found))]
            for unit, found in recipes.items()
            if len(found) == 1 and next(iter(found)) in self._verdicts
        }
