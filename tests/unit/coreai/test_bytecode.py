"""MLIR's bytecode: resources come out as they went in; what is cut off anywhere is a typed error."""

import contextlib
import io
import random
from typing import Any

import numpy as np
import pytest

from support.coreai_programs import add_graph, ops
from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.coreai.bytecode import read_bytecode
from triune.coreai.library import authoring
from triune.coreai.lowering.values import tensor_type

WEIGHTS = [np.arange(5000, dtype=np.float32), np.arange(7000, dtype=np.uint8), np.arange(300, dtype=np.float16)]


@pytest.fixture(scope="module")
def code() -> bytes:
    module = authoring.Module.create()
    file = io.BytesIO()
    with module:

        def build(x: Any) -> Any:
            return [x, *(ops.constant(array) for array in WEIGHTS)]

        add_graph("main", ["x"], [tensor_type([2], np.float32)], build)
        module._mlir_module.operation.write_bytecode(file)
    return file.getvalue()


def test_resources_are_the_weights(code: bytes) -> None:
    read = read_bytecode(code)
    assert read.producer.startswith("MLIR")
    found = sorted(bytes(data) for data in read.resources().values())
    assert found == sorted(array.tobytes() for array in WEIGHTS)


def test_what_is_cut_off_is_a_typed_error(code: bytes) -> None:
    for length in range(0, len(code), 97):
        with pytest.raises(InvalidArgumentError):
            read_bytecode(code[:length]).resources()


def test_what_is_changed_is_read_or_a_typed_error(code: bytes) -> None:
    rng = random.Random(5)
    for _ in range(400):
        changed = bytearray(code)
        for _ in range(rng.randint(1, 4)):
            # The headers, and the sections after the weights.
            place = rng.choice([rng.randrange(0, 2000), rng.randrange(len(code) - 700, len(code))])
            changed[place] = rng.randrange(256)
        with contextlib.suppress(InvalidArgumentError, UnsupportedError):
            read_bytecode(changed).resources()
