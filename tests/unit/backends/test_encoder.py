"""From a directory in Hugging Face's form to a model that embeds or classifies texts, together with other clients'."""

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from support.encoder_models import MAX_TOKENS, WIDTH, write_encoder_model
from support.repositories import affine, write_model
from support.text_models import write_text_model
from triune.core.clock import MonotonicClock
from triune.core.errors import InvalidArgumentError, UnavailableError
from triune.core.requests import InferenceRequest, InferenceResponse, RequestedOutput
from triune.core.units import Presence, Unit
from triune.repository.repository import Repository
from triune.repository.settings import RepositorySettings
from triune.runtimes.machine import this_machine
from triune.serving.server import Server


@asynccontextmanager
async def serving(root: Path) -> AsyncIterator[Server]:
    repository = Repository(RepositorySettings(folders=(root,)), this_machine(), MonotonicClock())
    await repository.open()
    yield Server(repository)
    await repository.close()


def request(*texts: bytes, **changes: object) -> InferenceRequest:
    return InferenceRequest("m", {"text_input": np.array(texts, np.object_)}, **changes)  # type: ignore[arg-type]


async def reason_of(root: Path) -> str:
    async with serving(root) as server:
        (entry,) = [each for each in await server.index() if each.name == "m"]
        return entry.reason


async def test_a_directory_is_a_model_that_embeds_texts(tmp_path: Path) -> None:
    write_encoder_model(tmp_path / "m" / "1", pooling="mean")
    async with serving(tmp_path) as server:
        model = server.embedding_model("m")
        assert (model.max_tokens, model.width) == (MAX_TOKENS, WIDTH)
        (placement,) = model.placements
        assert (placement.unit, placement.runtime, placement.precision) == (
            Unit.CPU,
            "onnxruntime",
            "fp32",
        )
        embeddings, num_tokens = await model.embed(["some text", [3, 4, 5], "other text"])
        assert (embeddings.shape, embeddings.dtype, num_tokens) == ((3, WIDTH), np.float32, 9 + 3 + 10)
        for text, embedding in zip(["some text", [3, 4, 5], "other text"], embeddings, strict=True):
            alone, _ = await model.embed([text])
            np.testing.assert_allclose(embedding, alone[0], atol=1e-5)
        response = await server.infer(request(b"some text", b"other text"))
        np.testing.assert_allclose(response.outputs["embedding"], embeddings[[0, 2]], atol=1e-5)
        assert response.outputs["num_tokens"].tolist() == [9, 10]
        only = await server.infer(request(b"some text", outputs=(RequestedOutput("num_tokens"),)))
        assert list(only.outputs) == ["num_tokens"]


async def test_requests_of_many_clients_run_together_and_one_mistake_is_its_own(tmp_path: Path) -> None:
    write_encoder_model(tmp_path / "m" / "1")
    rng = np.random.default_rng(4)
    texts = ["ab " * int(length) for length in rng.integers(1, 21, 40)]
    async with serving(tmp_path) as server:
        model = server.embedding_model("m")
        calls = [model.embed([text]) for text in texts]
        calls.insert(7, model.embed(["fine", "far too long " * 9]))
        found = await asyncio.gather(*calls, return_exceptions=True)
        error = found.pop(7)
        assert isinstance(error, InvalidArgumentError)
        assert "input 1 has 117 tokens; the model reads 1 to 64" in str(error)
        for text, answer in zip(texts, found, strict=True):
            assert not isinstance(answer, BaseException)
            alone, num_tokens = await model.embed([text])
            assert (answer[1], num_tokens) == (len(text), len(text))
            np.testing.assert_allclose(answer[0], alone, atol=1e-5)
        statistics = server.model("m").statistics
        assert sum(statistics.failures.values()) == 1
        assert statistics.num_executions < 2 * len(texts), "each text ran alone"


async def test_heads_that_are_not_built_are_told_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = write_encoder_model(tmp_path / "m" / "1") / "model.safetensors"
    save_file({**load_file(file), "cls.predictions.bias": np.zeros(4, np.float32)}, file)
    with caplog.at_level("INFO"):
        async with serving(tmp_path):
            assert "model 'm': tensors such as cls.predictions.bias are left out: the heads that predict" in caplog.text


