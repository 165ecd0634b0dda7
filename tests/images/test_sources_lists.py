"""A list that could be read in two ways is refused before work begins; no row of it vanishes."""

import csv
import io
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_inputs import listed, picture, refused

from jepa_jax.images import open_source
from jepa_jax.images.sources.csv_table import read_csv
from jepa_jax.images.sources.listing import PATH_COLUMNS
from jepa_jax.paths import to_path


def test_the_first_image_of_a_list_without_a_header_is_there(folder: Path):
    source = listed(folder / "list.csv", "in/0.png\nin/1.png\nin/2.png\n")
    assert list(source.keys) == ["in/0.png", "in/1.png", "in/2.png"]
    assert source.read(0) == picture(0)
    (folder / "in/zero").write_bytes(picture(7))
    source = listed(folder / "list.csv", "in/zero\nin/1.png\n")
    assert list(source.keys) == ["in/zero", "in/1.png"]


@pytest.mark.parametrize("name", ["path", "image", "img", "photo of it"])
def test_one_column_may_have_any_name(name: str, folder: Path):
    source = listed(folder / "list.csv", f"{name}\nin/1.png\nin/2.png\n")
    assert list(source.keys) == ["in/1.png", "in/2.png"]


def test_a_first_row_that_may_be_a_name_or_a_path_is_refused(folder: Path):
    (folder / "list.csv").write_text("0001\n0002\n")
    refused(folder / "list.csv", "begins with '0001': the name of its one column, or the first path. Write 'path'")
    for first in ("in/0", "a.heic", "image.path"):
        (folder / "list.csv").write_text(f"{first}\nin/1.png\n")
        refused(folder / "list.csv", "the name of its one column, or the first path")
    (folder / "list.csv").write_text("in/0.png,cat\nin/1.png,dog\n")
    refused(folder / "list.csv", "has the path 'in/0.png' in its first row, which must name the columns")
    (folder / "list.csv").write_text("in/0.png,image\nin/1.png,image\n")
    refused(folder / "list.csv", "has the path 'in/0.png' in its first row")


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_other_separators_are_read_where_the_header_tells_them(separator: str, folder: Path):
    rows = [("path", "key"), ("in/0.png", "a,b"), ("in/1.png", "c")]
    source = listed(folder / "list.csv", "".join(separator.join(row) + "\n" for row in rows))
    assert list(source.keys) == ["a,b", "c"]
    assert source.read(1) == picture(1)
    source = listed(folder / "list.csv", "".join(separator.join(map('"{}"'.format, row)) + "\n" for row in rows))
    assert list(source.keys) == ["a,b", "c"]
    (folder / "list.csv").write_text(separator.join(["in/0.png", "cat"]) + "\n")
    refused(folder / "list.csv", "one column without a name, or several separated by")


def test_a_comma_in_a_path_is_quoted_and_a_semicolon_is_part_of_it(folder: Path):
    source = listed(folder / "list.csv", 'path\n"a,b.png"\nc;d.png\n')
    assert list(source.keys) == ["a,b.png", "c;d.png"]


def test_columns_that_could_all_be_the_paths(folder: Path):
    (folder / "list.csv").write_text("path,image\nin/0.png,in/1.png\n")
    refused(folder / "list.csv", r"columns path and image, and each could hold .*list\.csv::path\.$")
    assert open_source(f"{folder}/list.csv::image").read(0) == picture(1)
    assert open_source(f"{folder}/list.csv::path").read(0) == picture(0)
    refused(f"{folder}/list.csv::photo", "0 columns called 'photo'")
    table = pa.table({"path": ["in/0.png"], "file_name": ["in/2.png"], "where": ["in/1.png"]})
    pq.write_table(table, folder / "list.parquet")
    refused(folder / "list.parquet", "columns path and file_name, and each could")
    assert open_source(f"{folder}/list.parquet::where").read(0) == picture(1)


def test_a_column_that_is_there_twice(folder: Path):
    (folder / "list.csv").write_text("path,path\nin/0.png,in/1.png\n")
    refused(folder / "list.csv", "2 columns called 'path'")
    (folder / "list.csv").write_text("key,path,key\n1,in/0.png,2\n")
    refused(folder / "list.csv", "2 columns called 'key'")
    assert list(listed(folder / "list.csv", "path,label,label\nin/0.png,1,2\n").keys) == ["in/0.png"]
    twice = pa.Table.from_arrays([pa.array(["in/0.png"]), pa.array(["in/1.png"])], ["path", "path"])
    pq.write_table(twice, folder / "list.parquet")
    refused(folder / "list.parquet", "2 columns called 'path'")


def test_a_list_of_a_folder_that_is_away_is_refused(folder: Path):
    (folder / "list.csv").write_text("path\nin/0.png\naway/0.png\naway/1.png\n")
    refused(folder / "list.csv", "lists 2 of its 3 paths in .*/away, which is not there. Bring that folder back")
    far = "".join(f"disk/{i}/{i}.png\n" for i in range(200))
    (folder / "list.csv").write_text(f"path\n{far}in/0.png\n")
    refused(folder / "list.csv", "lists 200 of its 201 paths in .*/disk, which")
    few = "".join(f"in/{i}.png\n" for i in range(3)) + "away/0.png\n"
    assert len(listed(folder / "list.csv", f"path\n{few}").keys) == 4


