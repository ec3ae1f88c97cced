"""What the arguments of `lemni embed` stand for."""

from __future__ import annotations

import io
from pathlib import Path

import click
import pytest

from lemni.cli.texts import Given, read_texts


def read(*arguments: str, stdin: bytes = b"", field: str = "text", literal: bool = False) -> list[str]:
    return [given.text for given in read_texts(arguments, io.BytesIO(stdin), field, literal=literal)]


def refused(*arguments: str, stdin: bytes = b"", field: str = "text") -> str:
    with pytest.raises(click.UsageError) as caught:
        read(*arguments, stdin=stdin, field=field)
    return caught.value.message


def test_arguments_files_and_standard_input_keep_their_order(tmp_path: Path) -> None:
    file = tmp_path / "some.txt"
    file.write_text("from file\n")
    assert read("first", str(file), "-", "", stdin=b"from stdin\n") == ["first", "from file", "from stdin", ""]


def test_literal_takes_everything_as_text(tmp_path: Path) -> None:
    file = tmp_path / "some.txt"
    file.write_text("x")
    assert read(str(file), "-", literal=True, stdin=b"no") == [str(file), "-"]


def test_a_text_longer_than_any_file_name() -> None:
    assert read("long " * 2000) == ["long " * 2000]
    assert read("nul\0byte") == ["nul\0byte"]


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (b"a\nb\n", ["a", "b"]),
        (b"a\nb", ["a", "b"]),
        (b"a\n\nb\n\n", ["a", "", "b", ""]),
        (b"a\r\nb\r\n", ["a", "b"]),
        (b"\xef\xbb\xbfa\n", ["a"]),
        (b"", []),
        (b"\n", [""]),
        ("one\u2028text\x0cone line\n".encode(), ["one\u2028text\x0cone line"]),
    ],
)
def test_lines(content: bytes, lines: list[str], tmp_path: Path) -> None:
    assert read("-", stdin=content) == lines
    file = tmp_path / "file"
    file.write_bytes(content)
    assert read(str(file)) == lines


def test_json_lines(tmp_path: Path) -> None:
    file = tmp_path / "rows.JSONL"
    file.write_text('{"text": "a", "body": "b"}\n\n{"text": "", "body": "\\n"}\n')
    assert read(str(file)) == ["a", ""]
    assert read(str(file), field="body") == ["b", "\n"]


def test_lists_in_json(tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    file.write_text('["a",\n {"text": "b", "id": 7}, ""]')
    assert read_texts([str(file)], io.BytesIO(), "text", literal=False) == [Given("a"), Given("b", 7), Given("")]
    for content, message in (
        ("{}", ": is no JSON list, but dict"),
        ("[", ": is not JSON: "),
        ('["a", 1]', ", item 2: is no JSON object, but int"),
        ('[{"body": 1}]', ", item 1: has no field 'text' but 'body'"),
        ("[" * 100_000, ": is not JSON: "),
    ):
        file.write_text(content)
        assert refused(str(file)).startswith(f"{file}{message}")


def test_ids_pairs_and_inputs(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"text": "a", "text_pair": "b", "id": "x"}\n{"text": "c", "text_pair": null, "id": [1]}\n')

    def given(*inputs: str, pairs: bool) -> list[Given]:
        stdin = io.BytesIO(b"from stdin")
        return read_texts([str(file)], stdin, "text", literal=True, inputs=inputs, pairs=pairs)

    assert given(pairs=True) == [Given(str(file))]
    assert given(str(file), "-", pairs=True)[1:] == [Given("a", "x", "b"), Given("c", [1]), Given("from stdin")]
    assert given(str(file), pairs=False)[1:] == [Given("a", "x"), Given("c", [1])]
    with pytest.raises(click.UsageError, match="no-such-file: cannot be read: No such file"):
        given("no-such-file", pairs=False)
    file.write_text('{"text": "a", "text_pair": 3}\n')
    with pytest.raises(click.UsageError, match="line 1: field 'text_pair' is no text, but int"):
        given(str(file), pairs=True)
    assert given(str(file), pairs=False)[1:] == [Given("a")]
    file.write_text(r'{"text": "a", "text_pair": "\ud800"}')
    with pytest.raises(click.UsageError, match="text 2 is not valid Unicode"):
        given(str(file), pairs=True)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: is not JSON: "),
        ('"plain"', "line 2: is no JSON object, but str"),
        ('{"body": "x", "n": 1}', "line 2: has no field 'text' but 'body', 'n' (--field names another)"),
        ("{}", "line 2: has no field 'text' but no fields"),
        ('{"text": 3}', "line 2: field 'text' is no text, but int"),
    ],
)
def test_wrong_json_lines(line: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"text": "fine"}\n' + line)
    assert refused(str(file)).startswith(f"{file}, {message}")


def test_what_is_no_text(tmp_path: Path) -> None:
    assert refused("-", stdin=b"fine\nb\xffd\n") == "standard input, line 2: is not UTF-8 at byte 1"
    assert refused("fine", "bad \udcff") == r"text 2 is not valid Unicode: 'bad \udcff'"
    vectors = tmp_path / "v.npy"
    vectors.write_bytes(b"")
    assert ".npy files cannot be read" in refused(str(vectors))
    surrogate = tmp_path / "s.jsonl"
    surrogate.write_text(r'{"text": "\ud800"}')
    assert "text 1 is not valid Unicode" in refused(str(surrogate))


def test_what_looks_like_a_file_must_be_one() -> None:
    assert "no such file (--literal" in refused("nofile.txt")
    assert read("see nofile.txt", "v1.2") == ["see nofile.txt", "v1.2"]
    assert read("nofile.txt", literal=True) == ["nofile.txt"]
