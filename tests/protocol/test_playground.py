"""The files of the page at `/` and its list of models, from a real server."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from support.process import Served, serve
from support.repositories import affine, write_model

FILES = {
    "/": "text/html; charset=utf-8",
    "/playground/page.css": "text/css; charset=utf-8",
    "/playground/main.js": "text/javascript; charset=utf-8",
    "/playground/icon.svg": "image/svg+xml",
}
KEY = {"Authorization": "Bearer rose-7Q"}


def ask(
    served: Served, path: str, headers: Mapping[str, str] | None = None, method: str = "GET"
) -> tuple[int, Any, bytes]:
    request = urllib.request.Request(f"http://{served.http}{path}", headers=dict(headers or {}), method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("models")
    write_model(made, "affine", v1=affine())
    (made / "broken" / "1").mkdir(parents=True)
    (made / "broken" / "1" / "model.onnx").write_bytes(b"nonsense")
    return made


@pytest.fixture(scope="module")
def keyed(folder: Path) -> Iterator[Served]:
    with serve(folder, "--api-key=rose-7Q") as running:
        yield running


@pytest.mark.parametrize(("path", "kind"), FILES.items())
def test_files_are_open_and_held_to_a_policy(keyed: Served, path: str, kind: str) -> None:
    status, headers, content = ask(keyed, path)
    assert (status, headers["Content-Type"]) == (200, kind)
    assert content
    policy = [each.strip() for each in headers["Content-Security-Policy"].split(";")]
    assert policy[:4] == ["default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'"]
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-cache"


@pytest.mark.parametrize("path", FILES)
def test_a_browser_keeps_files_while_they_are_the_same(keyed: Served, path: str) -> None:
    _, headers, content = ask(keyed, path)
    tag = headers["ETag"]
    for known in (tag, f"W/{tag}", f'"other", {tag}'):
        status, again, nothing = ask(keyed, path, {"If-None-Match": known})
        assert (status, again["ETag"], nothing) == (304, tag, b"")
    assert ask(keyed, path, {"If-None-Match": '"other"'})[2] == content
    status, head, nothing = ask(keyed, path, method="HEAD")
    assert (status, head["ETag"], int(head["Content-Length"]), nothing) == (200, tag, len(content), b"")


def test_no_other_file_and_no_other_method(keyed: Served) -> None:
    for path in ("/playground/nothing.js", "/playground/routes.py", "/playground/..%2froutes.py", "/playground/"):
        assert ask(keyed, path)[0] == 404
    assert ask(keyed, "/", method="POST")[0] == 405


def test_the_list_of_models_asks_for_a_key(keyed: Served) -> None:
    status, headers, _ = ask(keyed, "/playground/models")
    assert (status, headers["WWW-Authenticate"]) == (401, "Bearer")
    status, headers, content = ask(keyed, "/playground/models", KEY)
    assert (status, headers["Cache-Control"]) == (200, "no-store")
    document = json.loads(content)
    assert document["server"]["name"] == "triune"
    good, broken = document["models"]
    assert (good["name"], good["version"], good["state"], good["reason"]) == ("affine", 1, "READY", "")
    assert (good["requests"], good["failures"], good["kinds"]) == (0, {}, [])
    assert [(each["unit"], each["precision"], each["is_emulated"]) for each in good["units"]] == [
        ("cpu", "fp32", False)
    ]
    assert (broken["name"], broken["state"]) == ("broken", "UNAVAILABLE")
    assert "not an ONNX model" in broken["reason"]
    assert "units" not in broken
    machine = document["machine"]
    assert machine["power"]["mode"] == "balanced"
    assert [each["unit"] for each in machine["units"]] == ["cpu", "amx", "gpu", "ane"]
    assert machine["units"][0]["models"] == 1
    assert machine["units"][0]["power"]["kind"] in ("measured", "estimated", "unavailable")


def test_it_can_be_left_out(folder: Path) -> None:
    with serve(folder, "--playground=false") as running:
        for path in (*FILES, "/playground/models"):
            assert ask(running, path)[0] == 404
        assert ask(running, "/v2")[0] == 200


def test_everything_that_the_page_names_is_there(keyed: Served) -> None:
    """Every file that the page or one of its modules names is served; none is from elsewhere."""
    import re

    wanted, seen = ["/"], set[str]()
    while wanted:
        path = wanted.pop()
        if path in seen:
            continue
        seen.add(path)
        status, headers, content = ask(keyed, path)
        assert status == 200, path
        text = content.decode()
        if "html" in headers["Content-Type"]:
            assert not re.search(r"<script(?![^>]* src=)|<style| style=| on\w+=", text)
            wanted += re.findall(r"(?:href|src)=\"(/[^\"]*)\"", text)
        assert not re.findall(r"(?:href|src|from|url)[=(\s]*[\"']?(?:https?:)?//", text)
        wanted += [f"/playground/{each}" for each in re.findall(r"from \"\./([^\"]+)\"", text)]
    assert len(seen) >= 9
