"""HTTP routes, each guarded by the access rule of the API that it belongs to."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Match, Route

from triune.core.errors import InvalidArgumentError, NotFoundError, forget_frames
from triune.frontends.access import Api, Rule, Rules

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

_SHOWN_CHARACTERS = 64

Endpoint = Callable[[Request], Awaitable[Response]]
ErrorAnswer = Callable[[Exception], Response]
"""Makes the response to an error, in the form of an API. An exception that is not a TriuneError is a defect of the
server: it is logged.
"""


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
                response = answer_error(error)
                forget_frames(error)
                return response

        return Route(self.path, checked, methods=self.methods)

    def _keys_of(self, request: Request, rule: Rule) -> list[str]:
        keys = request.headers.getlist(rule.header)
        if self.key_header and rule.scheme:
            keys += [rule.scheme + key for key in request.headers.getlist(self.key_header)]
        return keys


def otherwise(path: str, routes: Sequence[ApiRoute], answer_error: ErrorAnswer) -> ApiRoute:
    """Make the route for requests that no other route of an API takes: 404 for unknown paths, 405 for wrong methods.

    Without it, the app would answer these in KServe's form, which clients of other APIs cannot read.

    Args:
        path: the paths of the API, `/v1/{rest:path}` for example. The route must come after `routes`.
        routes: the API's routes.
        answer_error: makes the response.
    """
    known = [Route(each.path, each.endpoint, methods=each.methods) for each in routes]

    async def endpoint(request: Request) -> Response:
        asked = f"{request.method} {request.url.path[:_SHOWN_CHARACTERS]}"
        methods = [each.methods or set[str]() for each in known if each.matches(request.scope)[0] is not Match.NONE]
        allowed = ", ".join(sorted(set[str]().union(*methods)))
        if not allowed:
            paths = ", ".join(dict.fromkeys(each.path for each in routes))
            return answer_error(NotFoundError(f"there is no {asked}; the paths are {paths}"))
        response = answer_error(InvalidArgumentError(f"{asked} is not allowed; use {allowed}"))
        response.status_code = 405
        response.headers["Allow"] = allowed
        return response

    return ApiRoute(None, path, endpoint, _METHODS)