async def test_a_long_request_is_parted_and_joined(tmp_path: Path) -> None:
    write_encoder_model(tmp_path / "m" / "1")
    texts = [f"text number {number}" for number in range(150)]
    async with serving(tmp_path) as server:
        model = server.embedding_model("m")
        embeddings, num_tokens = await model.embed(texts)
        assert (len(embeddings), num_tokens) == (150, sum(map(len, texts)))
        for at in (0, 63, 64, 149):
            np.testing.assert_allclose(embeddings[at], (await model.embed([texts[at]]))[0][0], atol=1e-5)
        with pytest.raises(InvalidArgumentError, match="input"):
            await model.embed([*texts, ""])
        for count in (0, 2049):
            with pytest.raises(InvalidArgumentError, match=f"{count} inputs are given; a request may have 1 to 2048"):
                await model.embed(["a"] * count)
        waiting = asyncio.ensure_future(model.embed(texts))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert (await model.embed(["a"]))[1] == 1


async def test_a_head_gives_the_logits_of_its_classes(tmp_path: Path) -> None:
    labels = {"id2label": {"0": "no", "1": "yes", "2": "maybe"}}
    write_encoder_model(tmp_path / "m" / "1", "bert for texts", **labels)
    async with serving(tmp_path) as server:
        response = await server.infer(request(b"some text", b"other text"))
        logits = response.outputs["logits"]
        assert logits.shape == (2, 3)
        asked = (RequestedOutput("logits", 1),)
        best = await server.infer(request(b"some text", outputs=asked))
        word = ["no", "yes", "maybe"][int(logits[0].argmax())]
        assert best.outputs["logits"].reshape(-1)[0].decode().endswith(f":{word}")
        with pytest.raises(InvalidArgumentError, match="'m' does not embed texts: it takes the tensors text_input"):
            server.embedding_model("m")


async def test_other_models_do_not_embed_texts(tmp_path: Path) -> None:
    write_model(tmp_path, "tensors", v1=affine(2.0))
    write_text_model(tmp_path / "writer" / "1")
    write_encoder_model(tmp_path / "m" / "1")
    async with serving(tmp_path) as server:
        for name in ("tensors", "writer"):
            with pytest.raises(InvalidArgumentError, match=f"'{name}' does not embed texts"):
                server.embedding_model(name)
        with pytest.raises(InvalidArgumentError, match="'m' does not generate text"):
            server.text_model("m")
        model = server.embedding_model("m")
    with pytest.raises(UnavailableError, match="unloaded"):
        await model.embed(["late"])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("max_batch_size: 4", "has 'max_batch_size'; a request to backend 'encoder' holds any number of texts"),
        ("dynamic_batching { }", "has 'dynamic_batching'; a request"),
        ('output { name: "embedding" data_type: TYPE_FP32 dims: [ -1, 31 ] }', "31"),
        ('name: "n"', "directory name must equal model name"),
        ("instance_group { kind: KIND_GPU }", "GPU"),
    ],
)
async def test_configs_that_do_not_fit_are_refused(tmp_path: Path, config: str, message: str) -> None:
    write_encoder_model(tmp_path / "m" / "1")
    (tmp_path / "m" / "config.pbtxt").write_text(config)
    assert message in await reason_of(tmp_path)


async def test_checkpoints_that_cannot_be_served_are_refused(tmp_path: Path) -> None:
    write_encoder_model(tmp_path / "a" / "m" / "1", "bert for tokens")
    assert "classifies tokens, for which there is no interface of texts yet" in await reason_of(tmp_path / "a")
    write_text_model(tmp_path / "b" / "m" / "1")
    (tmp_path / "b" / "m" / "config.pbtxt").write_text('backend: "encoder"')
    assert "is no encoder, but Llama" in await reason_of(tmp_path / "b")
    write_encoder_model(tmp_path / "d" / "m" / "1")
    (tmp_path / "d" / "m" / "config.pbtxt").write_text('backend: "transformer"')
    assert "is an encoder (BERT); backend 'transformer' serves" in await reason_of(tmp_path / "d")
    (write_encoder_model(tmp_path / "c" / "m" / "1") / "tokenizer.json").unlink()
    assert "there is no tokenizer.json" in await reason_of(tmp_path / "c")


async def test_broken_weights_are_an_invalid_model(tmp_path: Path) -> None:
    weights = write_encoder_model(tmp_path / "m" / "1") / "model.safetensors"
    tensors = load_file(weights)
    for tensor in tensors.values():
        tensor.fill(np.nan)
    save_file(tensors, weights)
    assert "outputs on 'cpu' are NaN or infinite; its weights are broken" in await reason_of(tmp_path)


async def test_several_instances_and_units_share_the_work(tmp_path: Path) -> None:
    write_encoder_model(tmp_path / "m" / "1")
    (tmp_path / "m" / "config.pbtxt").write_text("instance_group { kind: KIND_CPU count: 2 }")
    async with serving(tmp_path) as server:
        answers: list[InferenceResponse] = await asyncio.gather(*(server.infer(request(b"text")) for _ in range(20)))
        for answer in answers:
            np.testing.assert_allclose(answer.outputs["embedding"], answers[0].outputs["embedding"], atol=1e-5)


