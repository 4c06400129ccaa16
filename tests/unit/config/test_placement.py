"""What each executable of a model is made of."""

from pathlib import Path

import pytest

from support.repositories import Bench, affine, write_model
from triune.config.configure import configure, read_source
from triune.config.placement import Recipe, place, recipe_on, threads_per_executable
from triune.config.stamps import Stamp
from triune.core.units import Unit


@pytest.mark.parametrize(
    ("num_instances", "num_cores", "expected"), [(1, 8, 8), (2, 8, 4), (3, 8, 2), (16, 8, 1), (1, 1, 1)]
)
def test_instances_do_not_fight_over_cores(num_instances: int, num_cores: int, expected: int) -> None:
    assert threads_per_executable(num_instances, num_cores) == expected


def test_a_recipe_for_each_executable_the_instances_of_a_unit_together(tmp_path: Path) -> None:
    bench = Bench(num_cores=8)
    text = """
      parameters { key: 'units' value { string_value: 'amx,cpu' } }
      parameters { key: 'level' value { string_value: '3' } }
      parameters { key: 'own_process' value { string_value: 'true' } }
      instance_group { count: 2 }
    """
    write_model(tmp_path, "m", text, v1=affine())
    config = configure(read_source("m", tmp_path / "m", Stamp()), 1, bench.machine)
    amx = Recipe("openvino", Unit.AMX, 4, (), has_own_process=True)
    # The option is ONNX Runtime's alone.
    cpu = Recipe("onnxruntime", Unit.CPU, 4, (("level", "3"),), has_own_process=True)
    assert place(config, bench.machine) == [amx, amx, cpu, cpu]
    assert recipe_on(Unit.CPU, 8, config, bench.machine).num_threads == 8
