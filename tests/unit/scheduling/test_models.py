"""What a loaded version checks before its servable gets a request."""

import numpy as np
import pytest

from support.configs import model_config
from support.table_servable import TableServable
from triune.config.model_config import TensorConfig
from triune.core.datatypes import DataType
from triune.core.errors import UnsupportedError
from triune.core.requests import InferenceRequest
from triune.scheduling.models import LoadedVersion


def test_decoupled_models_need_a_stream() -> None:
    tensors = [TensorConfig(name, DataType.FP32, (1,)) for name in ("x", "y")]
    model = LoadedVersion(1, model_config(tensors[:1], tensors[1:], is_decoupled=True), TableServable())
    request = InferenceRequest("m", {"x": np.zeros(1, np.float32)})
    with pytest.raises(UnsupportedError, match="is decoupled: use the streaming interface"):
        model.submit(request)
    assert model.check(request).request is request
