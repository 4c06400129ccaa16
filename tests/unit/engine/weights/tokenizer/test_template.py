import tracemalloc
from typing import Any

import pytest

from triune.core.errors import InvalidArgumentError
from triune.engine.weights.tokenizer.template import ChatTemplate

_MESSAGES = [{"role": "user", "content": "Hi"}]


def _render(source: str, **variables: Any) -> str:
    return ChatTemplate(source, {"bos_token": "<s>"}).render(_MESSAGES, **variables)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m['content'] | trim }}{% endfor %}", "<s>[user]Hi"),
        ("{% if add_generation_prompt %}>{% endif %}", ">"),
        ("{% for i in range(5) %}{% if i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}", "012"),
        ("{% for i in range(3) %}{% if i == 1 %}{% continue %}{% endif %}{{ i }}{% endfor %}", "02"),
        ("{{ {'a': [1, 'é', '<']} | tojson }}", '{"a": [1, "é", "<"]}'),
        ("{{ {'b': 1, 'a': 2} | tojson(indent=2, sort_keys=true) }}", '{\n  "a": 2,\n  "b": 1\n}'),
        ("{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}", "1"),
        ("{% macro say(x) %}<{{ x }}>{% endmacro %}{{ say('a') ~ say('b') }}", "<a><b>"),
        ("{% generation %}said{% endgeneration %}", "said"),
        ("{% for m in messages %}{{ loop.index }}/{{ loop.length }}{{ loop.last }}{% endfor %}", "1/1True"),
        ("{{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | join(', ') }}", "Hi"),
        ("{{ 'a-b'.split('-')[1].upper() }}{{ 'x' in 'xyz' }}{{ 'a'.startswith('a') }}", "BTrueTrue"),
        ("{{ ' and '.join(['a', 'b']) }}{{ 'aXa'.replace('X', '-') }}{{ '{} {:>3}'.format(1, 2) }}", "a and ba-a1   2"),
        ("{{ 'n=%d' % 3 }}{{ 'n=%s' | format('x') }}{{ 'a\nb' | indent(2) }}", "n=3n=xa\n  b"),
        ("{{ tools is none }}{{ documents is defined }}{{ unknown is defined }}{{ unknown }}", "TrueTrueFalse"),
        ("{% for k, v in {'a': 1}.items() %}{{ k }}{{ v }}{% endfor %}{{ {'a': 1}.get('b', 'none') }}", "a1none"),
        ("{{ [1, 2, 3][1:] }}{{ (1, 2) | length }}{{ [3, 1] | sort | first }}{{ [1, 2] | sum }}", "[2, 3]213"),
        ("{{ strftime_now('%Y') | length }}", "4"),
        # Newlines after blocks and spaces before them go, as in transformers.
        ("a\n  {% if true %}\nb\n  {% endif %}\nc", "a\nb\nc"),
    ],
)
def test_what_templates_may_do(source: str, expected: str) -> None:
    assert _render(source) == expected


def test_variables_and_tools() -> None:
    assert _render("{{ enable_thinking }}{{ tools[0].name }}", tools=[{"name": "f"}], enable_thinking=False) == "Falsef"


