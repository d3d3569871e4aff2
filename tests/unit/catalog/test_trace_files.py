"""Traces: which formats are told apart, that nothing is lost on the way, and what is refused."""

from __future__ import annotations

import gzip
import json
import random
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tokopt.catalog.trace_files import TraceFile, open_trace, write_trace
from tokopt.domain.traces import TraceChunk, joined, taken
from tokopt.errors import CatalogError, InputError

AZURE = """\
TIMESTAMP,ContextTokens,GeneratedTokens
2031-02-03 23:59:58.9799600,480,10
2031-02-03 23:59:58.9799601,318,8
2031-02-04 00:00:01.0000000,11,27
"""
AZURE_ZONED = """\
TIMESTAMP,ContextTokens,GeneratedTokens
2031-02-03 00:00:00+00:00,480,10
2031-02-03 00:00:00.009930+00:00,318,8
2031-02-03 02:00:00+01:00,11,27
"""
MOONCAKE = """\
{"timestamp": 100, "input_length": 1100, "output_length": 5, "hash_ids": [0, 1, 2]}
{"timestamp": 100, "input_length": 1024, "output_length": 6, "hash_ids": [0, 3]}

{"timestamp": 3152, "input_length": 9, "output_length": 7, "hash_ids": [4]}
"""
BURSTGPT = """\
Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type
5,ChatGPT,472,18,490,Conversation log
5,GPT-4,100,0,100,API log
45,GPT-4,108,7,115,API log
118,ChatGPT,417,276,693,Conversation log
"""
BURSTGPT_2 = """\
Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type
1944.0,aa-bb,4,GPT-4,472,18,490,Conversation log
1984.0,,2,ChatGPT,108,7,115,API log
"""
BAILIAN = """\
{"chat_id": 1, "parent_chat_id": -1, "timestamp": 0.5, "input_length": 40, "output_length": 5, "type": "text", "turn": 1, "hash_ids": [7, 8, 9]}
{"chat_id": 2, "parent_chat_id": -1, "timestamp": 2.5, "input_length": 33, "output_length": 5, "type": "image", "turn": 1, "hash_ids": [6, 8, 5]}
{"chat_id": 3, "parent_chat_id": 1, "timestamp": 3.0, "input_length": 48, "output_length": 5, "type": "text", "turn": 2, "hash_ids": [7, 8, 11]}
"""  # noqa: E501
OWN = """\
time_s,input_tokens,output_tokens,class,hash_ids,block_tokens
10.25,100,10,chat,1 2 3 9,32
11.5,31,20,code,,32
12,64,30,chat,1 4,32
"""


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def whole(trace: TraceFile, requests: int = 65_536) -> TraceChunk:
    return joined(list(trace.chunks(requests)))


def read(tmp_path: Path, content: str | bytes, name: str = "trace.csv", **how: bool) -> TraceChunk:
    return whole(open_trace(write(tmp_path / name, content), **how))


@pytest.mark.parametrize(
    ("content", "form", "times", "inputs", "outputs"),
    [
        (AZURE, "azure", [0, 1e-7, 2.02004], [480, 318, 11], [10, 8, 27]),
        (AZURE_ZONED, "azure", [0, 0.00993, 3600], [480, 318, 11], [10, 8, 27]),
        (AZURE.replace("2031-02-03 ", "2031-02-03T").replace("00,4", "00Z,4"), "azure", [0, 1e-7, 2.02004], None, None),
        (MOONCAKE, "mooncake", [0, 0, 3.052], [1100, 1024, 9], [5, 6, 7]),
        (BURSTGPT, "burstgpt", [0, 40, 113], [472, 108, 417], [18, 7, 276]),
        (BURSTGPT_2, "burstgpt", [0, 40], [472, 108], [18, 7]),
        (BAILIAN, "bailian", [0, 2, 2.5], [40, 33, 48], [5, 5, 5]),
        (OWN, "tokopt", [0, 1.25, 1.75], [100, 31, 64], [10, 20, 30]),
        ("arrived_at,isl,osl\n1,5,6\n\n3,7,8\n\n", "table", [0, 2], [5, 7], [6, 8]),
        ("\n\nx,time_s,output_tokens,input_tokens\r\na,1,6.0,5\r\nb,3,8,7\r\n", "tokopt", [0, 2], [5, 7], [6, 8]),
        ('{"time_s": 1, "input_tokens": 5, "output_tokens": 6}', "tokopt", [0], [5], [6]),
        ('\ufeff{"time_s": "2031-02-03 00:00:00", "input_tokens": 5, "output_tokens": 6}\n', "tokopt", [0], [5], [6]),
    ],
)
def test_formats_are_told_by_their_columns(
    tmp_path: Path, content: str, form: str, times: list[float], inputs: list[int] | None, outputs: list[int] | None
) -> None:
    trace = open_trace(write(tmp_path / "any.name", content))
    found = whole(trace)
    assert trace.format.name == form
    assert found.time_s == pytest.approx(times, abs=1e-9)
    assert inputs is None or found.input_tokens.tolist() == inputs
    assert outputs is None or found.output_tokens.tolist() == outputs
    assert trace.requests == found.requests and trace.share_read == 1.0


