"""The environment of chat templates: jinja2's immutable sandbox, in which all work is charged to a budget.

jinja2's sandbox prevents a template from reaching other objects of the process. It does not prevent endless loops, or
short code that fills the memory. Therefore loops, calls, operations, filters and outputs are charged here. Nothing is
computed when a template is compiled, and only the filters and methods that are listed can be used.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, cast

from jinja2 import nodes, pass_context
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

from triune.engine.weights.tokenizer.filters import FILTERS, budget_of

_TEXT_METHODS: Final = frozenset(
    {
        "capitalize", "casefold", "count", "endswith", "find", "format", "index", "isalnum", "isalpha", "isdecimal",
        "isdigit", "islower", "isnumeric", "isspace", "istitle", "isupper", "join", "lower", "lstrip", "partition",
        "removeprefix", "removesuffix", "replace", "rfind", "rindex", "rpartition", "rsplit", "rstrip", "split",
        "splitlines", "startswith", "strip", "swapcase", "title", "upper",
    }
)  # fmt: skip
"""The string methods that templates may call. Methods that pad to a width given as an argument are not allowed: center,
ljust, rjust, zfill, expandtabs.
"""
_METHODS: Final[tuple[tuple[type, frozenset[str]], ...]] = (
    (str, _TEXT_METHODS),
    (Mapping, frozenset({"copy", "get", "items", "keys", "values"})),
    (list, frozenset({"copy", "count", "index"})),
    (tuple, frozenset({"count", "index"})),
    # No methods of numbers are allowed, since `to_bytes` could write any number of bytes.
    (int, frozenset()),
    (float, frozenset()),
)


class Sandbox(ImmutableSandboxedEnvironment):
    """The environment of one template. Its methods charge the template's work to the budget of the rendering."""

    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "%", "**"})

    def __init__(self, filters: Mapping[str, Callable[..., Any]], functions: Mapping[str, Callable[..., Any]]) -> None:
        """Args:
        filters: filters that templates can use besides jinja2's own. Each takes the context first, and subtracts its
            cost from the rendering's budget (`budget_of`).
        functions: functions that templates can call besides `range`, `dict` and `namespace`.
        """
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,
            finalize=_charged_output,
            extensions=[_Generation, loopcontrols],
        )
        self.filters = {**FILTERS, **filters}
        self.globals = {name: self.globals[name] for name in ("range", "dict", "namespace")} | dict(functions)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Whether a template may read the attribute `attr` of an object."""
        if not super().is_safe_attribute(obj, attr, value):
            return False
        return next((attr in names for kind, names in _METHODS if isinstance(obj, kind)), True)

    def unsafe_undefined(self, obj: Any, attribute: str) -> Undefined:
        """Refuse an attribute that a template may not read, even if the template would only print it."""
        raise SecurityError(f"it asks for {attribute!r} of a {type(obj).__name__}")

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call a function or method for a template, after charging the cost of the call to the template's budget."""
        budget = budget_of(context)
        budget.step()
        owner = getattr(obj, "__self__", None)
        if isinstance(owner, str):
            match getattr(obj, "__name__", ""):
                case "join" if args:
                    args = (budget.charge_join(owner, args[0]), *args[1:])
                case "replace" if len(args) >= 2:
                    budget.charge_replace(owner, str(args[0]), str(args[1]))
                case _:
                    budget.charge(len(owner))
        elif isinstance(obj, type):
            budget.charge_text(*args, *kwargs.values())
        return super().call(context, obj, *args, **kwargs)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """Return a safe replacement for the method `format` of a text, which could reach other objects, too, and write
        long texts.
        """
        wrapped = super().wrap_str_format(value)
        if wrapped is None:
            return None
        pattern, format_it = cast("str", value.__self__), wrapped

        @pass_context
        def charged(context: Context, *args: Any, **kwargs: Any) -> str:
            budget_of(context).charge_format(pattern, *args, *kwargs.values())
            return format_it(*args, **kwargs)

        return charged

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Compute an operation of a template, and charge it before."""
        budget_of(context).charge_operation(operator, left, right)
        return super().call_binop(context, operator, left, right)

    def _generate(
        self, source: nodes.Template, name: str | None, filename: str | None, defer_init: bool = False
    ) -> str:
        _charge_nodes(source)
        return super()._generate(source, name, filename, defer_init)

    @staticmethod
    @pass_context
    def counted(context: Context, values: Any) -> Iterator[Any]:
        """Yield the elements that a loop goes through, and charge a step for each."""
        if isinstance(values, Undefined):
            return iter(values)
        return budget_of(context).counted(cast("Iterable[Any]", values))

    @staticmethod
    @pass_context
    def charged(context: Context, value: Any) -> Any:
        """Charge the text of a value, which is a part of a joined text or a new list, and return the value."""
        budget_of(context).charge_text(value)
        return value


class _Generation(Extension):
    """The tag `{% generation %}`, which marks the assistant's text for training."""

    tags = {"generation"}  # noqa: RUF012  jinja2's own type.

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _charge_nodes(template: nodes.Template) -> None:
    """Insert calls of `counted` around the values of loops, and of `charged` around parts of joined texts and new
    lists.
    """
    for loop in template.find_all(nodes.For):
        loop.iter = _call("counted", cast("nodes.Expr", loop.iter))
    for joined in template.find_all(nodes.Concat):
        joined.nodes = [_charge(part) for part in joined.nodes]
    for made in list(template.find_all((nodes.List, nodes.Tuple))):
        # Only tuples that are read are charged: one that is the target of an assignment creates no new tuple.
        if made.items and getattr(made, "ctx", "load") == "load":
            made.items = [_charge(item) for item in made.items]
    for pair in list(template.find_all(nodes.Pair)):
        pair.value = _charge(pair.value)


def _charge(part: nodes.Expr) -> nodes.Expr:
    # Constants in the template need no charge: they are not longer than the template.
    return part if isinstance(part, nodes.Const) else _call("charged", part)


def _call(name: str, argument: nodes.Expr) -> nodes.Call:
    call = nodes.Call(nodes.EnvironmentAttribute(name), [argument], [], None, None)
    call.set_lineno(argument.lineno)
    call.set_environment(cast("Any", argument.environment))
    return call


@pass_context
def _charged_output(context: Context, value: Any) -> Any:
    budget_of(context).charge_text(value)
    return value
