import io
import json
from pathlib import Path

import pytest

from support.text_models import write_adapter, write_text_model
from triune import cli
from triune.backends.transformer.backend import missing_for_transformers

if reason := missing_for_transformers():
    pytest.skip(reason, allow_module_level=True)

TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_text_model(tmp_path_factory.mktemp("text") / "small" / "1")
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


def triune(monkeypatch: pytest.MonkeyPatch, *arguments: object, given: str = "") -> int:
    """A command in this process. Returns the exit code."""
    monkeypatch.setattr("sys.argv", ["triune", *map(str, arguments)])
    monkeypatch.setattr("sys.stdin", io.StringIO(given))
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as ending:
        cli.main()
    return int(ending.value.code or 0)


def test_generate_writes_the_answer_and_tells_its_rate(monkeypatch, capsys, folder) -> None:
    assert triune(monkeypatch, "generate", folder, "abc", "--max-tokens", 9, "--json", "--unit", "cpu") == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["unit"], report["runtime"], report["prompt_tokens"]) == ("cpu", "openvino", 3)
    assert len(report["tokens"]) <= 9
    # A model's folder stands for its newest version.
    assert triune(monkeypatch, "generate", folder.parent, "-", "--max-tokens", 9, "--unit", "cpu", given="abc") == 0
    shown = capsys.readouterr()
    printable = "".join(each for each in report["text"] if each.isprintable() or each in "\n\t")
    assert shown.out.strip("\n") == printable.strip("\n")
    assert f"{len(report['tokens'])} tokens, " in shown.err
    assert "on cpu (openvino, fp32)" in shown.err


def test_an_adapter_is_one_of_the_models_or_a_folder(monkeypatch, capsys, tmp_path) -> None:
    folder = write_text_model(tmp_path / "small" / "1")
    write_adapter(folder / "adapters" / "poet", 1)
    lawyer = write_adapter(tmp_path / "lawyer", 2)
    answers: list[list[int]] = []
    for chosen in ([], ["--adapter", "poet"], ["--adapter", lawyer]):
        assert triune(monkeypatch, "generate", folder, "abc", "--max-tokens", 9, "--json", *chosen) == 0
        answers.append(json.loads(capsys.readouterr().out)["tokens"])
    assert answers[0] != answers[1] != answers[2] != answers[0]
    assert triune(monkeypatch, "generate", folder, "abc", "--adapter", "pirate") == 1
    assert "the LoRA adapter 'pirate' is unknown; this model has poet" in capsys.readouterr().err


def test_a_draft_model_guesses(monkeypatch, capsys, folder, tmp_path) -> None:
    draft = write_text_model(tmp_path / "draft" / "1").parent
    assert triune(monkeypatch, "generate", folder, "abc", "--max-tokens", 40, "--json", "--draft", draft) == 0
    assert len(json.loads(capsys.readouterr().out)["tokens"]) == 40
    assert triune(monkeypatch, "generate", folder, "abc", "--draft", tmp_path / "nowhere") == 1
    assert "nowhere" in capsys.readouterr().err


def test_generate_stops_at_a_text(monkeypatch, capsys, folder) -> None:
    triune(monkeypatch, "generate", folder, "abc", "--max-tokens", 9, "--json")
    text = json.loads(capsys.readouterr().out)["text"]
    triune(monkeypatch, "generate", folder, "abc", "--max-tokens", 9, "--json", "--stop", text[3])
    report = json.loads(capsys.readouterr().out)
    assert report["text"] == text[: text.index(text[3])]
    assert report["finish_reason"] == "stop"


def test_wrong_words_are_told(monkeypatch, capsys, folder) -> None:
    assert triune(monkeypatch, "generate", "missing", "abc") == 1
    assert "'missing' is no file and no folder; give one, or 'smollm2'" in capsys.readouterr().err
    assert triune(monkeypatch, "generate", folder, "abc", "--temperature", -1) == 1
    assert "temperature is -1.0; it must be between 0 and 100" in capsys.readouterr().err


def test_a_conversation_remembers_until_it_is_begun_anew(monkeypatch, capsys, folder) -> None:
    options = ["--max-tokens", 4, "--temperature", 0]
    assert triune(monkeypatch, "chat", folder, *options, given="hi\nhi\n/new\nhi\n/help\n/exit\nnever\n") == 0
    shown = capsys.readouterr()
    first, second, third = shown.out.splitlines()[:3]
    assert first == third
    assert second != first, "the second answer knows the first"
    assert shown.err.count("/new begins a new conversation") == 2
    assert shown.err.count("; on ") == 3


def test_a_conversation_longer_than_the_context_is_told_and_goes_on(monkeypatch, capsys, folder) -> None:
    given = f"{'long ' * 40}\nhi\n"
    assert triune(monkeypatch, "chat", folder, "--max-tokens", 4, given=given) == 0
    shown = capsys.readouterr()
    assert "context of 96" in shown.err
    assert shown.err.count("; on ") == 1
