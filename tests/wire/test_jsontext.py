"""JSON: what Keras writes is what is read and written; what would take the parser down does not reach it."""

from __future__ import annotations

import json
import math

import pytest

from modelio.errors import ReadError, UnsafeInput, WriteError
from modelio.wire import jsontext
from modelio.wire.jsontext import parse, spell
from tests.corpus import cases


@pytest.mark.parametrize("case", cases(file="architecture.json"), ids=str)
def test_real_architectures_survive_to_the_letter(case):
    text = (case / "architecture.json").read_text()
    assert parse(text.encode()) == json.loads(text)
    assert spell(parse(text)) == text  # Python's own spacing, order and escapes, as in Keras


def test_tokens_that_only_python_has():
    assert spell(parse("[NaN, Infinity, -Infinity]")) == "[NaN, Infinity, -Infinity]"
    assert math.isnan(parse("NaN"))


def test_of_equal_keys_the_last_counts():
    assert parse('{"units": 1, "units": 2}') == {"units": 2}


@pytest.mark.parametrize("text", [b"\xef\xbb\xbf{}", "\ufeff{}", b" {} ", '"{}"'])
def test_marks_spaces_and_texts_in_texts(text):
    assert parse(text) == {}


@pytest.mark.parametrize(
    "text",
    [
        "[" * jsontext.DEPTH + "]" * jsontext.DEPTH,
        "[[], " * (jsontext.DEPTH - 1) + "[]" + "]" * (jsontext.DEPTH - 1),
        '["' + "[{" * 5000 + '"]',  # brackets in a string are no brackets
        '["\\"[", ' * 100 + "1" + "]" * 100,  # nor behind an escaped quote
        "[" + "[], " * 10_000 + "[]]",
    ],
    ids=["deep", "deep beside shallow", "in a string", "behind a quote", "wide"],
)
def test_nesting_up_to_the_limit(text):
    assert parse(text) == json.loads(text)


DEEP = {
    "brackets": "[" * 201 + "]" * 201,
    "objects": '{"a":' * 201 + "1" + "}" * 201,
    "mixed": '[{"a": ' * 101 + "1" + "}]" * 101,
    "beside shallow ones": "[[], {}, " * 201 + "1" + "]" * 201,
    "never closed": "[" * 1_000_000,
    "much deeper, and wide": "[[]," * 1_000_000,
    "in a text": json.dumps("[" * 201 + "]" * 201),
}


@pytest.mark.parametrize("text", DEEP.values(), ids=DEEP)
def test_nesting_beyond_the_limit(text):
    with pytest.raises(UnsafeInput, match="nested"):
        parse(text)


BROKEN = {
    "nothing": (b"", "this is not JSON: expecting value in line 1, column 1"),
    "cut short": (b'{"class_name": "Seq', "this is not JSON: unterminated string starting at in line 1, column 16"),
    "a comma too many": (b'{\n"a": 1,}', "this is not JSON: "),
    "Latin-1": ('{"name": "Größe"}'.encode("latin-1"), "the JSON is not UTF-8: byte 12 is wrong"),
    "UTF-16": ("{}".encode("utf-16"), "the JSON is not UTF-8: byte 0 is wrong"),
    "a very long number": (b"[" + b"9" * 5000 + b"]", "a number in the JSON cannot be represented"),
}


@pytest.mark.parametrize(("text", "sentence"), BROKEN.values(), ids=BROKEN)
def test_broken(text, sentence):
    with pytest.raises(ReadError) as caught:
        parse(text, where="model_config")
    assert caught.value.reason.startswith(sentence)
    assert caught.value.where == "model_config"


def test_too_long(monkeypatch):
    monkeypatch.setattr(jsontext, "SIZE", 10)
    assert parse('{"a": 123}') == {"a": 123}
    with pytest.raises(UnsafeInput, match="11 bytes of JSON, more than the 10"):
        parse('{"a": 1234}')


@pytest.mark.parametrize("value", [object(), {("a",): 1}, b"bytes", {1, 2}])
def test_unwritable(value):
    with pytest.raises(WriteError, match="this cannot be written as JSON"):
        spell({"key": value} if not isinstance(value, dict) else value)
