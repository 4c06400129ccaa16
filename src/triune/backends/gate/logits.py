"""The gate of language models: a unit's logits for fixed tokens are compared with those of fp32 on the CPU."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from triune.backends.gate.gate import Gate
from triune.config.parameters import given_tolerance
from triune.config.placement import Recipe
from triune.core.clock import Clock
from triune.core.decoder import DecoderExecutable, DecoderStep
from triune.core.errors import TriuneError
from triune.core.units import Unit
from triune.core.verdict import Verdict
from triune.engine.memory import Memory
from triune.graph.held import HeldModel
from triune.runtimes.machine import Machine

_log = logging.getLogger(__name__)

NUM_TOKENS: Final = 82
"""The number of tokens in the sample: a prompt, and then tokens that are decoded one by one, as in an answer. The
prompt is long enough that a decoder does not use its program for steps of few tokens (see `openvino.few_tokens`).
"""

_ONE_BY_ONE: Final = 2
_NUM_ROWS: Final = 14
"""The number of tokens at the prompt's end whose logits are compared."""

MOST_SECONDS: Final = 60
"""If the trusted decoder (`Trusted`) takes more than this many seconds to compile, units are not compared."""

_TOLERANCES: Final[Mapping[tuple[str, bool], float]] = {
    ("fp32", False): 0.01,
    ("fp16", False): 0.1,
    ("bf16", False): 0.35,
    ("fp32", True): 0.2,
    ("fp16", True): 0.2,
    ("bf16", True): 0.35,
}
"""The allowed error of a logit divided by the spread of its row (the largest logit minus the smallest), by precision
and whether weights are packed: products with packed weights may round activations to 8 bits. SmolLM2-135M in Q4_1 was
measured with 0.00001 (fp32), 0.03 (fp16), 0.07 (8 bits), and 0.12 to 0.21 (bf16); wrong numbers have errors of 0.5 and
more.
"""

_PART_OF_COSINE: Final = 3
"""The cosine similarity of a row and the expected row, after subtracting their means, must be at least 1 - tolerance /
this number.
"""

_CLEAR: Final = 0.5
"""A row, the expected logits of a token, is clear if its largest logit exceeds the second largest by more than this
number * the tolerance * the spread of the row.
"""

_SMALLEST: Final = 1e-3
"""The spread of a row (the largest logit minus the smallest) counts as at least this."""

_PACKED: Final = frozenset({TensorProto.INT4, TensorProto.UINT4, TensorProto.INT8, TensorProto.UINT8})
_NS: Final = 1_000_000_000

NO_MEMORY: Final[Memory] = MappingProxyType({})
"""The encoder outputs that a decoder without an encoder reads: none."""


@dataclass(frozen=True, slots=True)
class Trusted:
    """The reference that other units' logits are compared with.

    Attributes:
        decoder: a decoder in fp32 on the CPU; closed after the comparison.
        memory: the output of an encoder in fp32 on the CPU; empty without an encoder.
    """

    decoder: DecoderExecutable
    memory: Memory


@dataclass(frozen=True, slots=True)
class JudgedDecoder:
    """A decoder whose units are to be compared with fp32 on the CPU.

    Attributes:
        name: the model's name, for the log.
        parameters: the parameters of the model's config.
        load_key: the key under which verdicts are stored (`config.load_key`).
        graph: the decoder's graph.
        tokens: the sample's tokens, at least one.
        trust: compiles a decoder that computes the right logits; returns None if no runtime on this machine can. It is
            called only if the gate has no stored verdict on a unit.
    """

    name: str
    parameters: Mapping[str, str]
    load_key: str
    graph: HeldModel
    tokens: Sequence[int]
    trust: Callable[[], Trusted | None]


def fp32_recipe(machine: Machine) -> Recipe:
    """The recipe for compiling the encoder that belongs to a trusted decoder: in fp32 on the CPU."""
    runtime = next(name for name in ("openvino", "onnxruntime") if name in machine.runtimes)
    return Recipe(runtime, Unit.CPU, machine.num_cores, ())


def sample_tokens(vocab_size: int, most: int) -> list[int]:
    """Random tokens of the whole vocabulary, at most `most`. Each call returns the same tokens."""
    return np.random.default_rng(0).integers(0, vocab_size, min(NUM_TOKENS, most)).tolist()


