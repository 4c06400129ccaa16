"""The unmodified `openai` client reads speech: from a table, and with Whisper tiny.en."""

import http.client
import socket
import time
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from support.listening import write_listening_checkpoint
from support.process import Served, serve
from support.speech import GOFORWARD, as_flac, words
from support.table_text_model import TableSpeechModel, TableTextModel, TableTextModels
from support.text_server import TextServer, serve_text
from triune.frontends.limits import Limits
from triune.zoo.repository import build_repository

SRT = "1\n00:00:00,000 --> 00:00:01,000\nH\n\n2\n00:00:01,000 --> 00:00:02,000\ni\n\n"


def tables() -> TableTextModels:
    return TableTextModels({"table": TableSpeechModel(), "writer": TableTextModel({})})


@pytest.fixture(scope="module")
def served() -> Iterator[TextServer]:
    with serve_text(tables, limits=Limits(request_bytes=1 << 20)) as running:
        yield running


@pytest.fixture
def client(served: TextServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"http://127.0.0.1:{served.port}/v1", api_key="none", max_retries=0) as made:
        yield made


def create(client: openai.OpenAI, **changes: Any) -> Any:
    return client.audio.transcriptions.create(**{"model": "table", "file": ("a.wav", b"Hi"), **changes})


def test_forms_of_a_transcript(client: openai.OpenAI) -> None:
    assert [each.id for each in client.models.list()] == ["table", "writer"]
    answer = create(client)
    assert (answer.text, answer.usage.seconds) == ("H i", 2.0)
    assert create(client, response_format="text") == "H i\n"
    assert create(client, response_format="srt") == SRT
    assert create(client, response_format="vtt") == "WEBVTT\n\n" + SRT.replace("1\n0", "0", 1).replace(
        "\n2\n0", "\n0"
    ).replace(",", ".")
    verbose = create(client, response_format="verbose_json", timestamp_granularities=["segment"])
    assert (verbose.text, verbose.language, verbose.duration) == ("H i", "en", 2.0)
    second = verbose.segments[1]
    assert (second.id, second.seek, second.start, second.end, second.text) == (1, 100, 1.0, 2.0, " i")
    assert (second.tokens, second.avg_logprob, second.no_speech_prob) == ([105], -0.5, 0.25)


def test_a_transcript_tells_what_it_cost_if_asked(client: openai.OpenAI) -> None:
    told = create(client, extra_body={"triune": "true"}).triune
    assert told["unit"] == "cpu"
    # The table model is not metered.
    assert told["energy"] == {"kind": "unavailable", "reason": "no metered unit computed for this request"}
    assert not hasattr(create(client), "triune")
    done = list(create(client, stream=True, extra_body={"triune": "true"}))[-1]
    assert done.triune["energy"]["kind"] == "unavailable"


def test_times_of_words(client: openai.OpenAI) -> None:
    verbose = create(client, response_format="verbose_json", timestamp_granularities=["word"])
    assert [(each.word, each.start, each.end) for each in verbose.words] == [("H", 0.12, 0.5), ("i", 1.12, 1.5)]
    assert (verbose.text, verbose.segments) == ("H i", None)
    both = create(client, response_format="verbose_json", timestamp_granularities=["word", "segment"])
    assert (len(both.words), len(both.segments)) == (2, 2)
    assert create(client, response_format="verbose_json").words is None


def test_a_stream(client: openai.OpenAI) -> None:
    events = list(create(client, stream=True))
    assert [each.type for each in events] == ["transcript.text.delta"] * 2 + ["transcript.text.done"]
    assert "".join(each.delta for each in events[:2]) == events[2].text == "H i"


def test_what_is_asked_reaches_the_model(client: openai.OpenAI, served: TextServer) -> None:
    create(client, language="en", prompt="Names: Ann.", temperature=0.4)
    asked = served.models.models["table"].requests[-1]
    assert (asked.language, asked.prompt, asked.temperature, asked.translates) == ("en", "Names: Ann.", 0.4, False)


