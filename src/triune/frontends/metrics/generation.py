"""Metrics of models that generate text, with vLLM's terms: tokens, sequences, KV blocks, and times between tokens."""

from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeAlias

from prometheus_client.metrics_core import Metric

from triune.core.distributions import Histogram
from triune.engine.counters import EngineCounters, EngineState
from triune.engine.servable import ServedTextModel
from triune.frontends.metrics.distributions import add_histogram

LabelledModels: TypeAlias = Sequence[tuple[dict[str, str], ServedTextModel]]

_COUNTERS: Final[Sequence[tuple[str, str, Callable[[EngineCounters], int]]]] = (
    (
        "triune_prompt_tokens",
        "Tokens of prompts; several answers to one prompt count it several times",
        lambda counted: counted.num_prompt_tokens,
    ),
    (
        "triune_cached_prompt_tokens",
        "Tokens of prompts whose keys and values were in the prefix cache",
        lambda counted: counted.num_cached_tokens,
    ),
    ("triune_generation_tokens", "Tokens generated, with those that no answer has", lambda counted: counted.num_tokens),
)

_HISTOGRAMS: Final[Sequence[tuple[str, str, Callable[[EngineCounters], Histogram]]]] = (
    (
        "triune_time_to_first_token_seconds",
        "Duration from request to the first token of each answer in seconds",
        lambda counted: counted.first_token_seconds,
    ),
    (
        "triune_inter_token_latency_seconds",
        "Duration between two tokens of an answer in seconds",
        lambda counted: counted.between_tokens_seconds,
    ),
)

_GAUGES: Final[Sequence[tuple[str, str, Callable[[EngineState], int]]]] = (
    ("triune_sequences_running", "Sequences that steps compute", lambda state: state.num_running),
    (
        "triune_sequences_waiting",
        "Sequences that wait for their first step or for KV blocks",
        lambda state: state.num_waiting,
    ),
)

_GUESSES: Final[Sequence[tuple[str, str, Callable[[EngineState], int]]]] = (
    ("triune_draft_tokens", "Guesses of next tokens that were computed", lambda state: state.num_guessed),
    (
        "triune_accepted_draft_tokens",
        "Guesses of next tokens that became part of an answer",
        lambda state: state.num_right,
    ),
)

_PREEMPTIONS: Final[Sequence[tuple[str, str, Callable[[EngineState], int]]]] = (
    (
        "triune_preempted_sequences",
        "Sequences that gave up their KV blocks to others",
        lambda state: state.num_preempted,
    ),
    (
        "triune_kept_sequences",
        "Those of them whose keys and values were kept in memory",
        lambda state: state.num_moved_out,
    ),
)

_BLOCKS: Final[Sequence[tuple[str, Callable[[EngineState], int]]]] = (
    ("free", lambda state: state.num_free_blocks),
    ("used", lambda state: state.num_used_blocks),
    ("cached", lambda state: state.num_cached_blocks),
)


def generation(models: LabelledModels) -> Iterable[Metric]:
    """Yield the metric families of models that generate text."""
    for name, documentation, read in _COUNTERS:
        family = Metric(name, documentation, "counter")
        for labels, model in models:
            family.add_sample(name, labels, read(model.counters))
        yield family
    for name, documentation, of in _HISTOGRAMS:
        family = Metric(name, documentation, "histogram")
        for labels, model in models:
            add_histogram(family, labels, of(model.counters))
        yield family
    states = [
        ({**labels, "unit": unit.value}, state) for labels, model in models for unit, state in model.states.items()
    ]
    for kind, families in (("gauge", _GAUGES), ("counter", _GUESSES), ("counter", _PREEMPTIONS)):
        for name, documentation, count in families:
            family = Metric(name, documentation, kind)
            for labels, state in states:
                family.add_sample(name, labels, count(state))
            yield family
    blocks = Metric(
        "triune_kv_blocks", "KV blocks by state: free, used by sequences, or held by the prefix cache alone", "gauge"
    )
    for labels, state in states:
        for word, count in _BLOCKS:
            blocks.add_sample(blocks.name, {**labels, "state": word}, count(state))
    yield blocks
    files = Metric(
        "triune_disk_cache_blocks",
        "KV blocks stored in files, loaded from them, broken and deleted, or dropped since too many waited",
        "counter",
    )
    for labels, state in states:
        for word, number in state.disk_blocks.items():
            files.add_sample(files.name, {**labels, "event": word}, number)
    yield files
    moved = Metric(
        "triune_moved_answers",
        "Answers that went on at another unit, by the reason in a word",
        "counter",
    )
    for labels, model in models:
        for (source, target, word), number in model.moves.items():
            places = {"unit": source.value, "to": target.value, "reason": word}
            moved.add_sample(moved.name, {**labels, **places}, number)
    yield moved
