"""Rotary embeddings in config.json: `rope_theta` and `rope_scaling`, or `rope_parameters` of newer files."""

import math
from typing import Final

from triune.core.errors import InvalidArgumentError
from triune.engine.weights.config import (
    DynamicScaling,
    LinearScaling,
    Llama3Scaling,
    LongScaling,
    Rope,
    RopeScaling,
    YarnScaling,
)
from triune.engine.weights.fields import Fields

_KINDS: Final = {each: each for each in ("default", "linear", "dynamic", "yarn", "llama3", "longrope")} | {
    "su": "longrope"
}


def read_ropes(fields: Fields, head_dim: int, default_theta: float, local_theta: float | None) -> tuple[Rope, Rope]:
    """The rotary embeddings of layers that attend to all tokens, and of layers with a sliding window.

    Args:
        fields: config.json.
        head_dim: the width of a head.
        default_theta: the base if the file has none.
        local_theta: the base for layers with a window if the file has none; None if it is the same as for the others.

    Raises:
        UnsupportedError: the kind of scaling, or one of its settings, is not known here.
        InvalidArgumentError: a setting is missing or impossible.
    """
    theta = fields.number("rope_theta", default_theta, above=1)
    local = fields.number("rope_local_base_freq", local_theta or theta, above=1)
    parameters = fields.inner("rope_parameters")
    if parameters is not None and ("full_attention" in parameters or "sliding_attention" in parameters):
        whole, window = parameters.inner("full_attention"), parameters.inner("sliding_attention")
        parameters.refuse_unread()
        return _rope(fields, whole, head_dim, theta), _rope(fields, window, head_dim, local)
    rope = _rope(fields, parameters or fields.inner("rope_scaling"), head_dim, theta)
    return rope, rope if local_theta is None else _rope(fields, None, head_dim, local)


def _rope(fields: Fields, parameters: Fields | None, head_dim: int, theta: float) -> Rope:
    part = fields.number("partial_rotary_factor", 1.0, above=0)
    scaling = None
    if parameters is not None:
        theta = parameters.number("rope_theta", theta, above=1)
        part = parameters.number("partial_rotary_factor", part, above=0)
    rotary_dim = int(head_dim * part)
    if not 2 <= rotary_dim <= head_dim or rotary_dim % 2:
        raise InvalidArgumentError(
            f"{fields.where}: {rotary_dim} of {head_dim} elements would be rotated; expected pairs"
        )
    if parameters is not None:
        scaling = _scaling(fields, parameters, rotary_dim)
        parameters.refuse_unread({"finetuned"})
    return Rope(theta, rotary_dim, scaling)


def _scaling(fields: Fields, parameters: Fields, rotary_dim: int) -> RopeScaling | None:
    kind = parameters.choice("rope_type", _KINDS, parameters.choice("type", _KINDS, "default"))
    longest = fields.whole("max_position_embeddings", 2048)
    original = parameters.whole(
        "original_max_position_embeddings", fields.whole("original_max_position_embeddings", longest)
    )
    match kind:
        case "linear":
            return LinearScaling(parameters.number("factor", above=0))
        case "dynamic":
            return DynamicScaling(parameters.number("factor", above=0), longest)
        case "llama3":
            low = parameters.number("low_freq_factor", above=0)
            high = parameters.number("high_freq_factor", above=low)
            return Llama3Scaling(parameters.number("factor", above=0), low, high, original)
        case "yarn":
            return _yarn(parameters, longest, original)
        case "longrope":
            return _long(parameters, rotary_dim, longest, original)
        case _:
            return None


def _yarn(parameters: Fields, longest: int, original: int) -> YarnScaling:
    factor = parameters.number("factor", longest / original, above=0)
    # A setting of 0 counts as missing, since some files write 0 for it.
    scale, scale_all = parameters.number("mscale", 0), parameters.number("mscale_all_dim", 0)
    natural = _magnitude(factor, scale) / _magnitude(factor, scale_all) if scale and scale_all else _magnitude(factor)
    return YarnScaling(
        factor,
        original,
        parameters.number("attention_factor", natural, above=0),
        parameters.number("beta_fast", 32.0, above=0),
        parameters.number("beta_slow", 1.0, above=0),
        parameters.flag("truncate", True),
    )


def _magnitude(factor: float, scale: float = 1.0) -> float:
    return 0.1 * scale * math.log(factor) + 1 if factor > 1 else 1.0


def _long(parameters: Fields, rotary_dim: int, longest: int, original: int) -> LongScaling:
    factor = parameters.number("factor", longest / original, above=0)
    natural = math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 and original > 1 else 1.0
    return LongScaling(
        parameters.numbers("short_factor", rotary_dim // 2, above=0),
        parameters.numbers("long_factor", rotary_dim // 2, above=0),
        original,
        parameters.number("attention_factor", natural, above=0),
    )
