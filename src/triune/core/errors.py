"""The error classes. Every error that reaches a client is one of these; each front end translates them in one place."""


class TriuneError(Exception):
    """The root of all errors that Triune raises on purpose. A message says what is wrong, the numbers, and the
    remedy.
    """


class InvalidArgumentError(TriuneError):
    """The request, the configuration or the model file is wrong; sending it again unchanged cannot help."""


class NotFoundError(TriuneError):
    """The named model, version, file or other object does not exist on this server."""


class AlreadyExistsError(TriuneError):
    """The named object exists, and may not be replaced."""


class UnavailableError(TriuneError):
    """A retry may succeed: the model is not ready, a queue is full, a deadline passed, or the server is stopping.

    Attributes:
        retry_after_seconds: the time after which a retry may succeed, at least 1. Clients are told to wait this long.
    """

    def __init__(self, message: str = "", *, retry_after_seconds: int = 1) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


def forget_frames(error: BaseException) -> None:
    """Remove the tracebacks and the causes of an error that was logged or answered, and of its causes.

    The frames of a traceback refer to objects such as a request's body or a model, and some refer to the error itself.
    Only the garbage collector would free these reference cycles, and no memory budget counts them any more.
    """
    left: BaseException | None = error
    while left is not None:
        cause = left.__cause__ or left.__context__
        left.__traceback__ = left.__cause__ = left.__context__ = None
        left = cause


def reworded(error: TriuneError, message: str) -> TriuneError:
    """Make an error of the same class, with the same attributes and another message."""
    # Do not call the class: what its constructor takes differs from class to class.
    again = type(error).__new__(type(error), message)
    again.__dict__.update(error.__dict__)
    return again


class UnsupportedError(TriuneError):
    """The request is well-formed, but this server, model or machine does not support it."""


class UnauthenticatedError(TriuneError):
    """The caller did not send a key that the server accepts."""


class RestrictedError(TriuneError):
    """The caller may not do this: only callers who send a certain header may."""


class CancelledError(TriuneError):
    """The client cancelled the request. Unlike asyncio's CancelledError, this is sent as an answer."""


class InternalError(TriuneError):
    """A defect of Triune, a runtime or a model, which the client did not cause."""


def defect_of(what: str, error: BaseException) -> InternalError:
    """Make the error for an unexpected exception, which is its cause. `what` says what failed: "the model failed"."""
    defect = InternalError(f"{what}: {type(error).__name__}: {error}")
    defect.__cause__ = error
    return defect


class PayloadTooLargeError(InvalidArgumentError):
    """A request, or the content that it declares, is larger than the server's limit."""


class NoMemoryError(UnavailableError):
    """A runtime or Python could not allocate memory.

    Attributes:
        what: what needed the memory, such as "Tile 'y' (given n = [7])"; empty if unknown.
    """

    def __init__(self, message: str, what: str = "") -> None:
        super().__init__(message)
        self.what = what


class NoRoomError(UnavailableError):
    """The memory budget has no room for a model now. It may have room after other models are unloaded."""


class NotRunError(UnavailableError):
    """The model was not run, since its worker is not available now. The request changed nothing, and does not count as
    a run.
    """


class UnitLostError(UnavailableError):
    """The hardware of a unit is gone, or does not compute for this process any more. Other units still can."""


def no_memory(what: str, remedy: str = "send it later, or send less at once") -> NoMemoryError:
    """Make the error for memory that could not be allocated for `what`."""
    return NoMemoryError(f"there is not the memory for {what} now; {remedy}")
