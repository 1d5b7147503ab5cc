"""Every format gives the same triples; every fault is named or counted; splits never divide a group."""

from __future__ import annotations

import csv
import gzip
import json
import sys
import types
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvxrelu.support.errors import InputError
from cvxrelu_llm.preferences import splits
from cvxrelu_llm.preferences.messages import Message, common_beginning, parse_marks
from cvxrelu_llm.preferences.triples import Triple, Triples, load_triples

PAIR = {"prompt": "Why?", "chosen": "Because.", "rejected": "No."}


def chat(*turns: str) -> list[dict[str, str]]:
    """Messages of the user and the assistant in turn."""
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(turns)]


def write_jsonl(path: Path, rows: list[Any]) -> Path:
    text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    if path.suffix == ".gz":
        with gzip.open(path, "wt", encoding="utf-8") as file:
            file.write(text)
    else:
        path.write_text(text, encoding="utf-8")
    return path


def only(row: dict[str, Any], **settings: Any) -> Triple:
    triples = load_triples([row], **settings)
    assert len(triples) == 1
    return triples[0]


# -- formats ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Why?", "chosen": "Because.", "rejected": "No."},
        {"prompt": chat("Why?"), "chosen": chat("", "Because.")[1:], "rejected": chat("", "No.")[1:]},
        {"prompt": "Why?", "chosen": chat("Why?", "Because."), "rejected": chat("Why?", "No.")},
        {"chosen": chat("Why?", "Because."), "rejected": chat("Why?", "No.")},
        {"prompt": "\n\nHuman: Why?\n\nAssistant:", "chosen": "Because.", "rejected": "No."},
        {"chosen": "\n\nHuman: Why?\n\nAssistant: Because.", "rejected": "\n\nHuman: Why?\n\nAssistant: No."},
        {**PAIR, "prompt": [{"role": "user", "content": [{"type": "text", "text": "Why?"}]}]},
    ],
    ids=["text", "chat", "chat with prompt", "implicit chat", "marked", "implicit marked", "parts"],
)  # fmt: skip
def test_formats_mean_the_same(row: dict[str, Any]) -> None:
    triple = only(row)
    assert (triple.prompt, triple.chosen, triple.rejected) == ((Message("user", "Why?"),), "Because.", "No.")
    assert (triple.weight, triple.margin) == (1, 0)


def test_implicit_prompt_of_plain_texts_ends_between_words() -> None:
    triple = only({"chosen": "The sky is bluish.", "rejected": "The sky is black."})
    assert (triple.prompt[0].content, triple.chosen, triple.rejected) == ("The sky is", " bluish.", " black.")


@given(st.text("ab .", max_size=8), st.text("ab .", max_size=8), st.text("ab .", max_size=8))
def test_common_beginning_is_common_and_cuts_no_word(prompt: str, a: str, b: str) -> None:
    first, second = prompt + a, prompt + b
    cut = common_beginning(first, second)
    assert first[:cut] == second[:cut]
    for text in (first, second):
        assert not (0 < cut < len(text) and text[cut - 1].isalnum() and text[cut].isalnum())


def test_dialogue_text_leaves_marks_alone() -> None:
    marked = "\n\nHuman: Why?\n\nAssistant: So.\n\nHuman: Oh?\n\nAssistant:"
    assert parse_marks(marked) == (Message("user", "Why?"), Message("assistant", "So."), Message("user", "Oh?"))
    row = {**PAIR, "prompt": marked}
    assert len(only(row).prompt) == 3
    assert only(row, dialogue="text").prompt == (Message("user", marked),)
    assert parse_marks("Who said Human: nobody") is None


def test_unpaired_completions_are_paired_within_their_prompt() -> None:
    rows = [
        {"prompt": "Why?", "completion": "good 1", "label": True, "weight": 2},
        {"prompt": "Why?", "completion": "bad", "label": False, "weight": 3},
        {"prompt": "Why?", "completion": "good 2", "label": 1},
        {"prompt": "Alone?", "completion": "good", "label": "true"},
    ]
    triples = load_triples(rows)
    assert {(t.chosen, t.rejected, t.weight) for t in triples} == {("good 1", "bad", 6), ("good 2", "bad", 3)}
    assert triples.counts["unpaired"] == 1
    with pytest.raises(InputError, match="record 3"):
        load_triples(rows, strict=True)


