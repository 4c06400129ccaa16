"""Chat templates, which say how a conversation is written for a model. They are jinja2 templates in the model's files,
and therefore untrusted programs.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, cast

import jinja2
from jinja2 import pass_context
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context

from triune.core.errors import InvalidArgumentError
from triune.core.printable import printable
from triune.engine.weights.tokenizer.budget import Budget
from triune.engine.weights.tokenizer.filters import BUDGET, budget_of
from triune.engine.weights.tokenizer.sandbox import Sandbox

MAX_SOURCE_CHARACTERS: Final = 1 << 20
_MAX_INDENT: Final = 16
_MAX_DATE_CHARACTERS: Final = 100
_SHOWN_CHARACTERS: Final = 500


class ChatTemplate:
    """A chat template, compiled. Any thread may render it.

    Attributes:
        source: its text.
    """

    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
        """Args:
        source: the template.
        special_tokens: texts that templates find by these names: bos_token, eos_token, pad_token, unk_token.

        Raises:
            InvalidArgumentError: the source is not a valid template, or is too long.
        """
        if len(source) > MAX_SOURCE_CHARACTERS:
            raise InvalidArgumentError(
                f"the chat template has {len(source)} characters; at most {MAX_SOURCE_CHARACTERS} are read"
            )
        self.source = source
        self._special_tokens = dict(special_tokens)
        sandbox = Sandbox({"tojson": _tojson}, {"raise_exception": _raise_exception, "strftime_now": _strftime_now})
        try:
            self._template = sandbox.from_string(source)
        except jinja2.TemplateSyntaxError as error:
            raise InvalidArgumentError(f"the chat template is wrong in line {error.lineno}: {_shown(error)}") from error
        # Python's parser and compiler raise the errors other than TemplateError for a template that is nested too deep.
        except (jinja2.TemplateError, RecursionError, MemoryError, SyntaxError, ValueError, TypeError) as error:
            raise InvalidArgumentError(f"the chat template cannot be compiled: {_shown(error)}") from error

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        /,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        **variables: Any,
    ) -> str:
        """Write a conversation in the form that the model reads.

        The text contains the special tokens already: encode it with `add_special_tokens=False`.

        Args:
            messages: the messages as in OpenAI's API, each with "role" and "content"; the model's template may read
                other keys, too.
            tools: descriptions of functions, as in OpenAI's API.
            documents: for templates that know them, each with "title" and "text".
            add_generation_prompt: whether the beginning of the assistant's next message is added.
            variables: other variables that the template may read, such as "enable_thinking".

        Raises:
            InvalidArgumentError: the template refuses the conversation, cannot be computed for it, exceeds its
                `Budget`, or reads what the `Sandbox` forbids.
        """
        given = {
            **self._special_tokens,
            **variables,
            "messages": messages,
            "tools": tools,
            "documents": documents,
            "add_generation_prompt": add_generation_prompt,
            BUDGET: Budget(),
        }
        try:
            return self._template.render(given)
        except InvalidArgumentError:
            raise
        except SecurityError as error:
            raise InvalidArgumentError(f"the chat template does what it may not: {_shown(error)}") from error
        except jinja2.TemplateError as error:
            raise InvalidArgumentError(f"the chat template refuses this conversation: {_shown(error)}") from error
        except RecursionError as error:
            raise InvalidArgumentError("the chat template was stopped: it calls itself too often") from error
        # Any exception is the template's fault: it is untrusted code, and may raise any error of Python.
        except Exception as error:
            raise InvalidArgumentError(
                f"the chat template cannot be computed for this conversation: {type(error).__name__}: {_shown(error)}"
            ) from error


def _shown(error: BaseException) -> str:
    text = printable(str(error))
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."


def _raise_exception(message: object) -> None:
    raise jinja2.TemplateError(str(message))


def _strftime_now(pattern: str) -> str:
    if len(pattern) > _MAX_DATE_CHARACTERS:
        raise InvalidArgumentError(
            f"the chat template writes a date in {len(pattern)} characters; at most {_MAX_DATE_CHARACTERS} are taken"
        )
    return datetime.now().astimezone().strftime(pattern)


@pass_context
def _tojson(
    context: Context,
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: Sequence[str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Write JSON as text, without jinja2's escapes for HTML. The arguments are those of `json.dumps`."""
    if indent is not None and not 0 <= indent <= _MAX_INDENT:
        raise InvalidArgumentError(f"the chat template indents JSON by {indent}; at most {_MAX_INDENT} are taken")
    for _ in range(1 + (indent or 0)):
        budget_of(context).charge_text(value)
    pair = cast("tuple[str, str] | None", None if separators is None else tuple(separators))
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=pair, sort_keys=sort_keys)
