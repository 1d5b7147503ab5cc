"""A record means the same out of every format, and in the kinds of NumPy and pandas; prompts are what both share."""

from __future__ import annotations

import csv
import gzip
import io
import json
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cvxrelu.support.errors import InputError
from cvxrelu.support.values import clean_text, plain
from cvxrelu_llm.preferences.conversations import alternate
from cvxrelu_llm.preferences.messages import Message
from cvxrelu_llm.preferences.triples import Triple, Triples, load_triples

PAIR = {"prompt": "Why?", "chosen": "Because.", "rejected": "No."}
WHY = (Message("user", "Why?"),)


def turns(*contents: str, first: int = 0) -> list[dict[str, str]]:
    """Messages of the user and the assistant in turn."""
    return [{"role": ("user", "assistant")[(first + i) % 2], "content": text} for i, text in enumerate(contents)]


def system(text: str) -> dict[str, str]:
    return {"role": "system", "content": text}


def only(row: dict[str, Any], **settings: Any) -> Triple:
    (triple,) = load_triples([row], **settings)
    return triple


# -- writers of every format ------------------------------------------------------------------------------------------
def in_cells(rows: list[dict[str, Any]], delimiter: str) -> str:
    text = io.StringIO(newline="")
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.writer(text, delimiter=delimiter)
    writer.writerow(names)
    for row in rows:
        cells = [row.get(name) for name in names]
        writer.writerow(["" if c is None else json.dumps(c) if isinstance(c, list) else c for c in cells])
    return text.getvalue()


def parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow
    from pyarrow.parquet import write_table

    write_table(pyarrow.Table.from_pylist(rows), path)


WRITERS: dict[str, Callable[[Path, list[dict[str, Any]]], object]] = {
    "a.jsonl": lambda path, rows: path.write_text("".join(json.dumps(row) + "\n" for row in rows)),
    "a.jsonl.gz": lambda path, rows: path.write_bytes(
        gzip.compress("".join(json.dumps(row) + "\r\n" for row in rows).encode())
    ),
    "a.json": lambda path, rows: path.write_text("\ufeff" + json.dumps(rows), encoding="utf-8"),
    "a.csv": lambda path, rows: path.write_bytes(in_cells(rows, ",").encode()),
    "semicolon.csv": lambda path, rows: path.write_bytes(("\ufeff\n" + in_cells(rows, ";")).encode()),
    "a.tsv.gz": lambda path, rows: path.write_bytes(gzip.compress(in_cells(rows, "\t").encode())),
    "a.parquet": parquet,
}


def loaded(path: Path, rows: list[dict[str, Any]], **settings: Any) -> Triples:
    """The triples of a file of that name which holds the rows."""
    if path.suffix == ".parquet":
        pytest.importorskip("pyarrow.parquet", reason="Parquet needs pyarrow")
    WRITERS[path.name](path, rows)
    return load_triples(path, **settings)


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same(tmp_path: Path, name: str) -> None:
    rows = [
        {**PAIR, "chosen": "Because, “so”;\tand\nso.", "weight": 2.0, "margin": 0.5, "group": "g"},
        {**PAIR, "prompt": "Who?", "rejected": "[1, 2]", "weight": None, "margin": None, "group": None},
    ]
    chats = [{"prompt": turns("Why?"), "chosen": turns("So.", first=1), "rejected": turns("No.", first=1)}] * 2
    for given in (rows, chats):
        assert loaded(tmp_path / name, given).fingerprint == load_triples(given).fingerprint


# -- texts that look like lists ---------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "text",
    ["[2, 3, 5]", "[]", "[ ]", '["a"]', "[[1]]", '[{"a": 1}]', '[{"role": "user"}]', "[1, 2", "[{}]", "[null]",
     "[" * 5000, "[" + "9" * 5000 + "]", '[{"role": 1, "role": 2}]'],
)  # fmt: skip
@pytest.mark.parametrize("field", ["prompt", "chosen", "rejected"])
@pytest.mark.parametrize("name", ["a.csv", "a.tsv.gz"])
def test_a_cell_is_text_unless_it_is_a_list_of_messages(tmp_path: Path, name: str, field: str, text: str) -> None:
    triples = loaded(tmp_path / name, [{**PAIR, field: text}])
    values = {"prompt": triples[0].prompt[0].content, "chosen": triples[0].chosen, "rejected": triples[0].rejected}
    assert values == {**PAIR, field: text}


