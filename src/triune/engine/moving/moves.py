"""From a running sequence to its state, and back."""

from triune.core.decoder import DecoderExecutable
from triune.core.errors import InvalidArgumentError, UnavailableError, UnsupportedError
from triune.engine.moving.blocks import copied_out
from triune.engine.moving.state import SequenceState
from triune.engine.sequence import Sequence
from triune.engine.structured.matcher import Matcher


def state_bytes(sequence: Sequence, decoder: DecoderExecutable) -> int:
    """The bytes of a sequence's keys and values in FP32."""
    return sequence.table.num_tokens * sum(each.nbytes for each in decoder.read_tokens([0], 1))


def state_of(
    sequence: Sequence, decoder: DecoderExecutable, adapter: str | None, form: str, max_bytes: int | None
) -> SequenceState:
    """The state of a sequence: see `EngineCore.export`. Nothing changes.

    Args:
        sequence: the sequence.
        decoder: has its keys and values.
        adapter: the name of its LoRA adapter.
        form: the `cache_form` of the decoder that goes on with it.
        max_bytes: the most bytes of keys and values in FP32; None for any.

    Raises:
        UnsupportedError, UnavailableError: as `EngineCore.export`.
    """
    if sequence.memory or sequence.rules is not None:
        raise UnsupportedError("a sequence that reads an encoder, or has rules of its own, cannot be moved")
    if sequence.finish_reason is not None:
        raise UnavailableError("the answer ended before it could be moved")
    if max_bytes is not None and (taken := state_bytes(sequence, decoder)) > max_bytes:
        raise UnavailableError(
            f"the keys and values of {sequence.table.num_tokens} tokens take {taken} bytes, and {max_bytes} are "
            "granted: try again later"
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
    )


def replay(sequence: Sequence, state: SequenceState, matcher: Matcher | None) -> None:
    """Bring a new sequence to where the answer of `state` is.

    Args:
        sequence: has the prompt only.
        state: what `state_of` returned.
        matcher: what the answer keeps to, at its beginning; None leaves it free.

    Raises:
        InvalidArgumentError: the answer breaks its constraint, or the state of random numbers is none.
    """
    sequence.matcher = matcher
    for place, token in enumerate(state.answer):
        if matcher is not None and (matcher.is_ended or not matcher.num_fitting([token])):
            raise InvalidArgumentError(f"token {token}, number {place} of the answer, breaks the answer's constraint")
        sequence.go_on(token)
    if sequence.is_complete:
        raise InvalidArgumentError("the answer so far is complete under its constraint; nothing can follow")
    sequence.tokens += state.answer
    sequence.sampling.random_state = state.random
