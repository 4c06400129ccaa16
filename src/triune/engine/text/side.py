"""Converts between text and tokens for one model: tokenizer and chat template."""

from collections.abc import Sequence
from dataclasses import dataclass

from triune.engine.source import SourceRules
from triune.engine.structured.compiler import ConstraintCompiler
from triune.engine.text.detokenizer import drops_first_space
from triune.engine.weights.tokenizer.template import ChatTemplate
from triune.engine.weights.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class TextSide:
    """The parts of a model that convert text to tokens, and tokens to text.

    Attributes:
        tokenizer: the tokenizer.
        token_bytes: the bytes of each id of the model's embedding.
        chat_template: the model's chat template; None if it has none.
        end_tokens: the ids that end an answer.
        drops_space: whether the tokenizer's decoder leaves out a space that begins a text.
        constraints: compiles the constraints of answers.
        rules: how a prompt that an encoder reads is prepared; None if the model has no encoder.
    """

    tokenizer: Tokenizer
    token_bytes: Sequence[bytes]
    chat_template: ChatTemplate | None
    end_tokens: frozenset[int]
    drops_space: bool
    constraints: ConstraintCompiler
    rules: SourceRules | None = None

    @classmethod
    def of(
        cls,
        tokenizer: Tokenizer,
        chat_template: ChatTemplate | None,
        vocab_size: int,
        rules: SourceRules | None = None,
    ) -> "TextSide":
        """Prepare the text side of a model, which takes about 0.3 s. `vocab_size` is the number of rows of the
        embedding.
        """
        known = tokenizer.token_bytes
        return cls(
            tokenizer,
            known + (b"",) * (vocab_size - len(known)),
            chat_template,
            frozenset(tokenizer.tokens.eos),
            drops_first_space(tokenizer),
            ConstraintCompiler(tokenizer, vocab_size),
            rules,
        )