def test_dates_are_in_utc(tmp_path: Path) -> None:
    for content in (AZURE_ZONED, AZURE_ZONED.replace("2031-02-03 00:00:00+00:00", "2031-02-02 19:00:00-05:00")):
        trace = open_trace(write(tmp_path / "a.csv", content))
        assert trace.starts_at is None
        whole(trace)
        assert trace.starts_at == datetime(2031, 2, 3, tzinfo=UTC)


def test_hashes_are_of_whole_blocks(tmp_path: Path) -> None:
    mooncake = read(tmp_path, MOONCAKE)
    assert mooncake.block_tokens == 512
    assert mooncake.hash_start.tolist() == [0, 2, 4, 4] and mooncake.hashes.tolist() == [0, 1, 0, 3]
    own = read(tmp_path, OWN)
    assert own.block_tokens == 32
    assert own.hash_start.tolist() == [0, 3, 3, 5] and own.hashes.tolist() == [1, 2, 3, 1, 4]
    listed = read(tmp_path, OWN.replace("1 2 3 9", '"[1, 2, 3, 9]"').replace(",,32", ",[],32"))
    assert listed.hashes.tolist() == own.hashes.tolist()


def test_hashes_of_blocks_alone_come_to_name_what_is_before_them(tmp_path: Path) -> None:
    found = read(tmp_path, BAILIAN)
    first, second, third = (found.hashes[found.hash_start[n] : found.hash_start[n + 1]].tolist() for n in range(3))
    assert found.block_tokens == 16 and [len(first), len(second), len(third)] == [2, 2, 3]
    assert first == third[:2]  # 7, 8 in both
    assert not set(second) & {*first, *third}  # 8 after 6 is not 8 after 7


def test_classes_are_numbered_as_they_are_met_and_failures_are_counted(tmp_path: Path) -> None:
    trace = open_trace(write(tmp_path / "b.csv", BURSTGPT))
    found = whole(trace)
    assert trace.class_names == ("ChatGPT", "GPT-4") and found.classes.tolist() == [0, 1, 0]
    assert trace.failures == 1 and trace.requests == 3
    bailian = open_trace(write(tmp_path / "q.jsonl", BAILIAN))
    assert whole(bailian).classes.tolist() == [0, 1, 0] and bailian.class_names == ("text", "image")


@pytest.mark.parametrize("content", [AZURE, MOONCAKE, BAILIAN])
def test_requests_without_an_answer_are_left_out_of_published_traces(tmp_path: Path, content: str) -> None:
    last = {AZURE: ("11,27", "11,0"), MOONCAKE: ('"output_length": 7', '"output_length": 0')}.get(content)
    trace = open_trace(write(tmp_path / "t", content.replace(*(last or ('"output_length": 5', '"output_length": 0')))))
    if content is BAILIAN:
        with pytest.raises(CatalogError, match="all 3 rows"):
            whole(trace)
        return
    assert whole(trace).requests == 2 and trace.failures == 1


def test_a_first_request_that_failed_does_not_start_the_clock_or_name_a_class(tmp_path: Path) -> None:
    trace = open_trace(write(tmp_path / "b.csv", BURSTGPT.replace("472,18", "472,0")))
    assert whole(trace).time_s.tolist() == [0, 73]
    assert trace.class_names == ("GPT-4", "ChatGPT") and trace.failures == 2


@pytest.mark.parametrize("content", [AZURE, MOONCAKE, BURSTGPT, BAILIAN, OWN])
def test_packed_files_are_read_as_they_are(tmp_path: Path, content: str) -> None:
    plain, packed = read(tmp_path, content), read(tmp_path, gzip.compress(content.encode()), "trace.csv.gz")
    same(plain, packed)


