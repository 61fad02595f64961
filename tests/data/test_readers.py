"""Data sets on disk: every known form gives one shape, and everything else one clear line."""

import gzip
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from deepmatch_ext.data import read_dataset

pytestmark = [pytest.mark.plain, pytest.mark.smoke]

# The same five events in every form: user 7 takes 20, then 30 and 10 at one time; user 3 takes 10, then 20.
EVENTS = [(7, 30, 4, 200), (3, 20, 5, 150), (7, 10, 3, 200), (3, 10, 1, 140), (7, 20, 2, 100)]


def lines(rows, sep, header=None):
    return "".join(sep.join(map(str, row)) + "\n" for row in ([header] if header else []) + list(rows))


def write(folder, **files):
    for name, content in files.items():
        file = folder / name.replace("__", ".")
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def recbole(folder):
    return write(
        folder,
        tiny__inter=lines(EVENTS, "\t", ["user_id:token", "item_id:token", "rating:float", "timestamp:float"]),
        tiny__item="item_id:token\tmovie_title:token_seq\tclass:token_seq\n"
        '10\t"Ten" Things\tDrama Sci-Fi\n20\tTwo, Zero\tComedy\n30\tÉté\t\n',
        tiny__user="user_id:token\tgender:token\tzip:token\n3\tM\t05201\n7\tF\t94043\n",
    )


def ml_1m(folder):
    return write(
        folder,
        ratings__dat=lines(EVENTS, "::"),
        movies__dat='10::"Ten" Things::Drama|Sci-Fi\n20::Two, Zero::Comedy\n30::Été::\n'.encode("latin-1"),
        users__dat="3::M::25::15::05201\n7::F::1::10::94043\n",
    )


def ml_100k(folder):
    def movie(item, title, *genres):
        # Flags in the order of u.item: unknown, Action, Adventure, Animation, Children's, Comedy, Crime,
        # Documentary, Drama (8), ..., Sci-Fi (15), ...
        flags = ["1" if place in genres else "0" for place in range(19)]
        return "|".join([str(item), title, "01-Jan-1995", "", "http://x", *flags]) + "\n"

    items = movie(10, '"Ten" Things', 8, 15) + movie(20, "Two, Zero", 5) + movie(30, "Été")
    return write(
        folder,
        u__data=lines(EVENTS, "\t"),
        u__item=items.encode("latin-1"),
        u__user="3|24|M|writer|05201\n7|53|F|other|94043\n",
    )


def ml_latest(folder):
    return write(
        folder,
        ratings__csv=lines(EVENTS, ",", ["userId", "movieId", "rating", "timestamp"]),
        movies__csv='movieId,title,genres\n10,"""Ten"" Things",Drama|Sci-Fi\n20,"Two, Zero",Comedy\n'
        "30,Été,(no genres listed)\n",
    )


@pytest.mark.parametrize("form", [recbole, ml_1m, ml_100k, ml_latest])
def test_every_form_gives_one_shape(tmp_path, form):
    data = read_dataset(form(tmp_path))
    x = data.interactions
    # A header that says "token" makes strings of ids, numbered as the numbers are.
    raw = [str if form is recbole else int][0]
    assert data.name == tmp_path.name
    assert (x.user_name, x.item_name) == ("user_id", "item_id")
    assert x.user_ids.decode(x.users).tolist() == list(map(raw, [3, 3, 7, 7, 7]))
    assert x.users.tolist() == [1, 1, 2, 2, 2]
    assert x.item_ids.decode(x.items).tolist() == list(
        map(raw, [10, 20, 20, 30, 10])
    )  # 30 before 10: the file's order in a tie
    assert x.times.tolist() == [140, 150, 100, 200, 200]
    assert data.items.index.tolist() == list(map(raw, [10, 20, 30]))
    assert data.items["title"].tolist() == ['"Ten" Things', "Two, Zero", "Été"]
    assert data.items["genres"].fillna("").tolist() == ["Drama|Sci-Fi", "Comedy", ""]
    if form is ml_latest:
        assert data.users is None
    else:
        assert data.users.index.tolist() == list(map(raw, [3, 7]))
        assert data.users["gender"].tolist() == ["M", "F"]
        assert data.users.filter(like="zip").squeeze().tolist() == ["05201", "94043"]  # no number: it keeps its 0


