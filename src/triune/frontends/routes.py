"""HTTP routes, each guarded by the access rule of the API that it belongs to."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from triune.frontends.access import Api, Rule, Rules

Endpoint = Callable[[Request], Awaitable[Response]]
ErrorAnswer = Callable[[Exception], Response]
"""Makes the response to an error, in the form of an API. Whatever is not a TriuneError is a defect: it is logged."""


@dataclass(frozen=True, slots=True)
class ApiRoute:
    """A route of an API. Front ends declare these; only `guarded` makes routes that can be served.

    Attributes:
        api: the API that the route belongs to, whose rule callers must satisfy; None for what everybody may read.
        path: the path, in Starlette's notation.
        endpoint: answers a request.
        methods: the allowed HTTP methods.
        answer_error: makes the response to an error of the endpoint or of the access rule; None leaves errors to the
            app's exception handlers.
        key_header: a header that may carry the API key in place of `Authorization: Bearer KEY`, without a scheme; ""
            for none.
    """

    api: Api | None
    path: str
    endpoint: Endpoint
    methods: tuple[str, ...] = ("GET",)
    answer_error: ErrorAnswer | None = None
    key_header: str = ""

    def guarded(self, rules: Rules) -> Route:
        """Make a route that checks the access rule before any of the body is read.

        A caller without access gets the error of `Rule.check`, as `answer_error` or the app's exception handlers answer
        it.
        """
        rule = rules.get(self.api) if self.api is not None else None
        endpoint, answer_error = self.endpoint, self.answer_error
        if rule is None and answer_error is None:
            return Route(self.path, endpoint, methods=self.methods)

        async def checked(request: Request) -> Response:
            try:
                if rule is not None:
                    rule.check(self._keys_of(request, rule))
                return await endpoint(request)
            except (HTTPException, ClientDisconnect):
                raise
            except Exception as error:
                if answer_error is None:
                    raise
                return answer_error(error)

        return Route(self.path, checked, methods=self.methods)

    def _keys_of(self, request: Request, rule: Rule) -> list[str]:
        keys = request.headers.getlist(rule.header)
        if self.key_header and rule.scheme:
            keys += [rule.scheme + key for key in request.headers.getlist(self.key_header)]
        return keys