@pytest.mark.parametrize("content", [AZURE, BURSTGPT, OWN, MOONCAKE])
def test_parquet_holds_the_same(tmp_path: Path, content: str) -> None:
    text = write(tmp_path / "t", content)
    if content is MOONCAKE:
        frame = pl.read_ndjson("\n".join(line for line in content.splitlines() if line).encode())
    else:
        frame = pl.read_csv(text, try_parse_dates=content is AZURE)
    frame.write_parquet(tmp_path / "t.parquet")
    trace = open_trace(tmp_path / "t.parquet")
    found, expected = whole(trace), whole(open_trace(text))
    assert trace.share_read == 1.0
    if content is AZURE:  # the library reads dates to the microsecond
        found.time_s[:] = expected.time_s
    same(found, expected)


def same(one: TraceChunk, other: TraceChunk) -> None:
    for name in ("time_s", "input_tokens", "output_tokens", "classes", "hash_start", "hashes"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    assert one.block_tokens == other.block_tokens


# --- writing ---


def random_trace(rng: np.random.Generator, requests: int, block: int, classes: int) -> TraceChunk:
    inputs = rng.integers(1, 400, requests)
    blocks = rng.integers(0, inputs // block + 1) if block else np.zeros(requests, dtype=np.int64)
    times = np.cumsum(rng.exponential(0.7, requests))
    return TraceChunk(
        time_s=times - times[0],
        input_tokens=inputs,
        output_tokens=rng.integers(1, 90, requests),
        classes=rng.permutation(np.arange(requests) % classes),
        hash_start=np.concatenate([[0], np.cumsum(blocks)]),
        hashes=rng.integers(-(2**62), 2**62, int(blocks.sum())),
        block_tokens=block,
    )


@given(
    st.integers(0, 2**32), st.integers(1, 60), st.sampled_from([0, 16, 100]), st.integers(1, 3), st.integers(1, 61),
    st.sampled_from(["t.csv", "t.csv.gz"]),
)  # fmt: skip
@settings(deadline=None, max_examples=40)
def test_what_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, seed: int, n: int, block: int, classes: int, size: int, name: str
) -> None:
    chunk = random_trace(np.random.default_rng(seed), n, block, classes)
    path = tmp_path_factory.mktemp("written") / name
    names = [f"class {number}" for number in range(classes)]
    pieces = [taken(chunk, np.arange(start, min(start + size, n))) for start in range(0, n, size)]
    assert write_trace(path, pieces, class_names=names) == n
    trace = open_trace(path)
    found = whole(trace, size)
    order = [trace.class_names.index(each) if each in trace.class_names else -1 for each in names]
    same(
        found,
        TraceChunk(**{**{k: getattr(chunk, k) for k in chunk.__slots__}, "classes": np.array(order)[chunk.classes]}),
    )
    assert list(path.parent.iterdir()) == [path]


def test_a_trace_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", OWN)

    def broken() -> object:
        yield random_trace(np.random.default_rng(1), 9, 0, 1)
        raise CatalogError("x")

    with pytest.raises(CatalogError):
        write_trace(path, broken())  # type: ignore[arg-type]
    assert path.read_text() == OWN and [each.name for each in tmp_path.iterdir()] == ["t.csv"]
    for bad, said in (("t.txt", ".csv"), ("none/t.csv", "cannot be written")):
        with pytest.raises(InputError, match=said):
            write_trace(tmp_path / bad, [random_trace(np.random.default_rng(1), 9, 0, 1)])
    with pytest.raises(InputError, match="without requests"):
        write_trace(tmp_path / "u.csv", [])


# --- order ---


def test_disorder_is_refused_or_sorted(tmp_path: Path) -> None:
    text = "time_s,input_tokens,output_tokens,hash_ids,block_tokens\n5,10,1,1,8\n3,20,2,2 3,8\n4,30,3,,8\n"
    with pytest.raises(CatalogError) as refused:
        read(tmp_path, text)
    assert "row 3: 2 s before the request above it" in str(refused.value) and "--allow-unsorted" in str(refused.value)
    found = read(tmp_path, text, allow_unsorted=True)
    assert found.time_s.tolist() == [0, 1, 2] and found.input_tokens.tolist() == [20, 30, 10]
    assert found.hashes.tolist() == [2, 3, 1] and found.hash_start.tolist() == [0, 2, 2, 3]


def test_dates_of_an_unsorted_trace_start_with_the_earliest(tmp_path: Path) -> None:
    lines = AZURE.splitlines()
    trace = open_trace(write(tmp_path / "a.csv", "\n".join([lines[0], *reversed(lines[1:])])), allow_unsorted=True)
    assert whole(trace).input_tokens.tolist() == [480, 318, 11]
    assert trace.starts_at == datetime(2031, 2, 3, 23, 59, 58, 979960, tzinfo=UTC)


def test_disorder_between_blocks_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokopt.catalog.trace_lines.BLOCK_BYTES", 64)
    rows = [f"{n},5,5" for n in range(100)]
    text = "\n".join(["time_s,input_tokens,output_tokens", *rows])
    assert read(tmp_path, text).requests == 100
    rows[70] = "68.5,5,5"
    with pytest.raises(CatalogError, match=r"row 72: 0\.5 s before"):
        read(tmp_path, "\n".join(["time_s,input_tokens,output_tokens", *rows]))


# --- what is refused ---

HEAD = "time_s,input_tokens,output_tokens"
UNANSWERED = BURSTGPT.replace(",18,", ",0,").replace(",7,", ",0,").replace(",276,", ",0,")
LINE = '{"timestamp": 0, "input_length": 5, "output_length": 5, "hash_ids": [1]}\n'


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "cannot be read: empty"),
        ("\n \n", "cannot be read: empty"),
        (HEAD, "no rows"),
        (f"{HEAD}\n\n\n", "no rows"),
        ("a,b\n1,2\n", "no column of time (like"),
        (f"{HEAD}, Time_S\n1,2,3,4\n", "column named twice: Time_S"),
        (f"{HEAD}\n0,5,5\n1,-5,5\n", "row 3: -5 tokens in, 5 out: whole tokens"),
        (f"{HEAD}\n0,5,5\n1,0,5\n", "row 3: 0 tokens in"),
        (f"{HEAD}\n0,5,5\n1,5,0\n", "row 3: 5 tokens in, 0 out"),
        (AZURE.replace("11,27", "-1,0"), "row 4: -1 tokens in, 0 out"),
        (AZURE.replace("11,27", "0,1"), "row 4: 0 tokens in, 1 out"),
        (f"{HEAD}\n0,5,5\n\n1,5,2.5\n", "row 4: 5 tokens in, 2.5 out"),
        (f"{HEAD}\n0,5,nan\n", "row 2: 5 tokens in, nan out"),
        (f"{HEAD}\n0,5\n", "row 2: 2 cells; the header has 3 columns"),
        (f"{HEAD}\n0,5,5\n0,5\n", "row 3: 5 tokens in, nan out"),
        (f"{HEAD}\n0,1e9,5\n", "below 1e9"),
        (f"{HEAD}\n0,inf,5\n", "row 2: inf tokens in"),
        (f"{HEAD}\n0,five,5\n", "row 2: not a table of numbers: input_tokens is 'five'"),
        (f"{HEAD}\n0,5,5\n-1,5,5\n", "row 3: time -1: seconds from 0 on"),
        (f"{HEAD}\n,5,5\n", "row 2: time nan"),
        (f"{HEAD}\n0,5,5\nsoon,5,5\n", "row 3: not a table of numbers: time is 'soon'"),
        (f"{HEAD}\n1700000000000,5,5\n", "that is too late to be in seconds"),
        (f"{HEAD}\n2031-02-03 00:00:00,5,5\n7,5,5\n", "row 3: not a table of numbers: time is '7'"),
        (f"{HEAD}\n2031-02-03 00:00:00,5,5\n2431-02-03 00:00:00,5,5\n", "row 3: not a table of numbers: time is '2431"),
        (f"{HEAD}\n2031-02-30 00:00:00,5,5\n", "row 2: not a table of numbers: time is '2031-02-30"),
        (f"{HEAD}\n0,5,5\n1,5,5,5,5\n", "row 3: 5 cells; the header has 3 columns"),
        (f'{HEAD}\n0,5,5\n1,"5,5\n', "row 3"),
        (f'{HEAD}\n0,5,"5\n"\n', "row"),
        (HEAD.encode() + b"\n0,5,5\n1,\xff,5\n", "row 3: no text in UTF-8"),
        (HEAD.encode() + b"\n0,5,5\n1,\0,5\n", "row 3: no text"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "not a table: no text"),
        (b"\0\1\2\3" * 900, "not a table: no text"),
        (b"PAR1 and then nothing", "cannot be read"),
        (b"PK\x03\x04\0\0", "packed with zip: unpack it"),
        (gzip.compress(f"{HEAD}\n0,5,5\n".encode(), mtime=0)[:-9], "cannot be read"),
        (b"\x1f\x8b rubbish", "cannot be read"),
        ('[{"timestamp": 0}]', "a list in JSON; a JSON object a line is needed"),
        ('{"timestamp": 0}\n', "no column of input_tokens"),
        ('{"timestamp": 0\n', "row 1: not JSON"),
        (LINE + '{"timestamp": 0, "input_len\n', "row 2: not JSON"),
        (LINE + "7\n", "row 2: a JSON object is needed"),
        (LINE + '{"timestamp": 0, "input_length": 5}\n', "row 2: output_length is missing"),
        (LINE + LINE.replace("5", '"5"'), "row 2: input_length is '5', not a number"),
        (LINE + LINE.replace("5", "true"), "row 2: input_length is 'True', not a number"),
        (LINE + LINE.replace("5", "1" + "0" * 400), "row 2: inf tokens in"),
        (LINE + LINE.replace("5", "NaN"), "row 2: nan tokens in"),
        (LINE + LINE.replace("[1]", "{}"), "row 2: hash_ids: a list of whole numbers"),
        (LINE + LINE.replace("[1]", "[1.5]"), "row 2: hash_ids: a list of whole numbers"),
        (LINE + LINE.replace("[1]", "[99999999999999999999]"), "row 2: hash_ids: a list of whole numbers"),
        (LINE + LINE.replace("[1]", "[1, 2]"), "row 2: 2 hashes of 512 tokens are more than 5 tokens in"),
        ("[" * 9 + LINE, "a list in JSON"),
        ('{"a":' * 100_000, "row 1: not JSON"),
        (f"{HEAD},hash_ids\n0,600,5,1 x\n", "row 2: hash_ids has 'x': whole numbers are needed"),
        (f"{HEAD},hash_ids\n0,600,5,1 2 3\n", "a column block_tokens says how many"),
        (f"{HEAD},hash_ids,block_tokens\n0,64,5,1,16\n1,64,5,1,32\n", "row 3: block_tokens 32: one whole number"),
        (f"{HEAD},hash_ids,block_tokens\n0,64,5,1,0\n", "row 2: block_tokens 0"),
        (UNANSWERED, "all 4 rows are requests without an answer"),
        (f"{HEAD},class\n" + "".join(f"{n},5,5,c{n}\n" for n in range(300)), "more than 256 classes: is 'c256' one?"),
    ],
)  # fmt: skip
def test_traces_that_are_refused(tmp_path: Path, content: str | bytes, said: str) -> None:
    with pytest.raises(CatalogError) as refused:
        read(tmp_path, content)
    assert said in str(refused.value) and "\n" not in str(refused.value)


