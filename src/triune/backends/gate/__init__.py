"""The gate: before a unit serves a model, its answers on samples are held to those of fp32 on `cpu`."""
