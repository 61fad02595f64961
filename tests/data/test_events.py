"""Files of events: ids that stay as they are, times that are asked for, forms of text, JSON lines, Parquet, parts."""

import bz2
import gzip
import json
import lzma
import sys
import zipfile

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepmatch_ext.data import Dataset, Interactions, read_dataset

pytestmark = pytest.mark.plain

CSV = "user_id,item_id,timestamp\n"


def lines(rows, sep, header):
    return "".join(sep.join(map(str, row)) + "\n" for row in [header, *rows])


def write(folder, **files):
    for name, content in files.items():
        file = folder / name.replace("__", ".")
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


# Ids.


def raw_events(x):
    """Pairs of raw ids, in the order of users and then of time."""
    return list(zip(x.user_ids.decode(x.users).tolist(), x.item_ids.decode(x.items).tolist(), strict=True))


def read_text(folder, text, name="a.csv", **options):
    file = folder / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_dataset(file, **options)


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (["7", "10", "-3", "0"], [-3, 0, 7, 10]),
        (["9223372036854775807", "1"], [1, 9223372036854775807]),
        (["007", "7"], ["007", "7"]),
        (["1e5", "100000"], ["100000", "1e5"]),
        (["1.0", "1"], ["1", "1.0"]),
        (["+1", "1"], ["+1", "1"]),
        (["-0", "0"], ["-0", "0"]),
        ([" 1", "1"], [" 1", "1"]),
        (["1_0", "10"], ["10", "1_0"]),
        (["٣", "3"], ["3", "٣"]),
        (["0x1F", "31"], ["0x1F", "31"]),
        (["9223372036854775808", "1"], ["1", "9223372036854775808"]),
        (["-9223372036854775808", "1"], ["-9223372036854775808", "1"]),
        (["True", "nan", "None", "NA", "inf"], ["NA", "None", "True", "inf", "nan"]),
    ],
)
@pytest.mark.parametrize("column", ["user", "item"])
def test_ids_come_back_as_they_are(tmp_path, ids, expected, column):
    rows = [(text, "x") if column == "user" else ("x", text) for text in ids]
    x = read_text(tmp_path, lines(rows, ",", ["user", "item"]), time=None).interactions
    assert getattr(x, f"{column}_ids").values.tolist() == expected
    # Every row has the id that its text stands for, as a number or as it is.
    assert sorted(str(pair[column == "item"]) for pair in raw_events(x)) == sorted(ids)


DIGITS = st.lists(st.text("0123456789", min_size=1, max_size=21) | st.integers().map(str), min_size=1, max_size=8)
ANY_IDS = st.lists(st.text("0123456789eE+-._xAé \u0663", min_size=1, max_size=5), min_size=1, max_size=8)


@given(users=DIGITS | ANY_IDS, items=DIGITS | ANY_IDS, header=st.sampled_from(["", ":token", ":float"]))
def test_no_text_of_an_id_is_lost(tmp_path_factory, users, items, header):
    folder = tmp_path_factory.mktemp("ids")
    rows = [(users[k % len(users)], items[k % len(items)]) for k in range(max(len(users), len(items)))]
    names = [f"user_id{header}", f"item_id{header}"]
    write(folder, a__inter=lines(rows, "\t", names))
    # Attributes of some of these ids, and of others that look alike.
    known = dict.fromkeys(items[::2] + [f"0{item}" for item in items] + [f"{item}.0" for item in items])
    write(
        folder,
        a__item=lines([(item, f"title of {item}") for item in known], "\t", ["item_id:token", "title:token_seq"]),
    )
    data = read_dataset(folder, time=None, verbose=False)
    x = data.interactions
    assert sorted((str(user), str(item)) for user, item in raw_events(x)) == sorted(rows)
    assert x.num_users == len(set(users))
    assert x.num_items == len(set(items))
    for raw in x.item_ids.values:
        assert (raw in data.items.index) == (str(raw) in known)
        if raw in data.items.index:
            assert data.items.loc[raw, "title"] == f"title of {raw}"
    for ids in (x.user_ids, x.item_ids):
        texts = [str(raw) for raw in ids.values]
        is_number = all(text.lstrip("-").isascii() and text == str(int(text)) for text in texts if is_integer(text))
        all_numbers = all(map(is_integer, texts)) and is_number and max(abs(int(text)) for text in texts) < 2**63
        assert ids.values.dtype.kind == ("i" if all_numbers and header != ":token" else "O")
        assert texts == sorted(texts, key=int if all_numbers else None)


def is_integer(text):
    try:
        return int(text) is not None
    except ValueError:
        return False


