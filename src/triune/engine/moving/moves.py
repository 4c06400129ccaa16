"""Convert a running sequence to its state, and a state to a running sequence."""

from collections.abc import Sequence as Seq

from triune.core.decoder import DecoderExecutable
from triune.core.errors import InvalidArgumentError, UnavailableError, UnsupportedError
from triune.engine.moving.blocks import copied_out
from triune.engine.moving.state import SequenceState
from triune.engine.sequence import Sequence
from triune.engine.structured.matcher import Matcher


def state_of(
    sequence: Sequence, decoder: DecoderExecutable, adapter: str | None, form: str, max_tokens: int | None
) -> SequenceState:
    """The state of a sequence: see `EngineCore.export`. Nothing changes.

    Args:
        sequence: the sequence.
        decoder: the decoder whose cache has the sequence's keys and values.
        adapter: the name of the sequence's LoRA adapter; None for none.
        form: the `cache_form` of the decoder that continues the sequence.
        max_tokens: the most tokens whose keys and values may be copied; None for any.

    Raises:
        UnsupportedError, UnavailableError: see `EngineCore.export`.
    """
    if (sequence.memory and not sequence.source) or sequence.rules is not None:
        raise UnsupportedError("a sequence that reads memory given to it, or has rules of its own, cannot be moved")
    if sequence.is_scored:
        raise UnsupportedError("the probabilities of the prompt's tokens are being computed; it cannot be moved before")
    if sequence.finish_reason is not None:
        raise UnavailableError("the answer ended before it could be moved")
    if max_tokens is not None and sequence.table.num_tokens > max_tokens:
        raise UnavailableError(
            f"the answer has keys and values of {sequence.table.num_tokens} tokens, and there is memory for "
            f"{max_tokens}: try again"
        )
    return SequenceState(
        sequence.prompt,
        sequence.tokens[len(sequence.prompt) :],
        sequence.sampling.parameters,
        sequence.sampling.random_state,
        sequence.ending,
        sequence.priority,
        adapter,
        copied_out(decoder, sequence.table.blocks, sequence.table.num_tokens, form),
        sequence.source,
    )


def replay(sequence: Sequence, state: SequenceState, matcher: Matcher | None) -> None:
    """Append the answer of `state` to a new sequence, which has only the prompt, and set its random numbers and its
    matcher, which has accepted this answer already.

    Raises:
        InvalidArgumentError: the answer is complete under its constraint; or the state of random numbers is invalid.
    """
    for token in state.answer:
        sequence.go_on(token)
    sequence.tokens += state.answer
    sequence.sampling.random_state = state.random
    sequence.matcher = matcher
    if sequence.is_complete:
        raise InvalidArgumentError("the answer so far is complete under its constraint; nothing can follow")


def advanced(matcher: Matcher, answer: Seq[int]) -> Matcher:
    """Advance a matcher from the beginning of an answer to its end.

    Raises:
        InvalidArgumentError: the answer breaks its constraint.
    """
    for place, token in enumerate(answer):
        if matcher.is_ended or not matcher.num_fitting([token]):
            raise InvalidArgumentError(f"token {token}, number {place} of the answer, breaks the answer's constraint")
        matcher.accept(token)
    return matcher
