"""The levels of graph optimization: which passes run at which level, in which order, and why."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from triune.core.units import Unit
from triune.graph.optimizing.level import Level
from triune.graph.passes.branches import Branches
from triune.graph.passes.casts import Casts
from triune.graph.passes.common import Common
from triune.graph.passes.conv_affine import ConvAffine
from triune.graph.passes.fold import Fold
from triune.graph.passes.for_ane import AneLayout, CoreOps, SafeHalf
from triune.graph.passes.merge_projections import MergeProjections
from triune.graph.passes.narrow_indices import NarrowIndices
from triune.graph.passes.neutral import Neutral
from triune.graph.passes.raise_opset import RaiseOpset
from triune.graph.passes.recover_gelu import RecoverGelu
from triune.graph.passes.recover_hard_swish import RecoverHardSwish
from triune.graph.passes.recover_norms import RecoverLayerNorm, RecoverRmsNorm
from triune.graph.passes.recover_rotary import RecoverRotary
from triune.graph.passes.reshapes import Reshapes
from triune.graph.passes.run import GraphPass
from triune.graph.passes.sink_transposes import SinkTransposes
from triune.graph.passes.tidy import Tidy
from triune.graph.passes.transposes import Transposes
from triune.graph.weight_files import WeightFile


@dataclass(frozen=True, slots=True)
class Given:
    """What a pass may need to know of the model, the unit and the files.

    Attributes:
        opset: the version of ONNX's operator set that the model imports.
        unit: the unit for which the model is optimized.
        file: the scratch file for new large weights.
    """

    opset: int
    unit: Unit
    file: WeightFile


@dataclass(frozen=True, slots=True)
class Step:
    """A pass in the list of a level.

    Attributes:
        name: its name in reports.
        what: a description of what it does.
        why_here: the reason for its position in the order.
        level: the first level that has it.
        make: makes the pass.
        units: the units for which it runs; empty for all.
        is_last: whether it runs once, when the other passes find nothing more to change; after it only exact passes
            run.
    """

    name: str
    what: str
    why_here: str
    level: Level
    make: Callable[[Given], GraphPass]
    units: frozenset[Unit] = frozenset()
    is_last: bool = False

    def is_for(self, level: Level, unit: Unit) -> bool:
        """Whether the pass runs at a level for a unit."""
        return self.level.number <= level.number and (not self.units or unit in self.units)


_FORMS: Final[Sequence[Step]] = (
    Step(
        "recover_layer_norm",
        "layer normalizations recovered",
        "after the exact passes, between whose leftovers no pattern is recognized; ONNX Runtime and OpenVINO find it "
        "themselves and compute it as fast either way (0.85 to 1.07 times): for fewer nodes",
        Level.O2,
        lambda given: RecoverLayerNorm(),
    ),
    Step(
        "recover_gelu",
        "Gelu recovered",
        "beside layer norms; as fast either way (0.96 to 1.02 times): for fewer nodes",
        Level.O2,
        lambda given: RecoverGelu(),
    ),
    Step(
        "recover_hard_swish",
        "HardSwish recovered",
        "beside Gelu; ONNX Runtime takes 0.63 to 0.84 times as long, OpenVINO 0.50 to 1.03",
        Level.O2,
        lambda given: RecoverHardSwish(),
    ),
    Step(
        "recover_rms_norm",
        "RMS normalizations recovered",
        "after layer norms, which contain the pattern; ONNX Runtime takes 0.9 times as long, OpenVINO 0.8 to 1.05",
        Level.O2,
        lambda given: RecoverRmsNorm(),
        frozenset([Unit.CPU]),
    ),
    Step(
        "recover_rotary",
        "rotary position embeddings recovered",
        "no pattern is a part of it; ONNX Runtime takes 0.56 to 0.82 times as long, OpenVINO 1.16 to 1.67",
        Level.O2,
        lambda given: RecoverRotary(),
        frozenset([Unit.CPU]),
    ),
)
"""The passes that recover one operator from many. Each runs if the model's operator set has the operator, for units
whose runtime does not lose by it (`benchmarks/optimize.py --forms`).