def test_ids_are_strings_where_it_is_said(tmp_path):
    text = lines([(9, 5), (10, 6)], ",", ["user", "item"])
    x = read_text(tmp_path, text, time=None, dtype={"item": str}).interactions
    assert x.user_ids.values.tolist() == [9, 10]
    assert x.item_ids.values.tolist() == ["5", "6"]
    x = read_text(tmp_path, text, time=None, dtype=str).interactions
    assert x.user_ids.values.tolist() == ["9", "10"]  # in the order of the numbers
    with pytest.raises(ValueError, match=r"`dtype` must be str, or a mapping of columns to str; got {'item': 'int64'}"):
        read_text(tmp_path, text, time=None, dtype={"item": "int64"})
    with pytest.raises(ValueError, match="`dtype` must name columns among 'user', 'item'; got 'sku'"):
        read_text(tmp_path, text, time=None, dtype={"sku": str})


def test_pieces_of_one_column_agree(tmp_path, monkeypatch):
    # The first piece holds numbers alone, the last one shows that they are text.
    monkeypatch.setattr("deepmatch_ext.data.tables.ROWS", 2)
    rows = [("b", 1, 5), ("a", 2, 4), ("a", 1, 3), ("b", 2, 2), ("a", "01", 1)]
    x = read_text(tmp_path, lines(rows, ",", ["user", "item", "ts"])).interactions
    assert raw_events(x) == [("a", "01"), ("a", "1"), ("a", "2"), ("b", "2"), ("b", "1")]
    assert x.times.tolist() == [1, 3, 4, 2, 5]
    with pytest.raises(ValueError, match=r"column 'ts' .*hold numbers or dates throughout; got numbers in some rows"):
        read_text(tmp_path, lines([*rows[:4], ("b", 1, "2024-05-01")], ",", ["user", "item", "ts"]))
    with pytest.raises(ValueError, match=r"column 'ts' .*or ISO 8601 dates throughout; got '1' in row 5"):
        read_text(tmp_path, lines([*rows, ("b", 1, "2024-05-01")], ",", ["user", "item", "ts"]))
    with pytest.raises(ValueError, match=r"column 'user' .*the first in row 4"):
        read_text(tmp_path, lines([*rows[:3], ("", 1, 2)], ",", ["user", "item", "ts"]))


def test_tables_of_attributes_that_do_not_fit(tmp_path):
    write(
        tmp_path, ratings__csv="userId,movieId,timestamp\n1,007,1\n1,008,2\n", movies__csv="movieId,title\n7,x\n8,y\n"
    )
    with pytest.warns(UserWarning, match=r"movies.csv.*no id in column 'movieId', such as '7', '8', is one of .*'007'"):
        data = read_dataset(tmp_path)
    assert data.items.index.tolist() == ["7", "8"]
    write(tmp_path, movies__csv="movieId,title\n7,x\n008,y\n")
    assert "; attributes of 1 of 2 items; " in str(read_dataset(tmp_path))


# Times.


def shuffled(name, write_time, folder, **options):
    """Nine days of three users in no order, read; the items of the first user."""
    rows = [(f"u{user}", day, write_time(day)) for user in range(3) for day in range(1, 10)]
    rows = [rows[k] for k in np.random.default_rng(0).permutation(len(rows))]
    x = read_text(folder, lines(rows, ";", ["user_id", "item_id", name]), sep=";", **options).interactions
    assert x.user_ids.values.tolist() == ["u0", "u1", "u2"]
    return x.item_ids.decode(x.items[:9]).tolist()


def iso(day):
    return f"2024-05-{day:02d}"


@pytest.mark.parametrize(
    "name",
    [
        *("timestamp", "time", "ts", "Timestamp", "eventTime", "event_time", "Event-Time", "event_timestamp", "date"),
        *(
            "datetime",
            "created_at",
            "createdAt",
            "order_date",
            "purchased_at",
            "t_dat",
            "unixReviewTime",
            "InvoiceDate",
        ),
    ],
)
def test_usual_names_of_times(tmp_path, name):
    assert shuffled(name, iso, tmp_path) == list(range(1, 10))


def test_a_time_is_asked_for(tmp_path):
    with pytest.raises(
        ValueError, match=r"have a column of times, such as 'timestamp'; got the columns .*'when'\. Name"
    ) as e:
        shuffled("when", iso, tmp_path)
    assert "time='...'" in str(e.value)
    assert "time=None" in str(e.value)
    assert shuffled("when", iso, tmp_path, time="when") == list(range(1, 10))
    assert shuffled("when", iso, tmp_path, time=None) != list(range(1, 10))
    rows = lines([("a", "x", 1, 2)], ",", ["user", "item", "event_time", "created_at"])
    with pytest.raises(ValueError, match=r"have one column of times; got 'event_time', 'created_at'. Say which: time="):
        read_text(tmp_path, rows)
    assert read_text(tmp_path, rows, time="created_at").interactions.times.tolist() == [2]
    assert read_text(tmp_path, rows, usecols=["user", "item", "event_time"]).interactions.times.tolist() == [1]
    # This package's own names stand for themselves beside others.
    rows = lines([(1, "a", 2, "x", 3, 4)], ",", ["user_id", "user", "item_id", "item", "timestamp", "date"])
    data = read_text(tmp_path, rows)
    assert raw_events(data.interactions) == [(1, 2)]
    assert data.interactions.times.tolist() == [3]
    with pytest.raises(ValueError, match="have one column of users; got 'user', 'uid'"):
        read_text(tmp_path, "user,uid,item,time\n1,2,3,4\n")


