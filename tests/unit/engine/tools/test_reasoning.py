"""Reasoning before an answer is found, wherever the text is divided."""

import pytest

from triune.engine.tools.reasoning import ReasoningReader, is_open_after


def read(pieces: list[str], *, is_inside: bool = False) -> tuple[str, str]:
    reader = ReasoningReader(is_inside=is_inside)
    found = [reader.add(each, is_last=place == len(pieces) - 1) for place, each in enumerate(pieces)]
    return "".join(reasoning for reasoning, _ in found), "".join(rest for _, rest in found)


@pytest.mark.parametrize(
    ("text", "is_inside", "expected"),
    [
        ("<think>\nTwo and two.\n</think>\n\nFour.", False, ("Two and two.", "Four.")),
        ("\n <think>a</think>b</think>", False, ("a", "b</think>")),
        ("Two and two.\n</think>\n\nFour.", True, ("Two and two.", "Four.")),
        ("<think></think>Four.", False, ("", "Four.")),
        ("<think>\n\n</think>\n\nFour.", False, ("", "Four.")),
        ("<think>cut off </thi", False, ("cut off </thi", "")),
        ("Four. <think>x</think>", False, ("", "Four. <think>x</think>")),
        ("  Four.\n", False, ("", "  Four.\n")),
        ("<thin", False, ("", "<thin")),
        ("<thing> is", False, ("", "<thing> is")),
        ("a < b </ c </think >\n\nd</think>e", True, ("a < b </ c </think >\n\nd", "e")),
        (" " * 100 + "<think>x</think>y", False, ("", " " * 100 + "<think>x</think>y")),
        ("", False, ("", "")),
        ("", True, ("", "")),
    ],
)
def test_texts(text: str, is_inside: bool, expected: tuple[str, str]) -> None:
    assert read([text], is_inside=is_inside) == expected
    assert read([*text, ""], is_inside=is_inside) == expected
    for at in range(len(text)):
        assert read([text[:at], text[at:]], is_inside=is_inside) == expected


def test_text_that_is_certain_comes_at_once() -> None:
    reader = ReasoningReader(is_inside=False)
    assert reader.add("<think>I", is_last=False) == ("I", "")
    assert reader.add(" see <", is_last=False) == (" see", "")
    assert reader.add("b", is_last=False) == (" <b", "")
    assert reader.add("</think>\nY", is_last=False) == ("", "Y")
    assert reader.add("es ", is_last=False) == ("", "es ")


def test_prompts() -> None:
    assert is_open_after("<|im_start|>assistant\n<think>\n")
    assert not is_open_after("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert not is_open_after("what is <think>?<|im_end|>\n<|im_start|>assistant\n")
