"""Every encoder, and every decoder that reads one, on every runtime against Hugging Face's transformers."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from contract.architectures.conftest import RUNS, Run, answers, checkpoint_of, models
from contract.architectures.hugging_face import CASES, NUM_SHORT, NUM_TOKENS, inputs
from contract.decoders.cases import packed
from support.decoder_steps import Texts
from triune.core.decoder import DecoderExecutable
from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.core.units import Unit
from triune.engine.models import write_encoder, write_model
from triune.engine.models.t5 import distance_buckets
from triune.engine.models.whisper import write_whisper_alignment
from triune.engine.weights import Checkpoint
from triune.engine.weights.config import BertConfig, WhisperConfig
from triune.engine.weights.tensors import Tensor
from triune.graph.held import HeldModel
from triune.runtimes import missing
from triune.runtimes.reference_decoder import ReferenceDecoder

TOLERANCE = {"rtol": 1e-4, "atol": 1e-4}
TEXTS = [case for case in CASES if case != "whisper"]
DECODERS = [case for case in CASES if not case.startswith("bert")]
KEPT = inputs()["attention_mask"].astype(bool)


def feed_of(model: HeldModel) -> dict[str, NDArray[Any]]:
    """The inputs that an encoder in the plain form has."""
    return {each.name: inputs()[each.name] for each in model.model.graph.input}


def packed_feed() -> dict[str, NDArray[Any]]:
    """The same texts, the second without what fills it up, one after the other."""
    given = inputs()
    lengths = np.array([NUM_TOKENS, NUM_SHORT])
    rows = np.zeros((2, NUM_TOKENS), np.int64)
    rows[0] = np.arange(NUM_TOKENS)
    rows[1, :NUM_SHORT] = NUM_TOKENS + np.arange(NUM_SHORT)
    return {
        "input_ids": given["input_ids"][KEPT],
        "position_ids": np.concatenate([np.arange(length) for length in lengths]),
        "token_type_ids": given["token_type_ids"][KEPT],
        "token_rows": rows,
        "token_places": np.flatnonzero(KEPT),
        "lengths": lengths,
    }


def check(case: str, model: HeldModel, found: list[NDArray[Any]], *, is_packed: bool = False) -> None:
    """Compare what a graph gave with the answers, apart from what fills up a text."""
    names = [each.name for each in model.model.graph.output]
    stored = {name.removeprefix(f"{case}: ") for name in answers() if name.startswith(f"{case}: ")}
    assert set(names) >= stored - ({"logits", "written"} if case in DECODERS else set())
    for name, got in zip(names, found, strict=True):
        if f"{case}: {name}" not in answers():
            continue
        wanted = answers()[f"{case}: {name}"]
        if wanted.shape[:2] == KEPT.shape:
            wanted, got = wanted[KEPT], got if is_packed else got[KEPT]
        np.testing.assert_allclose(got, wanted, **TOLERANCE)


def test_the_cases_are_those_of_the_answers() -> None:
    assert set(CASES) == set(models()) == {name.partition(":")[0] for name in answers()}


@pytest.mark.parametrize("case", CASES)
def test_encoders_answer_as_transformers_do(run: Run, case: str, tmp_path: Path) -> None:
    checkpoint = checkpoint_of(case, tmp_path)
    model = write_encoder(checkpoint.config, checkpoint, "plain")
    check(case, model, list(run(model, feed_of(model))))


@pytest.mark.parametrize("case", TEXTS)
def test_packed_texts_get_the_same_answers(run: Run, case: str, tmp_path: Path) -> None:
    checkpoint = checkpoint_of(case, tmp_path)
    model = write_encoder(checkpoint.config, checkpoint, "packed")
    wanted = [each.name for each in model.model.graph.input]
    check(case, model, list(run(model, {name: packed_feed()[name] for name in wanted})), is_packed=True)


@pytest.mark.parametrize("case", DECODERS)
def test_decoders_answer_as_transformers_do(run: Run, case: str, tmp_path: Path) -> None:
    checkpoint = checkpoint_of(case, tmp_path)
    model = write_model(checkpoint.config, checkpoint, "plain")
    feed = {
        "input_ids": inputs()["decoder_input_ids"],
        "encoder_hidden_states": answers()[f"{case}: last_hidden_state"],
        "encoder_attention_mask": inputs()["attention_mask"],
    }
    (logits,) = run(model, {each.name: feed[each.name] for each in model.model.graph.input})
    np.testing.assert_allclose(logits, answers()[f"{case}: logits"], **TOLERANCE)


class _Packed:
    """A checkpoint whose layers' matrices are packed in 4 bits."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint

    def tensor(self, name: str) -> Tensor:
        tensor = self._checkpoint.tensor(name)
        is_matrix = ".layers." in name and len(self._checkpoint.shape(name)) == 2
        return packed(tensor.dequantize(), 4, "zero points") if is_matrix else tensor