@pytest.mark.parametrize(
    ("write_time", "options"),
    [
        (lambda day: 1714521600 + day, {}),
        (lambda day: 1714521600.5 + day / 8, {}),
        (lambda day: f"{day}e9", {}),
        (lambda day: 9007199254740992 + day, {}),
        (lambda day: f"{iso(day)} 10:00:00 UTC", {}),
        (lambda day: f"{iso(day)}T10:00:00.250Z", {}),
        # Each day starts an hour earlier or later in local time than it does elsewhere.
        (lambda day: f"2024-05-01T{day + day % 2 * 5:02d}:00:00+0{day % 2 * 5}:00", {}),
        (lambda day: f"{day}/{13 - day}/{2000 + day}", {"dayfirst": True}),
        (lambda day: f"1/{day}/2024", {"dayfirst": False}),
        (lambda day: f"12.{day}.2024 9:00", {"dayfirst": False}),
        (lambda day: f"{day:02d}052024", {"date_format": "%d%m%Y"}),
        (lambda day: f"May {day}, 2024 9:0{day} PM", {"date_format": "%B %d, %Y %I:%M %p"}),
        (lambda day: f"{day:02d}/05/24 +0200", {"date_format": "%d/%m/%y %z"}),
    ],
)
def test_ways_to_write_times(tmp_path, write_time, options):
    assert shuffled("ts", write_time, tmp_path, **options) == list(range(1, 10))


@pytest.mark.parametrize(
    ("times", "options", "expected"),
    [
        (["2024-05-01T10:00Z", "2024-05-02T10:00+02:00"], {}, True),
        (["2024-05-01 10:00:00 UTC"], {}, True),
        (["2024-05-01 10:00", "2024-05-02"], {}, False),
        (["1714521600"], {}, None),
        (["1/5/2024 10:00"], {"dayfirst": True}, False),
        (["10:00 01-05-24"], {"date_format": "%H:%M %d-%m-%y"}, False),
        (["01-05-24 +0200"], {"date_format": "%d-%m-%y %z"}, True),
    ],
)
def test_events_of_files_remember_whether_their_times_have_a_zone(tmp_path, times, options, expected):
    rows = lines([("a", "x", time) for time in times], ",", ["user", "item", "ts"])
    assert read_text(tmp_path, rows, **options).interactions.has_zone is expected


@pytest.mark.parametrize("zones", [("Z", ""), ("", "+02:00")])
@pytest.mark.parametrize("in_files", [1, 2])
def test_times_with_a_zone_do_not_stand_beside_times_without_one(tmp_path, zones, in_files):
    rows = [("a", "x", f"2024-05-01T10:00{zones[0]}"), ("a", "y", f"2024-05-02T10:00{zones[1]}")]
    folder = tmp_path / "events"
    folder.mkdir()
    for number, part in enumerate(np.array_split(rows, in_files)):
        (folder / f"{number}.csv").write_text(lines(part, ",", ["user", "item", "ts"]))
    with pytest.raises(ValueError, match=r"column 'ts' of file .* must have a time zone in every row or in none; got"):
        read_dataset(folder, verbose=False)