SiLU is not recovered, since ONNX Runtime takes at least 1.12 times as long for Swish as for Sigmoid and Mul. Attention
is not recovered, since ONNX Runtime and OpenVINO recognize it in its parts; ONNX Runtime takes 0.94 to 1.28 times as
long for the operator. An activation after a convolution is no operator of the standard: ONNX Runtime and OpenVINO fuse
it when they load the model.
"""

STEPS: Final[Sequence[Step]] = (
    Step(
        "tidy",
        "dead nodes, unused initializers and Identities removed; Constants become initializers",
        "first, so that the others see constants as initializers and no node that nothing reads",
        Level.O1,
        lambda given: Tidy(),
    ),
    Step(
        "fold",
        "nodes of constants, and shapes that are known, computed",
        "before all that look for constants",
        Level.O1,
        lambda given: Fold(given.opset, grows=False),
    ),
    Step(
        "branches",
        "an If with a constant condition replaced by the branch that is taken",
        "after fold, which may have made the condition constant",
        Level.O1,
        lambda given: Branches(),
    ),
    Step(
        "neutral",
        "nodes that hand on their operand removed: x * 1, Dropout, Casts and Reshapes that change nothing",
        "after fold, which shows the constants 1 and 0; before the patterns, which such nodes would interrupt",
        Level.O1,
        lambda given: Neutral(),
    ),
    Step(
        "casts",
        "Casts of Casts joined",
        "beside neutral, which removes what is left of a pair",
        Level.O1,
        lambda given: Casts(),
    ),
    Step(
        "reshapes",
        "Reshapes of Reshapes joined, computed shapes written as constants where they are known",
        "after fold, which has computed the shapes without symbols; before transposes, between which Reshapes stand",
        Level.O1,
        lambda given: Reshapes(),
    ),
    Step(
        "transposes",
        "Transposes of Transposes joined, or cancelled",
        "after neutral and reshapes, which bring them next to each other",
        Level.O1,
        lambda given: Transposes(),
    ),
    Step(
        "narrow_indices",
        "indices of int64 read in int32 where they fit",
        "after fold, which makes constants of computed indices",
        Level.O1,
        lambda given: NarrowIndices(),
    ),
    Step(
        "common",
        "equal nodes computed once, equal constants stored once",
        "last of the exact ones: equal nodes are alike once their operands are, and the others make them alike",
        Level.O1,
        lambda given: Common(),
    ),
    Step(
        "conv_affine",
        "batch normalizations, scales and shifts folded into the convolution before them",
        "after common, so that a convolution that two branches computed has one reader",
        Level.O2,
        lambda given: ConvAffine(given.file),
    ),
    Step(
        "sink_transposes",
        "Transposes moved behind elementwise operators, where they meet another one",
        "after transposes, which joins those that are next to each other already",
        Level.O2,
        lambda given: SinkTransposes(),
    ),
    *_FORMS,
    Step(
        "merge_projections",
        "products of one value with several matrices (queries, keys, values) merged into one",
        "after conv_affine, which may still change weights; each product is a launch of a kernel there (predicted, not "
        "measured). ONNX Runtime took 0.99 to 1.06 times as long with it, OpenVINO 1.04 to 1.12: not for cpu and amx",
        Level.O2,
        lambda given: MergeProjections(given.file),
        frozenset([Unit.GPU]),
    ),
    Step(
        "raise_opset",
        "the operator set raised, and patterns replaced by its operators",
        "after the patterns for which the model's own operator set has an operator",
        Level.O3,
        lambda given: RaiseOpset(
            given.file, [step.make(given) for step in _FORMS if step.is_for(Level.O2, given.unit)]
        ),
        frozenset([Unit.CPU, Unit.AMX]),
    ),
    Step(
        "core_ops",
        "rewritten in core operators",
        "first of those for ane, which know core operators alone",
        Level.O3,
        lambda given: CoreOps(given.file),
        frozenset([Unit.ANE]),
        is_last=True,
    ),
    Step(
        "ane_layout",
        "transformers rewritten to (B, C, 1, S), the layout that the Neural Engine computes fastest",
        "before safe_half, which knows the norms of that layout",
        Level.O3,
        lambda given: AneLayout(given.file),
        frozenset([Unit.ANE]),
        is_last=True,
    ),
    Step(
        "safe_half",
        "masks, scales and norms rewritten to stay within fp16",
        "last: it looks at the numbers of the graph that will be converted",
        Level.O3,
        lambda given: SafeHalf(given.file),
        frozenset([Unit.ANE]),
        is_last=True,
    ),
)
"""The passes of all levels, in order. They repeat until none of them changes anything more; then those run that have
`is_last`.
"""


def steps_of(level: Level, unit: Unit) -> Sequence[Step]:
    """The passes of a level for a unit, in order."""
    return [each for each in STEPS if each.is_for(level, unit)]
