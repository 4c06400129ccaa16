import pytest

from triune.cli.backend_config import read_backend_config
from triune.core.errors import InvalidArgumentError


def test_default_max_batch_size_for_one_backend_and_for_all() -> None:
    given = ["*,default-max-batch-size=8", "onnxruntime,default-max-batch-size=0", "onnxruntime,enable-global=1", "a=b"]
    assert read_backend_config(given) == ({"": 8, "onnxruntime": 0}, ["onnxruntime,enable-global=1", "a=b"])
    assert read_backend_config(["default-max-batch-size=16"]) == ({"": 16}, [])


@pytest.mark.parametrize(
    "given", ["x", ",a=b", "x,=1", "x,a=", "default-max-batch-size=-1", "x,default-max-batch-size=a"]
)
def test_backend_config_of_another_form_is_refused(given: str) -> None:
    with pytest.raises(InvalidArgumentError, match="backend-config"):
        read_backend_config([given])
