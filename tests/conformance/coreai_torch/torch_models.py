"""Small torch models converted by `coreai-torch`: for `collect`, beside Apple's own tests.

CASES=/tmp/cases PYTHONPATH=<this folder> python -m pytest -p collect <this file>
"""

import asyncio
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from coreai.runtime import NDArray
from coreai_torch import TorchConverter, get_decomp_table
from torch import Tensor, nn


class Perceptron(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(12, 32), nn.GELU(), nn.LayerNorm(32), nn.Linear(32, 5), nn.LogSoftmax(-1))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Convolutions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, stride=2),
            nn.BatchNorm2d(8),
            nn.SiLU(),
            nn.Conv2d(8, 8, 3, padding=1, groups=8),
            nn.Hardsigmoid(),
            nn.MaxPool2d(3, 2, padding=1),
            nn.ConvTranspose2d(8, 4, 2, stride=2),
            nn.GroupNorm(2, 4),
            nn.AvgPool2d(2),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x).flatten(1)


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(30, 16)
        self.layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, dropout=0.0, activation="gelu")

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.embed(x))


class Attention(nn.Module):
    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)


class Rotary(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        place = torch.arange(x.shape[1], dtype=torch.float32)
        angles = place[:, None] * (10000 ** (-torch.arange(0, 8, dtype=torch.float32) / 8))[None]
        first, second = x.chunk(2, -1)
        cos, sin = angles.cos(), angles.sin()
        return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


class Cache(nn.Module):
    """A cache of keys that each call adds to."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("keys", torch.zeros(1, 8, 4))

    def forward(self, x: Tensor) -> Tensor:
        self.keys.copy_(torch.cat([self.keys[:, 1:], x], 1))
        return torch.softmax(x @ self.keys.transpose(1, 2), -1) @ self.keys


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(6, 10)

    def forward(self, x: Tensor) -> Tensor:
        state = x.new_zeros(x.shape[0], 10)
        for step in range(4):
            state = self.cell(x[:, step], state)
        return state


class Upsampled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        smooth = nn.functional.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
        return smooth + nn.functional.interpolate(x, scale_factor=2.0, mode="nearest")


class Ranked(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        values, places = torch.topk(x, 3, dim=-1)
        return values, places.to(torch.int32), torch.where(x > 0, x.cumsum(-1), x.flip(-1))


_FREE = torch.export.Dim("free", min=2, max=64)
MODELS: dict[str, tuple[Callable[[], nn.Module], dict[str, Tensor], Any]] = {
    "perceptron": (Perceptron, {"x": torch.randn(3, 12)}, {"x": {0: _FREE}}),
    "convolutions": (Convolutions, {"x": torch.randn(2, 3, 32, 32)}, {"x": {0: _FREE}}),
    "encoder": (Encoder, {"x": torch.randint(0, 30, (2, 7))}, {"x": {1: _FREE}}),
    "attention": (Attention, {name: torch.randn(1, 2, 6, 8) for name in ("query", "key", "value")}, None),
    "rotary": (Rotary, {"x": torch.randn(2, 5, 16)}, {"x": {1: _FREE}}),
    "cache": (Cache, {"x": torch.randn(1, 1, 4)}, None),
    "recurrent": (Recurrent, {"x": torch.randn(3, 4, 6)}, None),
    "upsampled": (Upsampled, {"x": torch.randn(1, 2, 5, 6)}, None),
    "ranked": (Ranked, {"x": torch.randn(4, 9)}, {"x": {0: _FREE}}),
}


@pytest.mark.parametrize("is_dynamic", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("name", list(MODELS))
def test_model(name: str, dtype: torch.dtype, is_dynamic: bool) -> None:
    make, inputs, shapes = MODELS[name]
    if is_dynamic and shapes is None:
        pytest.skip("its sizes are known")
    torch.manual_seed(0)
    model = make().eval().to(dtype)
    given = {key: value.to(dtype) if value.is_floating_point() else value for key, value in inputs.items()}
    exported = torch.export.export(model, (), given, dynamic_shapes=shapes if is_dynamic else None)
    program = TorchConverter().add_exported_program(exported.run_decompositions(get_decomp_table())).to_coreai()
    with tempfile.TemporaryDirectory() as folder:
        asset = program.save_asset(Path(folder) / "model.aimodel")
        asyncio.run(_called(asset, given))


async def _called(asset: Any, given: dict[str, Tensor]) -> None:
    async with asset.executable() as loaded:
        function = loaded.load_function("main")
        about = function.desc
        state = {
            name: NDArray(np.zeros(about.state_descriptor(name).shape, np.dtype(about.state_descriptor(name).dtype)))
            for name in about.state_names
        }
        arrays = {name: each.numpy() for name, each in given.items()}
        narrow = {
            name: NDArray(each.astype(np.int32) if each.dtype == np.int64 else each) for name, each in arrays.items()
        }
        for _ in range(2):
            await function(inputs=narrow, state=state)