_LOOP = "{% for i in range(99) %}"
_DOUBLES = {
    "joined": "{% set n.x = n.x ~ n.x %}",
    "added": "{% set n.x = n.x + n.x %}",
    "multiplied": "{% set n.x = n.x * 2 %}",
    "written": "{% set y %}{{ n.x }}{{ n.x }}{% endset %}{% set n.x = y %}",
    "in a list": "{% set n.x = [n.x, n.x] %}",
    "in a tuple": "{% set n.x = (n.x, n.x) %}",
    "in an object": "{% set n.x = {'a': n.x, 'b': n.x} %}",
    "in dict": "{% set n.x = dict(a=n.x, b=n.x) %}",
    "replaced": "{% set n.x = n.x.replace('a', 'aa') %}",
    "replaced by a filter": "{% set n.x = n.x | replace('a', 'aa') %}",
    "joined by a method": "{% set n.x = ''.join([n.x, n.x]) %}",
    "joined by a filter": "{% set n.x = [n.x, n.x] | join %}",
    "formatted": "{% set n.x = '%s%s' % (n.x, n.x) %}",
    "formatted by a method": "{% set n.x = '{0}{0}'.format(n.x) %}",
    "in JSON": "{% set n.x = [n.x, n.x] | tojson %}",
}
_STOPPED = {
    "a loop in a loop": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "a loop that calls itself": "{% for i in [1, 2] recursive %}{{ loop([1, 2]) }}{% endfor %}",
    "a tree of loops": "{% for i in 'ab' recursive %}{% if loop.depth < 50 %}{{ loop('ab') }}{% endif %}{% endfor %}",
    "a macro that calls itself": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "a tree of macros": "{% macro f(n) %}{% if n %}{{ f(n - 1) ~ f(n - 1) }}{% endif %}{% endmacro %}{{ f(50) }}",
    "a product": "{{ 'a' * 10**10 }}",
    "a list": "{{ [1] * 10**10 }}",
    "a power": "{% for i in range(9) %}{{ 9 ** (9 ** (9 ** 9)) }}{% endfor %}",
    "a long number": "{% set n = namespace(x=9) %}{% for i in range(99) %}{% set n.x = n.x * n.x %}{% endfor %}",
    "a wide format": "{{ '%1000000000d' % 1 }}",
    "a wide filter": "{{ '%1000000000d' | format(1) }}",
    "a wide method": "{{ '{:1000000000}'.format(1) }}",
    "a given width": "{{ '%*d' % (1000000000, 1) }}",
    "a given width of a method": "{{ '{:{}}'.format(1, 1000000000) }}",
    "a long replacement": "{{ ('a' * 10000000) | replace('', 'a' * 10000000) }}",
    "a long join": "{{ (['a' * 1000000] * 1000000) | join }}",
    "a long text of a list": "{{ ['a' * 1000000] * 1000000 }}",
    "a long indent": "{{ 'a\nb' | indent(10**9) }}",
    "JSON far to the right": "{{ {'a': 1} | tojson(indent=10**9) }}",
    "a long date": "{{ strftime_now('%d' * 1000) }}",
    "a range": "{{ range(10**9) | list }}",
    **{
        f"a text that is {how}": f"{{% set n = namespace(x='aaaa') %}}{_LOOP}{step}{{% endfor %}}"
        for how, step in _DOUBLES.items()
    },
}


@pytest.mark.parametrize("name", _STOPPED)
def test_what_takes_too_much_is_stopped(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # The clock would stop some of them earlier on a slow machine.
    monkeypatch.setattr("triune.engine.weights.tokenizer.budget.MAX_STEPS", 3_000)
    monkeypatch.setattr("triune.engine.weights.tokenizer.budget.MAX_SECONDS", 1e9)
    tracemalloc.start()
    try:
        with pytest.raises(InvalidArgumentError, match="the chat template"):
            _render(_STOPPED[name])
        assert tracemalloc.get_traced_memory()[1] < 512 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.__class__ }}",
        "{{ self.__init__.__globals__ }}",
        "{{ raise_exception.__globals__ }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update({}) }}",
        "{{ (1).to_bytes(9, 'big') }}",
        "{{ 'a'.center(9) }}",
        "{{ 'a' | attr('__class__') | attr('__mro__') | list }}",
        "{% include 'x' %}",
        "{% import 'os' as os %}{{ os }}",
        "{% extends 'x' %}",
        "{{ lipsum() }}",
        "{{ cycler('a').next() }}",
    ],
)
def test_nothing_outside_is_reached(source: str) -> None:
    with pytest.raises(InvalidArgumentError, match="the chat template"):
        _render(source)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{% if %}", "wrong in line 1"),
        ("\n{{ 'x' | center(9) }}", "wrong in line 2: No filter named 'center'"),
        ("{{" + "(" * 5000 + "1" + ")" * 5000 + "}}", "cannot be compiled"),
        ("{{ " + "-" * 9999 + "1 }}", "cannot be compiled"),
        ("x" * (1 << 21), "has 2097152 characters; at most 1048576 are read"),
        ("{{ raise_exception('Roles must\nalternate') }}", r"refuses this conversation: Roles must\\nalternate"),
        ("{{ nothing.at.all }}", "'nothing' is undefined"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{{ none + 'a' }}", "TypeError"),
    ],
)
def test_templates_that_fail(source: str, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        _render(source)


def test_a_variable_may_have_any_name() -> None:
    names = {"self": "a", "messages ": "b", "a b": "c", "": "d"}
    assert ChatTemplate("{{ bos_token }}{{ self_ }}", {"bos_token": "<s>"}).render(_MESSAGES, **names) == "<s>"