def test_conversations_in_cells(tmp_path: Path) -> None:
    """Read as messages, and what is no conversation is said."""
    path = tmp_path / "a.csv"
    talk = turns("2 + 2?", "4.", "And 3 + 3?", "6.")
    WRITERS["a.csv"](path, [{"id": 1, "messages": talk}, {"id": 2, "messages": []}])
    made = alternate(path, student="user", tutor="assistant")
    assert (len(made), made.counts["read"], made[0].group) == (1, 2, "1")
    for cell, words in (('[{"role": "user"}]', r"\[0\].content: expected text"), ("hm", "not JSON")):
        path.write_text(in_cells([{"messages": cell}], ","))
        with pytest.raises(InputError, match=rf"a\.csv, line 2, field 'messages'.*{words}"):
            alternate(path, student="user", tutor="assistant")


# -- what is missing --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", [*WRITERS, "memory"])
def test_a_group_that_is_nan_is_none(tmp_path: Path, name: str) -> None:
    rows = [{**PAIR, "prompt": f"Why {i}?", "group": float("nan")} for i in range(10)]
    triples = load_triples(rows) if name == "memory" else loaded(tmp_path / name, rows)
    assert len({triple.group for triple in triples}) == 10 and not any("nan" in triple.group for triple in triples)
    assert [len(side) for side in triples.split(0.2)] == [8, 2]


@pytest.mark.parametrize(
    ("group", "name"),
    [("a", "a"), (7, "7"), (7.0, "7"), (7.5, "7.5"), (np.int64(7), "7"), (np.str_("a"), "a"), (True, "True"),
     (np.datetime64("2026-01-01"), "2026-01-01")],
)  # fmt: skip
def test_names_of_groups(group: Any, name: str) -> None:
    assert only({**PAIR, "group": group}).group == name


@pytest.mark.parametrize("group", [["a"], {"a": 1}, b"a", np.array([1, 2])])
def test_what_is_no_name_of_a_group_is_refused(group: Any) -> None:
    with pytest.raises(InputError, match="record 0, field 'group': expected text or a number"):
        load_triples([{**PAIR, "group": group}])


def test_triples_without_groups_are_not_one_group() -> None:
    made = Triples(tuple(Triple((Message("user", f"{i}"),), "a", "b") for i in range(10)))
    assert [len(side) for side in made.split(0.5)] == [5, 5]


@pytest.mark.parametrize("field", ["weight", "margin"])
def test_numbers_that_are_none_are_refused_in_files(tmp_path: Path, field: str) -> None:
    """NaN is a mistake there, but what pandas has for an absent value; digits are those of ASCII."""
    for value in (float("nan"), float("inf"), "1_000", "\u0661", "0x1", "x", True, [1]):
        with pytest.raises(InputError, match=rf"a\.jsonl, line 1, field '{field}'"):
            loaded(tmp_path / "a.jsonl", [{**PAIR, field: value}])
    triple = only({**PAIR, field: float("nan")})
    assert (triple.weight, triple.margin) == (1.0, 0.0)
    assert getattr(only({**PAIR, field: " 2.5 "}), field) == 2.5


# -- halves of surrogate pairs ----------------------------------------------------------------------------------------
def test_clean_text_against_the_definition() -> None:
    """Pairs are joined, halves replaced, one character each; drawn over an alphabet of halves."""
    rng = np.random.default_rng(0)
    alphabet = ["a", "\ud800", "\udbff", "\udc00", "\udfff", "\U0001f600"]
    for _ in range(2000):
        text = "".join(rng.choice(alphabet, rng.integers(0, 7)))
        expected, i = "", 0
        while i < len(text):
            high, low = ord(text[i]), ord(text[i + 1]) if i + 1 < len(text) else 0
            if 0xD800 <= high < 0xDC00 <= low < 0xE000:
                expected, i = expected + chr(0x10000 + ((high - 0xD800) << 10) + low - 0xDC00), i + 2
            else:
                expected, i = expected + ("\ufffd" if 0xD800 <= high < 0xE000 else text[i]), i + 1
        assert clean_text(text) == expected
        expected.encode()