async def test_a_unit_whose_answers_are_not_those_of_cpu_is_left_out(tmp_path: Path) -> None:
    machine = this_machine()
    if machine.status(Unit.AMX).presence is not Presence.PRESENT:
        pytest.skip("this machine has no AMX")
    write_encoder_model(tmp_path / "m" / "1", pooling="mean")
    parameters = "".join(
        f'parameters {{ key: "{name}" value {{ string_value: "{value}" }} }}\n'
        for name, value in (("units", "amx,cpu"), ("unit_tolerance", "0"))
    )
    (tmp_path / "m" / "config.pbtxt").write_text(parameters)
    async with serving(tmp_path) as server:
        model = server.model("m")
        verdict = model.statistics.verdicts[Unit.AMX]
        assert verdict.precision == "bf16"
        assert verdict.excess
        assert model.config.units == (Unit.CPU,)
        assert set(model.precisions) == {Unit.CPU}
    assert "not on amx: its answers on 'amx' are not those of 'cpu'" in await reason_of(tmp_path)


async def test_a_temporary_folder_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_encoder_model(tmp_path / "m" / "1")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    assert (
        f"which cannot be written to '{tmp_path}/nowhere': No such file or directory; make room there"
        in await reason_of(tmp_path)
    )


def split_texts(root: Path, **step: object) -> None:
    """Give the tokenizer of the model a first step that splits texts."""
    path = root / "m" / "1" / "tokenizer.json"
    content = json.loads(path.read_text())
    content["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [step, content["pre_tokenizer"]]}
    path.write_text(json.dumps(content))


async def test_a_text_on_which_the_tokenizer_panics_fails_alone(tmp_path: Path) -> None:
    write_encoder_model(tmp_path / "m" / "1")
    split_texts(tmp_path, type="Split", pattern={"Regex": "(a+)+$"}, behavior="Isolated", invert=False)
    async with serving(tmp_path) as server:
        model = server.embedding_model("m")
        bad, good = model.embed(["a" * 60 + "b"]), model.embed([[3, 4, 5]])
        with pytest.raises(InvalidArgumentError, match="the model's tokenizer fails on the text"):
            await asyncio.wait_for(bad, 60)
        assert (await asyncio.wait_for(good, 60))[1] == 3
        assert (await asyncio.wait_for(model.embed([[3, 4]]), 60))[1] == 2


async def test_long_texts_are_read_in_parts_and_give_the_same(tmp_path: Path) -> None:
    write_encoder_model(tmp_path / "m" / "1")
    split_texts(tmp_path, type="WhitespaceSplit")
    spaces = " " * (MAX_TOKENS * 256 - 20)
    async with serving(tmp_path) as server:
        model = server.embedding_model("m")
        texts = [f"some{spaces}text", [3, 4, 5], f"other{spaces}text", "text"] * 10
        embeddings, _ = await model.embed(texts)
        short, _ = await model.embed(["some text", [3, 4, 5], "other text", "text"] * 10)
        np.testing.assert_allclose(embeddings, short, atol=1e-5)
        with pytest.raises(InvalidArgumentError, match="input 39 has 0 characters"):
            await model.embed([*texts[:-1], ""])


async def test_other_requests_go_between_the_parts_of_a_large_one(tmp_path: Path) -> None:
    write_encoder_model(tmp_path / "m" / "1")
    async with serving(tmp_path) as server:
        model = server.embedding_model("m")
        texts: list[str | list[int]] = [[3 + number % 5] * (1 + number % 60) for number in range(600)]
        large = asyncio.ensure_future(model.embed(texts))
        while not server.model("m").statistics.num_executions:
            await asyncio.sleep(0)
        await model.embed(["text"])
        assert server.model("m").statistics.num_inferences < 400, "most of the large request is still to come"
        embeddings, num_tokens = await large
        assert num_tokens == sum(map(len, texts))
        for place in (0, 59, 300, 599):
            np.testing.assert_allclose(embeddings[place], (await model.embed([texts[place]]))[0][0], atol=1e-5)


async def test_a_large_request_that_its_client_leaves_is_dropped(tmp_path: Path) -> None:
    write_encoder_model(tmp_path / "m" / "1")
    async with serving(tmp_path) as server:
        model, statistics = server.embedding_model("m"), server.model("m").statistics
        large = asyncio.ensure_future(model.embed([[3] * 60] * 1000))
        while not statistics.num_executions:
            await asyncio.sleep(0)
        large.cancel()
        await asyncio.wait([large])
        await model.embed(["text"])
        assert statistics.num_inferences < 1000
        assert statistics.num_pending == 0
