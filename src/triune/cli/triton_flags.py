"""The flags of tritonserver that are not options of `triune serve`, and Triton's syntax for values.

Source: Triton's `command_line_parser.cc` (2.73). Flags that Triune supports are options of `serve` with Triton's name.
The table below has the others. Flags without effect here are accepted, and logged in one line. Flags with an effect
that a user would rely on are refused with the reason.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from typer.core import TyperCommand

from triune.core.errors import InvalidArgumentError, UnsupportedError

_TRUE, _FALSE = frozenset({"true", "1", "on"}), frozenset({"false", "0", "off"})

BOOLEANS = frozenset(
    {
        "allow-http",
        "allow-grpc",
        "allow-metrics",
        "allow-cpu-metrics",
        "playground",
        "strict-readiness",
        "exit-on-error",
        "log-info",
        "log-warning",
        "log-error",
        "reuse-http-port",
        "reuse-grpc-port",
        "grpc-keepalive-permit-without-calls",
        "grpc-relay",
    }
)
"""The boolean options of `serve`, which may be given as `--name`, `--no-name`, `--name=false` and `--name false`."""


def _never(value: str) -> bool:
    return False


def _if_true(value: str) -> bool:
    return as_boolean(value)


def _if_counting(value: str) -> bool:
    return value.lower() != "off"


@dataclass(frozen=True, slots=True)
class OtherFlag:
    """A Triton flag that is not an option of `serve`. Each takes one value.

    Attributes:
        why: why the flag has no effect, or what to do instead.
        is_refused: returns whether a value of the flag must be refused, since ignoring it could harm the user.
    """

    why: str
    is_refused: Callable[[str], bool] = _never


_TLS = "this version serves plain gRPC: let a proxy in front of it speak TLS"
_SAGEMAKER = "this version does not speak SageMaker's protocol: let it be called by KServe's"
_VERTEX = "this version does not speak Vertex AI's protocol: let it be called by KServe's"
_CUDA = "there is no CUDA here"
_CACHE = "the response cache is part of Triune: no shared libraries are loaded"
_TRACE = "this version writes no traces"
_LIBRARIES = "runtimes are part of Triune: no shared libraries are loaded"
_POOLS = "requests and answers are not kept in pools"

OTHER_FLAGS: Mapping[str, OtherFlag] = {
    "allow-client-shm": OtherFlag("this version has no shared memory: send tensors in the request", _if_true),
    "allow-gpu-metrics": OtherFlag("there are no metrics of CUDA's GPUs to leave out"),
    "allow-sagemaker": OtherFlag(_SAGEMAKER, _if_true),
    "allow-vertex-ai": OtherFlag(_VERTEX, _if_true),
    "backend-directory": OtherFlag(_LIBRARIES),
    "buffer-manager-thread-count": OtherFlag("workers join their own inputs"),
    "cache-directory": OtherFlag(_CACHE),
    "cuda-memory-pool-byte-size": OtherFlag(_CUDA),
    "cuda-virtual-address-size": OtherFlag(_CUDA),
    "enable-peer-access": OtherFlag(_CUDA),
    "grpc-header-forward-pattern": OtherFlag("no model here reads headers"),
    "grpc-infer-allocation-pool-size": OtherFlag(_POOLS),
    "grpc-infer-thread-count": OtherFlag("one event loop serves every call"),
    "grpc-max-response-pool-size": OtherFlag(_POOLS),
    "grpc-root-cert": OtherFlag(_TLS),
    "grpc-server-cert": OtherFlag(_TLS),
    "grpc-server-key": OtherFlag(_TLS),
    "grpc-use-ssl": OtherFlag(_TLS, _if_true),
    "grpc-use-ssl-mutual": OtherFlag(_TLS, _if_true),
    "host-policy": OtherFlag("models are not bound to NUMA nodes or cores"),
    "http-header-forward-pattern": OtherFlag("no model here reads headers"),
    "min-supported-compute-capability": OtherFlag(_CUDA),
    "model-load-gpu-limit": OtherFlag(_CUDA),
    "model-namespacing": OtherFlag("a model's name is unique over all repositories: give each its own", _if_true),
    "pinned-memory-pool-byte-size": OtherFlag(_CUDA),
    "rate-limit": OtherFlag("this version shares no resources out between models: use 'off'", _if_counting),
    "rate-limit-resource": OtherFlag("this version shares no resources out between models"),
    "repoagent-directory": OtherFlag(_LIBRARIES),
    "sagemaker-port": OtherFlag(_SAGEMAKER),
    "sagemaker-safe-port-range": OtherFlag(_SAGEMAKER),
    "sagemaker-thread-count": OtherFlag(_SAGEMAKER),
    "trace-config": OtherFlag(_TRACE),
    "trace-count": OtherFlag(_TRACE),
    "trace-file": OtherFlag(_TRACE),
    "trace-level": OtherFlag(_TRACE),
    "trace-log-frequency": OtherFlag(_TRACE),
    "trace-rate": OtherFlag(_TRACE),
    "vertex-ai-default-model": OtherFlag(_VERTEX),
    "vertex-ai-port": OtherFlag(_VERTEX),
    "vertex-ai-thread-count": OtherFlag(_VERTEX),
}


class ServeCommand(TyperCommand):
    """The `serve` command, which accepts every Triton flag. `context.obj` lists the flags without effect."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Translate Triton's syntax with `translate`, then parse as usual."""
        translated, ctx.obj = translate(args)
        return super().parse_args(ctx, translated)


