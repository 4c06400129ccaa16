"""Read the bodies of requests to OpenAI's endpoints `chat/completions`, `completions` and `embeddings`. Large bodies
are read in another process, so the results of these functions can be pickled.
"""

from dataclasses import dataclass, replace
from typing import Any, Final

from triune.engine.generation import Generation
from triune.engine.sampling.parameters import MAX_LOGPROBS
from triune.engine.structured.constraint import Constraint
from triune.frontends.openai.messages import read_messages, read_tools
from triune.frontends.text.chat import Chat, template_variables
from triune.frontends.text.fields import FieldError, Fields, are_tokens
from triune.frontends.text.forms import combined, read_format
from triune.frontends.text.sampling import MAX_ANSWERS, read_generation

MAX_PROMPTS: Final = 256
"""The largest number of prompts of one request for completions."""

MAX_INPUTS: Final = 2048
"""The largest number of texts of one request for embeddings, as in OpenAI's API."""

_COMPLETION_TOKENS: Final = 16
"""OpenAI's default for `max_tokens` of completions."""

CHANGE_NOTHING: Final = (
    "user",
    "metadata",
    "store",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "prompt_cache_options",
)
"""Fields for OpenAI's billing, monitoring, storage or caching. None of them changes the answer."""


@dataclass(frozen=True, slots=True)
class TextRequest:
    """The fields of a request for text, without its prompt.

    Attributes:
        model: the model's name.
        generation: how to generate, without the prompt.
        is_stream: whether to answer with events.
        has_usage: whether a stream ends with a chunk of usage.
        has_report: whether the answer has a report of where the model ran and how long it took.
    """

    model: str
    generation: Generation
    is_stream: bool = False
    has_usage: bool = False
    has_report: bool = False


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A request to the endpoint `chat/completions`.

    Attributes:
        text: the fields that all requests for text have.
        chat: the conversation.
        has_parallel_calls: whether an answer may have more than one call of a tool.
    """

    text: TextRequest
    chat: Chat
    has_parallel_calls: bool = True


@dataclass(frozen=True, slots=True)
class Best:
    """Selects the returned answers to each prompt (`best_of`): those with the highest mean log-probability of tokens.

    Attributes:
        num_answers: the number of returned answers (OpenAI's `n`); `best_of` is `Generation.num_answers`.
        has_logprobs: whether the request asks for log-probabilities. They are computed even if not, to compare the
            answers.
    """

    num_answers: int
    has_logprobs: bool


@dataclass(frozen=True, slots=True)
class CompletionRequest:
    """A request to the endpoint `completions`.

    Attributes:
        text: the fields that all requests for text have.
        prompts: each a text, or token ids.
        is_echo: whether answers begin with their prompt.
        is_prompt_only: whether answers consist of their prompt alone (`max_tokens` 0), for its log-probabilities.
        best: which of the answers are returned; None for all.
    """

    text: TextRequest
    prompts: tuple[str | list[int], ...]
    is_echo: bool = False
    is_prompt_only: bool = False
    best: Best | None = None


@dataclass(frozen=True, slots=True)
class EmbeddingRequest:
    """A request to the endpoint `embeddings`.

    Attributes:
        model: the model's name.
        inputs: each a text, or token ids.
        is_base64: whether embeddings are base64 of FP32, little-endian, rather than JSON numbers.
        dimensions: how many of the first numbers of each embedding to return, scaled to length 1; None for all.
        has_report: whether the answer has a report of where the model ran (`triune`).
    """

    model: str
    inputs: tuple[str | list[int], ...]
    is_base64: bool = False
    dimensions: int | None = None
    has_report: bool = False


def read_chat(fields: Fields) -> ChatRequest:
    """Read a request to the endpoint `chat/completions`."""
    limit = fields.integer("max_tokens", 1)
    newer = fields.integer("max_completion_tokens", 1)
    if limit is not None and newer not in (None, limit):
        raise FieldError(f"'max_tokens' is {limit} and 'max_completion_tokens' {newer}: send one", "max_tokens")
    num_top = fields.integer("top_logprobs", 0, MAX_LOGPROBS)
    has_logprobs = fields.flag("logprobs")
    if num_top is not None and not has_logprobs:
        raise FieldError("'top_logprobs' needs 'logprobs': true", "top_logprobs")
    tools, constraint = read_tools(fields)
    constraint = combined(constraint, read_format(fields, "response_format"), tools, "response_format")
    chat = Chat(read_messages(fields), tools, template_variables(fields))
    has_parallel_calls = fields.flag("parallel_tool_calls", default=True)
    fields.refuse("modalities", "the model writes text only", ["text"])
    fields.refuse("audio", "the model writes text only")
    fields.refuse("functions", "use 'tools'")
    fields.refuse("function_call", "use 'tool_choice'")
    fields.refuse("reasoning_effort", "send what the model's template knows as 'chat_template_kwargs'")
    fields.refuse("verbosity", "say in a message how long the answer shall be", "medium")
    fields.refuse("web_search_options", "the server searches nothing")
    fields.refuse("moderation", "the server moderates nothing")
    fields.ignore("prediction")
    text = read_text(fields, limit or newer, (num_top or 0) if has_logprobs else None, constraint)
    return ChatRequest(text, chat, has_parallel_calls)


def read_completion(fields: Fields) -> CompletionRequest:
    """Read a request to the endpoint `completions`."""
    prompts = _read_inputs(fields, "prompt", MAX_PROMPTS)
    num_logprobs = fields.integer("logprobs", 0, MAX_LOGPROBS)
    is_echo = fields.flag("echo")
    fields.refuse("suffix", "the model continues a text; it cannot fill a gap", "")
    best_of = fields.integer("best_of", 1, MAX_ANSWERS)
    max_tokens = fields.integer("max_tokens", 0 if is_echo else 1)
    is_prompt_only = max_tokens == 0
    # For `max_tokens` 0, one token is generated and left out of the answer: its logits are computed with the prompt in
    # any case.
    text = read_text(fields, 1 if is_prompt_only else max_tokens or _COMPLETION_TOKENS, num_logprobs)
    if is_echo and num_logprobs is not None:
        text = replace(text, generation=replace(text.generation, num_prompt_logprobs=num_logprobs))
    text, best = _with_best(text, best_of)
    if len(prompts) * text.generation.num_answers > MAX_PROMPTS:
        raise FieldError(
            f"the request asks for {len(prompts)} times {text.generation.num_answers} answers; {MAX_PROMPTS} are the "
            "limit: send fewer prompts at once",
            "prompt",
        )
    return CompletionRequest(text, prompts, is_echo, is_prompt_only, best)


def _with_best(text: TextRequest, best_of: int | None) -> tuple[TextRequest, Best | None]:
    """Set the number of answers to generate, `best_of`, and return which of them are to be returned."""
    generation = text.generation
    if best_of is None or best_of == generation.num_answers:
        return text, None
    if best_of < generation.num_answers:
        raise FieldError(
            f"'best_of' is {best_of}, and 'n' {generation.num_answers}: it must be as many or more", "best_of"
        )
    if text.is_stream:
        raise FieldError("'best_of' above 'n' needs whole answers to choose from: send 'stream': false", "best_of")
    best = Best(generation.num_answers, generation.sampling.num_logprobs is not None)
    sampling = replace(generation.sampling, num_logprobs=generation.sampling.num_logprobs or 0)
    return replace(text, generation=replace(generation, num_answers=best_of, sampling=sampling)), best


def read_embedding(fields: Fields) -> EmbeddingRequest:
    """Read a request to the endpoint `embeddings`."""
    model = read_model(fields)
    inputs = _read_inputs(fields, "input", MAX_INPUTS)
    is_base64 = fields.choice("encoding_format", ("float", "base64")) == "base64"
    request = EmbeddingRequest(model, inputs, is_base64, fields.integer("dimensions", 1), fields.flag("triune"))
    fields.ignore(*CHANGE_NOTHING)
    fields.end()
    return request


def read_model(fields: Fields) -> str:
    """Read the model's name."""
    return fields.need("model", fields.string("model"))


def read_text(
    fields: Fields, max_tokens: int | None, num_logprobs: int | None, constraint: Constraint | None = None
) -> TextRequest:
    """Read the fields of a request for text that all endpoints share, after the endpoint has read its own."""
    model = read_model(fields)
    is_stream = fields.flag("stream")
    options = fields.object("stream_options")
    has_usage = False
    if options is not None:
        has_usage = options.flag("include_usage")
        options.ignore("include_obfuscation", "continuous_usage_stats")
        options.end()
    has_report = fields.flag("triune")
    generation = read_generation(fields, max_tokens=max_tokens, num_logprobs=num_logprobs, constraint=constraint)
    fields.ignore(*CHANGE_NOTHING)
    fields.end()
    return TextRequest(model, generation, is_stream, has_usage, has_report)


def _read_inputs(fields: Fields, name: str, limit: int) -> tuple[str | list[int], ...]:
    """Read a text, token ids, or an array of either."""
    value = fields.need(name, fields.take(name))
    if type(value) is str:
        return (value,)
    inputs: list[Any] = value if isinstance(value, list) else []  # pyright: ignore[reportUnknownVariableType]
    if inputs and are_tokens(inputs):
        return (inputs,)
    if not inputs or not all(type(each) is str or (type(each) is list and are_tokens(each)) for each in inputs):
        raise FieldError(
            f"'{name}' must be a string, an array of token ids, or an array of such that is not empty",
            name,
            "invalid_type",
        )
    if len(inputs) > limit:
        raise FieldError(f"'{name}' has {len(inputs)} elements; {limit} are the limit: send several requests", name)
    return tuple(inputs)