def test_columns_weights_margins_and_groups() -> None:
    row = {"question": "Why?", "better": "a", "worse": "b", "weight": 0.5, "margin": -1, "group": 7}
    triple = only(row, columns={"prompt": "question", "chosen": "better", "rejected": "worse"})
    assert (triple.weight, triple.margin, triple.group) == (0.5, -1, "7")
    with pytest.raises(ValueError, match="columns"):
        load_triples([PAIR], columns={"best": "better"})


def test_every_kind_of_file_gives_the_same_triples(tmp_path: Path) -> None:
    rows = [
        {"prompt": "Why?", "chosen": "Because, “so”.", "rejected": "No.", "weight": 2.0, "margin": 0.5, "group": "g"},
        {"prompt": "Who?", "chosen": "me\nand you", "rejected": "us", "weight": 1.0, "margin": -1.0, "group": "h"},
    ]
    files = [write_jsonl(tmp_path / "a.jsonl", rows), write_jsonl(tmp_path / "b.jsonl.gz", rows)]
    files.append(tmp_path / "c.json")
    files[-1].write_text(json.dumps(rows))
    files.append(tmp_path / "d.csv")
    with open(files[-1], "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    if parquet := pytest.importorskip("pyarrow.parquet", reason="Parquet needs pyarrow"):
        import pyarrow

        files.append(tmp_path / "e.parquet")
        parquet.write_table(pyarrow.Table.from_pylist(rows), files[-1])
    prints = {path.name: load_triples(path).fingerprint for path in files}
    prints["memory"] = load_triples(rows).fingerprint
    assert len(set(prints.values())) == 1, prints


def test_data_sets_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """`owner/name` goes to `datasets.load_dataset`, here a stand-in, with the split; what fails there is one line."""
    asked: list[tuple[str, str]] = []

    def load_dataset(name: str, split: str) -> list[dict[str, str]]:
        asked.append((name, split))
        if name == "owner/absent":
            raise RuntimeError("404")
        return [{"prompt": "Why?", "chosen": "a", "rejected": "b", "weight": 2.0, "margin": 0.5, "group": "g"}]

    module: Any = types.ModuleType("datasets")
    module.load_dataset = load_dataset
    monkeypatch.setitem(sys.modules, "datasets", module)
    found = load_triples("owner/name", split="validation")[0]
    assert asked == [("owner/name", "validation")] and found.source == "owner/name, record 0"
    assert (found.chosen, found.weight, found.margin, found.group) == ("a", 2.0, 0.5, "g")
    with pytest.raises(InputError, match=r"owner/absent: no such file, and the hub does not give it \(404\)"):
        load_triples("owner/absent")


def test_data_sets_in_memory() -> None:
    datasets = pytest.importorskip("datasets", reason="needs datasets")
    rows = [{"prompt": [{"role": "user", "content": "Why?"}], "chosen": "a", "rejected": "b", "weight": 2.0}]
    assert load_triples(datasets.Dataset.from_list(rows)).fingerprint == load_triples(rows).fingerprint


def test_saved_triples_come_back(tmp_path: Path, triples: Triples) -> None:
    for name in ("a.jsonl", "a.jsonl.gz"):
        assert load_triples(triples.save(tmp_path / name)).fingerprint == triples.fingerprint


# -- faults -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("line", "words"),
    [
        ({"chosen": "a", "prompt": "p"}, "field 'rejected': missing"),
        ({"prompt": "p", "chosen": 3, "rejected": "b"}, "field 'chosen'"),
        ({"prompt": [{"role": "user"}], "chosen": "a", "rejected": "b"}, r"field 'prompt'\[0\].content"),
        ({"prompt": [{"content": "p"}], "chosen": "a", "rejected": "b"}, r"field 'prompt'\[0\].role"),
        ({**PAIR, "weight": -1}, "field 'weight'"),
        ({**PAIR, "weight": "much"}, "field 'weight'"),
        ({**PAIR, "margin": float("nan")}, "field 'margin'"),
        ({"prompt": "p", "completion": "c", "label": 2}, "field 'label'"),
        ({"prompt": "p", "completion": "c"}, "field 'label': missing"),
        ({"chosen": "abc", "rejected": "xyz"}, "field 'prompt': missing"),
        ({"chosen": "abc", "rejected": chat("a", "b")}, "field 'rejected'"),
        ("{broken", "not JSON"),
        ("[1]", "expected an object"),
    ],
)
def test_faults_are_named_with_file_line_and_field(tmp_path: Path, line: Any, words: str) -> None:
    path = write_jsonl(tmp_path / "data.jsonl", [PAIR, "", line])
    with pytest.raises(InputError, match=rf"data\.jsonl, line 3.*{words}"):
        load_triples(path)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({**PAIR, "rejected": " Because."}, "equal"),
        ({**PAIR, "chosen": " \n"}, "empty"),
        ({**PAIR, "prompt": " "}, "empty"),
        ({"chosen": chat("Why?", "a"), "rejected": chat("Why?", "a")}, "equal"),
        ({"chosen": chat("Why?", "a", "b", "c"), "rejected": chat("Why?", "x", "y", "z")}, "diverging"),
        ({"chosen": "same", "rejected": "same"}, "equal"),
    ],
)
def test_what_teaches_nothing_is_counted_or_refused(row: dict[str, Any], reason: str) -> None:
    triples = load_triples([PAIR, row])
    assert (len(triples), triples.counts[reason], triples.counts["read"], triples.counts["kept"]) == (1, 1, 2, 1)
    with pytest.raises(InputError, match="record 1"):
        load_triples([PAIR, row], strict=True)
    with pytest.raises(InputError, match="no triples"):
        load_triples([row])


