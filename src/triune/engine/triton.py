"""Read sampling parameters as Triton's vLLM backend does: vLLM's names, in JSON or as parameters of the request."""

import json
from collections.abc import Callable, Mapping
from typing import Any, Final, cast

from triune.config.parse import without_duplicates
from triune.core.errors import InvalidArgumentError, PayloadTooLargeError
from triune.engine.admission import MAX_ANSWERS
from triune.engine.generation import Generation
from triune.engine.sampling.parameters import SamplingParameters
from triune.engine.structured.constraint import Constraint

_DEFAULT_MAX_TOKENS: Final = 16
"""The default number of tokens of an answer, as in vLLM."""

_MOST_CHARACTERS: Final = 1 << 20
"""The most characters of JSON in a request's parameters: they are read on the event loop."""


def read_generation(
    prompt: str, sampling_parameters: str | None, parameters: Mapping[str, Any], priority: int
) -> Generation:
    """Create the request for a prompt.

    Args:
        prompt: the prompt.
        sampling_parameters: a JSON object with vLLM's names; None takes `parameters`.
        parameters: the request's own parameters, with the same names.
        priority: 0 is the most urgent.

    Raises:
        InvalidArgumentError: a name is unknown, or a value has the wrong type or is out of range.
        PayloadTooLargeError: there are too many characters of JSON.
    """
    given = parameters if sampling_parameters is None else _parse(sampling_parameters)
    unknown = next((name for name in given if name not in _KNOWN), None)
    if unknown is not None:
        raise InvalidArgumentError(f"the sampling parameter '{unknown[:64]}' is unknown; known are {', '.join(_KNOWN)}")
    read: dict[str, Any] = {name: _KNOWN[name](name, value) for name, value in given.items() if value is not None}
    if not 1 <= read.get("n", 1) <= MAX_ANSWERS:
        raise InvalidArgumentError(f"'n' is {read['n']}; it must be between 1 and {MAX_ANSWERS}")
    if read.keys() >= set(_CONSTRAINTS):
        raise InvalidArgumentError(f"{' and '.join(map(repr, _CONSTRAINTS))} are two names of one parameter: send one")
    of_request: dict[str, Any] = {"max_tokens": _DEFAULT_MAX_TOKENS, "priority": priority}
    of_request |= {field: read.pop(name) for name, field in _OF_REQUEST.items() if name in read}
    # In older versions of vLLM -1 means all tokens. Leave it out: that is the default here.
    if read.get("top_k") == -1:
        del read["top_k"]
    sampling = SamplingParameters(num_logprobs=read.pop("logprobs", None), **read)
    return Generation(prompt, sampling, **of_request)


