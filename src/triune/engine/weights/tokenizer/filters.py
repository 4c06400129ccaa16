"""The filters of chat templates: jinja2's, each charged to the budget of the rendering before it creates its text."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, cast

from jinja2 import pass_context
from jinja2.filters import FILTERS as JINJA2_FILTERS
from jinja2.runtime import Context

from triune.engine.weights.tokenizer.budget import Budget

BUDGET: Final = " budget"
"""The name of the variable that holds the budget. A template cannot read it, since no name in a template has a
space.
"""

_THEIRS: Final = cast("Mapping[str, Callable[..., Any]]", JINJA2_FILTERS)
_OF_TEXTS: Final = frozenset(
    {
        "capitalize", "e", "escape", "lower", "safe", "string", "title", "trim", "truncate", "upper", "urlencode",
        "wordcount",
    }
)  # fmt: skip
"""Filters whose result is about as long as their operands: the length of the operands is charged to the budget."""
_OTHERS: Final = frozenset(
    {
        "abs", "attr", "count", "d", "default", "dictsort", "first", "float", "groupby", "int", "items", "last",
        "length", "list", "map", "max", "min", "reject", "rejectattr", "reverse", "round", "select", "selectattr",
        "sort", "unique",
    }
)  # fmt: skip


def budget_of(context: Context) -> Budget:
    """The budget of the rendering to which a context belongs."""
    return cast("Budget", context.parent[BUDGET])


def _charged(name: str, apply: Callable[..., Any]) -> Callable[..., Any]:
    passes = getattr(apply, "jinja_pass_arg", None)

    @pass_context
    def charged(context: Context, value: Any, *args: Any, **kwargs: Any) -> Any:
        budget = budget_of(context)
        budget.step()
        if name in _OF_TEXTS:
            budget.charge_text(value, *args)
        given = {"context": context, "eval_context": context.eval_ctx, "environment": context.environment}
        before = () if passes is None else (given[passes.name],)
        result = apply(*before, value, *args, **kwargs)
        if isinstance(result, (list, tuple)):
            budget.charge(len(cast("list[object]", result)))
        return cast("object", result)

    return charged


@pass_context
def _join(context: Context, value: Any, d: str = "", attribute: str | int | None = None) -> str:
    budget = budget_of(context)
    if attribute is not None:
        value = context.environment.call_filter("map", value, kwargs={"attribute": attribute}, context=context)
    items = budget.charge_join(str(d), value)
    return str(d).join(str(item) for item in cast("Iterable[object]", items))


@pass_context
def _replace(context: Context, s: Any, old: Any, new: Any, count: int | None = None) -> str:
    text = str(s)
    budget_of(context).charge_replace(text, str(old), str(new))
    return text.replace(str(old), str(new), -1 if count is None else count)


@pass_context
def _indent(context: Context, s: str, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    size = width if isinstance(width, int) else len(width)
    budget_of(context).charge(len(s) + max(0, size) * (1 + len(s.splitlines())))
    return cast("str", _THEIRS["indent"](s, width, first, blank))


@pass_context
def _format(context: Context, value: Any, *args: Any, **kwargs: Any) -> str:
    budget_of(context).charge_format(str(value), *args, *kwargs.values())
    return str(value) % (kwargs or args)


@pass_context
def _sum(context: Context, iterable: Any, attribute: str | int | None = None, start: float = 0) -> float:
    if attribute is not None:
        iterable = context.environment.call_filter("map", iterable, kwargs={"attribute": attribute}, context=context)
    # Only numbers are added: a sum of lists would copy them again and again.
    return start + sum(float(each) if isinstance(each, float) else int(each) for each in iterable)


FILTERS: Final[Mapping[str, Callable[..., Any]]] = {
    **{name: _charged(name, _THEIRS[name]) for name in _OF_TEXTS | _OTHERS},
    "join": _join,
    "replace": _replace,
    "indent": _indent,
    "format": _format,
    "sum": _sum,
}
"""The jinja2 filters of templates, by name. Each charges its work to the budget."""