@pytest.mark.parametrize("kind", ["token", "float"])
def test_attributes_go_to_the_ids_of_the_same_text(tmp_path, kind):
    large = 10**18
    others = ["7.0", "07", "+7", " 7", "7e0", "x", "inf", "1e30", "99999999999999999999", ""]
    write(
        tmp_path,
        a__inter=f"user_id:token\titem_id:{kind}\n1\t{large + 1}\n1\t{large + 3}\n2\t7\n",
        a__item="item_id:token\tmovie_title:token_seq\n"
        f"{large + 1}\tone\n{large + 3}\tthree\n7\tseven\n" + "".join(f"{other}\tnone\n" for other in others),
    )
    data = read_dataset(tmp_path, time=None)
    raw = str if kind == "token" else int
    expected = [raw(7), raw(large + 1), raw(large + 3)]
    assert data.interactions.item_ids.values.tolist() == expected
    assert data.items["title"].reindex(expected).tolist() == ["seven", "one", "three"]
    assert (data.items["title"] == "none").sum() == (len(others) - 1 if kind == "token" else 0)


def sequence_folder(folder, **arrays):
    np.savez(folder / "seq.npz", **arrays)
    return folder


def test_sequences_and_their_tables(tmp_path):
    sequence_folder(tmp_path, indptr=np.array([0, 2, 3]), items=np.array([2, 1, 3], np.int32))
    assert read_dataset(tmp_path).items is None
    write(
        tmp_path, items__csv="item,title,genres\n1,One,Drama\n2,Two,Comedy|War\n", users__csv="user,age\n1,25\n2,35\n"
    )
    data = read_dataset(tmp_path)
    assert data.interactions.users.tolist() == [1, 1, 2]
    assert data.interactions.items.tolist() == [2, 1, 3]
    assert data.interactions.times is None
    assert data.items.loc[2, "title"] == "Two"
    assert data.items["genres"].tolist() == ["Drama", "Comedy|War"]
    assert data.users.loc[2, "age"] == "35"


def test_an_inter_file_goes_before_sequences(tmp_path):
    sequence_folder(recbole(tmp_path), indptr=np.array([0, 1]), items=np.array([1]))
    assert len(read_dataset(tmp_path).interactions) == 5
    assert read_dataset(tmp_path / "tiny.inter").name == "tiny"


@pytest.mark.parametrize("packed", [False, True])
def test_any_csv(tmp_path, packed):
    text = "when,shopper,sku\n2024-05-02T00:00Z,ann,tea\n2024-05-01T10:00+02:00,ann,milk\n2024-05-03T00:00Z,bob,007\n"
    file = tmp_path / ("shop.csv.gz" if packed else "shop.csv")
    file.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    data = read_dataset(file, user="shopper", item="sku", time="when")
    x = data.interactions
    assert data.name == "shop"
    assert x.user_ids.decode(x.users).tolist() == ["ann", "ann", "bob"]
    assert x.item_ids.decode(x.items).tolist() == ["milk", "tea", "007"]
    assert x.times.dtype.kind == "M"
    assert (x.user_name, x.item_name) == ("user_id", "item_id")


def test_rows_in_the_order_of_time(tmp_path):
    file = tmp_path / "clicks.csv"
    file.write_text("UserId,Item\nb,NA\na,x\nb,null\n")
    x = read_dataset(file, time=None).interactions
    assert x.times is None
    # "NA" and "null" are names like any other.
    assert x.item_ids.decode(x.items).tolist() == ["x", "NA", "null"]


