"""What batches of a model cost on the units of a chip."""

from collections.abc import Sequence

import pytest

from support.simulated import MS, cost
from triune.config.policy import BatchingPolicy
from triune.core.errors import UnsupportedError
from triune.core.units import Unit
from triune.hardware.chips import chip
from triune.hardware.rules import Facts
from triune.planning.candidates import Request
from triune.planning.constants import constants
from triune.planning.op import Op, OpClass
from triune.planning.planner import plan
from triune.planning.units import target_of
from triune.simulation.profile import Profile, batch_sizes, profile_of

M2_PRO = target_of(chip("m2-pro"), constants())
POLICY = BatchingPolicy(max_batch_size=6, is_dynamic=True)


def product(name: str, num_rows: int, size: float) -> Op:
    return Op(
        name=name,
        op_type="MatMul",
        op_class=OpClass.MATMUL,
        flops=2 * num_rows * 128 * size * size,
        weights=size * size,
        read=num_rows * 128 * size,
        written=num_rows * 128 * size,
        rows=num_rows * 128,
        inner=size,
        columns=size,
        inputs=("x",),
        outputs=(name,),
        facts=Facts(op="MatMul"),
    )


def refused(name: str, num_rows: int) -> Op:
    """One that the Neural Engine refuses."""
    return Op(
        name=name, op_type="CumSum", op_class=OpClass.SERIAL, flops=num_rows * 128, read=num_rows * 128,
        written=num_rows * 128, inputs=("a",), outputs=(name,), facts=Facts(op="CumSum"),
    )  # fmt: skip


def test_sizes_are_powers_of_two_and_the_largest() -> None:
    assert [batch_sizes(most) for most in (1, 2, 6, 32)] == [[1], [1, 2], [1, 2, 4, 6], [1, 2, 4, 8, 16, 32]]


def test_costs_are_those_of_plans_on_one_unit() -> None:
    def ops_of(num_rows: int) -> tuple[Sequence[Op], str]:
        return [product("a", num_rows, 512), product("b", num_rows, 512)], "encoder"

    found = profile_of("m", POLICY, 10, ops_of, M2_PRO)
    assert list(found.costs) == [Unit.AMX, Unit.GPU, Unit.ANE]
    assert found.left_out == {}
    for unit, costs in found.costs.items():
        for each in costs:
            planned = plan(Request("m", ops_of(each.num_rows)[0], "encoder", units=(unit,)), M2_PRO, constants())
            assert each.ns == pytest.approx(planned.ms * MS)
            assert each.joules == pytest.approx(planned.joules)
            assert list(each.unit_ns) == [unit]
            assert each.memory_bytes >= 2 * 512 * 512 * 2, "the weights are read"


def test_what_a_unit_refuses_is_computed_on_the_cpu() -> None:
    def ops_of(num_rows: int) -> tuple[Sequence[Op], str]:
        return [product("a", num_rows, 2048), refused("s", num_rows), product("b", num_rows, 2048)], "encoder"

    found = profile_of("m", POLICY, 10, ops_of, M2_PRO)
    assert found.left_out == {}
    for each in found.costs[Unit.ANE]:
        assert set(each.unit_ns) == {Unit.ANE, Unit.AMX}
        assert each.unit_ns[Unit.ANE] > each.unit_ns[Unit.AMX] > 0
    assert list(found.costs[Unit.GPU][0].unit_ns) == [Unit.GPU]


def test_a_unit_that_would_hardly_compute_is_left_out_with_the_reason() -> None:
    def ops_of(num_rows: int) -> tuple[Sequence[Op], str]:
        return [product("a", num_rows, 8), *(refused(f"s{index}", num_rows) for index in range(9))], "encoder"

    found = profile_of("m", POLICY, 10, ops_of, M2_PRO)
    assert Unit.ANE not in found.costs
    assert "it refuses 9 operations" in found.left_out[Unit.ANE]
    assert "most of the time would be there" in found.left_out[Unit.ANE]


def test_a_model_that_no_unit_serves() -> None:
    only_ane = target_of(chip("m2-pro"), constants())
    only_ane = type(only_ane)("Test", {Unit.ANE: only_ane.units[Unit.ANE]}, 2, 200.0, None)
    with pytest.raises(UnsupportedError, match="no unit of Test serves model 'm': ane: it refuses 1 operation"):
        profile_of("m", POLICY, 10, lambda num_rows: ([refused("s", num_rows)], "encoder"), only_ane)


def test_between_sizes_costs_lie_on_a_line() -> None:
    costs = {
        Unit.ANE: [
            cost({Unit.ANE: 2}, num_rows=2, joules=0.2, gigabytes=1),
            cost({Unit.ANE: 3, Unit.AMX: 1}, num_rows=4, joules=0.6, gigabytes=2),
        ]
    }
    found = Profile("m", POLICY, 10, "encoder", costs, {}).cost(Unit.ANE, 3)
    assert found.unit_ns == {Unit.ANE: 2.5 * MS, Unit.AMX: 0.5 * MS}
    assert (found.num_rows, found.joules, found.memory_bytes) == (3, pytest.approx(0.4), 1.5e9)