def test_duplicates_and_contradictions_are_kept_and_counted() -> None:
    opposite = {"prompt": "Why?", "chosen": "No.", "rejected": "Because."}
    counts = load_triples([PAIR, PAIR, opposite]).counts
    assert (counts["kept"], counts["duplicate"], counts["contradictory"]) == (3, 1, 1)


@pytest.mark.parametrize("name", ["absent.jsonl", "a/b.jsonl", ".", "data.txt", "cut.jsonl.gz", "latin.jsonl"])
def test_unreadable_files_are_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.txt").write_text("x")
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(b"{}" * 1000)[:20])
    (tmp_path / "latin.jsonl").write_bytes('{"prompt": "é"}'.encode("latin-1"))
    with pytest.raises(InputError, match=r"\." if name == "." else name.replace(".", r"\.")):
        load_triples(name)


def test_wrong_kind_of_source() -> None:
    with pytest.raises(TypeError, match="source"):
        load_triples(3)
    with pytest.raises(InputError, match="record 0"):
        load_triples(["text"])


# -- splits -----------------------------------------------------------------------------------------------------------
def triple(prompt: str, group: str, n: int) -> Triple:
    return Triple((Message("user", prompt),), f"good {n}", f"bad {n}", group=group)


many = st.lists(
    st.tuples(st.sampled_from(["a", "A ", "b", "c", "d", "e f", "e  F"]), st.sampled_from("uvwxyz")),
    min_size=1,
    max_size=30,
)


def built(keys: list[tuple[str, str]]) -> Triples:
    """Triples of these prompts and groups."""
    return Triples(tuple(triple(*key, n) for n, key in enumerate(keys)))


def brute_force_classes(triples: Triples) -> list[set[int]]:
    """Connected components by repeated search; a prompt that all have joins nobody where groups differ."""
    prompts = {" ".join(t.prompt[0].content.lower().split()) for t in triples}
    told = len(prompts) > 1 or len({t.group for t in triples}) <= 1

    def near(a: Triple, b: Triple) -> bool:
        same = [" ".join(t.prompt[0].content.lower().split()) for t in (a, b)]
        return (told and same[0] == same[1]) or a.group == b.group

    todo, classes = set(range(len(triples))), []
    while todo:
        found = {todo.pop()}
        while more := {i for i in todo if any(near(triples[i], triples[j]) for j in found)}:
            found |= more
            todo -= more
        classes.append(found)
    return classes


@given(many)
def test_components_are_those_of_brute_force(keys: list[tuple[str, str]]) -> None:
    triples = built(keys)
    found = defaultdict(set)
    for i, number in enumerate(splits.components(triples)):
        found[number].add(i)
    assert sorted(map(sorted, found.values())) == sorted(map(sorted, brute_force_classes(triples)))


