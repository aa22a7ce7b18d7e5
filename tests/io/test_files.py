"""Files that are empty, cut off, too large or no chains at all."""

from __future__ import annotations

import gzip
import json
import os
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import qsde.io.delimited
from qsde.errors import FileFormatError, InputError, QsdeError
from qsde.io import read_quotes

HEAD = "quote_date,underlying,expiry,strike,option_type,bid,ask\n"
ROW = "2024-01-02,SPX,2024-02-16,{strike},C,51,52\n"
CHAIN = HEAD + "".join(ROW.format(strike=k) for k in range(4000, 4100))
PARQUET = Path(__file__).parents[2] / "data" / "spx_vix_2023-02-15" / "vix_2023-02-15.parquet"
BUNDLE = Path(__file__).parents[1] / "fixtures" / "vendor_raw" / "deribit_btc_bundle_2026-08-01.json.gz"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; give a CSV, Parquet or JSON file"),
        (b" \n\n", "is empty"),
        (HEAD.encode(), "has the columns of the tidy format of qsde but no rows"),
        (b"\x00\x01\x02garbage\xff\xfe", "binary data that is neither Parquet nor gzip"),
        (b"PK\x03\x04rest", "an Excel workbook or zip archive: save the sheet as CSV"),
        (PARQUET.read_bytes()[:20000], "not a complete Parquet file; copy or download it again"),
        (b"PAR1", "not a complete Parquet file"),
        (gzip.compress(CHAIN.encode())[:-30], "damaged or incomplete.*copy or download it again"),
        (gzip.compress(PARQUET.read_bytes()), "packed twice"),
        (b'{"strike": [1, 2', "not complete JSON .*copy or download the file again"),
        (b'{"a": 1}', "this JSON is no option chain that is known. Known: a Deribit bundle .*; a Yahoo option chain"),
        (b'{"options": [{"x": 1}], "futures": []}', "looks like a Deribit bundle .*, but a part is missing"),
        (b'{"options": [1], "quote": {}}', "looks like a Yahoo option chain .*, but a part is missing"),
        (b"[]", "this JSON is no option chain"),
        (b"[" * 100_000, "not complete JSON"),
        (b"just some words\nand more\n", "the columns are those of no known format. Found: 'just some words'"),
        (b"\xff\xfea\x00b", "not complete UTF-16 text"),
    ],
)
def test_bad_files_say_what_is_wrong(content, message, tmp_path):
    path = tmp_path / "chain.csv"
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match=message) as caught:
        read_quotes(path)
    assert str(path) in str(caught.value)