@pytest.mark.parametrize(
    ("changes", "message", "param"),
    [
        (
            {"timestamp_granularities": ["page"], "response_format": "verbose_json"},
            "it may have 'segment' and 'word'",
            "timestamp_granularities",
        ),
        ({"timestamp_granularities": ["word"]}, "needs response_format 'verbose_json'", None),
        ({"response_format": "diarized_json"}, "must be one of 'json', 'text'", "response_format"),
        ({"temperature": 3}, "between 0 and 1", "temperature"),
        ({"stream": True, "response_format": "srt"}, "'stream' is not supported", "stream"),
        ({"extra_body": {"speed": "2"}}, "unknown field 'speed'", "speed"),
        ({"file": ("a.wav", b"")}, "holds no samples", None),
        ({"prompt": "x" * 70_000}, "65536 bytes", None),
    ],
)
def test_wrong_fields_are_refused(client: openai.OpenAI, changes: dict[str, Any], message: str, param: Any) -> None:
    with pytest.raises(openai.APIStatusError, match=message) as caught:
        create(client, **changes)
    assert caught.value.status_code in (400, 413)
    assert param is None or caught.value.param == param


def test_models_that_cannot(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="knows English only"):
        client.audio.translations.create(model="table", file=("a.wav", b"Hi"))
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        create(client, model="nobody")
    with pytest.raises(openai.BadRequestError, match="does not read speech"):
        create(client, model="writer")


def test_files_beyond_the_limit_are_refused_and_nothing_is_kept(client: openai.OpenAI, served: TextServer) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        create(client, file=("a.wav", bytes(2 << 20)))
    assert caught.value.status_code == 413
    # A small file may say that it holds more seconds than there is memory for.
    with pytest.raises(openai.APIStatusError, match="all requests together may take 67108864") as caught:
        create(client, file=("a.wav", b"x" * 900_000))
    assert caught.value.status_code == 413
    assert served.budget.reserved_bytes == 0


HEAD = b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\ntable\r\n'


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/json", b"{}"),
        ("multipart/form-data", HEAD),
        ("multipart/form-data; boundary=b", b"no form"),
        ("multipart/form-data; boundary=" + "b" * 6000, b"--" + b"b" * 6000 + HEAD[3:]),
        ("multipart/form-data; boundary=b", HEAD),
        ("multipart/form-data; boundary=b", HEAD + b"--b--\r\n"),
        ("multipart/form-data; boundary=b", HEAD * 2 + b"--b--\r\n"),
        ("multipart/form-data; boundary=b", HEAD * 100 + b"--b--\r\n"),
        ("multipart/form-data; boundary=b", b"--b\r\n\r\nnameless\r\n--b--\r\n"),
        ("multipart/form-data; boundary=b", b"--b\r\n" + b"X: y\r\n" * 100_000),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\n\xff\r\n--b--\r\n',
        ),
        ("multipart/form-data; boundary=b", HEAD + b"--b\r" * 200_000),
    ],
)
def test_bodies_that_are_no_such_forms(served: TextServer, kind: str, body: bytes) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=60)
    connection.request("POST", "/v1/audio/transcriptions", body, {"Content-Type": kind})
    response = connection.getresponse()
    assert response.status in (400, 413), response.read()
    connection.close()
    assert served.budget.reserved_bytes == 0


@pytest.mark.parametrize("begin", [HEAD[:-9] + b"x" * 100_000, b"--b\r\nno header\r\n\r\n"])
def test_a_client_that_still_sends_a_refused_form_reads_the_refusal(served: TextServer, begin: bytes) -> None:
    rest = b"x" * 700_000
    with socket.create_connection(("127.0.0.1", served.port), timeout=60) as connection:
        head = "POST /v1/audio/transcriptions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        head += f"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: {len(begin) + len(rest)}\r\n\r\n"
        connection.sendall(head.encode() + begin)
        time.sleep(0.3)  # By then the form is refused.
        for at in range(0, len(rest), 100_000):
            connection.sendall(rest[at : at + 100_000])
            time.sleep(0.01)
        assert connection.recv(1000).startswith((b"HTTP/1.1 413 ", b"HTTP/1.1 400 "))
    assert served.budget.reserved_bytes == 0


