"""Rotary position embeddings, and the published ways of stretching them to longer contexts.

Sources: Su et al., 2021 (arXiv:2104.09864); position interpolation (Chen et al., 2023, arXiv:2306.15595); YaRN (Peng et
al., 2023, arXiv:2309.00071), which also describes dynamic NTK; LongRoPE (Ding et al., 2024, arXiv:2402.13753); the
Llama 3.1 report. The formulas are those of Hugging Face's transformers.
"""

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from triune.core.datatypes import Array


@dataclass(frozen=True, slots=True)
class LinearScaling:
    """Linear scaling: positions are divided by `factor`."""

    factor: float


@dataclass(frozen=True, slots=True)
class DynamicScaling:
    """Dynamic NTK: the base grows with the context, as soon as that is longer than `original_max_position_embeddings`.

    A table of cosines and sines is computed for one length of the context, and used for shorter texts, too.
    """

    factor: float
    original_max_position_embeddings: int


@dataclass(frozen=True, slots=True)
class YarnScaling:
    """YaRN: low frequencies are divided by `factor`, high ones stay, and those between become a weighted mean of the
    divided and the unchanged frequency.

    Attributes:
        factor: how much longer contexts may be than in training.
        original_max_position_embeddings: the context of the training.
        attention_factor: multiplies cos and sin.
        beta_fast: frequencies that make at least this many turns in the original context stay.
        beta_slow: frequencies that make at most this many turns in the original context are divided.
        is_truncated: whether the indices between which frequencies become a mean are rounded to whole numbers, the
            first one down and the last one up.
    """

    factor: float
    original_max_position_embeddings: int
    attention_factor: float
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    is_truncated: bool = True


@dataclass(frozen=True, slots=True)
class Llama3Scaling:
    """Llama 3's scaling: frequencies that make fewer than `low_freq_factor` turns in the original context are divided
    by `factor`.

    Those that make more than `high_freq_factor` turns stay, and those between become a weighted mean of the divided and
    the unchanged frequency.
    """

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int


@dataclass(frozen=True, slots=True)
class LongScaling:
    """LongRoPE: each frequency is divided by a factor of its own, which the model's authors found by a search.

    Attributes:
        short_factor: a factor for each frequency, for contexts of up to `original_max_position_embeddings` tokens.
        long_factor: a factor for each frequency, for longer contexts.
        original_max_position_embeddings: the context of the training.
        attention_factor: multiplies cos and sin.
    """

    short_factor: tuple[float, ...]
    long_factor: tuple[float, ...]
    original_max_position_embeddings: int
    attention_factor: float


@dataclass(frozen=True, slots=True)
class FactorScaling:
    """Each frequency is divided by a factor of its own, for contexts of any length. GGUF files state Llama 3's scaling
    in this form.
    """

    factors: tuple[float, ...]


RopeScaling: TypeAlias = LinearScaling | DynamicScaling | YarnScaling | Llama3Scaling | LongScaling | FactorScaling


@dataclass(frozen=True, slots=True)
class Rope:
    """The rotary embedding of a layer. Element i of a head is rotated with element i + rotary_dim / 2.

    Attributes:
        rope_theta: the base of the frequencies.
        rotary_dim: the number of elements of each head that are rotated, from the first on.
        scaling: how frequencies are scaled for long contexts; None if they are not.
    """

    rope_theta: float
    rotary_dim: int
    scaling: RopeScaling | None = None

    def frequencies(self, num_positions: int) -> tuple[Array, float]:
        """The angle by which each pair of elements turns from one position to the next, in radians, FP64 [rotary_dim /
        2], and the factor by which cos and sin are multiplied.

        `num_positions` is the length of the context, on which the frequencies of dynamic NTK and LongRoPE depend.
        """
        base = _powers(self.rope_theta, self.rotary_dim)
        match self.scaling:
            case None:
                return base, 1.0
            case LinearScaling(factor):
                return base / factor, 1.0
            case DynamicScaling() as scaling:
                return _dynamic(scaling, self.rope_theta, self.rotary_dim, num_positions), 1.0
            case YarnScaling() as scaling:
                return _yarn(scaling, base, self.rope_theta, self.rotary_dim), scaling.attention_factor
            case Llama3Scaling() as scaling:
                return _llama3(scaling, base), 1.0
            case LongScaling() as scaling:
                is_long = num_positions > scaling.original_max_position_embeddings
                factors = scaling.long_factor if is_long else scaling.short_factor
                return base / np.asarray(factors), scaling.attention_factor
            case FactorScaling(factors):
                return base / np.asarray(factors), 1.0

    def context_note(self, num_positions: int) -> str:
        """What differs for short texts in a context of `num_positions` tokens whose keys are kept; "" if nothing does.

        Keys are kept as they were rotated, so a text cannot begin with the frequencies of short contexts and go on with
        those of long ones. It gets those of the longest text that the context may hold, as in vLLM and llama.cpp;
        transformers chooses by the length that the text has at each call.
        """
        scaling = self.scaling
        if not isinstance(scaling, LongScaling | DynamicScaling):
            return ""
        short = scaling.original_max_position_embeddings
        if num_positions <= short:
            return ""
        return (
            f"rotary embeddings are those of contexts longer than {short} tokens for all texts, since up to "
            f"{num_positions} are allowed: shorter texts are answered slightly differently than by transformers; a "
            f"limit of {short} tokens gives them the embeddings that the model was trained with"
        )

    def tables(self, num_positions: int) -> tuple[Array, Array]:
        """Cosines and sines, FP32 [num_positions, rotary_dim / 2] each, for a context of `num_positions` tokens."""
        frequencies, factor = self.frequencies(num_positions)
        angles = np.outer(np.arange(num_positions, dtype=np.float64), frequencies)
        return (np.cos(angles) * factor).astype(np.float32), (np.sin(angles) * factor).astype(np.float32)


def _powers(theta: float, rotary_dim: int) -> Array:
    return theta ** -(np.arange(0, rotary_dim, 2, dtype=np.float64) / rotary_dim)


def _dynamic(scaling: DynamicScaling, theta: float, rotary_dim: int, num_positions: int) -> Array:
    original = scaling.original_max_position_embeddings
    stretch = scaling.factor * max(num_positions, original) / original - (scaling.factor - 1)
    return _powers(theta * stretch ** (rotary_dim / (rotary_dim - 2)), rotary_dim)


def _yarn(scaling: YarnScaling, base: Array, theta: float, rotary_dim: int) -> Array:
    def border(turns: float) -> float:
        """The index, counted from the highest frequency, of the frequency that makes this many turns in the original
        context.
        """
        steps = scaling.original_max_position_embeddings / (turns * 2 * math.pi)
        return rotary_dim * math.log(steps) / (2 * math.log(theta))

    low, high = border(scaling.beta_fast), border(scaling.beta_slow)
    if scaling.is_truncated:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, rotary_dim - 1)
    width = high - low if high != low else 0.001
    divided = np.clip((np.arange(rotary_dim // 2) - low) / width, 0, 1)
    return base / scaling.factor * divided + base * (1 - divided)


def _llama3(scaling: Llama3Scaling, base: Array) -> Array:
    turns = scaling.original_max_position_embeddings * base / (2 * math.pi)
    kept = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    kept = np.clip(kept, 0, 1)
    return base / scaling.factor * (1 - kept) + base * kept
