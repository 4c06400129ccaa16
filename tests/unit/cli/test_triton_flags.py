import re

import pytest

from triune.cli.commands import Commands
from triune.cli.triton_flags import BOOLEANS, OTHER_FLAGS, translate
from triune.core.errors import InvalidArgumentError, UnsupportedError

# Every flag of tritonserver 2.73, out of its command_line_parser.cc.
TRITONSERVER = (
    "allow-client-shm allow-cpu-metrics allow-gpu-metrics allow-grpc allow-http allow-metrics allow-sagemaker "
    "allow-vertex-ai backend-config backend-directory buffer-manager-thread-count cache-config cache-directory "
    "cuda-memory-pool-byte-size cuda-virtual-address-size disable-auto-complete-config enable-peer-access "
    "exit-on-error exit-timeout-secs grpc-address grpc-header-forward-pattern grpc-http2-max-ping-strikes "
    "grpc-http2-max-pings-without-data grpc-http2-min-recv-ping-interval-without-data "
    "grpc-infer-allocation-pool-size grpc-infer-response-compression-level grpc-infer-thread-count "
    "grpc-keepalive-permit-without-calls grpc-keepalive-time grpc-keepalive-timeout grpc-max-connection-age "
    "grpc-max-connection-age-grace grpc-max-response-pool-size grpc-port grpc-restricted-protocol grpc-root-cert "
    "grpc-server-cert grpc-server-key grpc-use-ssl grpc-use-ssl-mutual help host-policy http-address "
    "http-header-forward-pattern http-max-input-size http-port http-restricted-api http-thread-count id load-model "
    "log-error log-file log-format log-info log-verbose log-warning metrics-address metrics-config "
    "metrics-interval-ms metrics-port min-supported-compute-capability model-config-name model-control-mode "
    "model-load-gpu-limit model-load-retry-count model-load-thread-count model-namespacing model-repository "
    "model-store pinned-memory-pool-byte-size rate-limit rate-limit-resource repoagent-directory "
    "repository-poll-secs response-cache-byte-size reuse-grpc-port reuse-http-port sagemaker-port "
    "sagemaker-safe-port-range sagemaker-thread-count strict-model-config strict-readiness trace-config trace-count "
    "trace-file trace-level trace-log-frequency trace-rate vertex-ai-default-model vertex-ai-port "
    "vertex-ai-thread-count "
)


def options_of_serve() -> set[str]:
    serve = Commands().get_command(None, "serve")
    return {name.removeprefix("--") for each in serve.params for name in (*each.opts, *each.secondary_opts)}


def test_every_flag_of_tritonserver_is_an_option_or_in_the_table() -> None:
    known = options_of_serve() | {"help", "strict-model-config"}
    assert [name for name in TRITONSERVER.split() if name not in known and name not in OTHER_FLAGS] == []
    assert not known & OTHER_FLAGS.keys(), "a flag that is supported has no business in the table"
    serve = Commands().get_command(None, "serve")
    both = {each.opts[0].removeprefix("--") for each in serve.params if each.secondary_opts}
    assert both == BOOLEANS, "each option with a --no- takes Triton's forms"
    assert set(TRITONSERVER.split()) >= OTHER_FLAGS.keys()


@pytest.mark.parametrize("text", ["true", "TRUE", "True", "1", "on"])
@pytest.mark.parametrize("name", sorted(BOOLEANS))
def test_booleans_take_tritons_forms(name: str, text: str) -> None:
    assert translate([f"--{name}={text}"]) == ([f"--{name}"], [])
    assert translate([f"--{name}", text, "--id=x"]) == ([f"--{name}", "--id=x"], [])


@pytest.mark.parametrize("text", ["false", "FALSE", "False", "0", "off"])
def test_false_is_no(text: str) -> None:
    assert translate([f"--allow-http={text}"]) == (["--no-allow-http"], [])
    assert translate(["--strict-readiness", text]) == (["--no-strict-readiness"], [])


def test_a_boolean_alone_is_true_and_takes_nothing_else() -> None:
    assert translate(["--exit-on-error", "--http-port", "1"]) == (["--exit-on-error", "--http-port", "1"], [])
    assert translate(["--no-allow-http", "0"]) == (["--no-allow-http", "0"], [])


def test_deprecated_and_half_boolean_flags() -> None:
    assert translate(["--strict-model-config=true"]) == (["--disable-auto-complete-config"], [])
    assert translate(["--strict-model-config", "false"]) == ([], [])
    assert translate(["--log-verbose=True", "--log-verbose", "2"]) == (["--log-verbose=1", "--log-verbose=2"], [])


def test_what_has_no_effect_is_taken_with_its_value_and_told_once() -> None:
    flags = ["--pinned-memory-pool-byte-size", "1000", "--host-policy=a,b=1", "--host-policy", "a,b=2"]
    translated, ignored = translate(["--id=x", *flags, "--allow-sagemaker=false", "--", "--rate-limit"])
    assert translated == ["--id=x", "--", "--rate-limit"]
    assert [each.split(" ")[0] for each in ignored] == [
        "--pinned-memory-pool-byte-size",
        "--host-policy",
        "--allow-sagemaker",
    ]


@pytest.mark.parametrize(
    ("flag", "reason"),
    [
        ("--grpc-use-ssl=true", "let a proxy in front of it speak TLS"),
        ("--grpc-use-ssl-mutual=1", "let a proxy in front of it speak TLS"),
        ("--allow-client-shm=true", "send tensors in the request"),
        ("--model-namespacing=true", "unique over all repositories"),
        ("--rate-limit=execution_count", "use 'off'"),
        ("--allow-vertex-ai=True", "does not speak Vertex AI's protocol"),
    ],
)
def test_the_impossible_says_why(flag: str, reason: str) -> None:
    with pytest.raises(UnsupportedError, match=re.escape(flag) + ".*" + re.escape(reason)):
        translate([flag])


@pytest.mark.parametrize("flag", ["--allow-http=maybe", "--strict-model-config=2", "--grpc-use-ssl=x", "--host-policy"])
def test_wrong_and_missing_values_are_refused(flag: str) -> None:
    with pytest.raises(InvalidArgumentError):
        translate([flag])
