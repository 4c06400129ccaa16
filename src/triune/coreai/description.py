"""What an asset holds: its functions, and what they take and give.

Apple's library ends its process on bytecode that is broken. It reads an asset in a process of its own first: what that
one survives, this one does.
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
"""How long a process may take to read an asset."""

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
        name: "" where it has none.
        type: MLIR's word for the element type, or for the whole type of what is no tensor: "f32".
        shape: -1 for a dimension that is free; None of what is no tensor.
    """

    name: str
    type: str
    shape: tuple[int, ...] | None

    @property
    def image(self) -> Image | None:
        """What image it is; None of what is none. Raises UnsupportedError for one that is not known."""
        return image_of(self.type)

    def spec(self) -> TensorSpec:
        """As a request carries it, an image as its bytes. Raises UnsupportedError if none can."""
        image = self.image
        if image is not None:
            return TensorSpec(self.name, DataType.UINT8, image.shape)
        if self.shape is None or self.type not in _DATATYPES:
            raise UnsupportedError(f"'{self.name}' is of {self.type}, which no request can carry")
        return TensorSpec(self.name, _DATATYPES[self.type], self.shape)


@dataclass(frozen=True, slots=True)
class Function:
    """What a function takes and gives, in its order.

    Attributes:
        precision: what it computes in: "fp32", "bf16", "fp16"; see `precision.precision_of`.
    """

    name: str
    inputs: tuple[Feature, ...]
    outputs: tuple[Feature, ...]
    states: tuple[Feature, ...]
    precision: str

    def signature(self) -> Signature:
        """States are inputs, and outputs under the names of `new_state`. Raises UnsupportedError."""
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
    """Check an asset, and have it read.

    Raises:
        NotFoundError: there is no such asset.
        InvalidArgumentError: it is broken.
        UnsupportedError: it is of another version, or Core AI is not installed.
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
            # Modules are found where this process finds them.
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
    except subprocess.TimeoutExpired:
        raise UnavailableError(f"'{path.name}' was not read within {SECONDS:g} s; its process was ended") from None
    if done.returncode != 0:
        raise InvalidArgumentError(
            f"Apple's library {_ended(done.returncode)} while it read '{path.name}': the program is broken; "
            "save or copy the asset again"
        )
    told: dict[str, Any] = json.loads(done.stdout)
    if "unsupported" in told:
        raise UnsupportedError(told["unsupported"])
    if "invalid" in told:
        raise InvalidArgumentError(told["invalid"])
    return Description(asset, tuple(_function(each) for each in told["functions"]))


def _ended(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    return f"was ended by {signal.Signals(-code).name}"


def _function(told: dict[str, Any]) -> Function:
    def features(role: str) -> tuple[Feature, ...]:
        return tuple(
            Feature(each["name"], each["type"], None if each["shape"] is None else tuple(each["shape"]))
            for each in told[role]
        )

    return Function(told["name"], features("inputs"), features("outputs"), features("states"), told["precision"])


def _told(path: Path) -> dict[str, Any]:
    """In the process that reads: what it says."""
    try:
        from triune.coreai.program import functions_of, graphs_of, load_program
    except ImportError:
        return {"unsupported": "Core AI programs need coreai-core; pip install 'triune[coreai]'"}
    try:
        # Graphs do not keep the program that they are of.
        program = load_program(path)
        graphs = graphs_of(program)
        return {"functions": [_shown(name, graph, graphs) for name, graph in functions_of(graphs).items()]}
    except InvalidArgumentError as error:
        return {"invalid": str(error)}


def _shown(name: str, graph: Any, graphs: Mapping[str, Any]) -> dict[str, Any]:
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
    print(json.dumps(_told(Path(sys.argv[1]))))