def test_missing_file_and_folder(tmp_path):
    (tmp_path / "chain.csv").write_text(CHAIN)
    with pytest.raises(FileFormatError, match=r"chian.csv: no such file; did you mean .*chain.csv\?"):
        read_quotes(tmp_path / "chian.csv")
    with pytest.raises(FileFormatError, match="no such file, nor a folder"):
        read_quotes(tmp_path / "none" / "chain.csv")
    with pytest.raises(FileFormatError, match=rf"^{tmp_path}: is a folder; give one file, for example .*chain.csv"):
        read_quotes(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_file_without_permission(tmp_path):
    path = tmp_path / "chain.csv"
    path.write_text(CHAIN)
    path.chmod(0)
    with pytest.raises(FileFormatError, match="cannot be read: Permission denied"):
        read_quotes(path)


def test_unknown_columns_list_what_was_found_and_how_to_map(read_text):
    text = "Expiry,T,K,cp,b,a\n2024-02-16,0.1,4800,C,51,52\n"
    with pytest.raises(FileFormatError) as caught:
        read_text(text)
    message = str(caught.value)
    assert "Found: 'Expiry', 'T', 'K', 'cp', 'b', 'a'" in message
    assert "Missing: strike, option_type, bid or ask or mid" in message
    assert "--map strike=K --map option_type=cp --map bid=b --map ask=a" in message
    assert "column_map={'strike': 'K', 'option_type': 'cp', 'bid': 'b', 'ask': 'a'}" in message
    quotes = read_text(text, column_map={"strike": "K", "option_type": "cp", "bid": "b", "ask": "a", "t_years": "T"})
    assert quotes.frame[["strike", "bid", "ask", "t"]].to_numpy().tolist() == [[4800, 51, 52, 0.1]]


@pytest.mark.parametrize(
    ("head", "options"),
    [
        ("Date,Expiration,Strike Price,Put/Call,Last", "--map 'strike=Strike Price' --map option_type=Put/Call"),
        ("quote_date,expiry,strike,option_type,Underlying Price,Close", "which column is which: --map mid=Close ("),
        ("quote_date,expiry,strike,option_type,spot", "which column is which: --map mid=... ("),
        ("20240102,161000,162000,140000", "perhaps without its line of column names, say which column is which"),
    ],
)
def test_columns_that_look_like_the_missing_ones_are_named(head, options, read_text):
    with pytest.raises(FileFormatError) as caught:
        read_text(head + "\n1,2,3,4,5\n")
    assert options in str(caught.value)


def test_column_map_errors(read_text):
    with pytest.raises(InputError, match="'strik' is no column of the tidy format; write canonical=found"):
        read_text(CHAIN, column_map={"strik": "K"})
    with pytest.raises(FileFormatError, match=r"names 'K', which the file does not have; found 'quote_date'"):
        read_text(CHAIN, column_map={"strike": "K"})


def test_mapped_column_hides_the_one_of_that_name(read_text):
    text = HEAD.replace("\n", ",my_bid\n") + ROW.format(strike=4800).replace("\n", ",7\n")
    assert read_text(text).frame["bid"].tolist() == [51]
    assert read_text(text, column_map={"bid": "my_bid"}).frame["bid"].tolist() == [7]


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_size_limit_names_the_option(pack, tmp_path):
    path = tmp_path / "chain"
    path.write_bytes(pack(CHAIN.encode()))
    with pytest.raises(FileFormatError, match=r"above the limit of 1,000; .*raise the limit with --max-bytes \d+"):
        read_quotes(path, max_bytes=1000)
    assert len(read_quotes(path, max_bytes=100_000)) == 100


def test_parquet_size_limit():
    with pytest.raises(FileFormatError, match="above the limit of 1,000"):
        read_quotes(PARQUET, max_bytes=1000)


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_blocks_give_the_same_quotes_and_row_numbers(pack, tmp_path, monkeypatch):
    lines = CHAIN.splitlines(keepends=True)
    lines.insert(20, "broken,line\n")
    lines.insert(70, "\n")
    path = tmp_path / "chain"
    path.write_bytes(pack("".join(lines).encode()))
    whole = read_quotes(path)
    seen: list[tuple[int, int]] = []
    monkeypatch.setattr(qsde.io.delimited, "_BLOCK", 300)
    parts = read_quotes(path, progress=lambda done, total: seen.append((done, total)))
    pd.testing.assert_frame_equal(parts.frame, whole.frame)
    assert parts.rejected["row"].tolist() == whole.rejected["row"].tolist() == [20]
    assert len(parts) == 100
    assert parts.frame["row"].tolist() == [*range(1, 20), *range(21, 102)]
    assert seen == sorted(seen)
    assert seen[-1] == (path.stat().st_size,) * 2


def test_parquet_and_json_report_progress():
    for path in (PARQUET, BUNDLE):
        seen: list[tuple[int, int]] = []
        read_quotes(path, progress=lambda done, total, seen=seen: seen.append((done, total)))
        assert seen[-1] == (path.stat().st_size,) * 2


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "latin-1"])
def test_encodings(encoding, tmp_path):
    path = tmp_path / "chain.csv"
    path.write_bytes(CHAIN.replace("SPX", "ÄKZ").encode(encoding))
    quotes = read_quotes(path)
    assert quotes.frame["underlying"].unique().tolist() == ["ÄKZ"]
    assert quotes.warnings == (("the file is not UTF-8 text; it was read as Latin-1",) if encoding == "latin-1" else ())


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_delimiters_and_line_ends(delimiter, newline, tmp_path):
    path = tmp_path / "chain.csv"
    path.write_bytes(CHAIN.replace(",", delimiter).replace("\n", newline).encode())
    assert len(read_quotes(path)) == 100


