"""Passes over programs of PyMIL: Triune's own, and those of coremltools."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

from coremltools.converters.mil.mil.passes import pass_registry

from triune.coreml.lowering.half_cast import small_steps
from triune.coreml.lowering.passes.blocks import in_pass
from triune.graph.passes.run import Pass

_passes: Any = pass_registry.PASS_REGISTRY


class MilPass(Pass[Any]):
    """The base class of Triune's own passes. The program is validated after each."""

    @abstractmethod
    def change(self, program: Any) -> None:
        """Change a program of PyMIL in place."""

    def __call__(self, model: Any) -> Any:
        """Change the program in place and return it."""
        with in_pass(self.name):
            self.change(model)
        model.validate()
        return model


class VendorPass(Pass[Any]):
    """One of coremltools' passes, run as by coremltools' pass manager, but without printing the program as text."""

    def __init__(self, name: str, selector: Callable[[Any], bool] | None = None) -> None:
        """Name the pass, and choose what it casts.

        Args:
            name: coremltools' name of the pass.
            selector: for the pass to fp16, whether an operation is to compute in fp16.
        """
        self.name = name
        self._selector = selector

    def __call__(self, model: Any) -> Any:
        """Change the program in place and return it."""
        step = type(_passes[self.name])()
        if self._selector is not None:
            step.op_selector = self._selector
        with small_steps():
            step(model)
        model.validate()
        return model
