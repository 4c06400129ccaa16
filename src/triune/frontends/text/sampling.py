"""Reads how the tokens of an answer are chosen and when it ends: fields of OpenAI's API, of vLLM and of llama.cpp."""

from typing import Any

import orjson

from triune.core.requests import UNIT_PARAMETER
from triune.core.units import Unit
from triune.engine.generation import Generation
from triune.engine.sampling.parameters import SamplingParameters
from triune.engine.structured.constraint import Constraint
from triune.frontends.text.fields import FieldError, Fields
from triune.frontends.text.forms import schema_constraint

MAX_ANSWERS = 128
"""The most answers to one prompt, as in OpenAI's API."""

_NUMBERS = ("temperature", "top_p", "min_p", "presence_penalty", "frequency_penalty")


def read_generation(
    fields: Fields, *, max_tokens: int | None, num_logprobs: int | None, constraint: Constraint | None
) -> Generation:
    """Read the fields that OpenAI's endpoints for chats and completions share. The prompt is left empty.

    Args:
        fields: the request.
        max_tokens: the most tokens of an answer.
        num_logprobs: how many probabilities to report; None reports none.
        constraint: the answer's constraint from other fields; if None, vLLM's and llama.cpp's fields are read.

    Raises:
        InvalidArgumentError: a field is wrong.
    """
    stops = read_stops(fields, "stop")
    return Generation(
        (),
        read_sampling(fields, num_logprobs),
        max_tokens=max_tokens,
        min_tokens=fields.integer("min_tokens") or 0,
        stop=stops,
        stop_tokens=frozenset(fields.integers("stop_token_ids") or ()),
        is_end_ignored=fields.flag("ignore_eos"),
        is_stop_included=fields.flag("include_stop_str_in_output"),
        num_answers=fields.integer("n", 1, MAX_ANSWERS) or 1,
        priority=fields.integer("priority") or 0,
        constraint=constraint or _read_guide(fields),
        unit=_read_unit(fields),
    )


def read_sampling(fields: Fields, num_logprobs: int | None) -> SamplingParameters:
    """Read how tokens are chosen. Raises the errors of `read_generation`."""
    given: dict[str, Any] = {name: fields.number(name) for name in _NUMBERS}
    # In vLLM's API, -1 means all tokens.
    top_k = fields.integer("top_k", -1)
    given["top_k"] = None if top_k is None else max(0, top_k)
    penalty, other = fields.number("repetition_penalty"), fields.number("repeat_penalty")
    if penalty is not None and other not in (None, penalty):
        raise FieldError("'repetition_penalty' and 'repeat_penalty' differ: send one of them", "repeat_penalty")
    given["repetition_penalty"] = other if penalty is None else penalty
    seed = fields.integer("seed", -(2**63))
    given["seed"] = None if seed is None else seed % 2**64
    chosen = {name: value for name, value in given.items() if value is not None}
    # Pass a dict for `logit_bias`: its default, a read-only mapping, cannot be pickled in the process that parses large
    # requests.
    return SamplingParameters(**chosen, num_logprobs=num_logprobs, logit_bias=_read_bias(fields))


def read_stops(fields: Fields, name: str) -> tuple[str, ...]:
    """Read stop texts: one, or an array of them."""
    value = fields.take(name)
    if value is None:
        return ()
    stops: list[Any] = value if isinstance(value, list) else [value]  # pyright: ignore[reportUnknownVariableType]
    if not all(type(stop) is str for stop in stops):
        raise FieldError(f"'{fields.path(name)}' must be a string or an array of strings", fields.path(name))
    return tuple(stops)


def _read_unit(fields: Fields) -> Unit | None:
    """Read the unit that is to compute the answer."""
    name = fields.string(UNIT_PARAMETER)
    if name is None:
        return None
    for unit in Unit:
        if unit.value == name:
            return unit
    known = ", ".join(each.value for each in Unit)
    raise FieldError(f"'{fields.path(UNIT_PARAMETER)}' is {name[:64]!r}; it must be one of {known}", UNIT_PARAMETER)


def _read_guide(fields: Fields) -> Constraint | None:
    """Read the answer's constraint from the fields of vLLM (`guided_...`) or llama.cpp (`grammar`)."""
    if (schema := fields.mapping("guided_json")) is not None:
        return schema_constraint(schema)
    if (regex := fields.string("guided_regex")) is not None:
        return Constraint("regex", regex)
    if (texts := fields.array("guided_choice")) is not None:
        return Constraint("choice", orjson.dumps(texts).decode())
    grammar = fields.string("grammar")
    return None if grammar is None else Constraint("gbnf", grammar)


def _read_bias(fields: Fields) -> dict[int, float]:
    biases: dict[int, float] = {}
    for token, bias in (fields.mapping("logit_bias") or {}).items():
        if not (token.isascii() and token.isdigit() and len(token) < 10) or type(bias) not in (int, float):
            raise FieldError(
                f"'logit_bias' must have numbers by token ids, such as {{\"50256\": -100}}; '{token[:32]}' is not one",
                "logit_bias",
            )
        biases[int(token)] = bias
    return biases
