"""Access control for gRPC methods."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from triune.core.errors import TriuneError
from triune.frontends.access import Rule
from triune.frontends.kserve.grpc.status import Context, abort

GivenT = TypeVar("GivenT")
AnswerT = TypeVar("AnswerT")


def guarded(
    method: Callable[[GivenT, Context], Awaitable[AnswerT]], rule: Rule | None
) -> Callable[[GivenT, Context], Awaitable[AnswerT]]:
    """Wrap a method so that calls without the header of `rule` are aborted; without a rule, return it unchanged."""
    if rule is None:
        return method

    async def checked(given: GivenT, context: Context) -> AnswerT:
        try:
            rule.check([value for name, value in context.invocation_metadata() or () if name == rule.header])
        except TriuneError as error:
            del given
            await abort(context, error)
        return await method(given, context)

    return checked