def test_files_that_are_none(tmp_path: Path) -> None:
    for path, said in (
        (tmp_path, "is a directory"),
        (tmp_path / "none.csv", "cannot be read: No such file"),
        (Path("/dev/null"), "no regular file"),
        (Path("x\0y"), "cannot be read"),
    ):
        with pytest.raises(CatalogError, match=said):
            open_trace(path)


@pytest.mark.parametrize(
    "column",
    [
        pl.Series("time_s", [[1]]),
        pl.Series("time_s", [True]),
        pl.Series("time_s", [None]),
        pl.Series("time_s", [1], dtype=pl.Duration),
        pl.Series("time_s", [1], dtype=pl.Time),
        pl.Series("input_tokens", [{"a": 1}]),
        pl.Series("class", [[1]]),
        pl.Series("class", [b"\xff"]),
        pl.Series("hash_ids", [3]),
        pl.Series("hash_ids", [["a"]]),
        pl.Series("hash_ids", [[[1]]]),
    ],
    ids=lambda column: f"{column.name} {column.dtype}",
)
def test_columns_of_strange_types_are_refused(tmp_path: Path, column: pl.Series) -> None:
    frame = pl.DataFrame({"time_s": [0], "input_tokens": [600], "output_tokens": [5]}).with_columns(column)
    frame.write_parquet(tmp_path / "t.parquet")
    with pytest.raises(CatalogError) as refused:
        whole(open_trace(tmp_path / "t.parquet"))
    assert "\n" not in str(refused.value)