HALF = "\ud83d"
WHOLE = [
    {"prompt": f"Why{HALF}?", "chosen": f"{HALF} so", "rejected": "no", "group": f"g{HALF}"},
    {"chosen": turns(f"Why{HALF}?", "so"), "rejected": turns(f"Why{HALF}?", f"no{HALF}")},
    {"prompt": [{"role": f"user{HALF}", "content": "Why?"}], "chosen": "a", "rejected": "b"},
    {"prompt": [{"role": "user", "content": [{"type": "text", "text": HALF}]}], "chosen": "a", "rejected": "b"},
]  # fmt: skip


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.json", "memory"])
@pytest.mark.parametrize("row", WHOLE)
def test_half_a_surrogate_pair_becomes_the_replacement_character(
    tmp_path: Path, name: str, row: dict[str, Any]
) -> None:
    triples = load_triples([row]) if name == "memory" else loaded(tmp_path / name, [row])
    texts = json.dumps(
        [triples[0].prompt, triples[0].chosen, triples[0].rejected, triples[0].group], ensure_ascii=False
    )
    assert "\ufffd" in texts
    texts.encode()
    triples.split(0.5) if len(triples) > 1 else triples.fingerprint
    assert load_triples(triples.save(tmp_path / "out.jsonl")).fingerprint == triples.fingerprint


def test_half_a_pair_in_a_cell_and_in_a_conversation(tmp_path: Path) -> None:
    """JSON within CSV can spell it too, and so can conversations to make triples of."""
    rows = [{"chosen": turns(f"{HALF}?", "so"), "rejected": turns(f"{HALF}?", "no")}]
    assert loaded(tmp_path / "a.csv", rows)[0].prompt == (Message("user", "\ufffd?"),)
    talk = turns(f"2{HALF}?", "4.", "3?", "6.")
    for talks in ([{"id": HALF, "messages": talk}], [{"id": HALF, "messages": np.array(talk, dtype=object)}]):
        made = alternate(talks, student="user", tutor="assistant")
        assert (made[0].prompt[0].content, made[0].group) == ("2\ufffd?", "\ufffd")


def test_whole_pairs_stay(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({**PAIR, "chosen": "\U0001f600"}))  # spelt as a pair
    assert load_triples(tmp_path / "a.jsonl")[0].chosen == "\U0001f600"


# -- whole conversations beside a prompt ------------------------------------------------------------------------------
SYSTEM = system("Be brief.")
EARLIER = turns("Hello.", "Hi.", "Why?")


@pytest.mark.parametrize(
    ("prompt", "before", "expected"),
    [
        ("Why?", [SYSTEM, *turns("Why?")], None),
        ("Why?", EARLIER, None),
        ("Why?", [SYSTEM, *EARLIER], None),
        ("Why? ", turns("Why?"), None),
        (" Why?\n", [SYSTEM, *turns("Why?")], None),
        ("Why?", turns("Why? "), None),
        ("Hello.", EARLIER, None),  # the first turn
        ("Something else", EARLIER, None),
        ("", turns("Why?"), None),
        ([], turns("Why?"), None),
        (turns("Why?"), [SYSTEM, *turns("Why?")], None),
        ([SYSTEM, *turns("Why?")], turns("Why?"), [SYSTEM, *turns("Why?")]),  # left out there
        (turns("Hello."), turns("Hi.", "Why?", first=1), EARLIER),  # both go on where it ends
        ("Hello.", turns("Hi.", "Why?", first=1), EARLIER),
        ("\n\nHuman: Why?\n\nAssistant:", [SYSTEM, *turns("Why?")], None),
    ],
)
@pytest.mark.parametrize("name", ["memory", "a.jsonl", "a.csv", "a.parquet"])
def test_what_both_share_is_the_prompt(tmp_path: Path, name: str, prompt: Any, before: Any, expected: Any) -> None:
    answers = {side: [*before, *turns(text, first=1)] for side, text in (("chosen", "So."), ("rejected", "No."))}
    row = {"prompt": prompt, **answers}
    if name == "a.parquet" and prompt == []:
        pytest.skip("pyarrow cannot write an empty list of records alone")
    triples = load_triples([row]) if name == "memory" else loaded(tmp_path / name, [row])
    assert triples[0].prompt == tuple(Message(**turn) for turn in expected or before)
    assert (triples[0].chosen, triples[0].rejected) == ("So.", "No.")
    if expected is None:
        assert load_triples([answers])[0].prompt == triples[0].prompt  # and without `prompt`


