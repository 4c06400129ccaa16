"""Represent an answer as a list of blocks: texts, reasoning and tool calls."""

import secrets
import string
from dataclasses import dataclass, field

from triune.engine.tools.pieces import CallArguments, CallBegin, Reasoning, Text
from triune.frontends.text.answers import Part

_LETTERS = string.ascii_letters + string.digits


def call_id() -> str:
    """A new id for a call of a tool. Mistral's templates refuse ids of any other form than nine letters and digits."""
    return "".join(secrets.choice(_LETTERS) for _ in range(9))


@dataclass(slots=True)
class Block:
    """A text, reasoning, or a call of a tool.

    Attributes:
        name: the tool's name; None for a text and for reasoning.
        pieces: the text, or the arguments, piece by piece.
        id: the call's id.
        is_reasoning: whether it is reasoning.
    """

    name: str | None
    pieces: list[str] = field(default_factory=list[str])
    id: str = field(default_factory=call_id)
    is_reasoning: bool = False

    @property
    def is_text(self) -> bool:
        """Whether the block is text for the user, not reasoning or a call."""
        return self.name is None and not self.is_reasoning

    @property
    def text(self) -> str:
        """The text of a text or of reasoning, or the JSON of a call's arguments."""
        return "".join(self.pieces)


def add_to_blocks(blocks: list[Block], part: Part) -> None:
    """Add a new part of an answer to the answer's blocks."""
    for piece in part.pieces:
        match piece:
            case Text(text):
                if not blocks or not blocks[-1].is_text:
                    blocks.append(Block(None))
                blocks[-1].pieces.append(text)
            case Reasoning(text):
                if not blocks or not blocks[-1].is_reasoning:
                    blocks.append(Block(None, is_reasoning=True))
                blocks[-1].pieces.append(text)
            case CallBegin(_, name):
                blocks.append(Block(name))
            case CallArguments(_, text):
                blocks[-1].pieces.append(text)