def test_a_line_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokopt.catalog.trace_lines.BLOCK_BYTES", 100)
    monkeypatch.setattr("tokopt.catalog.trace_lines.LONGEST_LINE", 1000)
    with pytest.raises(CatalogError, match="a line is longer than"):
        read(tmp_path, f"{HEAD}\n0,5,5\n" + "1" * 2000)


def mutated(rng: random.Random, text: bytes) -> bytes:
    """Return a text with a few bytes changed, left out, doubled or made up."""
    found = bytearray(text)
    for _ in range(rng.randint(1, 6)):
        place, kind = rng.randrange(len(found) + 1), rng.randrange(5)
        length = rng.randint(0, 12)
        piece = bytes(rng.choice(b'0123456789,.-:"\n\r\t {}[]eENaN\0\xff\xe2') for _ in range(length))
        if kind == 0:
            found[place:place] = piece
        elif kind == 1:
            del found[place : place + length]
        elif kind == 2:
            found[place : place + length] = piece
        elif kind == 3:
            found[place:place] = found[place : place + length]
        else:
            del found[place:]
    return bytes(found)


SAMPLES = [AZURE, AZURE_ZONED, MOONCAKE, BURSTGPT, BAILIAN, OWN]


def settle(path: Path, allow_unsorted: bool) -> None:
    """Read a trace: either it is one, or it is refused in one line."""
    refused, found = "", None
    try:
        found = whole(open_trace(path, allow_unsorted=allow_unsorted), 2)
    except CatalogError as error:
        refused = str(error)
    assert "\n" not in refused and len(refused) < 600
    if found is not None:
        assert found.requests and (np.diff(found.time_s) >= 0).all() and found.time_s[0] == 0
        assert (found.input_tokens >= 1).all() and (found.output_tokens >= 1).all()
        assert found.hash_start[-1] == found.hashes.size


