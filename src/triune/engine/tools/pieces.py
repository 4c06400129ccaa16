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
    """The beginning of a tool call.

    Attributes:
        index: the number of the call within the answer, from 0.
        name: the tool's name.
    """

    index: int
    name: str


@dataclass(frozen=True, slots=True)
class CallArguments:
    """The next piece of the arguments of a tool call. The texts of all pieces together are a JSON object, if the model
    wrote one.

    Attributes:
        index: the number of the call within the answer, from 0.
        text: the text of this piece.
    """

    index: int
    text: str


Piece = Text | Reasoning | CallBegin | CallArguments
