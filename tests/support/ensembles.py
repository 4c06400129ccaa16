"""Ensembles on disk: their configs, and empty version folders."""

from collections.abc import Mapping, Sequence
from pathlib import Path

Mapped = tuple[str, Mapping[str, str], Mapping[str, str]]
"""A step: the model ("name" or "name:version"), its input_map and its output_map."""


def tensors(kind: str, names: Sequence[str], datatype: str, dims: object, more: str = "") -> str:
    entries = ", ".join(f'{{ name: "{name}" data_type: {datatype} dims: {dims} {more} }}' for name in names)
    return f"{kind} [ {entries} ]\n"


def scheduling(steps: Sequence[Mapped], more: str = "") -> str:
    """`ensemble_scheduling` of a config."""
    lines: list[str] = []
    for model, inputs, outputs in steps:
        name, _, version = model.partition(":")
        maps = "".join(
            f' {field} {{ key: "{own}" value: "{tensor}" }}'
            for field, mapped in (("input_map", inputs), ("output_map", outputs))
            for own, tensor in mapped.items()
        )
        lines.append(f'step {{ model_name: "{name}" model_version: {version or -1}{maps} }}')
    return "ensemble_scheduling {\n  " + "\n  ".join([more, *lines]) + "\n}\n"


def ensemble(
    steps: Sequence[Mapped],
    inputs: Sequence[str] = ("x",),
    outputs: Sequence[str] = ("y",),
    *,
    datatype: str = "TYPE_FP32",
    dims: object = 4,
    max_batch_size: int = 4,
    limit: int = 0,
    more: str = "",
) -> str:
    """An ensemble's config.pbtxt."""
    return (
        f'platform: "ensemble" max_batch_size: {max_batch_size}\n'
        + tensors("input", inputs, datatype, dims)
        + tensors("output", outputs, datatype, dims)
        + scheduling(steps, f"max_inflight_requests: {limit}" if limit else "")
        + more
    )


def chain(*models: str, **options: object) -> str:
    """The config of an ensemble in which each model's output y is the next model's input x."""
    names = ["x", *(f"between {index}" for index in range(1, len(models))), "y"]
    steps = [(model, {"x": names[index]}, {"y": names[index + 1]}) for index, model in enumerate(models)]
    return ensemble(steps, **options)  # pyright: ignore[reportArgumentType]


def write_ensemble(repository: Path, name: str, config: str, *, versions: Sequence[int] = (1,)) -> Path:
    """Write an ensemble's folder."""
    folder = repository / name
    for version in versions:
        (folder / str(version)).mkdir(parents=True, exist_ok=True)
    (folder / "config.pbtxt").write_text(config)
    return folder
