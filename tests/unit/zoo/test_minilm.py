"""MiniLM against BERT written from the paper in numpy, against people's judgement, and against its int8 twin."""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import safetensors.numpy
from numpy.typing import NDArray
from tokenizers import Tokenizer

from support.steps import Shelf
from triune.backends.attempt import Attempt
from triune.backends.encoder.backend import EncoderBackend
from triune.config.configure import read_source
from triune.config.stamps import stamp
from triune.core.clock import MonotonicClock
from triune.core.datatypes import Array
from triune.engine.encoder_servable import EncoderServable
from triune.runtimes.machine import this_machine
from triune.zoo import minilm
from triune.zoo.packages import Package, PackageCache

Floats = NDArray[np.float64]

GENSIM = Package(
    name="gensim",
    version="4.4.0",
    filename="gensim-4.4.0-cp311-cp311-manylinux_2_24_x86_64.manylinux_2_28_x86_64.whl",
    sha256="91a7fa5e814e7b1bad4b2dffa8d62c1e55410d5cbdf930714c1997ffb4404db8",
    licence="LGPL-2.1-only",
)


def session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def encoder(models: Path) -> onnxruntime.InferenceSession:
    return session(models / "minilm" / "1" / "model.onnx")


@pytest.fixture(scope="module")
def weights(packages: PackageCache) -> Mapping[str, Array]:
    (content,) = packages.read(minilm.PACKAGE, [f"{minilm.FOLDER}/model.safetensors"])
    return safetensors.numpy.load(content)


@pytest.fixture(scope="module")
def tokenizer(models: Path) -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(models / "minilm" / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(256)
    return tokenizer


def inputs(rows: list[list[int]], types: list[list[int]] | None = None) -> dict[str, NDArray[np.int64]]:
    """Rows padded with zeros to the longest, as the server pads them."""
    length = max(map(len, rows))
    return {
        "input_ids": np.array([row + [0] * (length - len(row)) for row in rows], np.int64),
        "attention_mask": np.array([[1] * len(row) + [0] * (length - len(row)) for row in rows], np.int64),
        "token_type_ids": np.array(types or np.zeros((len(rows), length)), np.int64),
    }


def bert(weights: Mapping[str, Array], ids: list[int], types: list[int]) -> Floats:
    """The last hidden states of one sequence, in fp64, head by head. Devlin et al., 2018; Vaswani et al., 2017."""

    def get(name: str) -> Floats:
        return weights[name].astype(np.float64)

    def linear(x: Floats, name: str) -> Floats:
        return x @ get(f"{name}.weight").T + get(f"{name}.bias")

    def norm(x: Floats, name: str) -> Floats:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12)
        return scaled * get(f"{name}.weight") + get(f"{name}.bias")

    erf = np.vectorize(math.erf)
    x = get("embeddings.word_embeddings.weight")[ids] + get("embeddings.position_embeddings.weight")[: len(ids)]
    x = norm(x + get("embeddings.token_type_embeddings.weight")[types], "embeddings.LayerNorm")
    for layer in range(6):
        prefix = f"encoder.layer.{layer}"
        q, k, v = (linear(x, f"{prefix}.attention.self.{name}") for name in ("query", "key", "value"))
        heads: list[Floats] = []
        for head in range(12):
            part = slice(32 * head, 32 * head + 32)
            scores = np.exp(q[:, part] @ k[:, part].T / np.sqrt(32))
            heads.append(scores / scores.sum(-1, keepdims=True) @ v[:, part])
        attended = linear(np.concatenate(heads, -1), f"{prefix}.attention.output.dense")
        x = norm(x + attended, f"{prefix}.attention.output.LayerNorm")
        wide = linear(x, f"{prefix}.intermediate.dense")
        wide = wide * 0.5 * (1 + erf(wide / math.sqrt(2)))
        x = norm(x + linear(wide, f"{prefix}.output.dense"), f"{prefix}.output.LayerNorm")
    return x


