from support.configs import model_config
from support.table_servable import TableServable
from triune.config.model_config import TensorConfig
from triune.core.datatypes import DataType
from triune.core.statistics import BatchStatistics, Duration, ModelStatistics
from triune.frontends.kserve import descriptions
from triune.repository.model import IndexEntry, ModelState
from triune.scheduling.models import LoadedVersion


def test_a_models_metadata() -> None:
    x, y = TensorConfig("x", DataType.FP32, (-1, 16)), TensorConfig("y", DataType.BYTES, (1,))
    document = descriptions.model_metadata(model_config([x], [y], max_batch_size=0), [1, 3])
    assert document["versions"] == ["1", "3"]
    assert document["platform"] == "onnxruntime"
    assert document["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 16]}]
    assert document["outputs"] == [{"name": "y", "datatype": "BYTES", "shape": [1]}]
    batched = descriptions.model_metadata(model_config([x], [y], max_batch_size=4), [1])
    assert batched["inputs"][0]["shape"] == [-1, -1, 16]


def test_statistics() -> None:
    counted = ModelStatistics(num_inferences=9, num_executions=2, last_inference_ms=1234)
    counted.success.add(300, 3)
    counted.batches = {8: BatchStatistics(compute_infer=Duration(1, 40)), 1: BatchStatistics()}
    loaded = LoadedVersion(3, model_config([], []), TableServable(statistics=counted))
    (document,) = descriptions.statistics([loaded])["model_stats"]
    assert (document["name"], document["version"], document["last_inference"]) == ("model", "3", 1234)
    assert (document["inference_count"], document["execution_count"]) == (9, 2)
    assert document["inference_stats"]["success"] == {"count": 3, "ns": 300}
    assert document["inference_stats"]["cache_hit"] == {"count": 0, "ns": 0}
    assert [each["batch_size"] for each in document["batch_stats"]] == [1, 8]
    assert document["batch_stats"][1]["compute_infer"] == {"count": 1, "ns": 40}
    assert (document["response_stats"], document["memory_usage"]) == ({}, [])


def test_the_index_leaves_out_what_is_not_there() -> None:
    entries = [
        IndexEntry("a", 1, ModelState.READY),
        IndexEntry("b", 2, ModelState.UNAVAILABLE, "why"),
        IndexEntry("c", None, None),
    ]
    assert descriptions.repository_index(entries) == [
        {"name": "a", "version": "1", "state": "READY"},
        {"name": "b", "version": "2", "state": "UNAVAILABLE", "reason": "why"},
        {"name": "c"},
    ]
