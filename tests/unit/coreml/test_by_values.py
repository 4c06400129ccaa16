"""Which programs have shapes, and a time, that the values of their inputs decide."""

from pathlib import Path
from typing import Any

import pytest

from support.mil_models import ct, mb, program, save, tensor
from triune.coreml.by_values import are_shapes_by_values
from triune.coreml.onnx_executor import OnnxExecutor
from triune.coreml.package import read_package


def made(kind: str) -> Any:
    @program(tensor(3))
    def body(x: Any) -> Any:
        match kind:
            case "shapes":
                return mb.reshape(x=x, shape=mb.shape(x=x), name="y")
            case "found":
                return mb.cast(x=mb.non_zero(x=x), dtype="fp32", name="y")
            case "counted":
                return mb.while_loop(
                    _cond=lambda a: mb.less(x=mb.reduce_max(x=a, axes=[0], keep_dims=False), y=100.0),
                    _body=lambda a: mb.add(x=a, y=1.0),
                    loop_vars=(x,),
                    name="y",
                )
            case _:
                return mb.add(x=x, y=1.0, name="y")

    return body


@pytest.mark.parametrize(
    ("kind", "is_decided"), [("plain", False), ("shapes", False), ("found", True), ("counted", True)]
)
def test_what_values_decide(kind: str, is_decided: bool, tmp_path: Path) -> None:
    package = read_package(save(tmp_path, made(kind), inputs=[ct.TensorType(name="x", shape=(3,))]))
    assert are_shapes_by_values(package.function(None)) == is_decided
    assert OnnxExecutor(package).is_steady != is_decided