@given(st.integers(0, 2**32), st.sampled_from(SAMPLES), st.booleans(), st.booleans())
@settings(deadline=None, max_examples=400, suppress_health_check=[HealthCheck.too_slow])
def test_damaged_traces_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, seed: int, sample: str, packed: bool, allow: bool
) -> None:
    content = mutated(random.Random(seed), sample.encode())
    if packed:
        content = gzip.compress(content) if seed % 2 else mutated(random.Random(seed), gzip.compress(sample.encode()))
    settle(write(tmp_path_factory.getbasetemp() / "fuzz", content), allow)


@given(st.binary(max_size=300))
@settings(deadline=None, max_examples=150)
def test_rubbish_is_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    for head in (b"", HEAD.encode() + b"\n", b"PAR1", b"\x1f\x8b\x08"):
        settle(write(tmp_path_factory.getbasetemp() / "rubbish", head + content), False)


CELLS = st.one_of(st.integers(), st.floats(), st.text(max_size=8), st.none(), st.booleans(), st.lists(st.integers()))


@given(st.lists(st.fixed_dictionaries({"timestamp": CELLS, "input_length": CELLS, "output_length": CELLS}), max_size=5))
@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
def test_lines_of_any_json_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, rows: list[object]) -> None:
    text = LINE + "".join(json.dumps(row) + "\n" for row in rows)
    settle(write(tmp_path_factory.getbasetemp() / "lines", text), True)


# --- memory ---


def csv_of(rows: int) -> str:
    return HEAD + "\n" + "".join(f"{0.25 * n},{n % 4000 + 1},{n % 300 + 1}\n" for n in range(rows))


def lines_of(rows: int) -> str:
    return "".join(
        f'{{"timestamp": {n}, "input_length": 1024, "output_length": 9, "hash_ids": [{n % 50}, {n % 70}]}}\n'
        for n in range(rows)
    )


@pytest.mark.parametrize("make", [csv_of, lines_of])
def test_memory_does_not_grow_with_the_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[int], str]
) -> None:
    monkeypatch.setattr("tokopt.catalog.trace_lines.BLOCK_BYTES", 1 << 16)
    peaks = []
    for rows in (10_000, 100_000):
        trace = open_trace(write(tmp_path / f"{rows}", make(rows)))
        tracemalloc.start()
        assert sum(chunk.requests for chunk in trace.chunks()) == rows
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]
