"""Enumerated shapes of several inputs: the first shapes of all inputs belong together, the second ones, and so on."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from onnx import ModelProto

from triune.core.errors import InvalidArgumentError
from triune.graph.bare import infer_bare
from triune.graph.contradictions import contradictions
from triune.graph.conversion.problems import called, noted_origin
from triune.graph.conversion.shapes import Dim, InputShape, apply_shapes
from triune.graph.passes.fold import Fold
from triune.graph.weights import without_weights

Pairing: TypeAlias = Mapping[str, tuple[Dim, ...]]
"""For each input that has several shapes, one of them."""


def pairings_of(shapes: Mapping[str, InputShape]) -> Sequence[Pairing]:
    """The shapes that inputs have together; empty if no input has several.

    Core ML and Core AI take no other combinations: in Core ML, a call with the first shape of one input and the second
    of another one fails (apple/coremltools#2271).

    Raises:
        InvalidArgumentError: inputs have different numbers of shapes.
    """
    several = {name: shape.choices for name, shape in shapes.items() if shape.is_enumerated}
    counts = {name: len(choices) for name, choices in several.items()}
    if len(set(counts.values())) > 1:
        found = ", ".join(f"'{name}' {count}" for name, count in counts.items())
        raise InvalidArgumentError(
            f"the inputs have different numbers of shapes ({found}); give each as many as the others: the first ones "
            "belong together, the second ones, and so on"
        )
    return [
        {name: choices[number] for name, choices in several.items()} for number in range(next(iter(counts.values()), 0))
    ]


def require_pairings(core: ModelProto, shapes: Mapping[str, InputShape]) -> None:
    """Check that the model can be computed for all enumerated shapes. The shape of one input may be possible, but not
    together with that of another.

    Args:
        core: the model in core ops; it is not changed.
        shapes: the shapes that the user gave.

    Raises:
        InvalidArgumentError: inputs have different numbers of shapes, or for some of them nodes contradict each other.
    """
    pairings = pairings_of(shapes)
    if not pairings:
        return
    light = without_weights(core)
    for number, pairing in enumerate(pairings, start=1):
        fixed = ModelProto()
        fixed.CopyFrom(light)
        apply_shapes(fixed, {name: InputShape((shape,)) for name, shape in pairing.items()})
        # Shapes that are computed from the inputs' shapes become constants, by which contradictions are found.
        folded = Fold()(infer_bare(fixed, is_strict=True))
        for node, why in contradictions(infer_bare(folded, is_strict=True).graph, in_bodies=False):
            texts = ", ".join(f"{name}={','.join(map(str, shape))}" for name, shape in pairing.items())
            kind = "these shapes do not go together" if len(pairing) > 1 else "the model cannot take this shape"
            where = noted_origin(node) or called(node)
            raise InvalidArgumentError(
                f"shape {number} of those given with --shape is {texts}, and {kind}: {where}: {why}; the first shapes "
                "of all inputs belong together, the second ones, and so on: leave this one out, or give them in "
                "another order"
            )
