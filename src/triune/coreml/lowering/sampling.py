"""Lowering of GridSample: to MIL's resample if it has the mode, else by gathers."""

from triune.coreml.lowering.context import Context, Lowering, like, static_shape
from triune.coreml.lowering.mb import mb
from triune.graph.conversion.lowering.sampling import grid_sample, mode_of


def _grid_sample(c: Context) -> None:
    x, grid = c.input(0), c.input(1)
    padding = c.attributes.get("padding_mode", "zeros")
    if mode_of(c) != "linear" or x.rank != 4 or padding not in ("zeros", "border"):
        static_shape(x, "the sampled image's shape")
        static_shape(grid, "the grid's shape")
        grid_sample(c)
        return
    sampled = mb.resample(
        x=x,
        coordinates=grid,
        sampling_mode="bilinear",
        padding_mode="constant" if padding == "zeros" else "border",
        padding_value=like(x, 0),
        coordinates_mode="normalized_minus_one_to_one",
        align_corners=bool(c.attributes.get("align_corners", 0)),
    )
    c.give(sampled)


TABLE: dict[str, Lowering] = {"GridSample": _grid_sample}
