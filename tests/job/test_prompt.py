"""The same row gives the same prompt, and a row that cannot is refused in plain words."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdu_batch.errors import RowError, SpecError
from rdu_batch.job.prompt import Prompt, PromptRenderer, template_problems
from rdu_batch.job.records import MAX_DETAIL_CHARS, Fields, Reason, Row, parse_row
from rdu_batch.job.spec import PromptSpec


def fields_of(values: dict[str, Any]) -> Fields:
    """The fields of a row with these values."""
    return parse_row(Row(0, 0, 1, "p", 9, json.dumps(values).encode()))


def render(values: dict[str, Any], **spec: Any) -> Prompt:
    """The prompt of a row under a prompt spec."""
    return PromptRenderer(PromptSpec(**spec)).render(fields_of(values))


def refused(values: dict[str, Any], **spec: Any) -> RowError:
    """The refusal of a row that has no prompt."""
    with pytest.raises(RowError) as caught:
        render(values, **spec)
    assert len(caught.value.detail) <= MAX_DETAIL_CHARS
    assert "0x" not in caught.value.detail
    return caught.value


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("Review: {{ row.text }}\nSentiment:", "Review: a b\nSentiment:"),
        ("{{ row.text }}\n", "a b\n"),
        ("{{ row['two words'] }}", "x"),
        ("{{ row.items | tojson }}", "[1, 2.5, null, true]"),
        ("{{ row.items | join('/') }}", "1/2.5/None/True"),
        ("{{ row.items[1] }}", "2.5"),
        ("{{ row.keys.get }}", "found"),
        ("{{ row.text.upper() }}", "A B"),
        (
            "{% for item in row.items %}{{ loop.index }}{{ item or '' }};{% endfor %}",
            "11;22.5;3;4True;",
        ),
        ("{{ row.big }}", "9" * 5000),
        ("{{ row.html }}", "<b> & \u2028"),
        ("{{ row.absent | default('none') }}", "none"),
        ("{% if row.absent is defined %}a{% else %}b{% endif %}", "b"),
        ("{{ row.keys | tojson }}", '{"get": "found"}'),
        ("{{ row.none | tojson }}", "null"),
        ("{{ row.none | default('', true) }}", ""),
        ("{% if row.none %}a{% else %}b{% endif %}", "b"),
        ("{{ row.text ~ ' ' ~ row.items[1] ~ row.items[3] }}", "a b 2.5True"),
        ("{{ row.text | upper | replace('A', 'C') }}", "C B"),
        ("{{ row.keys | tojson | length > 9 }}", "True"),
    ],
)
def test_a_template_renders_as_jinja_would(template: str, text: str) -> None:
    """Fields win over methods of the same name; nothing is escaped, stripped or cut."""
    values = {
        "text": "a b",
        "two words": "x",
        "items": [1, 2.5, None, True],
        "keys": {"get": "found"},
        "none": None,
        "html": "<b> & \u2028",
    }
    fields = parse_row(
        Row(0, 0, 1, "p", 9, (json.dumps(values)[:-1] + ', "big": ' + "9" * 5000 + "}").encode())
    )
    assert template_problems(template) == []
    renderer = PromptRenderer(PromptSpec(template=template))
    assert renderer.render(fields) == Prompt(text, None)


@given(st.text(st.characters(codec="utf-8")))
def test_a_string_passes_through_unchanged(text: str) -> None:
    """By template and by field: line separators, CR, braces and quotes too."""
    assert render({"a": text}, template="{{ row.a }}").text == text
    assert render({"a": text}, field="a").text == text


@pytest.mark.parametrize(
    ("template", "reason", "part"),
    [
        (
            "{{ row.absent }}",
            Reason.MISSING_FIELD,
            'the row has no field "absent"; it has "text", "none", "list", "object", "long" and 1',
        ),
        ("{{ row['absent'] }}", Reason.MISSING_FIELD, 'the row has no field "absent"; it has'),
        ("{{ row.object.y }}", Reason.MISSING_FIELD, 'of the row has no field "y"; it has "x"'),
        ("{{ row.none.x }}", Reason.MISSING_FIELD, 'null has no field "x"'),
        ("{{ row.text.x }}", Reason.MISSING_FIELD, 'a text has no field "x"'),
        ("{{ row.list[7] }}", Reason.MISSING_FIELD, "a list of 1 has no element 7"),
        ("\n\n{{ row.text + 1 }}", Reason.TEMPLATE_ERROR, "line 3 of the template"),
        ("{{ 1 / 0 }}", Reason.TEMPLATE_ERROR, "ZeroDivisionError"),
        ("{{ row.text.upper }}", Reason.TEMPLATE_ERROR, "it prints a builtin_function_or_method"),
        ("{{ row.list | map('string') }}", Reason.TEMPLATE_ERROR, "it prints a generator"),
        ("{{ cycler(1) }}", Reason.TEMPLATE_ERROR, "it prints a Cycler"),
        ("{{ row.huge }}", Reason.TEMPLATE_ERROR, "too large for a float"),
        ("{{ row.text.__class__ }}", Reason.TEMPLATE_ERROR, "SecurityError"),
        ("{{ row.list.append(3) }}", Reason.TEMPLATE_ERROR, "SecurityError"),
        ("{{ row.update({'a': 1}) }}", Reason.TEMPLATE_ERROR, "SecurityError"),
        ("{{ '\\ud800' }}", Reason.TEMPLATE_ERROR, "half of a surrogate pair"),
        (
            "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
            Reason.TEMPLATE_ERROR,
            "a macro or a loop goes too deep",
        ),
        ("{{ row.long + 1 }}", Reason.TEMPLATE_ERROR, "can only concatenate str"),
        ("{{ row[row.long] }}", Reason.MISSING_FIELD, 'no field "xxxx'),
        ("\n{{ row.none }}", Reason.MISSING_FIELD, "line 2 of the template cannot render this row"),
        ("{{ row.none }}", Reason.MISSING_FIELD, "row.none is null; write | default('', true)"),
        ("{{ row.list }}", Reason.WRONG_TYPE, "row.list is a list; write | join(', ')"),
        ("{{ row.object }}", Reason.WRONG_TYPE, "row.object is an object; name one of its fields"),
        ("{{ row }}", Reason.WRONG_TYPE, "row is an object"),
        ("{{ [row.list][0] }}", Reason.WRONG_TYPE, "what it prints is a list"),
        ("{{ row['object']['x'][0] }}", Reason.MISSING_FIELD, 'a number has no field "0"'),
        ("{% for one in [row.none] %}{{ one }}{% endfor %}", Reason.MISSING_FIELD, "one is null"),
        ("{% set a = row.list %}{{ a }}", Reason.WRONG_TYPE, "a is a list"),
        ("{% macro m(a) %}{{ a }}{% endmacro %}{{ m(row.list) }}", "wrong_type", "a is a list"),
        ("{{ 'Review: ' ~ row['none'] }}", Reason.MISSING_FIELD, "row['none'] is null"),
        ("{{ row.none | trim }}", Reason.MISSING_FIELD, "what it prints is null"),
        ("{{ row.list | upper }}", Reason.WRONG_TYPE, "what it prints is a list"),
    ],
)
def test_a_template_that_cannot_render_a_row_ends_that_row(
    template: str, reason: Reason, part: str
) -> None:
    """With a detail that is the same on every machine."""
    values = {"text": "a", "none": None, "list": [1], "object": {"x": 1}, "long": "x" * 10_000}
    line = json.dumps(values)[:-1] + ', "huge": 1e999}'
    renderer = PromptRenderer(PromptSpec(template=template))
    details = set()
    for _ in range(2):
        with pytest.raises(RowError) as caught:
            renderer.render(parse_row(Row(0, 0, 1, "p", 9, line.encode())))
        details.add(caught.value.detail)
        assert caught.value.reason == reason
    (detail,) = details
    assert part in detail
    assert len(detail) <= MAX_DETAIL_CHARS
    assert "0x" not in detail


@pytest.mark.parametrize(
    ("template", "part"),
    [
        ("{{ row.a", "unexpected end of template"),
        ("{% if %}", "Expected an expression"),
        ("{{ text }}", "did you mean row.text?"),
        ("{{ row.a | random }}", "No filter named 'random'"),
        ("{{ lipsum() }}", "found the name lipsum"),
        ("{% extends 'a' %}", "wanted a template on its own"),
        ("a\rb", "found a carriage return"),
    ],
)
def test_a_wrong_template_is_found_before_any_row(template: str, part: str) -> None:
    """By the check of the loader, and by the renderer itself."""
    (problem,) = template_problems(template)
    assert part in problem
    with pytest.raises(SpecError, match=r"prompt\.template: found"):
        PromptRenderer(PromptSpec(template=template))


def test_a_field_must_be_a_string() -> None:
    """Absent, null, and other types each have their words."""
    error = refused({}, field="a")
    assert (error.reason, error.detail) == (
        "missing_field",
        'the row has no field "a"; wanted a string there; it has no fields',
    )
    error = refused({"b": "", "c" * 99: ""}, field="a" * 200)
    assert error.detail.endswith(f'it has "b", "{"c" * 20}..."')
    names = {f"{number}{'d' * 99}": "" for number in range(30)}
    for spec in ({"messages_field": "a" * 200}, {"template": "{{ row." + "a" * 200 + " }}"}):
        assert "and 25 more" in refused(names, **spec).detail
    assert refused({"a": None}, field="a").reason == Reason.MISSING_FIELD
    for value, name in ((3, "a number"), (True, "true or false"), ([], "an array")):
        error = refused({"a": value}, field="a")
        assert error.reason == Reason.WRONG_TYPE
        assert error.detail == f'the field "a" is {name}; wanted a string'


def test_a_chat_template_makes_messages_of_text() -> None:
    """The system message comes first, if there is one."""
    user = {"role": "user", "content": "hi"}
    assert render({"a": "hi"}, field="a", chat_template=True) == Prompt(None, (user,))
    system = {"role": "system", "content": "Be kind."}
    prompt = render({"a": "hi"}, template="{{ row.a }}", chat_template=True, system="Be kind.")
    assert prompt == Prompt(None, (system, user))


def test_messages_are_passed_on_and_get_the_system_message_they_lack() -> None:
    """A row's own system message wins; other keys of a message stay."""
    user = {"role": "user", "content": "hi", "name": "Ann"}
    own = {"role": "system", "content": "Be brief."}
    assert render({"m": [user]}, messages_field="m").messages == (user,)
    assert render({"m": [own, user]}, messages_field="m", system="x").messages == (own, user)
    with_system = render({"m": [user]}, messages_field="m", system="x").messages
    assert with_system == ({"role": "system", "content": "x"}, user)


