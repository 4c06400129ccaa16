"""The pieces of a model's text: answer, reasoning and tool calls."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Text:
    """Text for the user."""

    text: str


@dataclass(frozen=True, slots=True)
class Reasoning:
    """The reasoning that the model writes before its answer."""

    text: str


@dataclass(frozen=True, slots=True)
class CallBegin:
    """A call of a tool begins.

    Attributes:
        index: the number of the call within the answer, from 0.
        name: the tool's name.
    """

    index: int
    name: str


@dataclass(frozen=True, slots=True)
class CallArguments:
    """The arguments of a call grow. The texts of all pieces together are a JSON object, if the model wrote one.

    Attributes:
        index: the number of the call.
        text: what was added.
    """

    index: int
    text: str


Piece = Text | Reasoning | CallBegin | CallArguments