CSV = "user_id,item_id,timestamp\n"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "must be a text table; got an empty file"),
        ("a.csv", CSV.encode(), "must have at least one row of events; got none"),
        ("a.csv", b"user_id,price\n1,2\n", "have a column of items, such as 'item_id'; got the columns 'user_id', 'pr"),
        ("a.csv", b"\n\n", "must be a text table; got an empty file"),
        ("a.csv", CSV.encode() + b"1,2\x00,3\n", "must be text in utf-8; got binary data"),
        ("a.csv", (CSV + "1,2,3\n" * 9999 + "1,2\x00,3\n").encode(), "must be text in utf-8; got binary data"),
        ("a.csv", (CSV + "1,2,3\n").encode("utf-16"), "must be text in utf-8.*such as .* encoding='utf-16'"),
        ("a.csv", CSV.encode() + b"1,\xff\xfe,3\n", "must be text in utf-8"),
        ("a.csv", CSV.encode() + b"1,2,3\n1,2,3,4\n", "must be a text table; got .*line 3"),
        ("a.csv", CSV.encode() + b"1,2,3,4\n1,2,3,4\n", "must be a text table"),
        (
            "a.csv",
            CSV.encode() + b"1,2,3\n1,,3\n",
            "column 'item_id' .*have a value in every row; got 1 missing of 2, the",
        ),
        ("a.csv", CSV.encode() + b"1,2,3\n1\n", "column 'item_id' .*must have a value in every row; .* first in row 2"),
        ("a.csv", CSV.encode() + b"1,2,3\n1,2\n", "column 'timestamp' .*have a value in every row; .* first in row 2"),
        ("a.csv", CSV.encode() + b'"",2,3\n', "column 'user_id' .*must have a value in every row; .* first in row 1"),
        (
            "a.csv",
            CSV.encode() + b"1,2,soon\n",
            "column 'timestamp' .*hold numbers or ISO 8601 dates; got 'soon' in row 1",
        ),
        ("a.csv", CSV.encode() + b"1,2,5\n1,2,nan\n", "must hold numbers or ISO 8601 dates; got 'nan' in row 2"),
        ("a.csv", CSV.encode() + b"1,2,inf\n", "must hold numbers or ISO 8601 dates; got 'inf' in row 1"),
        ("a.csv", CSV.encode() + b"1,2,1_000\n", "must hold numbers or ISO 8601 dates; got '1_000' in row 1"),
        ("a.csv", CSV.encode() + b"1,2,now\n", "must hold numbers or ISO 8601 dates; got 'now' in row 1"),
        (
            "a.csv",
            CSV.encode() + b"1,2,01/02/2024\n",
            "got '01/02/2024' in row 1. Say how .*date_format=.* dayfirst=True",
        ),
        (
            "a.csv",
            CSV.encode() + b"1,2,3\nuser_id,item_id,timestamp\n",
            "have no header among its rows; got one in row 2",
        ),
        ("a.csv.gz", b"plain text", "must be a text table; got Not a gzipped file"),
        ("a.csv.gz", gzip.compress(CSV.encode() * 99, mtime=0)[:-20], "must be a text table"),
        ("a.csv.zip", b"plain text", "must be a text table; got File is not a zip file"),
        ("a.csv.xz", b"plain text", "must be a text table; got Input format not supported"),
        ("a.csv.bz2", b"plain text", "must be a text table; got Invalid data stream"),
        (
            "a.xlsx",
            b"x",
            "must end in .csv, .tsv, .jsonl, .ndjson, .parquet, .inter, or be a folder; got 'a.xlsx'. Text",
        ),
        ("a.json", b"{}", "or be a folder; got 'a.json'. .*lines=True"),
        ("a.jsonl", b"", "must have one JSON object a line; got an empty file"),
        ("a.jsonl", b'{"user_id": 1}\n[1]\n', "must have one JSON object a line; got a list in line 2"),
        ("a.jsonl", b'{"user_id": 1}\n\n{"user_id": 1\n', "must have one JSON object a line; got in line 3: Expecting"),
        ("a.jsonl", b"[" * 99999, "must have one JSON object a line; got in line 1: "),
        ("a.jsonl", b'{"user_id": "\xff"}\n', "must be text in utf-8"),
        ("a.inter", b"user_id:token\n1\n", "have a column of items.*; got the columns 'user_id'"),
    ],
)
def test_files_refused_in_one_line(tmp_path, name, content, message):
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_dataset(file)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_paths_and_folders_refused(tmp_path):
    with pytest.raises(ValueError, match="nowhere' must exist; got no such file or folder"):
        read_dataset(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"nowhere\*' must match a file; got none"):
        read_dataset(tmp_path / "nowhere*")
    with pytest.raises(ValueError, match=r"must have one of \*.inter, seq.npz, .*; got an empty folder"):
        read_dataset(tmp_path)
    write(tmp_path, notes__txt="x")
    with pytest.raises(ValueError, match=r"got 'notes.txt'"):
        read_dataset(tmp_path)
    write(tmp_path, a__inter="x", b__inter="x")
    with pytest.raises(ValueError, match=r"must have one .inter file; got 'a.inter', 'b.inter'"):
        read_dataset(tmp_path)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"items": [1]}, "must have the arrays indptr and items; got 'items'"),
        ({"indptr": [0, 2], "items": [1]}, "`indptr` must rise from 0"),
        ({"indptr": [0, 1], "items": np.array([None])}, "must be a NumPy .npz file"),
    ],
)
def test_sequences_refused(tmp_path, arrays, message):
    with pytest.raises(ValueError, match=message) as caught:
        read_dataset(sequence_folder(tmp_path, **arrays))
    assert "seq.npz" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"rubbish", b"PK\x03\x04rubbish"])
