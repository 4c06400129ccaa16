"""SmolLM2 behind a real server: Triton's generate over HTTP, and streams through Triton's own gRPC client."""

import json
import queue
import re
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from prometheus_client.parser import text_string_to_metric_families
from tritonclient.utils import InferenceServerException

from support.process import Served
from triune.backends.transformer.backend import missing_for_transformers
from triune.config.transformer import ADDITIONAL_OUTPUTS, flag_of

if reason := missing_for_transformers():
    pytest.skip(reason, allow_module_level=True)

PROMPT = "The capital of France is"
GREEDY = {"temperature": 0, "max_tokens": 12}


@pytest.fixture
def served(real_models: Served) -> Served:
    return real_models


def asked(served: Served, path: str, body: Mapping[str, Any]) -> str:
    request = urllib.request.Request(f"http://{served.http}/v2/models/{path}", json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read().decode()


def generated(served: Served, **body: Any) -> str:
    answer = json.loads(asked(served, "smollm2/generate", {"text_input": PROMPT, **body}))
    assert (answer["model_name"], answer["model_version"]) == ("smollm2", "1")
    return answer["text_output"]


def test_generate(served: Served) -> None:
    text = generated(served, sampling_parameters=json.dumps(GREEDY))
    assert text.startswith(f"{PROMPT} Paris.")
    assert generated(served, parameters={**GREEDY, "exclude_input_in_output": True}) == text.removeprefix(PROMPT)
    assert generated(served, sampling_parameters=json.dumps({**GREEDY, "stop": ["is"]})) in text


def test_generate_stream(served: Served) -> None:
    whole = generated(served, sampling_parameters=json.dumps(GREEDY), exclude_input_in_output=True)
    body = {"text_input": PROMPT, "stream": True, "sampling_parameters": json.dumps(GREEDY)}
    events = asked(served, "smollm2/generate_stream", body).split("\n\n")
    texts = [json.loads(each.removeprefix("data: "))["text_output"] for each in events if each]
    assert len(texts) > 3
    assert "".join(texts) == whole


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"text_input": ""}, 400, "the prompt has no token"),
        ({"text_input": "a", "sampling_parameters": '{"max_token": 4}'}, 400, "'max_token' is unknown"),
        ({"text_input": "a", "sampling_parameters": '{"max_tokens": 9000}'}, 400, "more than the context of 8192"),
        ({"text_input": "word " * 9000}, 400, "more than the context of 8192"),
        ({"text_input": "a " * 1_000_000}, 413, "the text has 2000000 characters"),
        ({"prompt": "a"}, 400, "missing required input"),
        ({"text_input": ["a", "b"]}, 400, "cannot fill input 'text_input'"),
        ({"text_input": "a", "parameters": {"n": 10**9}}, 400, "'n' is 1000000000; it must be between 1 and 128"),
    ],
)
def test_bad_requests(served: Served, body: Mapping[str, Any], status: int, message: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        asked(served, "smollm2/generate", body)
    assert caught.value.code == status
    assert message in json.loads(caught.value.read())["error"]


def tensors(prompt: str, **more: Any) -> list[Any]:
    made = [tritonclient.grpc.InferInput("text_input", [1], "BYTES")]
    made[0].set_data_from_numpy(np.array([prompt.encode()], np.object_))
    for name, value in more.items():
        kind, array = ("BOOL", np.array([value])) if isinstance(value, bool) else ("BYTES", np.array([value.encode()]))
        made.append(tritonclient.grpc.InferInput(name, [1], kind))
        made[-1].set_data_from_numpy(array if kind == "BOOL" else array.astype(np.object_))
    return made


def streamed(client: Any, *requests: list[Any], **options: Any) -> list[Any]:
    """All results and errors of requests on one stream, until each has its final response."""
    results: queue.Queue[Any] = queue.Queue()
    client.start_stream(lambda result, error: results.put(error or result))
    for number, inputs in enumerate(requests):
        client.async_stream_infer("smollm2", inputs, request_id=str(number), **options)
    client.stop_stream()
    return [results.get() for _ in range(results.qsize())]


def text_of(results: list[Any], number: int) -> str:
    mine = [each for each in results if each.get_response().id == str(number)]
    finals = [each.get_response().parameters["triton_final_response"].bool_param for each in mine]
    assert finals == [False] * (len(mine) - 1) + [True]
    return "".join(each.as_numpy("text_output")[0].decode() for each in mine)


def test_stream_infer(served: Served) -> None:
    sampling = json.dumps(GREEDY)
    with tritonclient.grpc.InferenceServerClient(served.grpc) as client:
        results = streamed(
            client,
            tensors(PROMPT, stream=True, sampling_parameters=sampling),
            tensors(PROMPT, sampling_parameters=sampling),
            tensors("1, 2, 3, 4,", stream=True, sampling_parameters=sampling),
        )
        assert text_of(results, 0).startswith(" Paris.")
        # Which of the three are in a step depends on the machine; what is answered does not, since it is reproducible.
        assert text_of(results, 1) == PROMPT + text_of(results, 0)
        assert text_of(results, 2).startswith(" 5, 6")
        (error,) = streamed(client, tensors("", stream=True))
        assert isinstance(error, InferenceServerException)
        assert "the prompt has no token" in str(error)


def test_outputs_of_the_vllm_backend(served: Served) -> None:
    sampling = json.dumps({**GREEDY, "max_tokens": 4, "logprobs": 2, "prompt_logprobs": 0})
    flags = {flag_of(name): True for name in ADDITIONAL_OUTPUTS}
    with tritonclient.grpc.InferenceServerClient(served.grpc) as client:
        (result,) = streamed(client, tensors(PROMPT, sampling_parameters=sampling, **flags))
    found = {name: result.as_numpy(name) for name in ADDITIONAL_OUTPUTS}
    assert [found[name].tolist() for name in ("finish_reason", "num_output_tokens")] == [[b"length"], [4]]
    tokens = json.loads(found["logprobs"][0])
    first = [next(iter(each.values())) for each in tokens]
    assert PROMPT + "".join(each["decoded_token"] for each in first) == text_of([result], 0)
    assert [(each["rank"], len(others)) for each, others in zip(first, tokens, strict=True)] == [(1, 2)] * 4
    assert found["cumulative_logprob"][0] == pytest.approx(sum(each["logprob"] for each in first), abs=1e-4)
    prompt = json.loads(found["prompt_logprobs"][0])
    assert (found["num_input_tokens"].tolist(), prompt[0]) == ([len(prompt)], None)
    assert all(each["logprob"] < 0 for position in prompt[1:] for each in position.values())
    body = {"text_input": PROMPT, "return_num_output_tokens": True, "return_finish_reason": True}
    answer = json.loads(asked(served, "smollm2/generate", {**body, "sampling_parameters": json.dumps(GREEDY)}))
    assert (answer["num_output_tokens"], answer["finish_reason"]) == (12, "length")


@pytest.mark.parametrize(
    ("name", "form", "pattern"),
    [
        ("structured_outputs", {"choice": ["Rome", "Oslo"]}, "Rome|Oslo"),
        ("guided_decoding", {"regex": "[0-9]{3}"}, "[0-9]{3}"),
    ],
)
def test_an_answer_keeps_to_its_form(served: Served, name: str, form: Mapping[str, Any], pattern: str) -> None:
    sampling = json.dumps({**GREEDY, name: json.dumps(form)})
    assert re.fullmatch(pattern, generated(served, sampling_parameters=sampling, exclude_input_in_output=True))


def test_one_answer_cannot_be_asked_for(served: Served) -> None:
    for module, address in ((tritonclient.grpc, served.grpc), (tritonclient.http, served.http)):
        with module.InferenceServerClient(address) as client:
            given = module.InferInput("text_input", [1], "BYTES")
            given.set_data_from_numpy(np.array([b"a"], np.object_))
            with pytest.raises(InferenceServerException, match="decoupled"):
                client.infer("smollm2", [given])


def test_metadata_and_statistics(served: Served) -> None:
    with tritonclient.grpc.InferenceServerClient(served.grpc) as client:
        metadata = client.get_model_metadata("smollm2")
        assert [(each.name, each.datatype, list(each.shape)) for each in metadata.inputs[:4]] == [
            ("text_input", "BYTES", [1]),
            ("stream", "BOOL", [1]),
            ("sampling_parameters", "BYTES", [1]),
            ("exclude_input_in_output", "BOOL", [1]),
        ]
        assert client.get_model_config("smollm2").config.model_transaction_policy.decoupled
        before = client.get_inference_statistics("smollm2").model_stats[0].inference_stats.success.count
        generated(served, sampling_parameters=json.dumps(GREEDY))
        after = client.get_inference_statistics("smollm2").model_stats[0].inference_stats
        assert after.success.count == before + 1
        assert after.success.ns > after.compute_infer.ns > after.queue.ns


def test_a_conversation_through_openais_api(served: Served) -> None:
    body = {"model": "smollm2", "temperature": 0, "max_tokens": 12, "stop": ["."]}
    chat = {**body, "messages": [{"role": "user", "content": "Say that Paris is the capital of France."}]}
    url = f"http://{served.http}/v1/chat/completions"
    headers = {"content-type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(url, json.dumps(chat).encode(), headers), timeout=60) as answer:
        whole = json.loads(answer.read())
    text = whole["choices"][0]["message"]["content"]
    assert "Paris" in text
    assert "." not in text
    assert whole["usage"]["prompt_tokens"] > 20
    chat["stream"] = True
    with urllib.request.urlopen(urllib.request.Request(url, json.dumps(chat).encode(), headers), timeout=60) as answer:
        events = [line.removeprefix(b"data: ") for line in answer.read().splitlines() if line]
    assert events.pop() == b"[DONE]"
    deltas = [choice["delta"] for event in events for choice in json.loads(event)["choices"]]
    assert "".join(each.get("content") or "" for each in deltas) == text


def metrics(served: Served) -> dict[str, float]:
    """The metrics of the model, by name; those with a label of state or reason have that behind it."""
    with urllib.request.urlopen(f"http://{served.metrics}/metrics", timeout=60) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    samples = [each for family in families for each in family.samples if each.labels.get("model") == "smollm2"]
    more = [each.labels.get("state") or each.labels.get("reason") or "" for each in samples]
    return {
        f"{each.name.removesuffix('_total')} {word}".strip(): each.value
        for each, word in zip(samples, more, strict=True)
    }


def test_metrics(served: Served) -> None:
    before = metrics(served)
    generated(served, sampling_parameters=json.dumps({**GREEDY, "ignore_eos": True}))
    after = metrics(served)
    for name, grown in (
        ("triune_generation_tokens", 12),
        ("triune_prompt_tokens", 5),
        ("triune_time_to_first_token_seconds_count", 1),
        ("triune_inter_token_latency_seconds_count", 11),
        ("nv_inference_request_success", 1),
    ):
        assert after[name] == before[name] + grown, name
    assert after["triune_sequences_running"] == after["triune_sequences_waiting"] == 0
    assert after["triune_kv_blocks used"] == 0
    assert after["triune_kv_blocks free"] > 100


def test_who_leaves_in_mid_stream_leaves_no_blocks(served: Served) -> None:
    body = {"text_input": PROMPT, "stream": True, "sampling_parameters": '{"max_tokens": 4000, "ignore_eos": true}'}
    url = f"http://{served.http}/v2/models/smollm2/generate_stream"
    before = metrics(served)
    with urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode()), timeout=60) as answer:
        assert answer.readline().startswith(b"data: ")
        assert metrics(served)["triune_kv_blocks used"] > 0
    for _ in range(200):
        now = metrics(served)
        if now["triune_kv_blocks used"] == 0:
            break
        time.sleep(0.05)
    assert now["triune_kv_blocks used"] == now["triune_sequences_running"] == 0
    failures = "nv_inference_request_failure CANCELED"
    assert now[failures] == before[failures] + 1


def test_what_cannot_be_served_says_why(served: Served) -> None:
    with tritonclient.http.InferenceServerClient(served.http) as client:
        reasons = {each["name"]: each.get("reason", "") for each in client.get_model_repository_index()}
    assert reasons["smollm2"] == reasons["simple"] == ""
    assert "the file is of version 0" in reasons["broken"]