def translate(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Translate Triton's command line to the options of `serve`.

    Returns:
        the arguments, without flags that have no effect and with booleans as `--name` or `--no-name`; and a line for
        each removed flag that says why it has no effect.

    Raises:
        InvalidArgumentError: a boolean's value is not a boolean, or a flag lacks its value.
        UnsupportedError: a flag asks for something that this version cannot do.
    """
    left = list(arguments)
    translated: list[str] = []
    ignored: dict[str, None] = {}
    while left:
        argument = left.pop(0)
        if argument == "--":
            return [*translated, argument, *left], list(ignored)
        name, equals, value = argument.removeprefix("--").partition("=")
        given = value if equals else None
        if not argument.startswith("--"):
            translated.append(argument)
        elif name in BOOLEANS:
            if given is None:
                given = left.pop(0) if left and _is_boolean(left[0]) else "true"
            translated.append(f"--{name}" if _boolean_of(name, given) else f"--no-{name}")
        elif name == "strict-model-config":
            if _boolean_of(name, _value_of(name, given, left)):
                translated.append("--disable-auto-complete-config")
        elif name == "log-verbose":
            given = _value_of(name, given, left)
            translated.append(f"--{name}={int(as_boolean(given)) if _is_boolean(given) else given}")
        elif name in OTHER_FLAGS:
            flag, given = OTHER_FLAGS[name], _value_of(name, given, left)
            if flag.is_refused(given):
                raise UnsupportedError(f"--{name}={given}: {flag.why}")
            ignored[f"--{name} ({flag.why})"] = None
        else:
            translated.append(argument)
    return translated, list(ignored)


def as_boolean(text: str) -> bool:
    """Parse a Triton boolean: true, on or 1; false, off or 0; in upper or lower case.

    Raises:
        InvalidArgumentError: the text is none of these.
    """
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise InvalidArgumentError(f"'{text}' is neither true (on, 1) nor false (off, 0)")


def _is_boolean(text: str) -> bool:
    return text.lower() in _TRUE | _FALSE


def _boolean_of(name: str, text: str) -> bool:
    try:
        return as_boolean(text)
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"--{name}: {error}") from None


def _value_of(name: str, given: str | None, left: list[str]) -> str:
    """The value of a flag: the text after `=`, or else the next argument, which is removed from `left`."""
    if given is not None:
        return given
    if not left:
        raise InvalidArgumentError(f"--{name} takes a value: --{name}=VALUE")
    return left.pop(0)
