"""The metrics of models that generate text."""

import json

from support.scripted import ScriptedDecoder, replicated_engine, scripted_engine, text_of
from triune.core.clock import VirtualClock
from triune.core.units import Unit
from triune.engine.generation import Generation
from triune.engine.sampling.parameters import SamplingParameters
from triune.engine.structured.constraint import Constraint
from triune.frontends.metrics.generation import generation
from triune.frontends.metrics.text import write_text


async def test_tokens_sequences_and_blocks() -> None:
    async with scripted_engine(ScriptedDecoder(b"abcdef"), clock=VirtualClock()) as engine:
        for _ in range(2):
            await text_of(engine, Generation("x" * 9, SamplingParameters(temperature=0), 4))
        lines = write_text(generation([({"model": "m"}, engine)])).splitlines()
    for line in (
        'triune_prompt_tokens{model="m"} 18',
        'triune_cached_prompt_tokens{model="m"} 8',
        'triune_generation_tokens{model="m"} 8',
        'triune_time_to_first_token_seconds_bucket{model="m",le="0.001"} 2',
        'triune_time_to_first_token_seconds_count{model="m"} 2',
        'triune_inter_token_latency_seconds_count{model="m"} 6',
        'triune_sequences_running{model="m",unit="cpu"} 0',
        'triune_sequences_waiting{model="m",unit="cpu"} 0',
        'triune_kv_blocks{model="m",state="free",unit="cpu"} 61',
        'triune_kv_blocks{model="m",state="used",unit="cpu"} 0',
        'triune_kv_blocks{model="m",state="cached",unit="cpu"} 3',
    ):
        assert line in lines, lines


async def test_guesses() -> None:
    async with scripted_engine(ScriptedDecoder(b"abcdef"), clock=VirtualClock()) as engine:
        constraint = Constraint("choice", json.dumps(["what must be said"]))
        request = Generation("xy", SamplingParameters(temperature=0), constraint=constraint)
        assert await text_of(engine, request) == "what must be said"
        lines = write_text(generation([({"model": "m"}, engine)])).splitlines()
    # The first token comes with the prompt, the other 16 in one step.
    assert 'triune_draft_tokens{model="m",unit="cpu"} 16' in lines
    assert 'triune_accepted_draft_tokens{model="m",unit="cpu"} 16' in lines


async def test_moved_answers_and_the_states_of_each_unit() -> None:
    decoders = {Unit.CPU: ScriptedDecoder(b"abcdef"), Unit.AMX: ScriptedDecoder(b"abcdef")}
    async with replicated_engine(decoders) as engine:
        engine.replicas.moves.counts[Unit.CPU, Unit.AMX, "hot"] = 2
        lines = write_text(generation([({"model": "m"}, engine)])).splitlines()
    for line in (
        'triune_kv_blocks{model="m",state="free",unit="cpu"} 64',
        'triune_kv_blocks{model="m",state="free",unit="amx"} 64',
        'triune_moved_answers{model="m",reason="hot",to="amx",unit="cpu"} 2',
    ):
        assert line in lines, lines