@given(many, st.floats(0.05, 0.95), st.integers(0, 3))
def test_a_split_divides_no_group(keys: list[tuple[str, str]], fraction: float, seed: int) -> None:
    triples = built(keys)
    try:
        train, test = triples.split(fraction, seed)
    except ValueError as error:
        assert "one side empty" in str(error)
        return
    assert sorted(t.chosen for t in [*train, *test]) == sorted(t.chosen for t in triples)
    assert splits.leakage(train, test) == splits.leakage(test, train) == 0
    again, _ = triples.split(fraction, seed)
    assert again == train


@given(many, st.integers(2, 4))
def test_folds_partition_and_divide_no_group(keys: list[tuple[str, str]], k: int) -> None:
    triples = built(keys)
    n_groups = len(brute_force_classes(triples))
    if n_groups < k:
        with pytest.raises(ValueError, match="k must be"):
            triples.kfold(k)
        return
    folds = triples.kfold(k)
    assert sorted(t.chosen for _, test in folds for t in test) == sorted(t.chosen for t in triples)
    for train, test in folds:
        assert test and train and splits.leakage(train, test) == 0
    sizes = [len(test) for _, test in folds]
    assert max(sizes) - min(sizes) <= max(map(len, brute_force_classes(triples)))


def test_split_is_near_the_fraction_and_leakage_is_counted() -> None:
    triples = Triples(tuple(triple(f"p{i // 2}", f"g{i // 2}", i) for i in range(200)))
    train, test = triples.split(0.25)
    assert abs(len(test) - 50) <= 1 and len(train) + len(test) == 200
    assert splits.leakage(triples, test) == len(test)
    assert splits.leakage(train, triples) == len(train)
    for bad in (0, 1, -0.5, 2.0):
        with pytest.raises(ValueError, match="fraction"):
            triples.split(bad)
    for seed in (-1, 1.5):
        with pytest.raises(ValueError, match="seed"):
            triples.split(0.5, seed)


def test_fingerprint_tells_content_and_ignores_place() -> None:
    rows = [PAIR, {**PAIR, "prompt": "Who?"}]
    same, other = load_triples(rows), load_triples([rows[0], {**rows[1], "margin": 0.1}])
    assert same.fingerprint == load_triples(list(rows)).fingerprint != other.fingerprint
    assert load_triples(rows[::-1]).fingerprint != same.fingerprint


def test_slices_and_selections() -> None:
    triples = load_triples([{**PAIR, "prompt": f"Why {i}?"} for i in range(5)])
    assert [t.prompt[0].content for t in triples[1:3]] == ["Why 1?", "Why 2?"]
    assert triples.select(np.array([4, 0]))[0] == triples[4]


def test_real_data_sets_load(shared_data: Path) -> None:
    sizes = {"hh_rlhf_helpful_base_test": 2348, "truthfulqa_pairs": 3296, "bridge_tutor_pairs": 700}
    for name, size in sizes.items():
        file = shared_data / f"{name}.jsonl.gz"
        if not file.is_file():
            pytest.skip(f"{file.name} is not in the data folder")
        triples = load_triples(file)
        assert len(triples) == size == triples.counts["read"]
        train, test = triples.split(0.2)
        assert splits.leakage(train, test) == 0
        prompts = [{t.prompt for t in side} for side in (train, test)]
        assert not prompts[0] & prompts[1]
    assert all(t.prompt[-1].role == "user" for t in load_triples(shared_data / "hh_rlhf_helpful_base_test.jsonl.gz"))


def test_a_prompt_that_all_pairs_have_does_not_join_their_groups() -> None:
    rows = [
        {"prompt": "Write.", "chosen": f"good {i}", "rejected": f"bad {i}", "group": f"g{i // 2}"} for i in range(8)
    ]
    triples = load_triples(rows)
    classes = splits.components(triples)
    assert classes.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    train, test = triples.split(0.25)
    assert len(train) == 6 and len(test) == 2
    assert len(triples.kfold(4)) == 4
    without = load_triples([{k: v for k, v in row.items() if k != "group"} for row in rows])
    assert len({*splits.components(without).tolist()}) == 1  # nothing but the prompt tells them apart
    other = load_triples([*rows, {"prompt": "Read.", "chosen": "a", "rejected": "b", "group": "g0"}])
    assert len({*splits.components(other).tolist()}) == 1  # a prompt that some have joins them, as ever
