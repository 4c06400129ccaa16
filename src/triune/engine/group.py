"""A request on the event loop: the answers to one prompt, and the client that waits for them."""

import asyncio
import os
from collections.abc import Iterator, Mapping, Sequence

from triune.core.errors import InvalidArgumentError, TriuneError, UnsupportedError
from triune.engine.admission import Ticket
from triune.engine.generation import Delta, Generation
from triune.engine.job import Job
from triune.engine.moving.moves import advanced
from triune.engine.moving.wire import MovedAnswer
from triune.engine.sampling.parameters import MAX_LOGPROBS
from triune.engine.sequence import Ending
from triune.engine.source import Source, SourceRules
from triune.engine.structured.compiler import Grammar
from triune.engine.text.answer import Answer, require_known


class Group:
    """The answers to one prompt.

    Attributes:
        request: what the client asked for.
        answers: the answers, by their index.
        ticket: counts the request among those that the engine has admitted.
        error: why the answers failed; None if they did not fail.
    """

    def __init__(self, request: Generation, answers: Sequence[Answer], ticket: Ticket) -> None:
        """Args:
        request: what the client asked for.
        answers: the answers, by their index. All but the first begin when the first has a token (`Job.followers`).
        ticket: counts the request among those that the engine has admitted.
        """
        self.request = request
        self.answers = answers
        self.ticket = ticket
        self.error: TriuneError | None = None
        self._num_open = len(answers)
        self._has_news = False
        self._waiter: asyncio.Future[None] | None = None

    @property
    def is_done(self) -> bool:
        """Whether the client has read all answers to their ends."""
        return not self._num_open

    def tell(self) -> None:
        """Wake the waiting client, since an answer has new tokens."""
        self._has_news = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def fail(self, error: TriuneError) -> None:
        """End all answers with an error, which `take` raises."""
        self.error = error
        self.tell()

    async def until_news(self) -> None:
        """Wait until an answer has new tokens, or all answers failed."""
        if not self._has_news:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        self._has_news = False

    def take(self) -> Iterator[Delta]:
        """Return the new parts of the answers since the last call. If the answers failed, their error is raised after
        these parts.
        """
        for answer in self.answers:
            delta = answer.take()
            if delta is not None:
                if delta.finish_reason is not None:
                    self._num_open -= 1
                yield delta
        if self.error is not None:
            raise self.error


def start_group(
    request: Generation,
    prompt: Sequence[int],
    token_bytes: Sequence[bytes],
    end_tokens: frozenset[int],
    context_tokens: int,
    ticket: Ticket,
    *,
    drops_space: bool,
    shown: Mapping[int, bytes],
    grammar: Grammar | None = None,
    rules: SourceRules | None = None,
) -> Group:
    """Make the `Group` of a request, with a job for each of its answers.

    Args:
        request: the request.
        prompt: the token ids of the prompt.
        token_bytes: the bytes of each id of the model.
        end_tokens: the model's own ids that end an answer.
        context_tokens: the most tokens of prompt and answer together.
        ticket: counts the request among those that the engine has admitted.
        drops_space: whether the tokenizer drops a space at the beginning of a text, such as an answer to a prompt
            without text.
        shown: the bytes of special tokens that are part of the text.
        grammar: the request's constraint, compiled; None if it has none.
        rules: how the model's encoder reads a prompt; None if the model has no encoder.

    Raises:
        InvalidArgumentError: a parameter is out of range, the prompt leaves no token of the context, or the encoder
            cannot read it.
        UnsupportedError: the request wants probabilities of the tokens of a prompt that an encoder reads.
    """
    wanted = request.num_prompt_logprobs
    if wanted is not None and not 0 <= wanted <= MAX_LOGPROBS:
        raise InvalidArgumentError(f"num_prompt_logprobs is {wanted}; it must be between 0 and {MAX_LOGPROBS}")
    source: Source = ()
    if rules is not None:
        if request.num_prompt_logprobs is not None:
            raise UnsupportedError("an encoder reads the model's prompts: their tokens have no probabilities")
        source, prompt = rules.checked(prompt), (rules.start_token,)
    max_tokens = request.max_tokens
    if max_tokens is None:
        max_tokens = context_tokens - len(prompt)
        if max_tokens < 1:
            raise InvalidArgumentError(
                f"the prompt has {len(prompt)} tokens, and the context of {context_tokens} has no room for an answer; "
                "shorten the prompt"
            )
    stop_tokens = request.stop_tokens if request.is_end_ignored else request.stop_tokens | end_tokens
    ending = Ending(max_tokens, stop_tokens, request.min_tokens)
    prompt = tuple(prompt)
    jobs = [
        Job(
            prompt,
            request.sampling,
            ending,
            request.priority,
            index,
            grammar.matcher() if grammar else None,
            request.adapter,
            source=source,
            place=request.place,
            num_prompt_logprobs=None if index else request.num_prompt_logprobs,
        )
        for index in range(request.num_answers)
    ]
    jobs[0].followers = tuple(jobs[1:])
    has_text = not drops_space or any(0 <= token < len(token_bytes) and token_bytes[token] for token in prompt)
    answers = [
        Answer(job, request, token_bytes, ticket.arrived_ns, drops_space=not has_text, shown=shown) for job in jobs
    ]
    return Group(request, answers, ticket)


def resume_group(
    moved: MovedAnswer,
    token_bytes: Sequence[bytes],
    ticket: Ticket,
    *,
    drops_space: bool,
    grammar: Grammar | None = None,
    rules: SourceRules | None = None,
) -> Group:
    """Make the `Group` of an answer that another server began. The time that this takes grows with the answer's length.

    Args:
        moved: the answer.
        token_bytes: the bytes of each id of the model.
        ticket: counts the request among those that the engine has admitted.
        drops_space: whether the tokenizer drops a space at the beginning of a text.
        grammar: its constraint, compiled; None if it has none.
        rules: how the model's encoder reads a prompt; None if the model has no encoder.

    Raises:
        InvalidArgumentError: the answer so far breaks its constraint, has ended, or has a token that the model lacks;
            or the encoder cannot read its source.
    """
    state = moved.state
    if rules is not None:
        rules.checked(state.source)
    # Check the tokens first, since the matcher's library fails on tokens below 0.
    require_known(state.answer, token_bytes)
    matcher = advanced(grammar.matcher(), state.answer) if grammar else None
    # No other request may use keys and values that a client sent, so they get a random salt of their own.
    salt = os.urandom(16)
    job = Job(
        state.prompt,
        state.parameters,
        state.ending,
        state.priority,
        matcher=matcher,
        adapter=state.adapter,
        salt=salt,
        source=state.source,
        state=state,
    )
    has_text = not drops_space or any(0 <= each < len(token_bytes) and token_bytes[each] for each in state.prompt)
    answer = Answer(job, moved.request, token_bytes, ticket.arrived_ns, drops_space=not has_text, shown={})
    answer.go_on_after(state.answer)
    return Group(moved.request, [answer], ticket)