def test_times_are_exact(tmp_path):
    rows = [("a", "x", "1714521600.123457"), ("a", "y", "1714521600123456789"), ("b", "x", "0.1")]
    x = read_text(tmp_path, lines(rows, ",", ["user", "item", "ts"])).interactions
    assert x.times.tolist() == [1714521600.123457, 1714521600123456789.0, 0.1]
    x = read_text(tmp_path, lines([("a", "x", "2024-05-01T10:00:00+02:00")], ",", ["user", "item", "ts"])).interactions
    assert x.times.tolist() == [np.datetime64("2024-05-01T08:00:00").astype(x.times.dtype).item()]


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (
            "13/05/2024",
            {"dayfirst": False},
            "hold dates such as 12/31/2024, as dayfirst says; got '13/05/2024' in row 1",
        ),
        (
            "05/13/2024",
            {"dayfirst": True},
            "hold dates such as 31/12/2024, as dayfirst says; got '05/13/2024' in row 1",
        ),
        (
            "2024-05-01",
            {"dayfirst": True},
            "hold dates such as 31/12/2024, as dayfirst says; got '2024-05-01' in row 1",
        ),
        ("05/13/24", {"dayfirst": False}, "got '05/13/24' in row 1"),
        ("2024-05-01", {"date_format": "%d/%m/%Y"}, "hold dates written as '%d/%m/%Y'; got '2024-05-01' in row 1"),
        ("now", {"date_format": "%Y"}, "hold dates written as '%Y'; got 'now' in row 1"),
        ("2024-02-30", {}, "must hold numbers or ISO 8601 dates; got '2024-02-30' in row 1"),
        ("2024", {"date_format": "mixed"}, "`date_format` must be a format such as '%d/%m/%Y'; got 'mixed'"),
        ("2024", {"date_format": "%Y", "dayfirst": True}, "`dayfirst` must be left out if date_format"),
        ("2024", {"dayfirst": "yes"}, "`dayfirst` must be True or False; got 'yes'"),
        ("2024", {"dayfirst": True, "time": None}, "be left out with time=None, which reads no times"),
        ("2024", {"time": 3}, "`time` must be the name of a column, or None for rows in the order of time; got 3"),
        ("2024", {"user": None}, "`user` must be the name of a column; got None"),
        ("2024", {"time": "item"}, "columns of users, items and times .* must not repeat a name; got 'item' twice"),
    ],
)
def test_times_refused(tmp_path, text, options, message):
    with pytest.raises(ValueError, match=message):
        read_text(tmp_path, lines([("a", "x", text)], ",", ["user", "item", "ts"]), **options)


# Histories among the columns.


@pytest.mark.parametrize(
    ("header", "row", "named"),
    [
        ("user_id:token item_id_list:token_seq item_id:token", "ann|tea milk|egg", "item_id_list"),
        ("user_id:token item_id_list:token_seq", "ann|tea milk egg", "item_id_list"),
        ("user_id:token item_id:token_seq", "ann|tea milk egg", "item_id"),
        ("user_id:token item_id:token", "ann|[tea, milk]", "item_id"),
        ("user_id:token item_id", "ann|['tea', 'milk']", "item_id"),
        ("user_id:token item_id:token clicks:token_seq", "ann|tea|tea tea", "clicks"),
        ("user_id:token item_id:token rating_list:float_seq", "ann|tea|1.0 2.0", "rating_list"),
        ("user_id:token item_id:token hist_item_id", "ann|tea|egg,milk", "hist_item_id"),
    ],
)
def test_a_history_is_not_lost(tmp_path, header, row, named):
    file = write(tmp_path, a__inter=header.replace(" ", "\t") + "\n" + row.replace("|", "\t") + "\n") / "a.inter"
    with pytest.raises(ValueError, match=rf"a.inter' must have one user, one item .*; got several .* column '{named}'"):
        read_dataset(file, time=None)


def test_other_columns_are_named_or_left_out(tmp_path, capsys):
    header = "user_id:token item_id:token item_id_list:token_seq review:token_seq rating:float prev_price:float"
    row = "ann|tea|egg milk|a fine tea|5|2.5"
    file = write(tmp_path, a__inter=header.replace(" ", "\t") + "\n" + row.replace("|", "\t") + "\n") / "a.inter"
    read_dataset(file, time=None, usecols=["user_id", "item_id", "review", "rating", "prev_price"])
    assert capsys.readouterr().out.endswith("; columns user_id, item_id (not read: 'review', 'rating', 'prev_price')\n")
    with pytest.raises(ValueError, match=r"`usecols` must name columns of file .*; got 'price'"):
        read_dataset(file, time=None, usecols=["price"])
    with pytest.raises(ValueError, match=r"have columns of the types token, .*; got 'item_id:string'"):
        read_text(tmp_path, "user_id:token\titem_id:string\n", "b.inter")


# Text in other forms.