@pytest.mark.parametrize("short", ["No.", turns("No.", first=1)])
@pytest.mark.parametrize("sides", [("chosen", "rejected"), ("rejected", "chosen")])
def test_one_answer_may_repeat_the_prompt_alone(short: Any, sides: tuple[str, str]) -> None:
    whole = [SYSTEM, *turns("Why?", "So.")]
    triple = only({"prompt": "Why?", sides[0]: whole, sides[1]: short})
    assert triple.prompt == (Message(**SYSTEM), *WHY)
    assert {sides[0]: "So.", sides[1]: "No."} == {"chosen": triple.chosen, "rejected": triple.rejected}


def test_completions_may_be_whole_conversations() -> None:
    rows = [
        {"prompt": "Why?", "completion": [SYSTEM, *turns("Why?", "So.")], "label": np.int64(1)},
        {"prompt": "Why? ", "completion": [SYSTEM, *turns("Why?", "No.")], "label": np.bool_(False)},
    ]
    assert only_pair(rows) == ((Message(**SYSTEM), *WHY), "So.", "No.")


def only_pair(rows: list[dict[str, Any]]) -> tuple[Any, str, str]:
    (triple,) = load_triples(rows)
    return triple.prompt, triple.chosen, triple.rejected


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Why?", "chosen": turns("Why?", "a", "b", "c"), "rejected": turns("Why?", "x", "y", "z")},
        {"prompt": "Why?", "chosen": turns("Why?", "a"), "rejected": turns("Who?", "b")},
        {"prompt": "Why?", "chosen": turns("Who?", "a"), "rejected": "b"},
        {"prompt": "Why?", "chosen": turns("Why?", "a", "b"), "rejected": turns("Why?", "c")},
        {"prompt": "Why?", "chosen": [], "rejected": "b"},
    ],
)
def test_conversations_that_differ_earlier_are_dropped_and_counted(row: dict[str, Any]) -> None:
    triples = load_triples([PAIR, row])
    assert (len(triples), triples.counts["diverging"]) == (1, 1)
    with pytest.raises(InputError, match="record 1"):
        load_triples([PAIR, row], strict=True)


# -- files and the hub ------------------------------------------------------------------------------------------------
@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """A stand-in for `datasets`; what it was asked for."""
    asked: list[tuple[str, str]] = []

    def load_dataset(name: str, split: str) -> list[dict[str, str]]:
        asked.append((name, split))
        return [PAIR]

    module: Any = types.ModuleType("datasets")
    module.load_dataset = load_dataset
    monkeypatch.setitem(sys.modules, "datasets", module)
    return asked


