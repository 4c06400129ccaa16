"""The classes of passes over coremltools' programs: Triune's own passes, and those of coremltools."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

from coremltools.converters.mil.mil.passes import pass_registry

from triune.coreml.lowering.half_cast import check_in_blocks
from triune.coreml.lowering.passes.blocks import in_pass
from triune.graph.passes.run import Pass

_passes: Any = pass_registry.PASS_REGISTRY


class MilPass(Pass[Any]):
    """The base class of Triune's own passes. After each, coremltools validates the program."""

    @abstractmethod
    def change(self, program: Any) -> None:
        """Apply the subclass's pass to `program`, coremltools' program, in place."""

    def __call__(self, model: Any) -> Any:
        """Apply `change` to a program, let coremltools validate the program, and return it."""
        with in_pass(self.name):
            self.change(model)
        model.validate()
        return model


class VendorPass(Pass[Any]):
    """One of coremltools' passes, run as by coremltools' pass manager, but without printing the program as text."""

    def __init__(self, name: str, selector: Callable[[Any], bool] | None = None) -> None:
        """Name one of coremltools' passes.

        Args:
            name: coremltools' name of the pass.
            selector: for the pass that casts to fp16: returns whether an operation is to compute in fp16.
        """
        self.name = name
        self._selector = selector

    def __call__(self, model: Any) -> Any:
        """Change the program in place and return it."""
        step = type(_passes[self.name])()
        if self._selector is not None:
            step.op_selector = self._selector
        with check_in_blocks():
            step(model)
        model.validate()
        return model
