"""Tables as people write them, each row with its line in the file."""

import pytest

from solder_vae.utils.errors import UserError
from solder_vae.utils.tables import path_to_read, read_table, write_csv


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_rows_with_their_lines(tmp_path, mark):
    path = tmp_path / "t.csv"
    lines = [" Name ", "X"], ["a", ' "1\n2" '], ["", ""], ["", ""], [" b", ""], ["c"]
    path.write_text("\ufeff" + "\n".join(mark.join(line) for line in lines).replace(' "', '"').replace('" ', '"'))
    assert read_table(path, ["x"]) == [
        (3, {"name": "a", "x": "1\n2"}),
        (6, {"name": "b", "x": ""}),
        (7, {"name": "c", "x": ""}),
    ]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "needs the columns path, label in its first line; it has: nothing"),
        (b"path\nx", "it has: path"),
        (b"path,label\n\n,\n", "has no rows"),
        (b"path,label,path\nx,y,z", "the column path twice"),
        (b"path,label\nx,y\nx,y,z", "line 3: 3 values for 2 columns"),
        (b"path,label\n\0", "is no text"),
        (b"PK\x03\x04\0\0", "an Excel or zip file"),
        (b'path,label\n"' + b"x" * 200_000, "field larger than field limit"),
    ],
)
def test_what_is_no_table(tmp_path, content, says):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(UserError, match=says):
        read_table(tmp_path / "t.csv", ["path", "label"])


def test_a_table_of_gigabytes_is_not_read(tmp_path):
    path = tmp_path / "t.csv"
    with path.open("wb") as file:
        file.truncate(1 << 32)  # sparse
    with pytest.raises(UserError, match="4295 MB, too large"):
        read_table(path)


@pytest.mark.parametrize("name", ["../x", "a/../../x", "a\\..\\x", "C:\\x", "C:x", ""])
def test_paths_stay_in_the_folder(tmp_path, name):
    with pytest.raises(UserError):
        path_to_read(tmp_path, name)


def test_paths_in_the_folder(tmp_path):
    assert path_to_read(tmp_path, "a/..b.png") == tmp_path / "a" / "..b.png"
    assert path_to_read(tmp_path, "a\\b.png") == tmp_path / "a" / "b.png"  # as Windows writes it
    assert path_to_read(tmp_path, str(tmp_path / "x")) == tmp_path / "x"  # as predictions.csv has them
    (tmp_path / "a\\b.png").touch()
    assert path_to_read(tmp_path, "a\\b.png") == tmp_path / "a\\b.png"


@pytest.mark.parametrize(
    "content",
    [
        "sep=;\r\nPath;Label\r\nä.png;µ, x\r\n".encode(),
        '"sep=;"\nPath;Label\nä.png;µ, x'.encode(),
        "Path\tLabel\nä.png\tµ, x\n".encode("utf-16"),
        "\ufeffPath\tLabel\nä.png\tµ, x\n".encode("utf-16-be"),
        "Path\tLabel\nä.png\tµ, x\n".encode("utf-16-le"),
        "Path;Label\nä.png;µ, x\n".encode("cp1252"),
        '"Path", "Label"\n"ä.png", "µ, x"\n'.encode(),
        "Path;Label;;\nä.png;µ, x;;\n".encode(),
        "Path;Label\nä.png;µ, x;;\n".encode(),
        "\r\nPath;Label\rä.png;µ, x\r".encode(),
    ],
)
def test_tables_of_other_machines(tmp_path, content):
    (tmp_path / "t.csv").write_bytes(content)
    ((_, row),) = read_table(tmp_path / "t.csv", ["path", "label"])
    assert (row["path"], row["label"]) == ("ä.png", "µ, x")


def test_what_is_written_is_read(tmp_path):
    rows = [["name", "x"], ['a "b", c', "1"], ["ü\n;", "2"]]
    write_csv(tmp_path / "t.csv", rows)
    assert [list(row.values()) for _, row in read_table(tmp_path / "t.csv")] == rows[1:]
