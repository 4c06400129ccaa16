"""The gate with real runtimes: which operation is wrong, and what a second start need not do again."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from support.repositories import Bench, affine, write_model
from triune.backends.attempt import Attempt
from triune.backends.machine_backend import Shared
from triune.backends.tensor.backend import TensorBackend
from triune.backends.tensor.build import TensorBuild
from triune.config.configure import read_source
from triune.config.stamps import stamp
from triune.core.clock import MonotonicClock
from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.core.units import Unit
from triune.hardware.cpu import read_cpu
from triune.hardware.units import detect_units
from triune.runtimes.machine import Machine
from triune.runtimes.mlx import Mlx
from triune.runtimes.onnxruntime import OnnxRuntime

UNITS = "parameters { key: 'units' value { string_value: '%s' } }"
IN_BF16 = UNITS % "gpu,cpu" + " parameters { key: 'mlx.precision' value { string_value: 'bf16' } }"


def cancelling(num_relus: int = 1) -> bytes:
    """y = ((x + 5000) - 5000) * 2, which bf16 does not hold."""
    relus = [helper.make_node("Abs", [f"a{at}"], [f"a{at + 1}"], f"abs{at}") for at in range(num_relus)]
    nodes = [
        helper.make_node("Identity", ["x"], ["a0"]),
        *relus,
        helper.make_node("Add", [f"a{num_relus}", "c"], ["far"], "shift"),
        helper.make_node("Sub", ["far", "c"], ["near"], "back"),
        helper.make_node("Mul", ["near", "two"], ["y"], "double"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["b", 64])],
        [
            helper.make_tensor("c", TensorProto.FLOAT, [], [5000.0]),
            helper.make_tensor("two", TensorProto.FLOAT, [], [2.0]),
        ],
    )
    opset = [helper.make_opsetid("", 21)]
    return helper.make_model(graph, opset_imports=opset, ir_version=10).SerializeToString()


def with_mlx() -> Machine:
    units = detect_units(read_cpu())
    return Machine({"onnxruntime": OnnxRuntime(), "mlx": Mlx(units)}, units, 2)


def build(machine: Machine, path: Path, config: str, model: bytes, verdicts: Path | None = None) -> TensorBuild:
    write_model(path, "m", config, v1=model)
    source = read_source("m", path / "m", stamp(path / "m"))
    return TensorBackend(machine, MonotonicClock(), shared=Shared(verdicts=verdicts)).build(source, 1, None, Attempt())


# Of more operations than are watched at once, some are looked at first.
@pytest.mark.parametrize("num_relus", [1, 300])
def test_the_first_operation_that_is_wrong_is_named_with_the_reason(num_relus: int, tmp_path: Path) -> None:
    pytest.importorskip("mlx.core")
    built = build(with_mlx(), tmp_path, IN_BF16, cancelling(num_relus))
    verdict = built.verdicts[Unit.GPU]
    assert built.config.units == (Unit.CPU,)
    assert verdict.excess.startswith("output 'y' is off by ")
    assert verdict.cause.startswith("Sub 'back': its operands are ")
    assert "times as large as its result" in verdict.cause
    assert "BFLOAT16" in verdict.cause
    assert verdict.cause in built.shortfall
    built.close()


def test_a_second_start_compares_nothing(tmp_path: Path) -> None:
    bench = Bench()
    model = cancelling()
    verdicts = tmp_path / "gates"
    first = build(bench.machine, tmp_path, UNITS % "amx", model, verdicts)
    loads = len(bench.onnxruntime.loads)
    assert loads == 1
    second = build(bench.machine, tmp_path, UNITS % "amx", model, verdicts)
    assert second.verdicts == first.verdicts
    assert not first.verdicts[Unit.AMX].is_kept
    assert second.verdicts[Unit.AMX].is_kept
    assert len(bench.onnxruntime.loads) == loads
    # Another tolerance, and another file, are other questions.
    more = UNITS % "amx" + " parameters { key: 'unit_tolerance' value { string_value: '0.5' } }"
    assert not build(bench.machine, tmp_path, more, model, verdicts).verdicts[Unit.AMX].is_kept
    assert not build(bench.machine, tmp_path, UNITS % "amx", cancelling(2), verdicts).verdicts[Unit.AMX].is_kept


def test_a_refusal_is_kept_too(tmp_path: Path) -> None:
    bench = Bench()
    load = bench.openvino.load

    def load_broken(*args: object, **kwargs: object) -> object:
        executable = load(*args, **kwargs)
        run = executable.run
        executable.run = lambda *given: {name: array + 3 for name, array in run(*given).items()}
        return executable

    bench.openvino.load = load_broken
    reasons: list[str] = []
    for _ in range(2):
        with pytest.raises(UnsupportedError, match="answers on 'amx' are not those of 'cpu'") as caught:
            build(bench.machine, tmp_path, UNITS % "amx", cancelling(), tmp_path / "gates")
        reasons.append(str(caught.value))
    assert reasons[0] == reasons[1]
    assert "the likely reason is Identity" in reasons[0]
    assert len(bench.onnxruntime.loads) == 2
    assert bench.num_open == 0


def test_a_size_that_the_unit_refuses_does_not_keep_it_from_being_compared(tmp_path: Path) -> None:
    bench = Bench()
    load = bench.openvino.load

    def load_particular(*args: object, **kwargs: object) -> object:
        executable = load(*args, **kwargs)
        run = executable.run

        def refuse(inputs: Mapping[str, np.ndarray], outputs: Sequence[str]) -> dict[str, np.ndarray]:
            if inputs["x"].shape[1] == 16:
                raise InvalidArgumentError("x must have another size")
            return {name: array + 3 for name, array in run(inputs, outputs).items()}

        executable.run = refuse
        return executable

    bench.openvino.load = load_particular
    built = build(bench.machine, tmp_path, UNITS % "amx,cpu", affine(shape=["b", "n"]))
    assert built.config.units == (Unit.CPU,)
    assert "output 'y' is off by 3" in built.verdicts[Unit.AMX].excess
