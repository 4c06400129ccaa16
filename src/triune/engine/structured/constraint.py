"""The constraints that a request may set on its answer: JSON schema, regular expression, grammar and so on."""

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from triune.core.errors import PayloadTooLargeError

ConstraintKind: TypeAlias = Literal["json_schema", "json_object", "regex", "lark", "gbnf", "choice"]

MAX_CHARACTERS: Final = 1 << 17
"""The most characters of a JSON schema, and of a choice's list of texts. OpenAI allows 120,000 characters in a schema.
"""

MAX_GRAMMAR_CHARACTERS: Final = 1 << 14
"""The most characters of a regular expression, of a grammar, and of each text of a choice."""


@dataclass(frozen=True, slots=True)
class Constraint:
    """The form that an answer must have.

    Attributes:
        kind: how `text` is read:

            - "json_schema": a JSON schema (draft 2020-12) as JSON; the answer is JSON that it accepts. Properties come
              in the schema's order.
            - "json_object": the answer is any JSON object; `text` is not used.
            - "regex": a regular expression in the syntax of Rust's `regex`, which the whole answer matches. Its
              class of digits is 0 to 9, that of words has the letters of all scripts.
            - "lark": a grammar in llguidance's form of Lark, with the rule `start`.
            - "gbnf": a grammar in llama.cpp's form, with the rule `root`.
            - "choice": a JSON list of texts; the answer is one of them.
        text: the constraint, written as `kind` says.
    """

    kind: ConstraintKind
    text: str = ""

    def __post_init__(self) -> None:
        """Raise PayloadTooLargeError if the text is too long."""
        longest = MAX_CHARACTERS if self.kind in ("json_schema", "choice") else MAX_GRAMMAR_CHARACTERS
        if len(self.text) > longest:
            raise PayloadTooLargeError(
                f"the constraint of kind {self.kind} has {len(self.text)} characters; it may have {longest}"
            )