def test_encodings_and_separators(tmp_path):
    text = "user;item;ts\nJosé;thé;2\nJosé;007;1\n"
    for encoding in ("latin-1", "utf-16", "utf-8-sig", "cp1252", "utf-32"):
        x = read_text(tmp_path, text.encode(encoding), sep=";", encoding=encoding).interactions
        assert raw_events(x) == [("José", "007"), ("José", "thé")]
    x = read_text(tmp_path, text.encode("utf-8-sig"), sep=";").interactions  # a byte order mark says nothing
    assert raw_events(x) == [("José", "007"), ("José", "thé")]
    with pytest.raises(ValueError, match=r"must be text in utf-8; .* encoding='latin-1'"):
        read_text(tmp_path, text.encode("latin-1"), sep=";")
    with pytest.raises(ValueError, match=r"must be text in utf-8-sig; got binary data"):
        read_text(tmp_path, (text + "a\0;b;3\n").encode("utf-8-sig"), sep=";", encoding="utf-8-sig")
    with pytest.raises(ValueError, match=r"must be a text table; got the character '\\x1f' in it"):
        read_text(tmp_path, text.replace("thé", "\x1f").replace(";", "::"), sep="::")
    with pytest.raises(ValueError, match=r"must be a text table; got unknown encoding: klingon"):
        read_text(tmp_path, text, encoding="klingon")
    for sep in ("\t", "|", "::", "||", "\x01"):
        x = read_text(tmp_path, text.replace(";", sep), "events.txt", sep=sep).interactions
        assert raw_events(x) == [("José", "007"), ("José", "thé")]
    assert raw_events(read_text(tmp_path, text.replace(";", "\t"), "a.tsv").interactions)[1] == ("José", "thé")
    x = read_text(tmp_path, text.replace(";", "   "), "a.log", sep=r"\s+").interactions
    assert raw_events(x) == [("José", "007"), ("José", "thé")]
    with pytest.raises(ValueError, match=r"got the columns 'user;item;ts'. If ';' separates the columns, .*sep=';'"):
        read_text(tmp_path, text)
    with pytest.raises(ValueError, match=r"If '::' separates the columns, give sep='::'"):
        read_text(tmp_path, text.replace(";", "::"))
    # A line that is too long, whatever stands between the columns.
    with pytest.raises(ValueError, match=r"must be a text table; got .*line 4, saw 4"):
        read_text(tmp_path, (text + "a;b;3;4\n").replace(";", "::"), sep="::")


