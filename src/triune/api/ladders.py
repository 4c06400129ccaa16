"""Converts checkpoints of decoders to programs with explicit caches of several sizes: for each size of C tokens, the
program has the functions `prefill_C` and `decode_C`.
"""

import contextlib
import functools
import tempfile
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import numpy as np

from triune import coreai, coreml
from triune.api.comparing import Compare, Comparison
from triune.api.rounds import ConversionResult, Tell, in_rounds, notes_of
from triune.backends.libraries import require_libraries
from triune.core.datatypes import Array, DataType
from triune.core.errors import InvalidArgumentError
from triune.core.explicit_cache import is_cache, new_name
from triune.core.model import Model
from triune.core.tensors import Signature, TensorSpec
from triune.coreai.lowering import LowerOptions as CoreAiOptions
from triune.coreai.lowering import Source as CoreAiSource
from triune.coreai.lowering import lower_functions as lower_coreai
from triune.coreml.lowering import LowerOptions as CoreMlOptions
from triune.coreml.lowering import Source as CoreMlSource
from triune.coreml.lowering import lower_functions as lower_coreml
from triune.coreml.package import read_package
from triune.graph.ane import Report as LayoutReport
from triune.graph.audit import InputSet
from triune.graph.blame import Verified
from triune.graph.conversion.options import Precision
from triune.graph.conversion.shapes import inputs_of
from triune.graph.held import save_together
from triune.graph.load import load
from triune.graph.precision import TOLERANCES
from triune.graph.state_names import new_state
from triune.graph.verify import OnnxModel, verify
from triune.graph.verify.difference import Difference
from triune.runtimes.ladder import Ladder, contexts_up_to, functions_of

CacheForm: TypeAlias = Literal["state", "argument"]
"""Whether a program keeps keys and values in its states, or takes them as inputs and gives them as outputs."""

_MOST: Final = 1024
"""The size, in tokens, of the largest cache of a program if no sizes are given."""

_TOKENS_AFTER: Final = 3
"""How many tokens a comparison computes after its text has outgrown the first cache and moved to the second."""


@dataclass(frozen=True, slots=True)
class LadderFiles:
    """The graphs of a checkpoint as ONNX files.

    Attributes:
        functions: the graph of each function of the program.
        whole: the graph that reads whole texts.
        contexts: the sizes of caches, in tokens.
        vocab_size: the number of logits of a token.
        note: what differs from the source for some texts; "" if nothing does.
    """

    functions: Mapping[str, Path]
    whole: Path
    contexts: tuple[int, ...]
    vocab_size: int
    note: str = ""


@contextlib.contextmanager
def ladder_of(source: Path, contexts: Sequence[int], tell: Tell) -> Generator[LadderFiles | None]:
    """Yield the graphs of a decoder with explicit caches, as files that exist in the `with` block; None if the
    checkpoint is not a decoder of LLaMA's family or GPT-2.

    Args:
        source: a checkpoint.
        contexts: the sizes of caches; empty for 256 and 1024, limited by the model's positions.
        tell: called with a message at each step.

    Raises:
        InvalidArgumentError: the model has no positions for a context, or the contexts are not valid for a ladder.
        Also the errors of `open_checkpoint`.
    """
    require_libraries()
    from triune.engine.models import write_explicit, write_model
    from triune.engine.weights import open_checkpoint
    from triune.engine.weights.config import Gpt2Config, LlamaConfig
    from triune.engine.weights.read_once import ReadOnce

    tell("reading the checkpoint")
    checkpoint = open_checkpoint(source)
    config = checkpoint.config
    if not isinstance(config, LlamaConfig | Gpt2Config):
        yield None
        return
    limit = config.max_position_embeddings if isinstance(config, LlamaConfig) else config.n_positions
    contexts = tuple(contexts) or contexts_up_to(min(limit, _MOST))
    sizes = functions_of(contexts)
    if max(contexts) > limit:
        raise InvalidArgumentError(
            f"a cache of {max(contexts)} tokens is asked for; the model was made for {limit} at most"
        )
    tell("writing the graphs")
    with tempfile.TemporaryDirectory(prefix="triune-checkpoint-") as folder:
        paths = {name: Path(folder) / f"{name}.onnx" for name in sizes}
        whole = Path(folder) / "whole.onnx"
        weights = ReadOnce(checkpoint)
        graphs = {
            paths[name]: write_explicit(config, weights, size, num_positions=max(contexts))
            for name, size in sizes.items()
        }
        graphs[whole] = write_model(config, weights, "plain", num_positions=max(contexts))
        save_together(graphs)
        del graphs, weights
        note = config.context_note(max(contexts)) if isinstance(config, LlamaConfig) else ""
        yield LadderFiles(paths, whole, contexts, config.vocab_size, note)


