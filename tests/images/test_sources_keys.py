"""Keys are injective: two names never share one, and ordinary names are their own."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jepa_jax.images import open_source
from jepa_jax.images.reasons import sentence
from jepa_jax.images.sources.names import text_key
from jepa_jax.images.sources.records import Records, Unusable, unique_records

TRICKY = st.text(st.sampled_from("\\nrxuf0d8\n\r\udcff\udc80/."), max_size=12)
BYTES = st.binary(max_size=12).map(os.fsdecode)
NAMES = TRICKY | BYTES | st.text(max_size=12)


def original(key: str) -> str:
    """A decoder of keys, written apart from the encoder."""
    out, at, any_escape = "", 0, False
    while at < len(key):
        if key[at] != "\\":
            out, at = out + key[at], at + 1
            continue
        kind = key[at + 1 : at + 2]
        if kind in ("n", "r", "\\") and kind:
            out, at = out + {"n": "\n", "r": "\r", "\\": "\\"}[kind], at + 2
        elif kind == "x" and len(key) >= at + 4 and key[at + 2] in "89abcdef" and key[at + 3] in "0123456789abcdef":
            out, at = out + chr(0xDC00 + int(key[at + 2 : at + 4], 16)), at + 4
        elif kind == "u" and key[at + 2 : at + 3] == "d" and len(key) >= at + 6:
            out, at = out + chr(int(key[at + 2 : at + 6], 16)), at + 6
        else:
            return key  # a backslash that escapes nothing: nothing here was escaped
        any_escape = True
    return out if any_escape else key


@given(NAMES)
def test_a_key_tells_its_name(name: str):
    key = text_key(name)
    key.encode()
    assert not set("\n\r") & set(key)
    assert os.fsencode(original(key)) == os.fsencode(name)


@given(TRICKY | BYTES, TRICKY | BYTES)
def test_two_names_have_two_keys(one: str, other: str):
    assert (text_key(one) == text_key(other)) == (os.fsencode(one) == os.fsencode(other))


@given(st.text(st.characters(exclude_characters="\\\n\r", exclude_categories=["Cs"])))
def test_ordinary_names_are_their_own_keys(name: str):
    assert text_key(name) == name


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("a\\b.png", "a\\b.png"),  # \b is no escape of ours
        ("x\n.png", "x\\n.png"),
        ("x\\n.png", "x\\\\n.png"),
        ("x\\\\n.png", "x\\\\\\\\n.png"),
        ("a\\b\n.png", "a\\\\b\\n.png"),
        ("\udcff.png", "\\xff.png"),
        ("\\xff.png", "\\\\xff.png"),
        ("\\x7f.png", "\\x7f.png"),
    ],
)
def test_what_is_escaped(name: str, key: str):
    assert text_key(name) == key


def test_files_whose_names_shared_a_key(tmp_path: Path):
    names = [b"x\n.png", rb"x\n.png", b"\xff.png", rb"\xff.png", "é.png".encode(), rb"plain\ .png"]
    for i, name in enumerate(names):
        with open(bytes(tmp_path) + b"/" + name, "wb") as stream:
            stream.write(b"%d" % i)
    source = open_source(tmp_path)
    assert len(set(source.keys)) == len(names)
    contents = [content for content in map(source.read, range(len(names))) if isinstance(content, bytes)]
    assert sorted(contents) == [b"%d" % i for i in range(len(names))]
    assert {"é.png", "plain\\ .png"} <= set(source.keys)


def test_duplicates_take_no_key_of_another_record():
    entries = [("a", 0), ("a", 1), ("a#2", 2), ("a", 3), ("row 4", Unusable("no path")), ("row 4", 5)]
    keys, locators = unique_records(entries)
    assert keys == ["a", "a#3", "a#2", "a#4", "row 4#2", "row 4"]
    usable = {key: locator for key, locator in zip(keys, locators, strict=True) if not isinstance(locator, Unusable)}
    assert usable == {"a": 0, "a#2": 2, "row 4": 5}


@given(st.lists(st.sampled_from(["a", "a#2", "a#2#2", "b"])))
def test_every_record_has_a_key(given_keys: list[str]):
    keys, locators = unique_records((key, i) for i, key in enumerate(given_keys))
    assert len(set(keys)) == len(keys) == len(given_keys)
    usable = [key for key, locator in zip(keys, locators, strict=True) if not isinstance(locator, Unusable)]
    assert sorted(usable) == sorted(set(given_keys))


def test_messages_of_libraries_become_one_sentence():
    assert sentence(ValueError("first\nsecond")) == "first"
    assert sentence(ValueError("\n\n  said. \n")) == "said"
    assert sentence(KeyError()) == "KeyError"
    assert sentence(ValueError("a\x00b\x1b[31m")) == "a?b?[31m"
    assert len(sentence(ValueError("x" * 10_000))) < 310


def records_of(folder: Path, names: list[str]) -> Records:
    folder.mkdir()
    for name in names:
        (folder / name).write_bytes(name.encode())
    return open_source(folder)


def test_some_records_are_the_first_or_a_sample(tmp_path: Path):
    names = [f"{number:03d}.png" for number in range(200)]
    whole = records_of(tmp_path / "a", names)
    assert whole.some(None, None) is whole
    first = whole.some(3, None)
    assert list(first.keys) == names[:3]
    assert first.read(2) == b"002.png"
    assert list(whole.some(1000, None).keys) == names
    drawn, again, other = (whole.some(50, seed) for seed in (0, 0, 1))
    assert list(drawn.keys) == list(again.keys) != list(other.keys)
    assert len(set(drawn.keys)) == 50
    assert list(drawn.keys) != sorted(drawn.keys)
    assert drawn.read(7) == drawn.keys[7].encode()
    assert sorted(whole.some(None, 0).keys) == names


def test_what_is_added_to_an_input_comes_in_between(tmp_path: Path):
    names = [f"{number:03d}.png" for number in range(100)]
    before = records_of(tmp_path / "a", names).some(None, 5).keys
    after = records_of(tmp_path / "b", [*names, "new.png", "0.png"]).some(None, 5).keys
    assert [key for key in after if key in set(names)] == list(before)
