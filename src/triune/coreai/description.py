"""The functions of an asset, and their inputs, outputs and states.

Apple's library crashes on broken bytecode. A child process therefore reads an asset first: if the child survives, so
will this process.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from triune.core.datatypes import DataType
from triune.core.errors import InvalidArgumentError, UnavailableError, UnsupportedError
from triune.core.tensors import Signature, TensorSpec
from triune.coreai.asset import Asset, read_asset
from triune.coreai.images import Image, image_of
from triune.graph.state_names import new_state

SECONDS: Final = 600.0
"""The time limit for a child process to read an asset, in seconds."""

_DATATYPES = {
    "f16": DataType.FP16,
    "f32": DataType.FP32,
    "f64": DataType.FP64,
    "bf16": DataType.BF16,
    "i1": DataType.BOOL,
    **{f"si{bits}": DataType(f"INT{bits}") for bits in (8, 16, 32, 64)},
    **{f"ui{bits}": DataType(f"UINT{bits}") for bits in (8, 16, 32, 64)},
}


@dataclass(frozen=True, slots=True)
class Feature:
    """An input, output or state.

    Attributes:
        name: its name; "" if it has none.
        type: MLIR's name of a tensor's element type, such as "f32"; for other values MLIR's whole type.
        shape: the shape, in which -1 is a free dimension; None if it is not a tensor.
    """

    name: str
    type: str
    shape: tuple[int, ...] | None

    @property
    def image(self) -> Image | None:
        """The feature's type as an image; None if it is not an image. Raises UnsupportedError for an unknown pixel
        format.
        """
        return image_of(self.type)

    def spec(self) -> TensorSpec:
        """The tensor that a request passes for the feature; for an image, its bytes. Raises UnsupportedError for other
        types.
        """
        image = self.image
        if image is not None:
            return TensorSpec(self.name, DataType.UINT8, image.shape)
        if self.shape is None or self.type not in _DATATYPES:
            raise UnsupportedError(f"'{self.name}' is of {self.type}, which no request can carry")
        return TensorSpec(self.name, _DATATYPES[self.type], self.shape)


@dataclass(frozen=True, slots=True)
class Function:
    """The inputs, outputs and states of a function, in order.

    Attributes:
        precision: "fp32", "bf16" or "fp16", in which the function computes; see `precision.precision_of`.
    """

    name: str
    inputs: tuple[Feature, ...]
    outputs: tuple[Feature, ...]
    states: tuple[Feature, ...]
    precision: str

    def signature(self) -> Signature:
        """The signature for requests: states are inputs, and outputs under the names of `new_state`.

        Raises:
            UnsupportedError: an input, output or state is of a type that no request can carry.
        """
        states = [each.spec() for each in self.states]
        return Signature(
            (*(each.spec() for each in self.inputs), *states),
            (
                *(each.spec() for each in self.outputs),
                *(TensorSpec(new_state(each.name), each.datatype, each.shape) for each in states),
            ),
        )


@dataclass(frozen=True, slots=True)
class Description:
    """An asset and its functions."""

    asset: Asset
    functions: tuple[Function, ...]


def describe(path: Path) -> Description:
    """Check an asset, and read its description in a child process.

    Raises:
        NotFoundError: there is no such asset.
        InvalidArgumentError: the asset is malformed.
        UnsupportedError: its format has another version, or coreai-core is not installed.
        UnavailableError: reading it took too long.
    """
    asset = read_asset(path)
    command = [sys.executable, "-P", "-m", "triune.coreai.description", str(path)]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=SECONDS,
            check=False,
            # Give the child process the module path of this process.
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
    except subprocess.TimeoutExpired:
        raise UnavailableError(f"'{path.name}' was not read within {SECONDS:g} s; its process was ended") from None
    if done.returncode != 0:
        raise InvalidArgumentError(
            f"Apple's library {_ended(done.returncode)} while it read '{path.name}': the program is broken; "
            "save or copy the asset again"
        )
    found: dict[str, Any] = json.loads(done.stdout)
    if "unsupported" in found:
        raise UnsupportedError(found["unsupported"])
    if "invalid" in found:
        raise InvalidArgumentError(found["invalid"])
    return Description(asset, tuple(_function(each) for each in found["functions"]))


def _ended(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    return f"was ended by {signal.Signals(-code).name}"


def _function(found: dict[str, Any]) -> Function:
    def features(role: str) -> tuple[Feature, ...]:
        return tuple(
            Feature(each["name"], each["type"], None if each["shape"] is None else tuple(each["shape"]))
            for each in found[role]
        )

    return Function(found["name"], features("inputs"), features("outputs"), features("states"), found["precision"])


def _describe_here(path: Path) -> dict[str, Any]:
    """Describe an asset; this runs in the child process, which prints the result as JSON."""
    try:
        from triune.coreai.program import functions_of, graphs_of, load_program
    except ImportError:
        return {"unsupported": "Core AI programs need coreai-core; pip install 'triune[coreai]'"}
    try:
        # Keep the program in a variable: graphs do not keep it alive.
        program = load_program(path)
        graphs = graphs_of(program)
        return {"functions": [_described(name, graph, graphs) for name, graph in functions_of(graphs).items()]}
    except InvalidArgumentError as error:
        return {"invalid": str(error)}


def _described(name: str, graph: Any, graphs: Mapping[str, Any]) -> dict[str, Any]:
    from triune.coreai.library import dialect
    from triune.coreai.precision import precision_of
    from triune.coreai.program import argument_names, is_token, result_names, results_of

    arguments = list(graph.regions[0].blocks[0].arguments)
    given = list(zip(argument_names(graph), arguments, strict=True))
    made = list(zip(result_names(graph), results_of(graph), strict=True))
    is_state = dialect.HandleType.isinstance
    return {
        "name": name,
        "inputs": _features([(each, value.type) for each, value in given if not is_state(value.type)]),
        "outputs": _features([(each, value.type) for each, value in made if not is_token(value)]),
        "states": _features(
            [(each, dialect.HandleType(value.type).inner_type) for each, value in given if is_state(value.type)]
        ),
        "precision": precision_of(graph, graphs),
    }


def _features(named: Sequence[tuple[str, Any]]) -> list[dict[str, Any]]:
    from triune.coreai.library import ir

    shown: list[dict[str, Any]] = []
    for name, kind in named:
        word, shape = str(kind), None
        if ir.RankedTensorType.isinstance(kind):
            tensor = ir.RankedTensorType(kind)
            word = str(tensor.element_type)
            shape = [-1 if ir.ShapedType.is_dynamic_size(size) else int(size) for size in tensor.shape]
        shown.append({"name": name, "type": word, "shape": shape})
    return shown


if __name__ == "__main__":
    print(json.dumps(_describe_here(Path(sys.argv[1]))))
