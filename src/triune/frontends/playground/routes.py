"""The HTTP routes of the playground: its page, and the files and data that the page loads."""

from starlette.requests import Request
from starlette.responses import Response

from triune.frontends.access import Api
from triune.frontends.bodies.responses import JsonResponse
from triune.frontends.playground.files import PageFiles
from triune.frontends.playground.machine import PageMachine
from triune.frontends.playground.overview import PlaygroundModels, overview
from triune.frontends.routes import ApiRoute


def playground_routes(models: PlaygroundModels, machine: PageMachine | None = None) -> list[ApiRoute]:
    """Make the routes.

    The files of the page are open to everybody: they are the same on every server, and a browser that opens a page has
    no way to send a key. The page's own requests follow the access rules of the APIs that they call.

    Args:
        models: the server.
        machine: the machine's units and meters; None shows none.
    """
    page = PageFiles()

    async def show_models(request: Request) -> Response:
        return JsonResponse(await overview(models, machine), headers={"Cache-Control": "no-store"})

    return [
        ApiRoute(None, "/", page.page),
        ApiRoute(Api.STATISTICS, "/playground/models", show_models),
        ApiRoute(None, "/playground/{file}", page.file),
    ]
