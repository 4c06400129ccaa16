"""The gate: before a unit serves a model, its outputs on samples are compared with those of fp32 on `cpu`."""