@pytest.mark.parametrize(
    ("values", "reason", "part"),
    [
        ({}, Reason.MISSING_FIELD, 'no field "m"; wanted a list of {role, content}'),
        ({"m": None}, Reason.MISSING_FIELD, 'the field "m" is null'),
        ({"m": "hi"}, Reason.WRONG_TYPE, 'the field "m" is a string'),
        ({"m": []}, Reason.WRONG_TYPE, 'the field "m" is empty'),
        ({"m": ["hi"]}, Reason.WRONG_TYPE, 'message 1 of the field "m" is a string'),
        ({"m": [{"role": "user"}]}, Reason.WRONG_TYPE, "content of message 1"),
        ({"m": [{"role": 1, "content": "a"}]}, Reason.WRONG_TYPE, "role of message 1"),
        ({"m": [{"role": "user", "content": ["a"]}]}, Reason.WRONG_TYPE, "is an array"),
    ],
)
def test_messages_that_are_no_chat_end_the_row(
    values: dict[str, Any], reason: Reason, part: str
) -> None:
    """With the number of the message."""
    error = refused(values, messages_field="m")
    assert error.reason == reason
    assert part in error.detail


def test_a_prompt_is_either_text_or_messages() -> None:
    """Never both, never neither."""
    with pytest.raises(ValueError, match="either text or messages"):
        Prompt(None, None)
    with pytest.raises(ValueError, match="either text or messages"):
        Prompt("a", ())
