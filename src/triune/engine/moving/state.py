"""The state of a running sequence that is moved to another engine."""

from collections.abc import Sequence as Seq
from dataclasses import dataclass, field

from triune.core.datatypes import Array
from triune.core.errors import InvalidArgumentError
from triune.engine.sampling.parameters import SamplingParameters
from triune.engine.sampling.sampler import RandomState
from triune.engine.sequence import Ending
from triune.engine.source import Source


@dataclass(frozen=True, slots=True)
class KeysAndValues:
    """Keys and values of a sequence's first tokens, copied from a cache.

    Attributes:
        num_tokens: the number of tokens; 0 for none.
        arrays: for each layer its keys, then its values. With a `form` they are blocks in its layout, as
            `DecoderExecutable.read_blocks` returns them; else [tokens, heads, size], as `read_tokens` does, in FP32 or
            a smaller type.
        form: the `cache_form` of the decoder, if `arrays` are blocks; else empty.
    """

    num_tokens: int = 0
    arrays: Seq[Array] = ()
    form: str = ""

    @property
    def num_bytes(self) -> int:
        """The size of the arrays in bytes."""
        return sum(each.nbytes for each in self.arrays)


@dataclass(frozen=True, slots=True)
class SequenceState:
    """The state of a sequence between two steps.

    Data that depend only on tokens are not included, but computed again: penalties, and the position in a constraint's
    grammar.

    Attributes:
        prompt: the prompt's token ids.
        answer: the tokens of the answer so far.
        parameters: how tokens are chosen.
        random: the state of its random numbers.
        ending: when the answer ends.
        priority: 0 is the most urgent.
        adapter: the name of the LoRA adapter; None for the model without an adapter.
        cached: keys and values of the first tokens; the others are computed again.
        source: the tokens of the text that an encoder reads for it; empty if there is no encoder.
    """

    prompt: Seq[int]
    answer: Seq[int]
    parameters: SamplingParameters
    random: RandomState
    ending: Ending
    priority: int = 0
    adapter: str | None = None
    cached: KeysAndValues = field(default_factory=KeysAndValues)
    source: Source = ()

    def __post_init__(self) -> None:
        """Raise InvalidArgumentError if the answer has ended, or has fewer tokens than keys and values."""
        if len(self.answer) >= self.ending.max_tokens:
            raise InvalidArgumentError(
                f"a sequence of {len(self.answer)} answered tokens is to go on; its max_tokens is "
                f"{self.ending.max_tokens}"
            )
        known = len(self.prompt) + len(self.answer)
        if not 0 <= self.cached.num_tokens <= known:
            raise InvalidArgumentError(
                f"a sequence of {known} tokens comes with the keys and values of {self.cached.num_tokens}"
            )