@pytest.mark.parametrize("path", ["chat/completions", "responses", "embeddings", "messages", "audio/transcriptions"])
def test_no_body_beyond_the_limit_is_asked_for(served: TextServer, path: str) -> None:
    with socket.create_connection(("127.0.0.1", served.port), timeout=60) as connection:
        kind = "multipart/form-data; boundary=x" if "audio" in path else "application/json"
        head = f"POST /v1/{path} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: {1 << 40}"
        connection.sendall(f"{head}\r\nContent-Type: {kind}\r\n\r\n".encode())
        assert connection.recv(1000).startswith(b"HTTP/1.1 413 ")


def test_a_client_that_leaves_ends_its_transcript(client: openai.OpenAI, served: TextServer) -> None:
    model = served.models.models["table"]

    async def gate(is_open: bool) -> None:
        (model.gate.set if is_open else model.gate.clear)()

    served.run(gate(is_open=False))
    try:
        stream = create(client, stream=True)
        assert next(iter(stream)).delta == "H"
        assert model.num_open == 1
        stream.close()
        end = time.monotonic() + 60
        while model.num_open and time.monotonic() < end:
            time.sleep(0.01)
        assert model.num_open == 0
    finally:
        served.run(gate(is_open=True))


@pytest.fixture(scope="module")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    pytest.importorskip("openvino")
    folder = tmp_path_factory.mktemp("models")
    build_repository(folder, models=["whisper-tiny.en"])
    with serve(folder, ready_seconds=300) as running:
        yield running


@pytest.mark.timeout(400)
def test_whisper(whisper: Served) -> None:
    said = ["go", "forward", "ten", "meters"]
    with openai.OpenAI(base_url=f"http://{whisper.http}/v1", api_key="none", max_retries=0) as client:
        model = "whisper-tiny.en"
        with GOFORWARD.open("rb") as file:
            assert words(client.audio.transcriptions.create(model=model, file=file).text) == said
        verbose = client.audio.transcriptions.create(
            model=model, file=("a.flac", as_flac()), response_format="verbose_json"
        )
        assert words(verbose.text) == said
        assert verbose.duration == pytest.approx(2.6, abs=0.3)
        with pytest.raises(openai.BadRequestError, match="knows English only"):
            client.audio.translations.create(model=model, file=GOFORWARD)
        with pytest.raises(openai.BadRequestError, match="no audio file"):
            client.audio.transcriptions.create(model=model, file=("a.wav", b"RIFF and nothing"))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A small Whisper with random weights on `cpu`, and the same one on `gpu`, which MLX computes."""
    pytest.importorskip("openvino")
    pytest.importorskip("mlx")
    folder = tmp_path_factory.mktemp("models")
    for unit in ("cpu", "gpu"):
        write_listening_checkpoint(folder / unit / "1", scale=1.0)
        settings = f'parameters {{ key: "units" value {{ string_value: "{unit}" }} }}\n'
        settings += 'parameters { key: "precision" value { string_value: "fp32" } }\n'
        (folder / unit / "config.pbtxt").write_text(settings)
    with pytest.MonkeyPatch.context() as patch:
        # The unit's verdict is to be of this run.
        patch.setenv("TRIUNE_CACHE", str(tmp_path_factory.mktemp("cache")))
        with serve(folder, ready_seconds=300) as running:
            yield running


@pytest.mark.timeout(400)
def test_whisper_on_the_gpu_writes_what_it_writes_on_the_cpu(small: Served) -> None:
    with openai.OpenAI(base_url=f"http://{small.http}/v1", api_key="none", max_retries=0) as client:
        asked: dict[str, Any] = {
            "response_format": "verbose_json",
            "timestamp_granularities": ["segment", "word"],
            "extra_body": {"triune": "true"},
        }
        on_cpu, on_gpu = (
            client.audio.transcriptions.create(model=unit, file=GOFORWARD, **asked) for unit in ("cpu", "gpu")
        )
    assert (on_cpu.triune["unit"], on_gpu.triune["unit"], on_gpu.triune["runtime"]) == ("cpu", "gpu", "mlx")
    # OpenVINO's cache rounds keys and values, so that late tokens of a window may differ.
    ours, theirs = on_gpu.segments[0], on_cpu.segments[0]
    assert (ours.start, ours.end, ours.tokens) == (theirs.start, theirs.end, theirs.tokens)
    assert ours.no_speech_prob == pytest.approx(theirs.no_speech_prob, rel=0.01)
    assert on_gpu.words[0].word[0] == on_cpu.words[0].word[0] == ours.text[0]