def test_it_computes_bert(encoder: onnxruntime.InferenceSession, weights: Mapping[str, Array]) -> None:
    rng = np.random.default_rng(5)
    rows = [[101, *rng.integers(1000, 30522, length).tolist(), 102] for length in (1, 19, 7)]
    types = rng.integers(0, 2, (3, 21)).tolist()
    hidden, embeddings = encoder.run(["last_hidden_state", "sentence_embedding"], inputs(rows, types))
    for row, kinds, states, embedding in zip(rows, types, hidden, embeddings, strict=True):
        expected = bert(weights, row, kinds[: len(row)])
        np.testing.assert_allclose(states[: len(row)], expected, atol=2e-5)
        mean = expected.mean(0)
        np.testing.assert_allclose(embedding, mean / np.linalg.norm(mean), atol=2e-6)


def test_padding_changes_nothing(encoder: onnxruntime.InferenceSession) -> None:
    short, long = [101, 7592, 102], [101, *range(2000, 2120), 102]
    alone = encoder.run(None, inputs([short]))
    together = encoder.run(None, inputs([short, long]))
    np.testing.assert_allclose(together[0][0, :3], alone[0][0], atol=1e-5)
    np.testing.assert_allclose(together[1][0], alone[1][0], atol=1e-6)


def test_the_longest_sequence_and_a_masked_one(encoder: onnxruntime.InferenceSession) -> None:
    feed = inputs([[101] * minilm.MAX_TOKENS])
    assert np.isfinite(encoder.run(["last_hidden_state"], feed)[0]).all()
    nothing = inputs([[0, 0, 0]]) | {"attention_mask": np.zeros((1, 3), np.int64)}
    hidden, embedding = encoder.run(None, nothing)
    assert np.isfinite(hidden).all()
    np.testing.assert_array_equal(embedding, np.zeros((1, 384)))


def ranks(values: Floats) -> Floats:
    """Ranks from 1, ties sharing their mean."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return ((ends - counts + 1 + ends) / 2)[inverse]


def test_it_agrees_with_people(
    encoder: onnxruntime.InferenceSession, models: Path, tokenizer: Tokenizer, packages: PackageCache
) -> None:
    """Lee et al. (2005) asked people how alike 50 news texts are. Published weights reach a Spearman of 0.508."""
    folder = "gensim/test/test_data"
    corpus, judged = packages.read(GENSIM, [f"{folder}/lee.cor", f"{folder}/similarities0-1.txt"])
    texts = corpus.decode("latin-1").strip().splitlines()
    people = np.array([[float(value) for value in line.split()] for line in judged.decode().strip().splitlines()])
    small = session(models / "minilm_int8" / "1" / "model.onnx")
    embeddings: dict[str, list[Floats]] = {"fp32": [], "int8": []}
    for text in texts:
        feed = inputs([tokenizer.encode(text).ids])
        embeddings["fp32"].append(encoder.run(["sentence_embedding"], feed)[0][0])
        mean = small.run(["last_hidden_state"], feed)[0][0].mean(0)
        embeddings["int8"].append(mean / np.linalg.norm(mean))
    pairs = np.triu_indices(len(texts), 1)
    for name, expected in (("fp32", 0.5083), ("int8", 0.5090)):
        matrix = np.array(embeddings[name])
        assert np.corrcoef(ranks((matrix @ matrix.T)[pairs]), ranks(people[pairs]))[0, 1] == pytest.approx(
            expected, abs=0.002
        )
    cosines = (np.array(embeddings["fp32"]) * np.array(embeddings["int8"])).sum(-1)
    assert cosines.min() > 0.998


async def test_the_checkpoint_answers_texts_as_the_graph_answers_tokens(
    encoder: onnxruntime.InferenceSession, models: Path, tokenizer: Tokenizer
) -> None:
    """It is served with texts, of which a batch has some lengths."""
    sentences = ["A man is eating food.", "A man is eating a piece of bread, slowly, at noon.", "Two dogs run."]
    folder = models / "all-minilm-l6-v2"
    source = read_source("all-minilm-l6-v2", folder, stamp(folder))
    backend = EncoderBackend(this_machine(), MonotonicClock())
    servable = backend.assemble(backend.build(source, 1, None, Attempt()), Shelf())
    assert isinstance(servable, EncoderServable)
    embeddings, num_tokens = await servable.embed(sentences)
    assert num_tokens == sum(len(tokenizer.encode(each).ids) for each in sentences)
    for sentence, embedding in zip(sentences, embeddings, strict=True):
        feed = inputs([tokenizer.encode(sentence).ids])
        np.testing.assert_allclose(embedding, encoder.run(["sentence_embedding"], feed)[0][0], atol=1e-5)
    await servable.close()
