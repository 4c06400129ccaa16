"""The gate: before a unit serves a model, the unit's outputs for samples are compared with those of `cpu` in fp32."""
