"""The error tree. Every error that a client may see is one of these; each front end translates them once."""


class TriuneError(Exception):
    """The root of all errors that Triune raises on purpose. Its message is for the user: what, numbers, remedy."""


class InvalidArgumentError(TriuneError):
    """The request, the configuration or the model file is wrong; sending it again unchanged cannot help."""


class NotFoundError(TriuneError):
    """The named thing does not exist here."""


class AlreadyExistsError(TriuneError):
    """The named thing exists and may not be replaced."""


class UnavailableError(TriuneError):
    """A retry may succeed: the model is not ready, a queue is full, a deadline passed, or the server is stopping."""


class UnsupportedError(TriuneError):
    """The request is well-formed, but this server, model or machine does not support it."""


class UnauthenticatedError(TriuneError):
    """The caller did not show a key that the server takes."""


class RestrictedError(TriuneError):
    """The caller may not do this: it is restricted to those who send a certain header."""


class CancelledError(TriuneError):
    """The client cancelled the request. Unlike asyncio's CancelledError, this is an answer."""


class InternalError(TriuneError):
    """A defect of Triune, a runtime or a model, which the client did not cause."""


class PayloadTooLargeError(InvalidArgumentError):
    """A request, or what it claims to hold, is larger than the server's limit."""


class NoMemoryError(UnavailableError):
    """A runtime or Python could not allocate memory.

    Attributes:
        what: what needed the memory: "Tile 'y' (given n = [7])"; empty if unknown.
    """

    def __init__(self, message: str, what: str = "") -> None:
        super().__init__(message)
        self.what = what


def no_memory(what: str, remedy: str = "send it later, or send less at once") -> NoMemoryError:
    """The error that Python could not allocate memory for `what`."""
    return NoMemoryError(f"there is not the memory for {what} now; {remedy}")
