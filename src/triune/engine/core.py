"""The engine without threads: it takes sequences, computes steps, and returns the tokens of each step."""

from collections.abc import Mapping
from collections.abc import Sequence as Seq

from triune.arbiter.blocking import BlockingShare
from triune.core.clock import Clock
from triune.core.decoder import DecoderExecutable
from triune.core.energy import Account
from triune.core.errors import InvalidArgumentError, TriuneError
from triune.core.power import Power
from triune.engine.adapters import KnownAdapters
from triune.engine.counters import EngineState
from triune.engine.kv.hashes import root_hash
from triune.engine.kv.host import HostTier
from triune.engine.kv.pool import KVBlockPool
from triune.engine.kv.second_tier import SecondTier
from triune.engine.kv.table import BlockTable
from triune.engine.memory import Memory
from triune.engine.moving.blocks import put_into_cache
from triune.engine.moving.moves import replay, state_of
from triune.engine.moving.state import SequenceState
from triune.engine.plan import Plan
from triune.engine.rules import TokenRules
from triune.engine.sampling.parameters import SamplingParameters
from triune.engine.sampling.prompt_scores import PromptScores
from triune.engine.sampling.sampler import Sample, SamplingState
from triune.engine.scheduler import Scheduler, SchedulerLimits
from triune.engine.sequence import Ending, FinishReason, Sequence
from triune.engine.source import Source, SourceReader
from triune.engine.speculation.proposer import Proposer
from triune.engine.speculation.speculator import Speculator
from triune.engine.steps import Steps
from triune.engine.structured.matcher import Matcher


