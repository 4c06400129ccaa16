"""The version in the path of a request."""

from starlette.requests import Request

from triune.core.errors import NotFoundError
from triune.frontends.limits import MAX_VERSION_DIGITS, shortened


def version_of(request: Request) -> int | None:
    """The model version in the path; None if there is none.

    Raises:
        NotFoundError: the version in the path is not a number.
    """
    text: str | None = request.path_params.get("version")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= MAX_VERSION_DIGITS):
        raise NotFoundError(f"model '{request.path_params['model'][:64]}' has no version '{shortened(text)}'")
    return int(text)