def logits_of(decoder: DecoderExecutable, tokens: Sequence[int], memory: Memory) -> NDArray[np.float32]:
    """The logits after the last tokens, FP32 [rows, vocabulary]: after at most _NUM_ROWS tokens that one step computes,
    then after _ONE_BY_ONE tokens that are computed one by one.

    This writes to the decoder's cache, so no sequence may use it yet. If the cache is too small, a larger one replaces
    it until the end of the call.

    Raises:
        TriuneError: the runtime failed.
    """
    num_first = max(1, len(tokens) - _ONE_BY_ONE)
    parts = [(0, num_first), *((at, 1) for at in range(num_first, len(tokens)))]
    num_blocks, needed = decoder.num_blocks, -(-len(tokens) // decoder.block_size)
    if needed > num_blocks:
        decoder.allocate(needed)
    found = np.concatenate([np.array(decoder.run(_step(decoder, tokens, memory, *part))) for part in parts])
    if needed > num_blocks:
        decoder.allocate(num_blocks)
    return found


def _step(decoder: DecoderExecutable, tokens: Sequence[int], memory: Memory, past: int, new: int) -> DecoderStep:
    num_blocks = -(-(past + new) // decoder.block_size)
    return DecoderStep(
        np.array(tokens[past : past + new], np.int64),
        np.arange(past, past + new),
        np.array([past], np.int32),
        np.array([0, new], np.int32),
        np.arange(num_blocks, dtype=np.int32),
        np.array([0, num_blocks], np.int32),
        np.arange(max(0, new - _NUM_ROWS), new),
        memory,
    )


def judge_decoder(
    gate: Gate,
    model: JudgedDecoder,
    decoders: Mapping[Unit, tuple[Recipe, DecoderExecutable, Memory]],
    clock: Clock,
) -> dict[Unit, Verdict]:
    """The verdict on each unit except `cpu`. A unit that cannot be compared is logged and left out.

    Args:
        gate: the gate, which stores verdicts.
        model: the decoder to judge.
        decoders: for each unit, the recipe of the decoder, the decoder, and the output of the encoder, computed on that
            unit, which the decoder reads (empty without an encoder).
        clock: the clock.

    Raises:
        InvalidArgumentError: the config's tolerance is not a number.
    """
    is_packed = any(each.data_type in _PACKED for each in model.graph.model.graph.initializer)
    verdicts: dict[Unit, Verdict] = {}
    left: dict[Unit, float] = {}
    for unit, (recipe, decoder, _) in decoders.items():
        if unit is Unit.CPU:
            continue
        usual = _TOLERANCES.get((decoder.precision, is_packed), _TOLERANCES["fp32", is_packed])
        tolerance = given_tolerance(model.parameters, usual)
        found = gate.find(model.load_key, recipe)
        if found is not None and (found.precision, found.tolerance) == (decoder.precision, tolerance):
            verdicts[unit] = found
        else:
            left[unit] = tolerance
    expected = _expected(model, clock) if left else None
    if expected is None:
        return verdicts
    for unit, tolerance in left.items():
        recipe, decoder, memory = decoders[unit]
        try:
            logits = logits_of(decoder, model.tokens, memory)
        except TriuneError as error:
            verdicts[unit] = _failed(decoder.precision, tolerance, f"its decoder fails: {error}")
            continue
        verdicts[unit] = compare_logits(expected, logits, precision=decoder.precision, tolerance=tolerance)
        gate.keep(model.load_key, recipe, verdicts[unit])
    return verdicts


def _expected(model: JudgedDecoder, clock: Clock) -> NDArray[np.float32] | None:
    """Compute the right logits; None if they cannot be computed, in which case the log says why."""
    began_ns = clock.now_ns()
    with ExitStack() as stack:
        try:
            trusted = model.trust()
            if trusted is not None:
                stack.callback(trusted.decoder.close)
                seconds = (clock.now_ns() - began_ns) / _NS
                if seconds <= MOST_SECONDS:
                    return logits_of(trusted.decoder, model.tokens, trusted.memory)
                reason = f"the decoder in fp32 on the CPU took {seconds:.0f} s to compile"
            else:
                reason = "nothing here computes it in fp32 within the memory that is available"
        except TriuneError as error:
            reason = str(error)
    _log.warning("model '%s': its logits are not compared with those of fp32 on the CPU: %s", model.name, reason)
    return None


def compare_logits(
    expected: NDArray[np.float32], found: NDArray[np.float32], *, precision: str, tolerance: float
) -> Verdict:
    """Compare logits [tokens, vocabulary].

    A row is wrong if a logit is off by more than the tolerance times the spread of the expected row (its largest logit
    minus its smallest), if its cosine similarity with the expected row, after subtracting both means, is below 1 -
    tolerance / 3, or if a logit is NaN or infinite where the expected one is not. Of the rows whose most probable token
    is clear (`_CLEAR`), a fraction of at most the tolerance may have another most probable token than expected.
    """
    if found.shape != expected.shape:
        return _failed(
            precision, tolerance, f"its logits have the shape {list(found.shape)}, not {list(expected.shape)}"
        )
    is_number = np.isfinite(expected)
    if not np.isfinite(found[is_number]).all():
        return _failed(precision, tolerance, "its logits are NaN or infinite")
    wide, other = (np.where(is_number, each, 0).astype(np.float64) for each in (expected, found))
    spreads = np.maximum(np.ptp(wide, axis=1), _SMALLEST)
    differences = np.abs(wide - other).max(axis=1)
    relative, cosine = float((differences / spreads).max()), _cosine(wide, other)
    best_two = np.partition(wide, -2, axis=1)[:, -2:]
    is_clear = best_two[:, 1] - best_two[:, 0] > _CLEAR * tolerance * spreads
    is_same = wide[is_clear].argmax(axis=1) == other[is_clear].argmax(axis=1)
    agreement = float(is_same.mean()) if is_clear.any() else None
    excess = ""
    if relative > tolerance:
        excess = f"a logit is off by {relative:.3g} of the spread of its row"
    elif cosine < 1 - tolerance / _PART_OF_COSINE:
        excess = f"the cosine of logits is {cosine:.3g}"
    elif agreement is not None and agreement < 1 - tolerance:
        excess = f"another token is the most probable one in {1 - agreement:.0%} of the clear rows"
    return Verdict(
        precision=precision,
        tolerance=tolerance,
        largest=float(differences.max()),
        relative=relative,
        agreement=agreement,
        cosine=cosine,
        excess=excess,
    )


def _cosine(wide: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """The smallest cosine similarity of a row of `wide` with the same row of `other`, after subtracting their means; 1
    for rows without spread.
    """
    a, b = (each - each.mean(axis=1, keepdims=True) for each in (wide, other))
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(np.where(lengths > 0, (a * b).sum(axis=1) / np.where(lengths > 0, lengths, 1), 1).min())


def _failed(precision: str, tolerance: float, excess: str) -> Verdict:
    return Verdict(precision=precision, tolerance=tolerance, largest=math.inf, relative=math.inf, excess=excess)
