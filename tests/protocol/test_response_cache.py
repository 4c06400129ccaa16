"""The response cache of a running server: flags, config, statistics and metrics."""

from pathlib import Path

import requests

from support.process import serve
from support.repositories import affine, write_model

CACHED = "max_batch_size: 4 response_cache { enable: true }"


def infer(address: str, model: str, value: float) -> list[float]:
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [value] * 4}]}
    answer = requests.post(f"http://{address}/v2/models/{model}/infer", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()["outputs"][0]["data"]


def test_answers_are_given_again_and_counted(tmp_path: Path) -> None:
    write_model(tmp_path, "cached", CACHED, v1=affine(2))
    write_model(tmp_path, "computed", "max_batch_size: 4", v1=affine(2))
    with serve(tmp_path, "--cache-config=local,size=1048576") as served:
        for value in (1.0, 2.0, 1.0, 1.0):
            for model in ("cached", "computed"):
                assert infer(served.http, model, value) == [2 * value] * 4

        answer = requests.get(f"http://{served.http}/v2/models/cached/stats", timeout=60).json()["model_stats"][0]
        stats = answer["inference_stats"]
        assert (stats["success"]["count"], stats["cache_hit"]["count"], stats["cache_miss"]["count"]) == (4, 2, 2)
        assert (answer["inference_count"], answer["execution_count"]) == (2, 2)

        text = requests.get(f"http://{served.metrics}/metrics", timeout=60).text
        assert 'nv_cache_num_hits_per_model{model="cached",version="1"} 2' in text
        assert 'nv_cache_num_misses_per_model{model="cached",version="1"} 2' in text
        assert 'nv_cache_hit_duration_per_model{model="cached"' in text
        assert 'nv_cache_num_hits_per_model{model="computed"' not in text
