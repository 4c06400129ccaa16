"""Run a function of an ML Program with ONNX Runtime. It is raised to ONNX once."""

from collections.abc import Mapping

import numpy as np
from onnx import TensorProto

from triune.coreml.mil import Array, StateType
from triune.coreml.package import Package
from triune.coreml.raising import raise_function
from triune.graph.by_values import by_values
from triune.graph.half_rounding import keep_half_rounding
from triune.graph.passes.widen import Widen
from triune.graph.session import GraphSession


class OnnxExecutor:
    """An `Executor` that runs in onnxruntime, on the CPU.

    Thread-safe: a session has no state of its own.

    Attributes:
        is_steady: whether the time of a run depends only on the shapes of the inputs.
        crash_risk: the node at which inputs may crash the process, and how; empty if there is none (`graph.faults`).
    """

    def __init__(
        self,
        package: Package,
        function: str | None = None,
        *,
        num_threads: int = 0,
        is_widened: bool = False,
        run_bytes: int | None = None,
    ) -> None:
        """Raise a function and load it.

        Args:
            package: a package from `read_package`.
            function: the name of the function; None takes the default one.
            num_threads: the number of threads that compute; 0 lets ONNX Runtime choose.
            is_widened: compute fp16 operations in fp32, as the reference by which the error of fp16 is measured.
            run_bytes: the memory limit of a run, without the program's weights; None sets no limit.

        Raises:
            NotFoundError: there is no such function.
            InvalidArgumentError: an operation is malformed, by Triune's or ONNX Runtime's checks.
            UnsupportedError: an operation has no equivalent in ONNX or ONNX Runtime.
        """
        program = package.function(function)
        model = raise_function(package, program.name)
        self.is_steady = not by_values(model).time
        # Inputs and outputs of fp16 stay fp16. Only the computation between them is in fp32.
        self._widened: list[str] = []
        self._narrowed: set[str] = set()
        if is_widened:
            inputs, outputs = (
                [value.name for value in values if value.type.tensor_type.elem_type == TensorProto.FLOAT16]
                for values in (model.graph.input, model.graph.output)
            )
            self._widened, self._narrowed = inputs, set(outputs)
            Widen()(model)
        else:
            keep_half_rounding(model)
        states = [each.name for each in program.inputs if isinstance(each.type, StateType)]
        name = f"'{package.name}', function '{program.name}'"
        self._session = GraphSession(model, name, states=states, num_threads=num_threads, run_bytes=run_bytes)
        self.crash_risk = self._session.crash_risk

    def run(
        self, inputs: Mapping[str, Array], states: Mapping[str, Array]
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        """Compute the outputs and the new states. Inputs and states are not changed.

        Raises:
            InvalidArgumentError: an input or state is missing, or the program cannot compute with its values.
        """
        if not self._widened and not self._narrowed:
            return self._session.run(inputs, states)
        outputs, after = self._session.run(self._wide(inputs), self._wide(states))
        return self._narrow(outputs), {name: array.astype(states[name].dtype) for name, array in after.items()}

    def _wide(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        return {name: each.astype(np.float32) if name in self._widened else each for name, each in arrays.items()}

    def _narrow(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        with np.errstate(over="ignore"):
            return {name: each.astype(np.float16) if name in self._narrowed else each for name, each in arrays.items()}
