"""The commands. Each is imported only when it is used, so that `serve` does not import the converters."""

from collections.abc import Callable
from typing import Any, TypeAlias

import typer
from typer.core import TyperCommand, TyperGroup

Loaded: TypeAlias = tuple[Callable[..., None], type[TyperCommand] | None]
"""A command's function, and its own click class if it has one."""


def _serve() -> Loaded:
    from triune.cli.serve import serve
    from triune.cli.triton_flags import ServeCommand

    return serve, ServeCommand


def _demo() -> Loaded:
    from triune.cli.demo import demo

    return demo, None


def _units() -> Loaded:
    from triune.cli.units import units

    return units, None


def _models() -> Loaded:
    from triune.cli.models import models

    return models, None


def _infer() -> Loaded:
    from triune.cli.infer import infer

    return infer, None


def _convert() -> Loaded:
    from triune.cli.convert import convert

    return convert, None


def _optimize() -> Loaded:
    from triune.cli.optimize import optimize

    return optimize, None


def _compress() -> Loaded:
    from triune.cli.compress import compress

    return compress, None


def _plan() -> Loaded:
    from triune.cli.plan import plan

    return plan, None


def _simulate() -> Loaded:
    from triune.cli.simulate import simulate

    return simulate, None


def _tune() -> Loaded:
    from triune.cli.tune import tune

    return tune, None


def _predict() -> Loaded:
    from triune.cli.predict import predict

    return predict, None


def _generate() -> Loaded:
    from triune.cli.generate import generate

    return generate, None


def _chat() -> Loaded:
    from triune.cli.chat import chat

    return chat, None


_LOADERS: dict[str, Callable[[], Loaded]] = {
    "serve": _serve,
    "demo": _demo,
    "units": _units,
    "models": _models,
    "infer": _infer,
    "chat": _chat,
    "generate": _generate,
    "plan": _plan,
    "simulate": _simulate,
    "convert": _convert,
    "optimize": _optimize,
    "compress": _compress,
    "tune": _tune,
    "predict": _predict,
}


class Commands(TyperGroup):
    """The click group of all commands."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The names of the commands, in the order of the help text."""
        return list(_LOADERS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Get a command by name; None if the name is unknown."""
        if cmd_name not in _LOADERS:
            return None
        function, kind = _LOADERS[cmd_name]()
        alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        alone.command(cmd_name, cls=kind)(function)
        return typer.main.get_command(alone)