@pytest.mark.parametrize(
    "name",
    [
        "allenai/llama-3.1-tulu-3-8b-preference-mixture",
        "owner/v1.0",
        "owner.x/name",
        "o/name.en",
        "o/a_b.c-d",
        "o/x.gguf",
    ],
)
def test_names_with_dots_are_of_the_hub(hub: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(load_triples(name, split="test")) == 1 and hub == [(name, "test")]
    with pytest.raises(InputError, match="no such file"):
        load_triples(Path(name))  # a Path is a file
    Path(name).parent.mkdir()
    Path(name).write_text("")
    with pytest.raises(InputError, match="unknown kind of file"):
        load_triples(name)  # it is there
    assert len(hub) == 1


@pytest.mark.parametrize("name", ["o/a.jsonl", "o/a.JSON", "o/a.csv.gz", "o/a.parquet", "o/a.txt", "o/a.tsv"])
def test_names_that_end_like_data_are_files(hub: Any, name: str) -> None:
    with pytest.raises(InputError, match=r"o/a\..*: no such file, and by its ending it is no data set of the hub"):
        load_triples(name)
    assert hub == []


@pytest.mark.parametrize("name", ["./o/a", "/o/a", "a/b/c", "name", "o/", "../a", "o/a b", "~/a"])
def test_paths_are_not_asked_of_the_hub(hub: Any, name: str) -> None:
    with pytest.raises(InputError):
        load_triples(name)
    assert hub == []


def test_split_is_of_the_hub_alone(tmp_path: Path) -> None:
    WRITERS["a.jsonl"](tmp_path / "a.jsonl", [PAIR])
    for source in (tmp_path / "a.jsonl", str(tmp_path / "a.jsonl"), [PAIR]):
        with pytest.raises(InputError, match="split='test' is of data sets on the hub"):
            load_triples(source, split="test")


# -- kinds of NumPy and pandas ----------------------------------------------------------------------------------------
class NAType:
    """What pandas has for a missing value, by name."""


def test_rows_as_pandas_gives_them() -> None:
    """Arrays of messages, NumPy's scalars, tuples and marks of missing values."""
    array = np.array(turns("Why?", "So."), dtype=object)
    rejected = tuple(turns("Why?", "No."))
    rows = [
        {"chosen": array, "rejected": rejected, "weight": np.float32(2), "margin": np.int64(1), "group": np.str_("g")},
        {"prompt": np.str_("Why?"), "chosen": np.array(turns("So.", first=1)), "rejected": "No.", "weight": None,
         "margin": float("nan"), "group": NAType()},
        {"prompt": None, "chosen": array, "rejected": list(rejected), "weight": NAType(), "group": np.float64("nan")},
        {"prompt": float("nan"), "chosen": array, "rejected": list(rejected), "group": np.datetime64("NaT")},
        {"chosen": {"role": ["user", "assistant"], "content": ["Why?", "So."]}, "rejected": rejected},
        {"prompt": [{"role": "user", "content": np.array([{"type": "text", "text": "Why?"}], dtype=object)}],
         "chosen": "So.", "rejected": "No.", "completion": None, "label": None},
    ]  # fmt: skip
    triples = load_triples(rows)
    assert [(t.prompt, t.chosen, t.rejected) for t in triples] == [(WHY, "So.", "No.")] * len(rows)
    assert (triples[0].weight, triples[0].margin, triples[0].group) == (2.0, 1.0, "g")
    assert {(t.weight, t.margin) for t in triples[1:]} == {(1.0, 0.0)} and len({t.group for t in triples[1:]}) == 1
    for triple in triples:
        json.dumps([triple.prompt, triple.weight, triple.group])  # Python's own kinds


@pytest.mark.parametrize("label", [np.int64(1), np.bool_(True), True, 1.0, "True", np.str_("yes")])
def test_labels_of_every_kind(label: Any) -> None:
    rows = [
        {"prompt": "Why?", "completion": "So.", "label": label},
        {"prompt": "Why?", "completion": "No.", "label": np.int64(0)},
    ]
    assert only_pair(rows) == (WHY, "So.", "No.")


def test_plain_ends_for_every_scalar() -> None:
    for kind in (np.float16, np.float32, np.longdouble, np.int8, np.uint64, np.bool_):
        assert plain(kind(1)) == 1 and type(plain(kind(1))).__module__ == "builtins"
    assert plain(np.array(3)) == 3 and plain({"a": np.array([[1]])}) == {"a": [[1]]}


class Frame:
    """As much of a table of pandas as is used."""

    columns = ("prompt", "chosen", "rejected")

    def to_dict(self, orient: str) -> list[dict[str, str]]:
        assert orient == "records"
        return [PAIR]


def test_tables_in_memory() -> None:
    assert load_triples(Frame()).fingerprint == load_triples([PAIR]).fingerprint
    pyarrow = pytest.importorskip("pyarrow", reason="needs pyarrow")
    assert load_triples(pyarrow.Table.from_pylist([PAIR])).fingerprint == load_triples([PAIR]).fingerprint


def test_pandas_itself(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas", reason="needs pandas")
    rows = [{"chosen": turns("Why?", "So."), "rejected": turns("Why?", "No."), "weight": 2.0, "group": 1},
            {"chosen": turns("Who?", "I."), "rejected": turns("Who?", "You."), "weight": None}]  # fmt: skip
    parquet(tmp_path / "a.parquet", rows)
    frame = pandas.read_parquet(tmp_path / "a.parquet")
    expected = load_triples(rows).fingerprint
    for given in (frame, frame.convert_dtypes(), frame.to_dict("records"), tmp_path / "a.parquet"):
        assert load_triples(given).fingerprint == expected


# -- odd files --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.jsonl", '{"prompt": "é"}'.encode("latin-1"), "not a text file in UTF-8 .*save it as UTF-8"),
        ("a.jsonl", json.dumps(PAIR).encode("utf-16"), "save it as UTF-8"),
        ("a.jsonl", json.dumps(PAIR).encode("utf-16-le"), "line 1: not a text in UTF-8 .*save it as UTF-8"),
        ("a.json", json.dumps([PAIR]).encode("utf-16-be"), "save it as UTF-8"),
        ("a.csv", "prompt,chosen,rejected\na,b,c\n".encode("utf-16-le"), "save it as UTF-8"),
        ("a.csv", "prompt,chosen,rejected\ná,b,c\n".encode("latin-1"), "save it as UTF-8"),
        ("a.jsonl", b'{"chosen": "a", "chosen": "b"}', "line 1: the field 'chosen' stands twice"),
        ("a.json", b'[{"chosen": [{"role": "a", "role": "b"}]}]', "the field 'role' stands twice"),
        ("a.jsonl", b"3", "line 1: expected an object of fields, got int"),
        ("a.jsonl", b'"text"\n', "line 1: expected an object of fields, got str"),
        ("a.jsonl", b"null", "line 1: expected an object of fields, got NoneType"),
        ("a.json", b"[3]", "record 0: expected an object of fields, got int"),
        ("a.json", b'{"a": 1}\n{"a": 2}\n', "JSON lines belong into a .jsonl file"),
        ("a.json", b'{"a": 1}', "expected a list of records, got dict"),
        ("a.json", b"[1,\n2,\n,]", "not JSON .* at line 3, column 1"),
        ("a.jsonl", b"[" * 100_000, "line 1: JSON that cannot be read"),
        ("a.jsonl", b'{"a": ' + b"9" * 5000 + b"}", "line 1: JSON that cannot be read"),
        ("a.jsonl", b"", "no triples in 0 records"),
        ("a.json", b"", "not JSON"),
        ("a.json", b"[]", "no triples in 0 records"),
        ("a.csv", b"", "no triples in 0 records"),
        ("a.csv", b"prompt,chosen,rejected\n", "no triples in 0 records"),
        ("a.csv", b"chosen,chosen,rejected\na,b,c\n", "line 1: two columns are called 'chosen'"),
        ("a.csv", b"prompt,chosen,rejected\na,b\n", "line 2: expected 3 cells, as in the header, got 2"),
        ("a.csv", b"prompt,chosen,rejected\na,b,\n", "line 2, field 'rejected': missing"),
        ("a.parquet", b"PAR1", "not a Parquet file"),
        ("a.parquet.gz", b"PAR1", "unknown kind of file"),
    ],
)  # fmt: skip
def test_odd_files_are_one_error(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    if name == "a.parquet":
        pytest.importorskip("pyarrow")
    (tmp_path / name).write_bytes(content)
    for read in (load_triples, alternate):
        if read is alternate and ("'rejected'" in words):
            continue
        with pytest.raises(InputError, match=rf"{name}.*{words}"):
            read(tmp_path / name)


def test_texts_that_are_not_utf8_in_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    bad = pyarrow.Array.from_buffers(
        pyarrow.string(),
        1,
        [None, pyarrow.py_buffer(np.array([0, 3], np.int32).tobytes()), pyarrow.py_buffer(b"a\xed\xa0")],
    )
    table = pyarrow.table({"prompt": ["Why?"], "chosen": bad, "rejected": ["b"]})
    write_table(table, tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"a\.parquet.*not UTF-8"):
        load_triples(tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"source.*not UTF-8"):
        load_triples(table)


# -- columns of other names -------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"best": "better"}, "columns must map some of"),
        ({3: "better"}, "columns must map some of"),
        ({"chosen": {"a": "b"}}, "columns must map fields to names"),
        ({"chosen": ""}, "columns must map fields to names"),
        ("chosen", "columns must map fields to names"),
        ({"chosen": "x", "rejected": "x"}, "got 'x' twice"),
        ({"weight": "wieght"}, "no record has the field 'wieght' that columns name"),
        ({"group": "user"}, "no record has the field 'user'"),
    ],
)
def test_columns_that_mean_nothing_are_refused(columns: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        load_triples([PAIR], columns=columns)


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.parquet"])
def test_columns_are_found_in_every_format(tmp_path: Path, name: str) -> None:
    rows = [{"q": "Why?", "a": "So.", "b": "No.", "w": None}, {"q": "Who?", "a": "I.", "b": "You.", "w": 2.0}]
    triples = loaded(tmp_path / name, rows, columns={"prompt": "q", "chosen": "a", "rejected": "b", "weight": "w"})
    assert [(t.chosen, t.weight) for t in triples] == [("So.", 1.0), ("I.", 2.0)]
