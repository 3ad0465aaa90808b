"""Templates: literal text and values one after the other, whatever the values are."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loam_gateway.templates import render as rendering
from loam_gateway.templates.render import render
from loam_shared.contracts.templates import LONGEST_FILE, PromptTemplate
from loam_shared.errors import InvalidRequestError
from loam_shared.templates import TemplateError, parse

HEAD = "name: t\nversion: 1\n"
NAMES = ("a", "b", "c")


def template(content: str, properties: dict[str, Any], required: tuple[str, ...] = ()) -> PromptTemplate:
    return PromptTemplate.model_validate(
        {
            "name": "t",
            "version": 1,
            "variables": {"properties": properties, "required": required},
            "messages": [{"role": "user", "content": content}],
        }
    )


literals = st.text(max_size=30).filter(lambda text: "{{" not in text and not text.endswith("{"))
# Values look like templates, braces and names more often than by chance.
values = st.text(alphabet="{}ab c\n", max_size=20) | st.sampled_from(["{{ a }}", "{{b}}", "{% raw %}", "${a}", "{a}"])


@given(st.lists(st.tuples(literals, st.sampled_from(NAMES)), min_size=1, max_size=6), literals, st.data())
def test_a_prompt_is_its_literals_and_values_in_order(holes: list[tuple[str, str]], end: str, data: Any) -> None:
    given_values = {name: data.draw(values, name) for name in {name for _, name in holes}}
    content = "".join(f"{literal}{{{{ {name} }}}}" for literal, name in holes) + end
    made = template(content, {name: {"type": "string"} for name in given_values}, tuple(given_values))
    expected = "".join(literal + given_values[name] for literal, name in holes) + end
    assert render(made, given_values) == [{"role": "user", "content": expected}]


def test_values_that_are_no_text_become_json_and_defaults_fill_in() -> None:
    made = template(
        "{{a}} {{b}} {{c}}",
        {
            "a": {"type": "array", "items": {"type": "string"}},
            "b": {"type": "integer"},
            "c": {"type": "string", "default": "d"},
        },
        ("a", "b"),
    )
    assert render(made, {"a": ["x", "{{ b }}"], "b": 2})[0]["content"] == '["x","{{ b }}"] 2 d'


def test_a_value_in_many_places_cannot_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "LONGEST_PROMPT", 1000)
    made = template("{{a}}" * 100, {"a": {"type": "string"}}, ("a",))
    assert len(render(made, {"a": "x" * 10})[0]["content"]) == 1000
    with pytest.raises(InvalidRequestError, match="longer than 1000"):
        render(made, {"a": "x" * 11})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- 1", "valid dictionary"),
        ("name: t", "version"),
        ("{", "no YAML"),
        ("[" * 9000, "no YAML"),
        ("a: &x [1]\nb: [*x, *x]", "aliases"),
        ("x" * (LONGEST_FILE + 1), "more than"),
        (HEAD + "colour: red\nmessages: [{role: user, content: hello}]", "colour"),
        ("name: T\nversion: 1\nmessages: [{role: user, content: hello}]", "name"),
        (HEAD + 'messages: [{role: user, content: "{{ a"}]', '"{{ a" is no variable'),
        (HEAD + 'messages: [{role: user, content: "{{ a|upper }}"}]', "is no variable"),
        (HEAD + "messages: [{role: robot, content: hello}]", "role"),
        (
            HEAD
            + 'variables: {properties: {a: {type: string, pattern: "(a+)+"}}}\nmessages: [{role: user, content: x}]',
            "pattern",
        ),
        (
            HEAD + 'variables: {properties: {a: {$ref: "http://x/y"}}}\nmessages: [{role: user, content: x}]',
            "variables.properties.a",
        ),
        (
            HEAD + "variables: {properties: {a: {type: string, maxLength: 2, default: long}}}\n"
            'messages: [{role: user, content: "{{ a }}"}]',
            "the default of variables.a",
        ),
        (
            HEAD + 'messages: [{role: user, content: "x\\0"}]',
            "U+0000",
        ),
        (
            HEAD + "messages: [{role: user, content: x}]\nresponseFormat:\n"
            "  {type: json_schema, json_schema: {name: a, schema: {maximum: 99999999999999999999}}}",
            "JSON",
        ),
        (
            HEAD + "messages: [{role: user, content: x}]\nresponseFormat: {type: json_schema}",
            "responseFormat",
        ),
    ],
)
def test_what_is_wrong_with_a_file_is_said_in_a_sentence(text: str, said: str) -> None:
    with pytest.raises(TemplateError) as refused:
        parse(text)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
