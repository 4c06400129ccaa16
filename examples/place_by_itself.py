"""Let Triune place a small product, a large convolution and a transformer, and say where each goes and why.

python examples/place_by_itself.py demo/smollm2/1/model.gguf --chip m2-pro

`--chip here` plans for this machine, once `triune units --measure` has measured it. Times of plans are predicted.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import triune


def save_product(path: Path, size: int) -> Path:
    """Write y = x w with square matrices."""
    w = numpy_helper.from_array(np.ones((size, size), np.float32), "w")
    return _save(path, helper.make_node("MatMul", ["x", "w"], ["y"]), [size, size], [size, size], w)


def save_convolution(path: Path, channels: int, size: int) -> Path:
    """Write a convolution by kernels of 3 x 3."""
    w = numpy_helper.from_array(np.ones((channels, channels, 3, 3), np.float32), "w")
    node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])
    return _save(path, node, [1, channels, size, size], [1, channels, size, size], w)


def _save(
    path: Path, node: onnx.NodeProto, given: Sequence[int], computed: Sequence[int], weights: onnx.TensorProto
) -> Path:
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in (("x", given), ("y", computed))
    )
    graph = helper.make_graph([node], "g", [x], [y], [weights])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)]), path)
    return path


def show(what: str, model: Path, chip: str | None) -> None:
    """Print each segment of the plan of a model: its unit, its predicted time, and why it is there."""
    for plan in triune.plan(model, chip=chip):
        step = plan.title.removeprefix(f"{model}").lstrip(", ")
        print(f"{what}{f', {step}' if step else ''}: {plan.ms:.3f} ms on {plan.chip}, predicted")
        for segment in plan.segments:
            print(f"  {segment.unit.value}: {len(segment.ops)} operations, {segment.ms:.3f} ms: {segment.why}")
        for whole in plan.wholes:
            print(f"    all on {whole.unit.value}: {f'{whole.ms:.3f} ms' if whole.ms else 'not possible'}")


def main() -> None:
    """Plan the three."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("transformer", type=Path, help="a GGUF file, a directory of Hugging Face's form, or ONNX")
    parser.add_argument("--chip", default="m2-pro", help="one of Apple's chips, or `here`")
    options = parser.parse_args()
    chip = None if options.chip == "here" else options.chip
    with tempfile.TemporaryDirectory() as folder:
        show("a product of 64 x 64", save_product(Path(folder) / "product.onnx", 64), chip)
        show("a convolution of 256 channels", save_convolution(Path(folder) / "conv.onnx", 256, 128), chip)
    show("a transformer", options.transformer, chip)


if __name__ == "__main__":
    main()
