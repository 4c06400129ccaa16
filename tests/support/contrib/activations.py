"""Activations."""

import numpy as np

from support.contrib.case import floats, microsoft

X = floats(2, 3, 8, scale=3)
EDGES = np.array([[-30, -1, -0.5, -0.0, 0, 0.5, 1, 30]], np.float32)

CASES = [
    *(microsoft(f"{op}", {"x": X}) for op in ("Gelu", "FastGelu", "QuickGelu")),
    *(microsoft(f"{op} edges", {"x": EDGES}) for op in ("Gelu", "FastGelu", "QuickGelu")),
    microsoft("FastGelu bias", {"x": X, "bias": floats(8)}, weights=["bias"]),
    microsoft("BiasGelu", {"x": X, "bias": floats(8)}, weights=["bias"]),
    microsoft("BiasGelu vector", {"x": floats(8), "bias": floats(8, seed=1)}),
    microsoft("QuickGelu alpha", {"x": X}, attributes={"alpha": 1.0}),
    microsoft("QuickGelu negative alpha", {"x": X}, attributes={"alpha": -2.5}),
]
