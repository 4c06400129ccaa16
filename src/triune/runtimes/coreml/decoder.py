"""Decoders of the transformer engine on the Neural Engine: functions of one Core ML package, for caches of several
sizes (`runtimes.ladder`).
"""

import functools
import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from triune.core.decoder import CacheType, DecoderPrecision
from triune.core.errors import UnsupportedError
from triune.core.explicit_cache import is_cache, new_name
from triune.core.units import Unit
from triune.coreml.lowering import LowerOptions, Source, lower_functions
from triune.graph.conversion.options import Layout, Precision
from triune.graph.decoder_model import DecoderModel
from triune.graph.held import HeldModel, save_together
from triune.graph.load import load
from triune.graph.paged_attention import cache_heads
from triune.runtimes.cache_holds import collecting, keep_for
from triune.runtimes.compiled_cache import CompiledCache, functions_digest
from triune.runtimes.conversion import convert_within
from triune.runtimes.coreml.options import FUNCTION, STATES
from triune.runtimes.coreml.runtime import CoreMl
from triune.runtimes.ladder import Ladder, contexts_up_to, functions_of
from triune.runtimes.ladder.decoder import LadderDecoder

_log = logging.getLogger(__name__)

_SECONDS: Final = 3600
"""The time limit of a conversion, in seconds. If the load of the model has a shorter limit, that ends the conversion
first.
"""

_PRECISIONS: Final[Mapping[str, Precision]] = {"fp16": Precision.FP16, "fp32": Precision.FP32}


def load_ladder_decoder(
    runtime: CoreMl,
    cache: CompiledCache,
    model: HeldModel,
    *,
    unit: Unit,
    num_threads: int,
    num_blocks: int,
    precision: DecoderPrecision | None,
    cache_type: CacheType | None,
    is_reproducible: bool = False,
    has_guesses: bool = False,
) -> LadderDecoder:
    """Convert a decoder to a package, unless that was done before, and load it.

    Keys and values are arguments of its functions, since programs with states did not run on the Neural Engine in
    tests (`hardware/rules`). With the cache type `fp16` they are states, since arguments of a package are
    fp32.

    Args:
        runtime: loads the functions.
        cache: the cache of converted packages.
        model: the decoder, a `DecoderModel`.
        unit: the unit.
        num_threads: the number of CPU threads, if the unit is emulated.
        num_blocks: the number of sequences whose keys and values can be kept at the same time.
        precision: the floating-point format; None means fp16.
        cache_type: the type of keys and values; None means fp32.
        is_reproducible: must be False, since reproducible answers are not supported.
        has_guesses: has no effect. It matters only for caches of quantized numbers (see `LoadDecoder`), and this cache
            holds floats.

    Raises:
        UnsupportedError: the decoder cannot be written in this form, or the unit does not support an option.
    """
    del has_guesses
    if not isinstance(model, DecoderModel):
        raise UnsupportedError(
            f"on '{unit.value}' a decoder has an explicit cache, with which only checkpoints of LLaMA's family and "
            "GPT-2 are written, without LoRA adapters: choose another unit"
        )
    if is_reproducible:
        raise UnsupportedError(
            f"'reproducible' is not to be had on '{unit.value}', where prompts are read by another function than "
            "answers: choose 'cpu'"
        )
    if precision not in (None, *_PRECISIONS) or cache_type not in (None, "fp32", "fp16"):
        raise UnsupportedError(
            f"on '{unit.value}' the precision is fp16 or fp32, not {precision or 'fp16'}, and the cache fp32 or fp16, "
            f"not {cache_type or 'fp32'}: change 'precision' and 'cache_type'"
        )
    options = LowerOptions(precision=_PRECISIONS[precision or "fp16"], layout=Layout.ANE)
    contexts = contexts_up_to(model.context_tokens)
    has_states = cache_type == "fp16"
    with collecting() as used:
        package = _converted(model, contexts, options, cache, has_states=has_states)
    chosen = {STATES: "explicit"} if has_states else {}
    ladder = Ladder(
        contexts,
        lambda name: runtime.load(package, unit=unit, num_threads=num_threads, options={FUNCTION: name, **chosen}),
    )
    decoder = LadderDecoder(
        ladder,
        unit=unit,
        precision=precision or "fp16",
        heads=list(cache_heads(model.model.graph).values()),
        vocab_size=model.model.graph.output[0].type.tensor_type.shape.dim[1].dim_value,
        num_blocks=num_blocks,
    )
    keep_for(decoder, used)
    return decoder


def _converted(
    model: DecoderModel, contexts: tuple[int, ...], options: LowerOptions, cache: CompiledCache, *, has_states: bool
) -> Path:
    """The path of a decoder's package, converted now unless it is in the cache."""
    with tempfile.TemporaryDirectory(prefix="triune-decoder-") as folder:
        paths = {name: Path(folder) / f"{name}.onnx" for name in functions_of(contexts)}
        save_together({paths[name]: model.write_explicit(size) for name, size in functions_of(contexts).items()})
        key = functions_digest(paths, f"{options} states {has_states}")

        def convert(target: Path) -> None:
            _log.info("converting a decoder with caches of %s tokens to Core ML, once", ", ".join(map(str, contexts)))
            work = functools.partial(_convert, paths, target, options, has_states)
            convert_within(
                work,
                "the conversion of the decoder",
                seconds=_SECONDS,
                remedy="lower the parameter 'context_tokens': each size of the cache takes its time",
                memory_bytes=None,
            )

        return cache.get(f"{key}.mlpackage", convert)


def _convert(paths: Mapping[str, Path], target: Path, options: LowerOptions, has_states: bool) -> None:
    sources: dict[str, Source[LowerOptions]] = {}
    for name, path in paths.items():
        graph = load(path)
        caches = [value.name for value in graph.graph.input if is_cache(value.name)] if has_states else []
        own = LowerOptions(
            precision=options.precision, layout=options.layout, states={each: new_name(each) for each in caches}
        )
        sources[name] = Source(graph, own)
    lower_functions(sources, target)