def test_large_csv_is_read_in_blocks_in_good_time(tmp_path):
    rng = np.random.default_rng(1)
    n = 100_000
    frame = pd.DataFrame({
        "quote_date": "2024-01-02", "underlying": "SPX",
        "expiry": pd.Timestamp("2024-02-16") + pd.to_timedelta(rng.integers(0, 300, n), unit="D"),
        "strike": np.arange(n) / 10 + 100, "option_type": rng.choice(["C", "P"], n),
        "bid": rng.random(n).round(4), "ask": rng.random(n).round(4) + 1, "junk": rng.random(n),
    })  # fmt: skip
    frame.to_csv(tmp_path / "large.csv", index=False)
    quotes = read_quotes(tmp_path / "large.csv")
    assert len(quotes) == n
    np.testing.assert_array_equal(quotes.frame["bid"], frame["bid"])


_garbage = st.one_of(
    st.binary(max_size=400),
    st.builds(lambda b: CHAIN.encode()[: len(HEAD) + 10] + b, st.binary(max_size=200)),
    st.builds(lambda b: b"PAR1" + b + b"PAR1", st.binary(max_size=200)),
    st.builds(lambda b: b"\x1f\x8b\x08" + b, st.binary(max_size=200)),
    st.builds(lambda b: gzip.compress(b), st.binary(max_size=200)),
    st.builds(
        lambda s: (HEAD + s).encode("utf-8", "replace"), st.text(alphabet='0123456789-,.:/TZCP\n" e%$', max_size=200)
    ),
    st.builds(lambda s: s.encode(), st.text(alphabet='{}[]":,0123456789optionsfutrecalx', max_size=100)),
)


@given(content=_garbage)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_garbage_never_raises_anything_but_our_own_errors(content, tmp_path):
    path = tmp_path / "garbage"
    path.write_bytes(content)
    with suppress(QsdeError):
        read_quotes(path)


@given(place=st.integers(0, 19000), patch=st.binary(min_size=1, max_size=8), source=st.sampled_from([PARQUET, BUNDLE]))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_files_never_raise_anything_but_our_own_errors(place, patch, source, tmp_path):
    content = bytearray(source.read_bytes())
    content[place : place + len(patch)] = patch
    path = tmp_path / "damaged"
    path.write_bytes(content)
    with suppress(QsdeError):
        read_quotes(path)


_values = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.just([]), st.just({}))


@given(rows=st.lists(st.fixed_dictionaries(dict.fromkeys(HEAD.strip().split(","), _values)), min_size=1, max_size=4))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_records_of_any_values_are_all_accounted_for(rows, tmp_path):
    import json

    path = tmp_path / "records"
    path.write_text(json.dumps(rows))
    try:
        quotes = read_quotes(path)
    except QsdeError:
        return
    assert len(quotes) + len(quotes.rejected) == len(rows)


def test_json_columns_whose_rows_do_not_match_are_refused(tmp_path):
    rows = {"quote_date": "2024-01-02", "underlying": "SPX", "expiry": "2024-02-16", "option_type": "C", "ask": 52.0}
    columns = {name: {"0": value, "1": value} for name, value in rows.items()}
    path = tmp_path / "chain.json"
    path.write_text(json.dumps({**columns, "strike": {"0": 4800, "1": 4900}, "bid": {"0": 51, "1": 50}}))
    assert read_quotes(path).frame["bid"].tolist() == [51, 50]
    for bid in ({"1": 50, "0": 51}, {"0": 51, "2": 50}):
        path.write_text(json.dumps({**columns, "strike": {"0": 4800, "1": 4900}, "bid": bid}))
        with pytest.raises(FileFormatError, match="rows have different labels, or are in another order"):
            read_quotes(path)
