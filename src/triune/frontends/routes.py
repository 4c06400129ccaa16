"""HTTP routes, each guarded by the access rule of the API that it belongs to."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from triune.frontends.access import Api, Rules

Endpoint = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class ApiRoute:
    """A route of an API. Front ends declare these; only `guarded` makes routes that can be served.

    Attributes:
        api: the API that the route belongs to, whose rule callers must satisfy.
        path: the path, in Starlette's notation.
        endpoint: answers a request.
        methods: the allowed HTTP methods.
    """

    api: Api
    path: str
    endpoint: Endpoint
    methods: tuple[str, ...] = ("GET",)

    def guarded(self, rules: Rules) -> Route:
        """Make a route that checks the access rule before any of the body is read.

        A caller without access gets the error of `Rule.check`, as the app's exception handlers answer it.
        """
        rule = rules.get(self.api)
        if rule is None:
            return Route(self.path, self.endpoint, methods=self.methods)
        endpoint = self.endpoint

        async def checked(request: Request) -> Response:
            rule.check(request.headers.getlist(rule.header))
            return await endpoint(request)

        return Route(self.path, checked, methods=self.methods)
