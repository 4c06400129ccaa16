"""Text generation in Python: the options of a request, and its answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from triune.core.errors import InvalidArgumentError
from triune.engine.generation import Delta, Generation, PromptLogprobs, TokenLogprob, Usage
from triune.engine.sampling.parameters import SAMPLING_FIELDS, SamplingParameters

Message = Mapping[str, Any]
"""A message of a conversation, as in OpenAI's API: {"role": "user", "content": "Hello"}."""


_ROLES = ("system", "developer", "user", "assistant", "tool")


class Options(TypedDict, total=False):
    """How an answer is generated: see `SamplingParameters` and `Generation` for each field. Without `max_tokens` an
    answer may fill the context.
    """

    temperature: float
    top_p: float
    top_k: int
    min_p: float
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    logit_bias: Mapping[int, float]
    seed: int | None
    max_tokens: int | None
    min_tokens: int
    stop: str | Sequence[str]
    stop_tokens: frozenset[int]
    is_end_ignored: bool
    num_logprobs: int | None
    num_prompt_logprobs: int | None
    adapter: str | None


@dataclass(frozen=True, slots=True)
class Answer:
    """A generated text. `str(answer)` is the text.

    Attributes:
        text: the text, without the prompt.
        tokens: the token ids of the text.
        finish_reason: "stop" if the model or a stop text ended the text, "length" if `max_tokens` or the context did.
        usage: how many tokens were read and generated, and the times.
        logprobs: the log-probability of each of `tokens`, with those of the most probable tokens in its place; empty
            without `num_logprobs`.
        prompt: the log-probabilities of the prompt's tokens; None without `num_prompt_logprobs`.
    """

    text: str
    tokens: tuple[int, ...]
    finish_reason: str
    usage: Usage
    logprobs: tuple[TokenLogprob, ...] = ()
    prompt: PromptLogprobs | None = None

    def __str__(self) -> str:
        return self.text


def request_of(prompt: str, options: Options) -> Generation:
    """Create the engine's request. Raises InvalidArgumentError if an option is unknown or out of range."""
    given = dict(options)
    unknown = sorted(given.keys() - Options.__annotations__.keys())
    if unknown:
        known = ", ".join(Options.__annotations__)
        raise InvalidArgumentError(f"the option '{unknown[0]}' is unknown; known are {known}")
    if not isinstance(prompt, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidArgumentError(f"a prompt is a {type(prompt).__name__}; give a text")
    sampling: dict[str, Any] = {name: given.pop(name) for name in SAMPLING_FIELDS & given.keys()}
    rest: dict[str, Any] = dict(given)
    stop = rest.get("stop", ())
    rest["stop"] = (stop,) if isinstance(stop, str) else tuple(stop)
    try:
        return Generation(prompt, SamplingParameters(**sampling), **rest)
    # `Generation` compares the values of options with their limits, which raises TypeError for a value of a wrong type.
    except TypeError as error:
        raise InvalidArgumentError(f"an option of the answer has a value of a wrong type: {error}") from error


def joined(deltas: Sequence[Delta]) -> Answer:
    """Join the deltas of a whole answer. The last delta has the finish reason and the usage."""
    last = deltas[-1]
    assert last.finish_reason is not None
    assert last.usage is not None
    return Answer(
        "".join(delta.text for delta in deltas),
        tuple(token for delta in deltas for token in delta.tokens),
        last.finish_reason.value,
        last.usage,
        tuple(each for delta in deltas for each in delta.logprobs),
        next((delta.prompt for delta in deltas if delta.prompt is not None), None),
    )


def checked_messages(messages: Sequence[Message]) -> Sequence[Message]:
    """Return the messages. Raises InvalidArgumentError if they are not a conversation."""
    if isinstance(messages, str) or not messages:
        raise InvalidArgumentError(
            'a conversation is a list of messages, such as [{"role": "user", "content": "Hello"}]'
        )
    for index, message in enumerate(messages):
        if not isinstance(message, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidArgumentError(f"message {index} is a {type(message).__name__}; give a dictionary")
        if message.get("role") not in _ROLES:
            raise InvalidArgumentError(
                f"message {index} has the role {message.get('role')!r}; it must be one of {', '.join(_ROLES)}"
            )
    return messages