def ladder_to_program(
    files: LadderFiles,
    output: Path,
    options: CoreMlOptions | CoreAiOptions,
    cache: CacheForm,
    tell: Tell,
    comparison: Comparison | None,
) -> ConversionResult:
    """Convert the graphs to functions of one program, which share weights.

    The comparison runs a text of random tokens in parts, and compares the logits with ONNX Runtime's logits for the
    whole text.

    Args:
        files: the graphs.
        output: a .mlpackage or .aimodel.
        options: the options of the conversion, without states.
        cache: whether keys and values are states.
        tell: called with a message at each step.
        comparison: how to compare; None for no comparison.

    Raises:
        UnsupportedError: the graphs cannot be converted.
    """

    def convert(wide: frozenset[str]) -> tuple[ConversionResult, Compare]:
        own = replace(options, wide=wide)
        models = {name: load(path) for name, path in files.functions.items()}
        each = {name: replace(own, states=_states(model) if cache == "state" else {}) for name, model in models.items()}
        done = _lower(models, each, output, tell)
        # Core ML's states are fp16, so only programs without them are exact.
        is_exact = options.precision is Precision.FP32 and not (cache == "state" and isinstance(options, CoreMlOptions))
        tolerance = TOLERANCES["fp32" if is_exact else "fp16"]
        return done, functools.partial(_compare, files, output, tolerance)

    done = in_rounds(convert, output, comparison, tell)
    return replace(done, notes=[*done.notes, files.note]) if files.note else done


def open_ladder(program: Path, contexts: Sequence[int]) -> Ladder:
    """Load the functions `prefill_C` and `decode_C` of a program. They compute as `triune predict` does."""
    if program.suffix == ".aimodel":
        return Ladder(contexts, lambda name: _Function(coreai.load(program, function=name)))
    package = read_package(program)
    return Ladder(contexts, lambda name: _Function(coreml.Model(package, function=name)))


class _Function:
    """Implements `LadderFunction` by a loaded function of a program."""

    def __init__(self, model: Model) -> None:
        self._model = model
        states = model.make_state().arrays
        specs = [TensorSpec(name, DataType.of(each), each.shape) for name, each in states.items()]
        known = model.signature
        news = [replace(spec, name=new_state(spec.name)) for spec in specs]
        self._states = list(states)
        self.signature = Signature((*known.inputs, *specs), (*known.outputs, *news))

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Implements `LadderFunction.run`."""
        if not self._states:
            return self._model.run(inputs, outputs)
        state = self._model.make_state()
        state.arrays = {name: inputs[name] for name in self._states}
        given = {name: each for name, each in inputs.items() if name not in state.arrays}
        found = self._model.run(given, state=state)
        return found | {new_state(name): each for name, each in state.arrays.items()}

    def close(self) -> None:
        """Implements `LadderFunction.close`."""
        self._model.close()


def _states(model: Any) -> dict[str, str]:
    return {value.name: new_name(value.name) for value in inputs_of(model.graph) if is_cache(value.name)}


def _lower(models: Mapping[str, Any], options: Mapping[str, Any], output: Path, tell: Tell) -> ConversionResult:
    if output.suffix == ".aimodel":
        sources = {name: CoreAiSource(model, options[name]) for name, model in models.items()}
        done = lower_coreai(sources, output, report=tell)
        return ConversionResult(layout=done.layout, notes=done.notes)
    packaged = {name: CoreMlSource(model, options[name]) for name, model in models.items()}
    lowered = lower_coreml(packaged, output, report=tell)
    layouts = [each.layout for each in lowered.values() if each.layout is not None]
    notes = notes_of({name: each.notes for name, each in lowered.items()})
    return ConversionResult(layout=LayoutReport.of(layouts) if layouts else None, notes=notes)


def _compare(files: LadderFiles, output: Path, tolerance: float) -> Verified:
    first = min(files.contexts)
    # Make the text longer than the first cache, if there is a second one, so that both are compared.
    length = first + _TOKENS_AFTER if len(files.contexts) > 1 else first
    parts = _parts(length)
    rows = np.cumsum(parts) - 1
    whole = OnnxModel(load(files.whole), tolerance)
    with contextlib.closing(open_ladder(output, files.contexts)) as ladder:

        def source(arrays: Mapping[str, Array]) -> dict[str, Array]:
            return {"logits": whole.run(arrays)["logits"][0, rows]}

        def result(arrays: Mapping[str, Array]) -> dict[str, Array]:
            ids = arrays["input_ids"][0]
            held, found, past = ladder.start(), list[Array](), 0
            for count in parts:
                found += ladder.read(held, past, ids[past : past + count], [count - 1])
                past += count
            return {"logits": np.stack(found)}

        ids = np.random.default_rng(0).integers(0, files.vocab_size, (1, length))
        verdicts = verify([InputSet("tokens", {"input_ids": ids})], source, result, _Certain(), tolerance)
    return Verified(verdicts, num_tried=1, num_sets=1)


def _parts(length: int) -> list[int]:
    """The numbers of tokens in the calls of a comparison: a few, then single tokens, then most of the text, and single
    tokens at the end. So the function for several tokens is called with an empty and with a filled cache, and the
    function for one token with caches of different lengths.
    """
    last = min(2 * _TOKENS_AFTER, length // 3)
    some = min(5, length // 3)
    singles = [1] * min(2, length - last - some)
    rest = length - last - some - len(singles)
    return [each for each in (some, *singles, rest, *[1] * last) if each]


class _Certain:
    """Tells `verify` about the source of a comparison of logits: the source is not random, and none of its outputs is
    uncertain.
    """

    is_random = False

    def uncertainty(self, inputs: Mapping[str, Array], /) -> Mapping[str, Difference]:
        """Return an empty mapping: no output is uncertain."""
        del inputs
        return {}
