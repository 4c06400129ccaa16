"""One answer on the event loop: its tokens become text, which is collected until the client reads it as a `Delta`."""

from collections.abc import Mapping, Sequence

from triune.core.errors import InvalidArgumentError
from triune.core.units import Unit
from triune.engine.generation import Delta, Generation, PromptLogprobs, TokenLogprob, Usage
from triune.engine.job import Job
from triune.engine.sampling.sampler import Sample
from triune.engine.sequence import FinishReason
from triune.engine.text.detokenizer import Detokenizer
from triune.engine.text.stops import StopFinder


class Answer:
    """Collects the part of an answer that its client has not read yet.

    Tokens of a client that reads slowly are merged, so an answer takes no more memory than its `max_tokens` tokens.

    Attributes:
        job: the job by which the engine computes the answer.
        num_tokens: the tokens so far.
        last_ns: when its last token was computed, in ns of the model's clock; before the first token, when the request
            arrived.
        finish_reason: why it has ended; None while it goes on.
        units: for each unit the number of tokens that it computed.
    """

    def __init__(
        self,
        job: Job,
        request: Generation,
        token_bytes: Sequence[bytes],
        arrived_ns: int,
        *,
        drops_space: bool,
        shown: Mapping[int, bytes],
    ) -> None:
        """Args:
        job: the job by which the engine computes the answer.
        request: the client's request.
        token_bytes: the bytes of each token.
        arrived_ns: when the request arrived.
        drops_space: see `Detokenizer`.
        shown: see `Detokenizer`.

        Raises:
            InvalidArgumentError: see `StopFinder`.
        """
        self.job = job
        self.num_tokens = 0
        self.last_ns = arrived_ns
        self.finish_reason: FinishReason | None = None
        self.units: dict[Unit, int] = {}
        self._request = request
        self._token_bytes = token_bytes
        self._arrived_ns = arrived_ns
        self._first_ns = arrived_ns
        self._detokenizer = Detokenizer(token_bytes, drops_space=drops_space, shown=shown)
        self._stops = StopFinder(request.stop, is_included=request.is_stop_included)
        self._stop: str | int | None = None
        self._text: list[str] = []
        self._tokens: list[int] = []
        self._logprobs: list[TokenLogprob] = []
        self._is_moved = False
        self._has_prompt = job.num_prompt_logprobs is not None

    def go_on_after(self, tokens: Sequence[int]) -> None:
        """Continue an answer after tokens that another server generated, and whose text the client has.

        Raises:
            InvalidArgumentError: a token is not the model's, or a stop text ended the answer.
        """
        require_known(tokens, self._token_bytes)
        for token in tokens:
            self.add(Sample(token), None, self._arrived_ns)
            if self.finish_reason is not None:
                raise InvalidArgumentError("the answer so far has a stop text, with which it ended; nothing can follow")
        self.take()

    def move(self) -> None:
        """End the answer here: another engine continues it. Held-back text, which may begin a stop text or a character,
        comes from that engine.
        """
        self.finish_reason, self._is_moved = FinishReason.MOVED, True

    def add(self, sample: Sample, reason: FinishReason | None, now_ns: int) -> None:
        """Append a token. If it completes a stop text, `finish_reason` is STOP afterwards, whatever `reason` is.

        Args:
            sample: the token.
            reason: why the sequence ended with it; None if it goes on.
            now_ns: when the token was computed, in ns.
        """
        if not self.num_tokens:
            self._first_ns = now_ns
        self.last_ns = now_ns
        self.num_tokens += 1
        self._tokens.append(sample.token)
        if self._request.sampling.num_logprobs is not None:
            self._logprobs.append(self._logprob(sample))
        text = ""
        # An answer also stops when its constraint is complete. Its last token is text then, not a stop token.
        if reason is not FinishReason.STOP or sample.token not in self.job.ending.stop_tokens:
            text = self._detokenizer.add(sample.token)
        elif sample.token in self._request.stop_tokens:
            self._stop = sample.token
            text = self._detokenizer.add(sample.token) if self._request.is_stop_included else ""
        if reason is not None:
            text += self._detokenizer.end()
        sure, stop = self._stops.add(text)
        if stop is not None:
            self._stop, reason = stop, FinishReason.STOP
        elif reason is not None:
            sure += self._stops.end()
        if sure:
            self._text.append(sure)
        self.finish_reason = reason

    def take(self) -> Delta | None:
        """The new part of the answer since the last call; None if there is none."""
        if not self._tokens and not self._is_moved:
            return None
        self._is_moved = False
        delta = Delta(
            self.job.index,
            "".join(self._text),
            tuple(self._tokens),
            tuple(self._logprobs),
            self.finish_reason,
            self._stop,
            None if self.finish_reason is None else self.usage,
            self._take_prompt(),
        )
        self._text, self._tokens, self._logprobs = [], [], []
        return delta

    def _take_prompt(self) -> PromptLogprobs | None:
        """The logprobs of the prompt's tokens, if the request asks for them; returned only once."""
        sequence = self.job.sequence
        if not self._has_prompt or sequence is None or sequence.scores is None:
            return None
        self._has_prompt = False
        return PromptLogprobs(self.job.prompt, sequence.scores, self._token_bytes)

    @property
    def usage(self) -> Usage:
        """The tokens and times of the answer so far. The answer must have begun."""
        sequence = self.job.sequence or self.job.before
        assert sequence is not None
        started_ns = self.last_ns if sequence.started_ns is None else sequence.started_ns
        return Usage(
            self.job.num_prompt_tokens,
            sequence.num_cached_tokens,
            self.num_tokens,
            started_ns - self._arrived_ns,
            self._first_ns - self._arrived_ns,
            self.last_ns - self._arrived_ns,
            sequence.bill,
            tuple(self.job.placements),
            self.units,
        )

    def _logprob(self, sample: Sample) -> TokenLogprob:
        top = tuple(TokenLogprob(token, self._token_bytes[token], logprob) for token, logprob in sample.top)
        return TokenLogprob(sample.token, self._token_bytes[sample.token], sample.logprob, top, sample.rank)


def require_known(tokens: Sequence[int], token_bytes: Sequence[bytes]) -> None:
    """Raise InvalidArgumentError if a token of an answer is not in the model's vocabulary; `token_bytes` has an entry
    for each token of the vocabulary.
    """
    if tokens and not 0 <= min(tokens) <= max(tokens) < len(token_bytes):
        raise InvalidArgumentError(f"the answer so far has a token beyond 0 to {len(token_bytes) - 1}")