class EngineCore:
    """Generates the answers of many sequences with one decoder. Used from one thread.

    Attributes:
        vocab_size: the number of token ids that the model's embedding has.
        context_tokens: the largest number of tokens of a sequence, prompt and answer together, that `limits` and the
            cache allow.
        speculator: proposes tokens (speculative decoding), and counts how many of them were accepted.
        share: the model's share of hardware that other models use too; None if no other model does. The caller of
            `step` must call its `begin` before each step, and its `end` afterwards.
    """

    def __init__(
        self,
        decoder: DecoderExecutable,
        vocab_size: int,
        clock: Clock,
        limits: SchedulerLimits | None = None,
        proposer: Proposer | None = None,
        second_tier: SecondTier | None = None,
        adapters: Mapping[str, bytes] | None = None,
        account: Account | None = None,
        power: Power | None = None,
        share: BlockingShare | None = None,
        preempted_bytes: int = 0,
        reader: SourceReader | None = None,
    ) -> None:
        """Args:
        decoder: computes the steps. The caller closes it.
        vocab_size: the number of token ids that the model's embedding has.
        clock: the clock that measures how long sequences wait.
        limits: the limits of a step; None for the defaults.
        proposer: proposes tokens for speculative decoding; with None, only tokens that a constraint forces are
            proposed.
        second_tier: stores blocks that the cache has no room for; None drops them. `close` closes it.
        adapters: the digests of the LoRA adapters that the decoder's graph was written with, by name, in that order.
        account: the account that is charged with the energy of the steps; None if energy is not metered.
        power: the server's power mode; None for full power.
        share: the model's share of hardware that other models use too; None if no other model does. `close` closes it.
        preempted_bytes: the most memory for keys and values of preempted sequences, whose blocks are given to others;
            with 0 they are computed again.
        reader: the encoder that reads the source texts of sequences; None if the model has none, or if its outputs are
            given as `memory`.
        """
        self._decoder = decoder
        self._account = account
        self._reader = reader
        self._power = power
        self._preempted_bytes = preempted_bytes
        self.share = share
        self.vocab_size = vocab_size
        self._clock = clock
        self._second_tier = second_tier
        self._limits = limits or SchedulerLimits()
        # One token more than the cache holds: the keys and values of an answer's last token are not needed, since no
        # token follows.
        self.context_tokens = min(self._limits.context_tokens, decoder.num_blocks * decoder.block_size + 1)
        self.speculator = Speculator(proposer, clock)
        self._adapters = KnownAdapters(adapters or {})
        self._start_empty()

    def _start_empty(self) -> None:
        """Make the queues, the blocks and the steps, without a sequence and with an empty cache."""
        decoder, clock, tier = self._decoder, self._clock, self._second_tier
        self._pool = KVBlockPool(decoder.num_blocks, tier.evict if tier is not None else None)
        preempted_bytes = self._preempted_bytes
        self._host = HostTier(decoder, preempted_bytes, clock, self._save_evicted) if preempted_bytes else None
        self._scheduler = Scheduler(self._pool, decoder.block_size, clock, self._limits, self._power, self._host)
        self._steps = Steps(
            decoder, self._scheduler, self.speculator, clock, self._save_evicted, self._account, self._reader
        )

    @property
    def is_idle(self) -> bool:
        """Whether no sequence waits or runs."""
        return not (self._scheduler.num_waiting or self._scheduler.num_running)

    @property
    def last_plan(self) -> Plan:
        """The plan of the last step: the computed tokens of each sequence."""
        return self._steps.last_plan

    @property
    def failure(self) -> TriuneError | None:
        """The error with which the last step failed for all sequences; None if it succeeded."""
        return self._steps.failure

    @property
    def num_waiting(self) -> int:
        """The number of sequences without blocks. May be called from any thread."""
        return self._scheduler.num_waiting

    @property
    def num_running(self) -> int:
        """The number of sequences with blocks. May be called from any thread."""
        return self._scheduler.num_running

    @property
    def pool(self) -> KVBlockPool:
        """The pool of KV blocks. Its numbers may be read from any thread."""
        return self._pool

    @property
    def block_size(self) -> int:
        """The number of tokens of a KV block."""
        return self._decoder.block_size

    @property
    def cache_form(self) -> str:
        """The name of the memory layout of blocks. Engines of one model with the same layout can exchange blocks."""
        return self._decoder.cache_form

    @property
    def adapters(self) -> Mapping[str, bytes]:
        """The digests of the LoRA adapters by name. May be called from any thread."""
        return self._adapters.digests

    def state(self) -> EngineState:
        """The engine's current state and counters. Any thread may call it."""
        scheduler, pool, guesses = self._scheduler, self._pool, self.speculator
        return EngineState(
            scheduler.num_running,
            scheduler.num_waiting,
            pool.num_free,
            pool.num_used,
            pool.num_cached,
            guesses.num_guessed,
            guesses.num_right,
            self._second_tier.disk.counts() if self._second_tier is not None else {},
            self._scheduler.num_preempted,
            self._host.num_moved_out if self._host is not None else 0,
        )

    def add(
        self,
        prompt: Seq[int],
        parameters: SamplingParameters,
        ending: Ending,
        *,
        priority: int = 0,
        salt: bytes = b"",
        adapter: str | None = None,
        index: int = 0,
        matcher: Matcher | None = None,
        rules: TokenRules | None = None,
        memory: Memory | None = None,
        source: Source = (),
        place: int = 0,
        num_prompt_logprobs: int | None = None,
    ) -> Sequence:
        """Add a prompt. The next steps compute its answer.

        Args:
            prompt: token ids.
            parameters: how tokens are chosen.
            ending: when the answer ends.
            priority: 0 is the most urgent.
            salt: a hash of what keys and values depend on besides tokens and adapter, such as `memory`.
            adapter: the name of the LoRA adapter; None for the model without an adapter.
            index: the index among several answers to one prompt. With the same seed, answers of different index draw
                different random numbers.
            matcher: the constraint on the answer (`structured.compiler.Grammar.matcher`); None leaves it free.
            rules: rules that change or choose the next token by its logits; None if there are none.
            memory: the encoder output that the sequence reads, which `salt` must identify; None if the decoder reads
                none.
            source: the tokens that the engine's encoder reads for the sequence; empty if it has none.
            place: the index of the prompt among the prompts of one request.
            num_prompt_logprobs: how many of the most probable tokens to record for each position of the prompt, besides
                the probability of its own token (`Sequence.scores`); None records none. If it is set, all tokens of the
                prompt are computed, even if the prefix cache has them.

        Raises:
            InvalidArgumentError: a token is not the model's, the prompt is empty or too long (see `Scheduler.add`), or
                the adapter is unknown.
        """
        if bool(source) is (self._reader is None):
            raise InvalidArgumentError(
                "the model has no encoder that could read a source"
                if source
                else "the model's encoder reads a prompt, and there is none: give its tokens as the source"
            )
        number = self._adapters.number(adapter)
        salt = self._adapters.salt(number, salt, source)
        self._check_tokens(prompt)
        self._check_tokens(source)
        parameters.check_vocabulary(self.vocab_size)
        table = BlockTable(self._pool, self._decoder.block_size, root_hash(salt))
        state, now_ns = SamplingState(parameters, prompt, index), self._clock.now_ns()
        sequence = Sequence(
            prompt, table, state, ending, priority, salt, now_ns, matcher, number, rules, memory or {}, source
        )
        sequence.is_follower, sequence.place = index > 0, place
        # An empty prompt has no tokens to score; `Scheduler.add` refuses it below.
        if num_prompt_logprobs is not None and prompt:
            sequence.scores = PromptScores(prompt, num_prompt_logprobs)
        sequence.bill = self._account.new_bill() if self._account is not None else None
        self._scheduler.add(sequence)
        if self._second_tier is not None and not sequence.is_scored:
            self._second_tier.want(self._pool, sequence)
        return sequence

    def export(self, sequence: Sequence, *, form: str = "", max_tokens: int | None = None) -> SequenceState:
        """Remove an unfinished sequence, and return its state with its keys and values. Its blocks are freed.

        Args:
            sequence: the sequence.
            form: the `cache_form` of the decoder that continues it. If it equals this decoder's, blocks are copied
                unchanged, otherwise keys and values in FP32.
            max_tokens: the most tokens whose keys and values may be copied; None for any.

        Raises:
            UnsupportedError: the sequence was added with `memory` or `rules`, or probabilities of its prompt are still
            to be computed.
            UnavailableError: the sequence has ended, or has keys and values of more than `max_tokens` tokens. In the
                latter case the sequence goes on here.
        """
        adapter = self._adapters.name(sequence.adapter)
        state = state_of(sequence, self._decoder, adapter, form, max_tokens)
        self._scheduler.cancel(sequence, FinishReason.MOVED)
        self.speculator.forget(sequence)
        self._steps.forget()
        return state

    def prepare(self, state: SequenceState, *, salt: bytes = b"", most_tokens: int) -> bool:
        """Put some of the keys and values of `state` into the prefix cache, where `resume` finds them.

        Args:
            state: the result of `export`.
            salt: as in `resume`.
            most_tokens: the approximate number of tokens to write, at least one block.

        Returns:
            whether more keys and values can be written, by another call: this one stopped at `most_tokens`.

        Raises:
            InvalidArgumentError: the keys and values belong to another model, or the adapter is unknown.
        """
        salt = self._adapters.salt(self._adapters.number(state.adapter), salt, state.source)
        tokens = [*state.prompt, *state.answer]
        return put_into_cache(
            self._decoder,
            self._pool,
            tokens,
            salt,
            state.cached,
            self._save_evicted,
            most_tokens,
        )

    def resume(
        self,
        state: SequenceState,
        *,
        salt: bytes = b"",
        matcher: Matcher | None = None,
        before: Sequence | None = None,
    ) -> Sequence:
        """Resume a sequence of another engine of the same model.

        Tokens that are not in its full blocks are computed again; all of them, if this cache has no room for the
        blocks.

        Args:
            state: the result of `export`.
            salt: as in `add`. For keys and values that are not to be trusted, give one that no other sequence has:
                other sequences with the same tokens and salt would read these keys and values.
            matcher: the constraint on the answer, in the state at which the answer goes on; None leaves it free.
            before: the sequence as another unit of this server computed it, whose times and bill go on; None if another
                server computed it.

        Raises:
            InvalidArgumentError: `add` would raise it, or the keys and values belong to another model.
        """
        self._check_tokens(state.answer)
        sequence = self.add(
            state.prompt,
            state.parameters,
            state.ending,
            priority=state.priority,
            salt=salt,
            adapter=state.adapter,
            source=state.source,
        )
        try:
            replay(sequence, state, matcher)
            put_into_cache(self._decoder, self._pool, sequence.tokens, sequence.salt, state.cached, self._save_evicted)
        except BaseException:
            self.cancel(sequence)
            raise
        if before is not None:
            sequence.follow(before)
        return sequence

    def cancel(self, sequence: Sequence) -> None:
        """End a sequence; its blocks are free before the next step."""
        self._scheduler.cancel(sequence)
        self.speculator.forget(sequence)
        self._steps.forget()

    def step(self) -> list[tuple[Sequence, Sample | None]]:
        """Compute one step (`Steps.step`). Before that, put the blocks that have been read from files into the cache;
        if no sequence runs, wait for a moment for those that are still being read.
        """
        if self._second_tier is not None:
            self._second_tier.restore(self._pool, can_wait=not self._scheduler.num_running)
        began_ns = self._clock.now_ns()
        results = self._steps.step()
        if self._host is not None:
            self._host.observe(self.last_plan.num_read, self._clock.now_ns() - began_ns)
        return results

    def check(self) -> None:
        """Check the invariants of queues and blocks. Raises InternalError naming a violated one."""
        self._scheduler.check()
        self.speculator.check()

    def reset(self) -> None:
        """Drop all sequences, which get no more outputs, and empty the cache. Call this after an unexpected error: it
        may have broken the invariants of queues and blocks. The counters of preempted sequences begin again at 0.
        """
        self._steps.drop()
        self.speculator.reset()
        if self._second_tier is not None:
            self._second_tier.forget()
        self._start_empty()

    def close(self) -> None:
        """Write the blocks of the prefix cache to files, if there is a second tier, and give up the `share`. There must
        be no sequences left, and no calls afterwards.
        """
        if self._second_tier is not None:
            self._second_tier.close(self._pool.cached())
        if self.share is not None:
            self.share.close()

    def _save_evicted(self) -> None:
        if self._second_tier is not None:
            self._second_tier.save()

    def _check_tokens(self, tokens: Seq[int]) -> None:
        # Token ids are checked here, since a decoder does not check them: for ids beyond the embedding it would read
        # other memory or give zeros.
        if tokens and not 0 <= min(tokens) <= max(tokens) < self.vocab_size:
            worst = min(tokens) if min(tokens) < 0 else max(tokens)
            raise InvalidArgumentError(
                f"the prompt has token {worst}; the model's tokens are 0 to {self.vocab_size - 1}"
            )