# Any list

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20)
SAFE = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0;\t|\n\r"), min_size=1, max_size=20)


def written(rows: list[list[str]], separator: str = ",") -> str:
    stream = io.StringIO(newline="")
    csv.writer(stream, delimiter=separator).writerows(rows)
    return stream.getvalue()


@given(paths=st.lists(TEXT, min_size=1), keys=st.lists(TEXT, min_size=1), separator=st.sampled_from(",;\t|"))
def test_no_row_of_a_table_vanishes(paths: list[str], keys: list[str], separator: str):
    rows = [list(row) for row in zip(paths, keys, strict=False)]
    with tempfile.TemporaryDirectory() as folder:
        file = to_path(folder) / "list.csv"
        file.write_bytes(written([["path", "key"], *rows], separator).encode())
        names, columns = read_csv(file, PATH_COLUMNS)
        assert (names, [list(row) for row in zip(*columns, strict=True)]) == (["path", "key"], rows)
        file.write_bytes(written([["path"], *([path] for path in paths)]).encode())
        assert read_csv(file, PATH_COLUMNS) == (["path"], [tuple(paths)])


@given(paths=st.lists(SAFE.map("{}a.png".format), min_size=1))
def test_no_row_of_a_list_without_a_header_vanishes(paths: list[str]):
    with tempfile.TemporaryDirectory() as folder:
        file = to_path(folder) / "list.csv"
        file.write_bytes(written([[path] for path in paths]).encode())
        assert read_csv(file, PATH_COLUMNS) == (["path"], [tuple(paths)])


def test_text_has_a_path_in_each_line(folder: Path):
    source = listed(folder / "list.txt", "in/0.png\r\nin/2.png\r\n")
    assert list(source.keys) == ["in/0.png", "in/2.png"]
    assert source.read(1) == picture(2)
    source = listed(folder / "list.txt", "in/1.png\n\nin/0.png")
    assert list(source.keys) == ["in/1.png", "row 1", "in/0.png"], "no row vanishes"
    (folder / "list.txt").write_text("")
    refused(folder / "list.txt", "lists no path")
    (folder / "list.txt").write_bytes("in/0.png\n".encode("utf-16"))
    refused(folder / "list.txt", "it is no UTF-8 text but UTF-16 or binary")
    (folder / "list.txt").write_text("in/0.png\n")
    refused(f"{folder / 'list.txt'}::path", "text has a path in each line, and no columns")


def test_json_lines_are_a_table(folder: Path):
    rows = '{"file_name": "in/0.png", "label": {"a": 1}}\n{"key": 7, "file_name": "in/1.png"}\n{"key": "c"}\n'
    source = listed(folder / "list.jsonl", rows)
    assert list(source.keys) == ["row 0", "7", "c"]
    assert source.read(1) == picture(1)
    (folder / "list.jsonl").write_text('{"picture": "in/0.png", "thumb": "in/1.png"}\n')
    refused(folder / "list.jsonl", "has the columns picture, thumb; none is called path")
    assert open_source(f"{folder / 'list.jsonl'}::thumb").read(0) == picture(1)
    for line, said in [
        ('{"path": "in/0.png"\n', "line 1 is no JSON"),
        ('{"path": "in/0.png"}\n["in/1.png"]\n', "line 2 is no object"),
        ('{"path": "in/0.png"}\n\n', "line 2 is no JSON"),
        ('{"path": true}\n', "line 1 has true under 'path', where text must be"),
        ('{"path": ["in/0.png"]}\n', "where text must be"),
        ("", "lists no path"),
    ]:
        (folder / "list.jsonl").write_text(line)
        refused(folder / "list.jsonl", said)


def test_text_among_pictures_is_no_list(folder: Path):
    (folder / "in/README.txt").write_text("../elsewhere/a.png\n")
    (folder / "in/metadata.jsonl").write_text('{"file_name": "0.png"}\n')
    assert list(open_source(folder / "in").keys) == ["0.png", "1.png", "2.png"]


def test_images_are_an_input_by_name_and_by_pattern(folder: Path, monkeypatch: pytest.MonkeyPatch):
    one = open_source(folder / "in/1.png")
    assert list(one.keys) == ["1.png"]
    assert one.read(0) == picture(1)
    (folder / "in/deep").mkdir()
    (folder / "in/deep/9.png").write_bytes(picture(9))
    (folder / "out").mkdir()
    (folder / "out/0.png").write_bytes(picture(5))
    some = open_source(folder / "in/[12].png")
    assert list(some.keys) == ["1.png", "2.png"]
    both = open_source(folder / "*/0.png")
    assert list(both.keys) == ["in/0.png", "out/0.png"]
    assert both.read(1) == picture(5)
    deep = open_source(folder / "in/**/[09].png")
    assert sorted(deep.keys) == ["0.png", "deep/9.png"]
    monkeypatch.chdir(folder)
    assert list(open_source("in/0.png").keys) == ["0.png"]
    assert list(open_source("*/0.png").keys) == ["in/0.png", "out/0.png"]
    refused("in/0.png::jpg", "an image or a pattern of images has no columns or other parts; leave out ::jpg")
    refused("in/*.jpg", "matches no file")