def test_a_decoder_with_memory_is_timed_in_two_precisions(tmp_path: Path) -> None:
    if reason := missing().get("openvino"):
        pytest.skip(reason)
    from triune.runtimes.openvino.decoder import OpenVinoDecoder, has_bf16

    if not has_bf16():
        pytest.skip("OpenVINO does not compute in bf16 on this CPU")
    checkpoint = checkpoint_of("whisper", tmp_path)
    model = write_model(checkpoint.config, _Packed(checkpoint), "paged")
    decoder = OpenVinoDecoder(model, unit=Unit.CPU, num_threads=1, num_blocks=4)
    assert decoder.precision == "bf16", "both precisions are compiled"
    encoder = write_encoder(checkpoint.config, checkpoint, "plain", gives_memory=True)
    names = [each.name for each in encoder.model.graph.output]
    memory = dict(zip(names, RUNS["numpy"](encoder, feed_of(encoder)), strict=True))
    texts = Texts(decoder, list(inputs()["decoder_input_ids"]), memory)
    for got in texts.read({0: 7, 1: 5}):
        assert np.isfinite(got).all()
    decoder.close()


def test_the_graph_that_tells_where_the_decoder_looks_has_its_probabilities(tmp_path: Path) -> None:
    checkpoint = checkpoint_of("whisper", tmp_path)
    config = checkpoint.config
    assert isinstance(config, WhisperConfig)
    encoder = write_encoder(config, checkpoint, "plain", gives_memory=True)
    memory = dict(
        zip([each.name for each in encoder.model.graph.output], RUNS["numpy"](encoder, feed_of(encoder)), strict=True)
    )
    ids, num_words = inputs()["decoder_input_ids"][:1], config.vocab_size - 5
    following = np.roll(ids, -1)
    heads = ((0, 1), (1, 0))
    graph = write_whisper_alignment(replace(config, alignment_heads=heads), checkpoint, num_words)
    feed = {"input_ids": ids, "next_ids": following, **{name: rows[:1] for name, rows in memory.items()}}
    probabilities, scores = RUNS["numpy"](graph, feed)
    assert scores.shape == (2, ids.shape[1], memory["cross_key.0"].shape[1])
    logits = answers()["whisper: logits"][0][:, :num_words].astype(np.float64)
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    for row, token in enumerate(following[0]):
        if token < num_words:
            assert probabilities[0, row] == pytest.approx(shares[row, token], rel=1e-3)
    upper = write_whisper_alignment(config, checkpoint, num_words)
    assert RUNS["numpy"](upper, feed)[1].shape[0] == config.decoder_attention_heads * (config.decoder_layers // 2)
    with pytest.raises(InvalidArgumentError, match="head 9 of layer 0; the decoder has 2 layers of"):
        write_whisper_alignment(replace(config, alignment_heads=((0, 9),)), checkpoint, num_words)


def memory_of(case: str, checkpoint: Checkpoint) -> dict[str, NDArray[np.float32]]:
    """What a paged decoder reads of both sources, by numpy; `cross_mask` where they are of different lengths."""
    encoder = write_encoder(checkpoint.config, checkpoint, "plain", gives_memory=True)
    names = [each.name for each in encoder.model.graph.output]
    memory = dict(zip(names, RUNS["numpy"](encoder, feed_of(encoder)), strict=True))
    return memory if case == "whisper" else memory | {"cross_mask": KEPT[..., np.newaxis].astype(np.float32)}


@pytest.mark.parametrize("runtime", ["reference", "openvino", "mlx"])
@pytest.mark.parametrize("case", DECODERS)
def test_a_paged_decoder_reads_what_the_encoder_gave_once(case: str, runtime: str, tmp_path: Path) -> None:
    if runtime != "reference" and (reason := missing().get(runtime)):
        pytest.skip(reason)
    checkpoint = checkpoint_of(case, tmp_path)
    memory = memory_of(case, checkpoint)
    assert [*memory][:4] == ["cross_key.0", "cross_value.0", "cross_key.1", "cross_value.1"]
    model = write_model(checkpoint.config, checkpoint, "paged")
    texts = Texts(decoder_of(runtime, model), list(inputs()["decoder_input_ids"]), memory)
    found = texts.read_all({1: 4}, {0: 13, 1: 1}, {1: 20, 0: 1}, {0: 1, 1: 1}, {0: 15}, {1: 4})
    for got, wanted in zip(found, answers()[f"{case}: logits"], strict=True):
        np.testing.assert_allclose(got, wanted, **TOLERANCE)
    fresh = Texts(texts.decoder, list(inputs()["decoder_input_ids"]), memory)
    step = fresh.step({0: 3, 1: 2})
    with pytest.raises(InvalidArgumentError, match=r"'cross_key\.0' of a step has 1 rows; the step has 2 sequences"):
        fresh.decoder.run(replace(step, memory={name: rows[:1] for name, rows in memory.items()}))
    with pytest.raises(InvalidArgumentError, match=r"reads cross_key\.0, .*, which the step's memory lacks"):
        fresh.decoder.run(replace(step, memory={}))
    texts.decoder.close()


def decoder_of(runtime: str, model: HeldModel, num_blocks: int = 8) -> DecoderExecutable:
    """A decoder in the paged form on a runtime, in fp32."""
    if runtime == "reference":
        return ReferenceDecoder(model, num_blocks=num_blocks)
    if runtime == "mlx":
        from triune.runtimes.mlx.decoder import MlxDecoder

        return MlxDecoder(model, num_blocks=num_blocks, precision="fp32")
    from triune.runtimes.openvino.decoder import OpenVinoDecoder

    options = {"unit": Unit.CPU, "num_threads": 1, "num_blocks": num_blocks}
    return OpenVinoDecoder(model, cache_type="fp32", is_exact=True, **options)


@pytest.mark.sampled(5)
@pytest.mark.parametrize("form", ["plain", "packed"])
@pytest.mark.parametrize("is_normalized", [True, False])
@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
def test_pooling(run: Run, pooling: Any, is_normalized: bool, form: Any, tmp_path: Path) -> None:
    checkpoint = checkpoint_of("bert", tmp_path)
    assert isinstance(checkpoint.config, BertConfig)
    config = replace(checkpoint.config, pooling=pooling, is_normalized=is_normalized)
    model = write_encoder(config, checkpoint, form)
    assert [each.name for each in model.model.graph.output] == ["last_hidden_state", "sentence_embedding"]
    _, embeddings = run(model, packed_feed() if form == "packed" else feed_of(model))
    states = answers()["bert: last_hidden_state"]
    pool = {"mean": lambda x: x.mean(0), "cls": lambda x: x[0], "max": lambda x: x.max(0)}[pooling]
    for embedding, text, kept in zip(embeddings, states, KEPT, strict=True):
        wanted = pool(text[kept])
        wanted = wanted / np.linalg.norm(wanted) if is_normalized else wanted
        np.testing.assert_allclose(embedding, wanted, **TOLERANCE)


def test_a_text_without_tokens_gives_no_nan(run: Run, tmp_path: Path) -> None:
    checkpoint = checkpoint_of("bert", tmp_path)
    assert isinstance(checkpoint.config, BertConfig)
    model = write_encoder(replace(checkpoint.config, pooling="mean", is_normalized=True), checkpoint, "plain")
    states, embeddings = run(model, feed_of(model) | {"attention_mask": np.zeros_like(inputs()["attention_mask"])})
    assert np.isfinite(states).all()
    assert not embeddings.any()


def test_heads_are_known_by_their_tensors(tmp_path: Path) -> None:
    texts, tokens = (tmp_path / name for name in ("texts", "tokens"))
    texts.mkdir()
    tokens.mkdir()
    config = checkpoint_of("bert for texts", texts).config
    assert isinstance(config, BertConfig)
    assert (config.head, config.has_pooler, config.labels) == ("sequence", True, ("LABEL_0", "LABEL_1", "LABEL_2"))
    config = checkpoint_of("bert for tokens", tokens).config
    assert isinstance(config, BertConfig)
    assert (config.head, config.has_pooler, len(config.labels)) == ("token", False, 5)


def test_distances_share_buckets_as_far_as_the_largest() -> None:
    distances = np.array([-200, -128, -127, -16, -15, -8, -7, -1, 0, 1, 7, 8, 200])
    # By T5's published code, with its 32 buckets and 128 tokens.
    both = [15, 15, 15, 10, 9, 8, 7, 1, 0, 17, 23, 24, 31]
    assert distance_buckets(distances, 32, 128, is_causal=False).tolist() == both
    causal = [31, 31, 31, 16, 15, 8, 7, 1, 0, 0, 0, 0, 0]
    assert distance_buckets(distances, 32, 128, is_causal=True).tolist() == causal


def test_what_has_no_such_form_is_refused(tmp_path: Path) -> None:
    bert, whisper = (tmp_path / name for name in ("bert", "whisper"))
    for folder in (bert, whisper):
        folder.mkdir()
    checkpoint = checkpoint_of("bert", bert)
    with pytest.raises(UnsupportedError, match="Bert cannot be written as a decoder"):
        write_model(checkpoint.config, checkpoint, "plain")
    with pytest.raises(UnsupportedError, match="Bert has no decoder that reads an encoder"):
        write_encoder(checkpoint.config, checkpoint, "plain", gives_memory=True)
    checkpoint = checkpoint_of("whisper", whisper)
    with pytest.raises(UnsupportedError, match="frames of sound, which are not packed"):
        write_encoder(checkpoint.config, checkpoint, "packed")
