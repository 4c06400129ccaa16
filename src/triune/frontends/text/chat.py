"""Convert the messages of every API to one form of conversation."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from triune.core.errors import InvalidArgumentError
from triune.engine.generation import Generation, TextModel
from triune.engine.tools.reasoning import is_open_after
from triune.frontends.text.fields import FieldError, Fields

_GIVEN = frozenset({"messages", "tools", "add_generation_prompt"})
"""Variables of a chat template that Triune sets itself."""

_MOST_VARIABLES = 256
"""The most variables that a request may give to a chat template: each takes time during which the GIL is held."""

TOKEN_BYTES = 36
"""The memory of a token id of a prompt, in bytes: a Python integer, and its entry in a list."""


@dataclass(frozen=True, slots=True)
class Chat:
    """A conversation to be continued.

    Attributes:
        messages: the messages in the form that chat templates read, which is that of OpenAI's API; but the arguments of
            calls are objects if the client sent valid JSON.
        tools: the functions that the model may call, in the same form.
        variables: further variables for the chat template.
        beginning: the beginning of the answer, which the model continues; empty if it writes the whole answer.
    """

    messages: tuple[dict[str, Any], ...]
    tools: tuple[dict[str, Any], ...] = ()
    variables: Mapping[str, Any] = field(default_factory=dict[str, Any])
    beginning: str = ""

    @property
    def parameters(self) -> dict[str, Mapping[str, Any]]:
        """The JSON schema of the parameters of each tool, by name."""
        functions = [tool["function"] for tool in self.tools]
        return {function["name"]: function.get("parameters") or {} for function in functions}


class ContextLengthError(InvalidArgumentError):
    """A prompt leaves no room for an answer.

    Attributes:
        num_tokens: the number of tokens of the prompt.
        context_tokens: the most tokens of prompt and answer together.
    """

    def __init__(self, num_tokens: int, context_tokens: int) -> None:
        super().__init__(
            f"This model's maximum context length is {context_tokens} tokens. However, your prompt has {num_tokens} "
            "tokens, and the answer needs at least one: shorten the prompt"
        )
        self.num_tokens = num_tokens
        self.context_tokens = context_tokens


def template_variables(fields: Fields) -> dict[str, Any]:
    """Read `chat_template_kwargs`.

    Raises:
        FieldError: there are too many variables, or one has the name of a variable that the server sets.
    """
    variables = fields.mapping("chat_template_kwargs") or {}
    path = fields.path("chat_template_kwargs")
    if len(variables) > _MOST_VARIABLES:
        raise FieldError(f"'{path}' has {len(variables)} variables; at most {_MOST_VARIABLES} are taken", path)
    for name in sorted(variables.keys() & _GIVEN):
        raise FieldError(
            f"'{path}' has '{name}', which the chat template gets from the request itself: remove it", path
        )
    return variables


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    """A conversation as the model reads it.

    Attributes:
        tokens: the token ids.
        is_reasoning: whether the prompt ends within the model's reasoning, so that the answer begins with reasoning.
    """

    tokens: list[int]
    is_reasoning: bool


async def chat_prompt(model: TextModel, chat: Chat) -> ChatPrompt:
    """The prompt of a conversation. Raises the errors of `TextModel.render` and `tokenize`."""
    text = await model.render(chat.messages, tools=chat.tools or None, variables=chat.variables)
    text += chat.beginning
    return ChatPrompt(await model.tokenize(text, is_templated=True), is_open_after(text))


def with_prompt(model: TextModel, generation: Generation, tokens: list[int], adapter: str | None = None) -> Generation:
    """Copy a generation, with the prompt `tokens` and the LoRA adapter `adapter`. The answer ends when the context is
    full, even if the generation's `max_tokens` allows more.

    Raises:
        ContextLengthError: the prompt leaves no room for an answer.
    """
    left = model.room_behind(len(tokens))
    if left < 1:
        raise ContextLengthError(len(tokens), model.context_tokens)
    limit = left if generation.max_tokens is None else min(left, generation.max_tokens)
    return replace(generation, prompt=tokens, max_tokens=limit, is_templated=True, adapter=adapter)