def test_headers(tmp_path):
    events = [("a", "x"), ("a", "y")]
    rows = "a,y,2\na,x,1\n"
    names = ["user_id", "item_id", "timestamp"]
    assert raw_events(read_text(tmp_path, rows, header=None, names=names).interactions) == events
    assert raw_events(read_text(tmp_path, rows, names=names).interactions) == events
    assert raw_events(read_text(tmp_path, "u,i,t\n" + rows, header=0, names=names).interactions) == events
    assert raw_events(read_text(tmp_path, "# by us\n" + CSV + rows, comment="#").interactions) == events
    assert raw_events(read_text(tmp_path, "by us\n\n" + CSV + rows, skiprows=2).interactions) == events
    # A file that pandas wrote with its index.
    assert raw_events(read_text(tmp_path, f",{CSV}0,a,y,2\n1,a,x,1\n").interactions) == events
    for text, options, message in [
        ("196,242,8\n" + rows, {}, r"of users, .* A file without a header is read with header=None, names="),
        (CSV + rows, {"names": names}, r"have no header among its rows; got one in row 1. .*header=0"),
        (CSV + rows, {"names": ["u", "i", "t"], "user": "u", "item": "i", "time": None}, "got one in row 1"),
        (rows, {"names": names[:2]}, r"`names` must name as many columns as there are in file .*, 3; got 2"),
        (rows, {"names": [*names, "rating"]}, r"`names` must name as many columns as there are in file .*, 3; got 4"),
        (rows, {"names": ["user", "user", "time"]}, r"`names` must not repeat a name; got 'user' twice"),
        (rows, {"header": None}, r"`names` must name the columns of a file without a header; got None"),
        (CSV + rows, {"header": 3}, r"`header` must be 0, None or 'infer'; got 3. .*skiprows"),
        ("user_id,item_id,item_id,timestamp\na,x,y,1\n", {}, r"have the column 'item_id' once; got 2 of that name"),
        ("user_id,userId,item,time\na,b,x,1\n", {}, r"have one column of users; got 'user_id', 'userId'"),
        (CSV + rows, {"sep": ""}, r"`sep` must be the text between two columns"),
        (CSV + rows, {"sep": None}, r"`sep` must be the text between two columns"),
        (CSV + rows, {"compression": "7z"}, r"`compression` must be one of 'infer', 'gzip', 'bz2', 'xz', 'zip'"),
        (CSV + rows, {"nrows": 1}, r"argument 'nrows' must be one of user, item, time, usecols, .*; got nrows=1"),
        (CSV + rows, {"quotechar": "ab"}, r"a.csv' must be a text table; got"),
        (CSV + rows, {"quoting": 2}, r"`quoting` must be csv.QUOTE_MINIMAL, .*; got 2"),
        (CSV + '"a,x,1\na,y,2\nb",x,1\n', {}, r"column 'user_id' .*hold ids of one line; got .*quoting=3"),
        (CSV + rows, {"usecols": [0]}, r"`usecols` must be a list of column names; got 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            read_text(tmp_path, text, **options)


@pytest.mark.parametrize("form", ["csv", "tsv", "inter", "jsonl"])
def test_packed_files(tmp_path, form):
    sep = "," if form == "csv" else "\t"
    rows = [("007", "x", 2), ("007", "é", 1)]
    names = ["user_id", "item_id", "timestamp"]
    text = lines(rows, sep, names).encode()
    if form == "jsonl":
        text = "\n".join(json.dumps(dict(zip(names, row, strict=True))) for row in rows).encode()
    with zipfile.ZipFile(tmp_path / f"shop.{form}.zip", "w") as archive:
        archive.writestr(f"shop.{form}", text)
    write(
        tmp_path,
        **{f"shop__{form}__gz": gzip.compress(text), f"shop__{form}__bz2": bz2.compress(text)},
        **{f"shop__{form}__xz": lzma.compress(text), f"SHOP__{form.upper()}": text},
    )
    for end in ("gz", "bz2", "xz", "zip"):
        data = read_dataset(tmp_path / f"shop.{form}.{end}")
        assert data.name == "shop"
        assert raw_events(data.interactions) == [("007", "é"), ("007", "x")]
    assert raw_events(read_dataset(tmp_path / f"SHOP.{form.upper()}").interactions)[0] == ("007", "é")
    packed = write(tmp_path, **{f"packed__{form}": gzip.compress(text)}) / f"packed.{form}"
    assert raw_events(read_dataset(packed, compression="gzip").interactions) == [("007", "é"), ("007", "x")]
    with zipfile.ZipFile(tmp_path / f"shop.{form}.zip", "a") as archive:
        archive.writestr("more", b"")
    with pytest.raises(ValueError, match=rf"must be a text table; got an archive of 2 files, 'shop.{form}', 'more'"):
        read_dataset(tmp_path / f"shop.{form}.zip")


# JSON lines and Parquet.


def json_lines(*rows):
    return "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n"


def test_json_lines(tmp_path):
    large = 9007199254740993  # no float
    rows = [
        {"user_id": "007", "item_id": large, "event_time": "2024-05-02T00:00Z", "tags": ["a", "b"]},
        {"event_time": "2024-05-01T12:00:00+02:00", "item_id": large + 2, "user_id": "7", "note": None},
        {"user_id": "7", "item_id": large, "event_time": "2024-05-01T00:00Z", "price": {"eur": 1}},
    ]
    data = read_text(tmp_path, "\ufeff" + json_lines(*rows) + "\n", "shop.jsonl")
    assert raw_events(data.interactions) == [("007", large), ("7", large), ("7", large + 2)]
    assert str(data).endswith("columns user_id, item_id, event_time (not read: 'tags', 'note', 'price')")
    text = json_lines(*rows)
    assert raw_events(read_text(tmp_path, text, "shop.ndjson").interactions)[0] == ("007", large)
    assert raw_events(read_text(tmp_path, text, "shop.json", lines=True).interactions)[0] == ("007", large)
    # The type that JSON gives: "5" is a string, 5 is a number, and one column is not both.
    for ids, message in [
        (["5", "6"], None),
        ([5, 6.0], None),
        ([5, "6"], "column 'item_id' of file .*shop.jsonl' must be all integers or all strings; got mixed-integer"),
        ([5, True], "must be all integers or all strings"),
        ([5, None], "must have a value in every row; got 1 missing of 2, the first in row 2"),
        ([5, 2**70], "must fit in 64-bit integers"),
        ([5, [6]], "must be all integers or all strings|several values a row"),
        ([5, 6.5], "must be whole numbers or strings; got 6.5"),
    ]:
        rows = [{"user_id": 1, "item_id": raw, "timestamp": k} for k, raw in enumerate(ids)]
        if message is None:
            x = read_text(tmp_path, json_lines(*rows), "shop.jsonl").interactions
            assert [type(raw) for raw in x.item_ids.values.tolist()] == [type(ids[0])] * 2
        else:
            with pytest.raises(ValueError, match=message):
                read_text(tmp_path, json_lines(*rows), "shop.jsonl")
    for times, message in [
        ([1, "2"], "column 'ts' .*must hold numbers or dates throughout; got mixed-integer"),
        ([True, False], "boolean"),
        ([1, None], "must have a value in every row"),
        ([1, float("inf")], "must hold finite numbers; got inf in row 2"),
        ([2**70, 1.5], None),
        (["20240502", "20240501"], None),
    ]:
        rows = [{"user_id": 1, "item_id": k, "ts": time} for k, time in enumerate(times)]
        if message is None:
            x = read_text(tmp_path, json_lines(*rows), "shop.jsonl").interactions
            assert raw_events(x) == [(1, 1), (1, 0)]
        else:
            with pytest.raises(ValueError, match=message):
                read_text(tmp_path, json_lines(*rows), "shop.jsonl")
    rows = [{"user_id": 1, "item_id": k, "ts": 20240502 - k} for k in range(2)]
    data = read_text(tmp_path, json_lines(*rows), "shop.jsonl", date_format="%Y%m%d")
    assert ", times from 2024-05-01 to 2024-05-02;" in str(data)
    with pytest.raises(
        ValueError, match=r"shop.jsonl' must have one user, .*; got several values a row in column 'seen'"
    ):
        read_text(tmp_path, json_lines({"user_id": 1, "item_id": 3, "seen": [3, 3], "ts": 1}), "shop.jsonl")
    with pytest.raises(ValueError, match=r"argument 'sep' must be one of .* for JSON lines"):
        read_text(tmp_path, text, "shop.jsonl", sep=";")
    with pytest.raises(ValueError, match="`lines` must be True; got False"):
        read_text(tmp_path, text, "shop.json", lines=False)


@pytest.fixture
def pyarrow():
    return pytest.importorskip("pyarrow", reason="needs pyarrow")


def write_parquet(path, **columns):
    import pyarrow
    import pyarrow.parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


def test_parquet(tmp_path, pyarrow):
    file = write_parquet(
        tmp_path / "shop.parquet",
        user_id=["007", "7", "7"],
        item_id=pyarrow.array([9007199254740993, 5, 9007199254740993], pyarrow.int64()),
        event_time=pyarrow.array([3, 2, 1], pyarrow.timestamp("us", tz="Europe/Paris")),
        tags=[["a"], ["b", "c"], []],
    )
    data = read_dataset(file)
    assert raw_events(data.interactions) == [("007", 9007199254740993), ("7", 9007199254740993), ("7", 5)]
    assert data.interactions.times.dtype.kind == "M"
    assert str(data).endswith("columns user_id, item_id, event_time (not read: 'tags')")
    for values, kind in [(["01", "1"], "O"), ([1, 2], "i"), (pyarrow.array(["01", "1"]).dictionary_encode(), "O")]:
        file = write_parquet(tmp_path / "ids.parquet", user_id=[1, 1], item_id=values)
        assert read_dataset(file, time=None).interactions.item_ids.values.dtype.kind == kind
    for values in (pyarrow.array([20000, 19999], pyarrow.date32()), ["2024-05-02", "2024-05-01"], [1.5, 1.25]):
        file = write_parquet(tmp_path / "times.parquet", user_id=[1, 1], item_id=["b", "a"], ts=values)
        assert raw_events(read_dataset(file).interactions) == [(1, "a"), (1, "b")]
    for columns, message in [
        (
            {"item_id": [1, None]},
            "column 'item_id' .*must have a value in every row; got 1 missing of 2, the first in row 2",
        ),
        ({"item_id": [True, False]}, "must be all integers or all strings"),
        ({"item_id": [b"a", b"b"]}, "must be all integers or all strings"),
        ({"item_id": [[1, 2], [3]]}, "several values a row in column 'item_id'"),
        ({"item_id": [1, 2], "hist_item_id": [[2], [1]]}, "several values a row in column 'hist_item_id'"),
        ({"item_id": [1, 2], "basket": [[2, 1], [1]]}, "several values a row in column 'basket'"),
        ({"item_id": [1, 2], "ts": [True, False]}, "column 'ts' .*be numbers or datetimes"),
    ]:
        file = write_parquet(tmp_path / "bad.parquet", **{"user_id": [1, 1], "ts": [1, 2], **columns})
        with pytest.raises(ValueError, match=message):
            read_dataset(file)
    with pytest.raises(ValueError, match="hold text if a format of dates is given; got dtype datetime64"):
        read_dataset(tmp_path / "shop.parquet", dayfirst=True)


def test_parquet_without_pyarrow(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    (tmp_path / "a.parquet").write_bytes(b"")
    with pytest.raises(ImportError, match=r'needs pyarrow: pip install "pyarrow"'):
        read_dataset(tmp_path / "a.parquet")


# Many files.


def test_a_folder_of_parquet_parts(tmp_path, pyarrow):
    for part in range(12):  # part-10 after part-2
        write_parquet(tmp_path / f"part-{part}.parquet", user_id=["a", "b"], item_id=[part, part], x=[0, 0])
    write(tmp_path, _SUCCESS=b"", **{"__part-0__parquet__crc": b"x"}, README__md="x")
    x = read_dataset(tmp_path, time=None).interactions
    assert x.item_ids.decode(x.items[:12]).tolist() == list(range(12))
    data = read_dataset(tmp_path / "part-?.parquet", time=None)
    assert data.name == tmp_path.name
    assert len(data.interactions) == 20
    assert "; 10 files; columns user_id, item_id (not read: 'x')" in str(data)
    damaged = tmp_path / "part-7.parquet"
    whole = damaged.read_bytes()
    for bad in (b"", whole[:-9], whole[: len(whole) // 2] + whole[-40:]):
        damaged.write_bytes(bad)
        with pytest.raises(ValueError, match=r"part-7.parquet' must be a whole Parquet file"):
            read_dataset(tmp_path, time=None)
    write_parquet(damaged, user_id=["a"], item_id=["x"])
    with pytest.raises(
        ValueError, match=r"'item_id' of file .*part-7.parquet' must hold integers or strings throughout"
    ):
        read_dataset(tmp_path, time=None)
    write_parquet(damaged, user_id=["a"], sku=["x"])
    with pytest.raises(
        ValueError, match=r"part-7.parquet' must have the column 'item_id' once, as 'part-0.parquet' has"
    ):
        read_dataset(tmp_path, time=None)


def test_folders_whose_names_are_columns(tmp_path, pyarrow):
    for day, user in [("2024-05-02", "01"), ("2024-05-01", "1")]:
        write_parquet(tmp_path / f"date={day}" / f"user_id={user}" / "part-0.parquet", item_id=[day, "x"])
    x = read_dataset(tmp_path).interactions
    assert raw_events(x) == [("01", "2024-05-02"), ("01", "x"), ("1", "2024-05-01"), ("1", "x")]
    assert x.times.astype("datetime64[D]").astype(str).tolist() == ["2024-05-02"] * 2 + ["2024-05-01"] * 2
    assert len(read_dataset(tmp_path / "date=2024-05-0*").interactions) == 4
    assert len(read_dataset(tmp_path / "**" / "*.parquet").interactions) == 4
    # A column of the files goes before one of the folders' names.
    write_parquet(tmp_path / "x" / "date=2024-05-01" / "part-0.parquet", user_id=[1, 1], item_id=[1, 2], ts=[2, 1])
    assert raw_events(read_dataset(tmp_path / "x").interactions) == [(1, 2), (1, 1)]
    write_parquet(tmp_path / "date=__HIVE_DEFAULT_PARTITION__" / "user_id=2" / "part-0.parquet", item_id=["x"])
    with pytest.raises(ValueError, match=r"column 'date' of file .*must have a value in every row"):
        read_dataset(tmp_path)


def test_parts_of_text(tmp_path):
    for part, rows in enumerate([[("a", 7, 3)], [("b", "007", 2), ("a", "007", 1)], []]):
        (tmp_path / f"part-{part}.csv.gz").write_bytes(gzip.compress(lines(rows, ",", ["user", "item", "ts"]).encode()))
    assert raw_events(read_dataset(tmp_path).interactions) == [("a", "007"), ("a", "7"), ("b", "007")]
    assert raw_events(read_dataset(tmp_path / "part-[12]*").interactions) == [("a", "007"), ("b", "007")]
    (tmp_path / "part-1.csv.gz").write_bytes((tmp_path / "part-1.csv.gz").read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"part-1.csv.gz' must be a text table; got Compressed file ended"):
        read_dataset(tmp_path)
    write(tmp_path, **{"part-0__csv": b"user,item,ts\na,7,3\n"})
    with pytest.raises(ValueError, match=r"must hold each file once; got 'part-0.csv' and 'part-0.csv.gz'"):
        read_dataset(tmp_path)
    (tmp_path / "part-0.csv").unlink()
    (tmp_path / "part-1.csv.gz").unlink()
    write(tmp_path, toy__inter="")
    with pytest.raises(ValueError, match=r"toy.inter'. An .inter file is named by itself"):
        read_dataset(tmp_path / "t*")
    (tmp_path / "toy.inter").unlink()
    write(tmp_path, items__csv="item,title\n7,x\n")
    with pytest.raises(ValueError, match=r"must have .*column of users.*got the columns 'item', 'title'"):
        read_dataset(tmp_path)
    write(tmp_path, z__jsonl="{}")
    with pytest.raises(ValueError, match=r"must hold files of one form; got 'items.csv'"):
        read_dataset(tmp_path)


# What is printed.


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([881250949, 891717742], "times from 881250949 to 891717742 (as Unix seconds: 1997-12-04 to 1998-04-04)"),
        ([881250949000], "(as Unix milliseconds: 1997-12-04 to 1997-12-04)"),
        ([1.5, 20240501], "times from 1.5 to 20240501.0"),
        (pd.to_datetime(["2024-05-02", "2024-05-01"]), "times from 2024-05-01 to 2024-05-02"),
        (
            pd.to_datetime(["2024-05-02 10:30", "2024-05-01 00:00"]),
            "times from 2024-05-01 00:00:00 to 2024-05-02 10:30:00",
        ),
    ],
)
def test_from_when_to_when(times, expected):
    frame = pd.DataFrame({"user_id": 1, "item_id": range(len(times)), "timestamp": times})
    assert str(Dataset("shop", Interactions.from_frame(frame))).endswith(expected)