def test_rubbish_for_sequences(tmp_path, content):
    with pytest.raises(ValueError, match=r"must be a NumPy .npz file") as caught:
        read_dataset(write(tmp_path, seq__npz=content))
    assert "\n" not in str(caught.value)


def test_other_refusals(tmp_path):
    with pytest.raises(ValueError, match="must have the user column 'shopper'; got the columns 'userId', 'movieId'"):
        read_dataset(ml_latest(tmp_path), user="shopper")
    (tmp_path / "movies.csv").write_text("movieId,title\n10,a\n10,b\n")
    with pytest.raises(ValueError, match=r"movies.csv.* must have each id of column 'movieId' once; got 10 repeated"):
        read_dataset(tmp_path)
    (tmp_path / "movies.csv").write_text("title\na\n")
    with pytest.raises(ValueError, match=r"movies.csv.* must have a column of ids"):
        read_dataset(tmp_path)
    (tmp_path / "one").mkdir()
    with pytest.raises(ValueError, match=r"be left out for ratings.dat; got time=None, sep='::'"):
        read_dataset(ml_1m(tmp_path / "one"), time=None, sep="::")


def test_one_line_says_what_was_read(tmp_path, capsys):
    data = read_dataset(recbole(tmp_path))
    assert str(data) == (
        f"{tmp_path.name}: 5 rows, 2 users, 3 items, times from 100 to 200; attributes of 2 of 2 users and 3 of 3 "
        "items; columns user_id, item_id, timestamp (not read: 'rating')"
    )
    assert capsys.readouterr().out == f"{data}\n"
    read_dataset(tmp_path, verbose=False)
    assert capsys.readouterr().out == ""
    (tmp_path / "one").mkdir()
    read_dataset(sequence_folder(tmp_path / "one", indptr=[0, 2], items=[2, 1]))
    assert capsys.readouterr().out == "one: 2 rows, 1 user, 2 items, no times: the order of the rows\n"


@pytest.mark.parametrize("name", ["ml-100k", "ml-1m", "amazon-beauty"])
def test_real_data(name):
    folder = os.environ.get("DEEPMATCH_EXT_DATA")
    if not folder or not (Path(folder) / name).is_dir():
        pytest.skip(f"needs the folder of {name} in DEEPMATCH_EXT_DATA")
    data = read_dataset(Path(folder) / name)
    x = data.interactions
    with np.load(Path(folder) / name / "seq.npz") as arrays:
        expected = {key: arrays[key] for key in arrays}
    assert (x.indptr[1:] == expected["indptr"]).all()
    items = x.item_ids.decode(x.items).astype(int)
    # In amazon-beauty 3 of 22,363 users are out of the order of their times; from .inter, even ties are equal.
    differing = np.unique(x.users[items != expected["items"]])
    assert len(differing) <= (3 if name == "amazon-beauty" else 0)
    if data.items is not None:
        assert data.items.reindex(pd.Index(x.item_ids.values))["title"].notna().all()
        assert data.users.index.isin(x.user_ids.values).all()