def _parse(text: str, name: str = "sampling_parameters") -> dict[str, Any]:
    if len(text) > _MOST_CHARACTERS:
        raise PayloadTooLargeError(f"'{name}' has {len(text)} characters; {_MOST_CHARACTERS} are the limit")
    try:
        value = cast("object", json.loads(text, object_pairs_hook=without_duplicates))
    except (ValueError, RecursionError) as error:
        raise InvalidArgumentError(f"'{name}' is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise InvalidArgumentError(f"'{name}' holds a {type(value).__name__}, not a JSON object")
    return cast("dict[str, Any]", value)


def _whole(name: str, value: object) -> int:
    if isinstance(value, str):
        # A string of digits is accepted, too, since older clients of the endpoint `generate` send numbers as strings.
        try:
            return int(value)
        except ValueError:
            raise InvalidArgumentError(f"'{name}' is {value[:64]!r}; it must be a whole number") from None
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidArgumentError(f"'{name}' is {str(value)[:64]}; it must be a whole number")
    return value


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise InvalidArgumentError(f"'{name}' is {str(value)[:64]}; it must be a number")
    try:
        return float(value)
    except (ValueError, OverflowError):
        raise InvalidArgumentError(f"'{name}' is {str(value)[:64]!r}; it must be a number") from None


def _boolean(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise InvalidArgumentError(f"'{name}' is {str(value)[:64]}; it must be true or false")
    return value


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise InvalidArgumentError(f"'{name}' is {str(value)[:64]}; it must be a text")
    return value


def _texts(name: str, value: object) -> tuple[str, ...]:
    texts = cast("list[object]", value if isinstance(value, list) else [value])
    if not all(isinstance(each, str) for each in texts):
        raise InvalidArgumentError(f"'{name}' must be a text, or an array of texts")
    return tuple(cast("list[str]", texts))


def _tokens(name: str, value: object) -> frozenset[int]:
    tokens = cast("list[object]", value) if isinstance(value, list) else [value]
    return frozenset(_whole(name, each) for each in tokens)


def _biases(name: str, value: object) -> Mapping[int, float]:
    if not isinstance(value, dict):
        raise InvalidArgumentError(f"'{name}' must be an object of token ids and numbers")
    return {_whole(name, token): _number(name, bias) for token, bias in cast("dict[object, object]", value).items()}


def _constraint(name: str, value: object) -> Constraint:
    """Read vLLM's `StructuredOutputsParams`: an object, or the same as JSON, as its Triton backend takes it."""
    given = cast("dict[str, object]", value) if isinstance(value, dict) else _parse(_text(name, value), name)
    given = {kind: each for kind, each in given.items() if each is not None and each is not False}
    if len(given) != 1 or not given.keys() <= _KINDS:
        raise InvalidArgumentError(
            f"'{name}' has {', '.join(repr(kind[:64]) for kind in given) or 'nothing'}; it must have one of "
            f"{', '.join(sorted(_KINDS))}"
        )
    ((kind, text),) = given.items()
    if kind == "json":
        schema = _parse(text, f"{name}.json") if isinstance(text, str) else text
        if not isinstance(schema, dict):
            raise InvalidArgumentError(f"'{name}.json' must be a JSON schema: an object, or its text")
        return Constraint("json_schema", json.dumps(schema))
    if kind == "json_object":
        _boolean(f"{name}.json_object", text)
        return Constraint("json_object")
    if kind == "choice":
        return Constraint("choice", json.dumps(_texts(f"{name}.choice", text)))
    return Constraint("regex" if kind == "regex" else "gbnf", _text(f"{name}.{kind}", text))


_KINDS: Final = frozenset({"json", "json_object", "regex", "choice", "grammar"})
_CONSTRAINTS: Final = ("structured_outputs", "guided_decoding")
"""The newer and the older name of vLLM's parameter for the form of answers."""

_KNOWN: Final[Mapping[str, Callable[[str, object], Any]]] = {
    "n": _whole,
    "max_tokens": _whole,
    "min_tokens": _whole,
    "temperature": _number,
    "top_p": _number,
    "top_k": _whole,
    "min_p": _number,
    "repetition_penalty": _number,
    "presence_penalty": _number,
    "frequency_penalty": _number,
    "logit_bias": _biases,
    "seed": _whole,
    "logprobs": _whole,
    "prompt_logprobs": _whole,
    "stop": _texts,
    "stop_token_ids": _tokens,
    "ignore_eos": _boolean,
    "include_stop_str_in_output": _boolean,
    "lora_name": _text,
    **dict.fromkeys(_CONSTRAINTS, _constraint),
}

_OF_REQUEST: Final[Mapping[str, str]] = {
    "n": "num_answers",
    "max_tokens": "max_tokens",
    "min_tokens": "min_tokens",
    "stop": "stop",
    "stop_token_ids": "stop_tokens",
    "ignore_eos": "is_end_ignored",
    "include_stop_str_in_output": "is_stop_included",
    "lora_name": "adapter",
    "prompt_logprobs": "num_prompt_logprobs",
    **dict.fromkeys(_CONSTRAINTS, "constraint"),
}
"""For each of these names of vLLM's, the field of `Generation` that it sets."""
