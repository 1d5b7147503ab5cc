"""The survey: its page in a real browser, its key, and its rates against counts made by hand."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats

from cvxrelu_llm.survey.page import build_survey, order_digest, read_answers
from cvxrelu_llm.survey.votes import TIE, score_survey

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome", "chrome-headless-shell")
NASTY = "</script><b>bold</b> & \u2028 <!-- \"quoted\" 'x' \\ end"
ITEMS = [
    {"prompt": "What is 7 x 8?", "answers": {"guided": "56.", "plain": "It is 54."}},
    {"prompt": [{"role": "student", "content": "Why is the sky blue?"}], "answers": {"guided": NASTY, "plain": "Sea."}},
    {"prompt": "Name a prime.", "answers": {"guided": "7", "plain": "9"}},
]


@pytest.fixture
def survey(tmp_path: Path) -> dict[str, Any]:
    return build_survey(ITEMS, tmp_path / "page.html", tmp_path / "key.json", title="Tutors & <answers>", seed=3)


# -- the page in a browser ---------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def browser() -> str:
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no browser found; looked for {', '.join(BROWSERS)}")
    return found


DRIVER = """<script>
const report = {};
const key = name => document.dispatchEvent(new KeyboardEvent("keydown", {key: name, bubbles: true}));
const text = id => document.getElementById(id).textContent;
const cards = () => [...document.querySelectorAll("#answers .text")].map(node => node.textContent);
const chosen = () => [...document.querySelectorAll("input:checked")].map(node => node.value);
const errors = [];
addEventListener("error", event => errors.push(event.message));
addEventListener("securitypolicyviolation", event => errors.push(event.blockedURI));
async function drive() { %s }
drive().catch(error => errors.push(String(error))).finally(() => {
  const node = document.createElement("pre");
  node.id = "report";
  node.textContent = JSON.stringify({...report, errors});
  document.body.append(node);
});
</script></body>"""


def drive(browser: str, folder: Path, script: str) -> dict[str, Any]:
    """Open the page, run the script as a user would act, and return what it reported."""
    page = (folder / "page.html").read_text(encoding="utf-8")
    assert page.count("</body>") == 1
    driven = folder / "driven.html"
    driven.write_text(page.replace("</body>", DRIVER % script), encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000", "--dump-dom"]
    done = subprocess.run(
        [browser, *options, f"--user-data-dir={folder / 'profile'}", driven.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )

    class Report(HTMLParser):
        inside, text = False, ""

        def handle_starttag(self, tag: str, attrs: list) -> None:
            self.inside = ("id", "report") in attrs

        def handle_data(self, data: str) -> None:
            self.text += data if self.inside else ""

    parser = Report()
    parser.feed(done.stdout)
    assert parser.text, done.stdout[-500:] + done.stderr[-500:]
    report = json.loads(parser.text)
    assert report["errors"] == []
    return report


def test_a_vote_in_a_browser(browser: str, tmp_path: Path, survey: dict[str, Any]) -> None:
    answers = [{**item, "prompt": item["prompt"]} for item in ITEMS]
    first = drive(
        browser,
        tmp_path,
        """
        report.title = document.title; report.heading = text("heading"); report.before = text("status");
        report.back = document.getElementById("back").disabled;
        report.shown = []; report.prompts = [];
        for (let k = 0; k < 3; k++) { report.shown.push(cards()); report.prompts.push(text("prompt")); key("n"); }
        report.end = text("heading"); report.next = document.getElementById("next").disabled;
        key("p"); key("p"); key("2"); report.second = chosen();
        report.marked = document.querySelectorAll(".chosen").length;
        key("1"); report.changed = chosen(); key("Enter"); report.none = chosen();
        document.querySelectorAll("#answers input")[1].click(); report.clicked = chosen();
        key("9"); report.ignored = chosen();
        key("n"); key("0"); report.tie = chosen(); report.after = text("status");
        const name = document.getElementById("name"); name.value = "Ada"; name.dispatchEvent(new Event("input"));
        name.focus();
        name.dispatchEvent(new KeyboardEvent("keydown", {key: "1", bubbles: true})); report.typed = chosen();
        let blob; URL.createObjectURL = given => { blob = given; return "blob:none"; };
        HTMLAnchorElement.prototype.click = function () { report.file = this.download; };
        document.getElementById("save").click();
        report.exported = JSON.parse(await blob.text());
        report.bold = document.querySelectorAll("#answers b").length;
        report.unlabelled = [...document.querySelectorAll("input, button")]
          .filter(node => !(node.labels && node.labels.length) && !node.textContent.trim()).length;
        report.requests = performance.getEntriesByType("resource").map(entry => entry.name);
        """,
    )
    assert first["title"] == "Tutors & <answers>"
    assert (first["heading"], first["end"]) == ("Question 1 of 3", "Question 3 of 3")
    assert first["back"] is True and first["next"] is True
    order = survey["order"]
    for k, (name, prompt) in enumerate(zip(order, first["prompts"], strict=True)):
        words = survey["prompts"][name][-1]["content"]
        assert prompt.endswith(words)
        given = next(item["answers"] for item in answers if words in json.dumps(item["prompt"]))
        assert first["shown"][k] == [given[model] for model in order[name]], "shown in the order of the key"
    assert first["second"] == ["1"] and first["changed"] == ["0"] and first["none"] == [] and first["marked"] == 1
    assert first["clicked"] == ["1"] == first["ignored"] and first["tie"] == [TIE] == first["typed"]
    assert first["before"].startswith("0 of 3") and first["after"].startswith("All 3 questions are answered")
    exported = first["exported"]
    assert exported["votes"] == {"q1": 0, "q2": 1, "q3": TIE} and exported["name"] == "Ada"
    assert first["file"] == f"survey-{survey['survey']}-{exported['rater']}.json"
    assert first["bold"] == 0 and first["unlabelled"] == 0 and first["requests"] == []

    result = score_survey(tmp_path / "key.json", [exported])
    wins = [order["q1"][0], order["q2"][1]]
    assert {name: rate.wins for name, rate in result.models.items()} == {m: wins.count(m) for m in ("guided", "plain")}
    assert result.n_ties == 1 and result.n_raters == 1

    again = drive(
        browser,
        tmp_path,
        """
        report.at = text("heading"); report.chosen = chosen(); report.status = text("status");
        report.name = document.getElementById("name").value;
        report.rater = JSON.parse(localStorage.getItem(localStorage.key(0))).rater;
        confirm = () => false; document.getElementById("reset").click(); report.declined = chosen();
        confirm = () => true; document.getElementById("reset").click();
        report.reset = [text("heading"), text("status"), chosen().length];
        """,
    )
    assert again["at"] == "Question 3 of 3" and again["chosen"] == [TIE] and again["status"] == first["after"]
    assert again["name"] == "Ada" and again["rater"] == exported["rater"] and again["declined"] == [TIE]
    assert again["reset"] == ["Question 1 of 3", "0 of 3 questions answered.", 0]


# -- what the page gives away ------------------------------------------------------------------------------------------
def test_page_is_self_contained_and_does_not_say_whose_answers_they_are(tmp_path: Path, survey: dict[str, Any]) -> None:
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    data = json.loads(re.search(r'id="survey">(.*?)</script>', page, re.DOTALL)[1])
    assert not re.search(r"(?:https?:)?//[a-z]", page) and " src=" not in page
    assert "default-src 'none'" in page and page.count("</script>") == 2
    for word in ("guided", "plain", survey["salt"]):
        assert word not in page
    assert sorted(data) == ["digest", "format", "intro", "items", "survey", "title"]
    assert all(sorted(item) == ["answers", "id", "prompt"] for item in data["items"])
    assert data["digest"] == survey["digest"] == order_digest(survey["salt"], survey["order"])
    assert json.loads((tmp_path / "key.json").read_text()) == survey
    assert NASTY in [text for item in data["items"] for text in item["answers"]]


def test_orders_are_random_and_reproducible(tmp_path: Path) -> None:
    items = [{"prompt": f"p{i}", "answers": {"a": "1", "b": "2", "c": "3"}} for i in range(60)]
    build = lambda seed: build_survey(items, tmp_path / "p.html", tmp_path / "k.json", seed=seed)  # noqa: E731
    one, same, other, unknown = build(0), build(0), build(1), build(None)
    assert one["order"] == same["order"] != other["order"] != unknown["order"]
    assert one["salt"] != same["salt"] and one["digest"] != same["digest"], "a digest nobody can look up"
    firsts = [order[0] for order in one["order"].values()]
    assert all(10 <= firsts.count(name) <= 30 for name in "abc")
    assert [m[0]["content"] for m in one["prompts"].values()] != [item["prompt"] for item in items]


# -- scores ------------------------------------------------------------------------------------------------------------
def ballots(key: dict[str, Any], choices: list[dict[str, str]]) -> list[dict[str, Any]]:
    """Exports of raters who chose these models."""
    head = {"format": key["format"], "survey": key["survey"], "digest": key["digest"], "name": ""}
    return [
        {
            **head,
            "rater": f"r{i}",
            "saved": f"2026-01-0{i % 9 + 1}",
            "votes": {q: TIE if m == TIE else key["order"][q].index(m) for q, m in chosen.items()},
        }
        for i, chosen in enumerate(choices)
    ]


def make_key(tmp_path: Path, models: str, n: int) -> dict[str, Any]:
    items = [{"prompt": f"p{i}", "answers": {m: m for m in models}} for i in range(n)]
    return build_survey(items, tmp_path / "p.html", tmp_path / "k.json")


def test_rates_are_counts(tmp_path: Path) -> None:
    key = make_key(tmp_path, "abc", 3)
    votes = ballots(key, [{"q1": "a", "q2": "a", "q3": TIE}, {"q1": "b", "q2": "a"}, {"q1": "c", "q3": TIE}])
    result = score_survey(key, votes)
    assert (result.n_votes, result.n_ties, result.n_raters, result.n_prompts) == (7, 2, 3, 3)
    a, b, c = (result.models[name] for name in "abc")
    assert (a.wins, a.losses, a.ties) == (3, 2, 2) and a.rate == pytest.approx((3 + 2 / 3) / 7)
    assert a.rate + b.rate + c.rate == pytest.approx(1.0)
    pair = result.pairs["a", "b"]
    assert (pair.wins, pair.losses, pair.ties) == (3, 1, 2) and pair.rate == pytest.approx(4 / 6)
    assert a.low <= a.rate <= a.high
    assert "a against b" in result.summary() and "7 votes of 3 raters on 3 prompts, 2 of them ties" in result.summary()
    json.loads(json.dumps(result.record(), allow_nan=False))


def test_interval_is_a_bootstrap_of_prompts_not_of_votes(tmp_path: Path) -> None:
    """Twenty raters who agree on each of ten prompts are ten observations, not two hundred."""
    key = make_key(tmp_path, "ab", 10)
    opinion = {f"q{i + 1}": "a" if i < 6 else "b" for i in range(10)}
    rate = score_survey(key, ballots(key, [opinion] * 20)).models["a"]
    rng = np.random.default_rng(5)
    x = np.array([m == "a" for m in opinion.values()], dtype=float)
    oracle = np.quantile(rng.choice(x, size=(40_000, 10)).mean(axis=1), [0.025, 0.975])
    assert rate.rate == pytest.approx(0.6)
    assert rate.low <= oracle[0] + 0.051 and rate.high >= oracle[1] - 0.051  # the law has steps of 0.1
    assert [rate.low, rate.high] == pytest.approx(oracle, abs=0.15)  # ten prompts: the exact interval is longer
    assert rate.high - rate.low > 0.5
    narrow = score_survey(key, ballots(key, [opinion] * 20), level=0.5).models["a"]
    assert rate.low < narrow.low and narrow.high < rate.high


@pytest.mark.parametrize("spread", [0.0, 0.3])
def test_intervals_cover_the_truth(tmp_path: Path, spread: float) -> None:
    """About 95 % of them, with prompts that differ as with prompts that do not."""
    key, rng = make_key(tmp_path, "ab", 40), np.random.default_rng(1)
    hits = 0
    for _ in range(60):
        p = 0.6 + spread * rng.choice([-1, 1], size=40)
        raters = [{q: "a" if rng.random() < p[i] else "b" for i, q in enumerate(key["order"])} for _ in range(10)]
        rate = score_survey(key, ballots(key, raters), draws=400).models["a"]
        hits += rate.low <= 0.6 <= rate.high
    # Binomial(60, 0.95) is below with probability 0.002; with a spread, intervals from single votes cover 65 %, and
    # binomial(60, 0.65) gets there with probability 0.001.
    assert hits >= 51


def test_the_later_file_of_a_rater_counts(tmp_path: Path) -> None:
    key = make_key(tmp_path, "ab", 2)
    early, late = ballots(key, [{"q1": "a"}, {"q1": "b", "q2": "b"}])
    late = {**late, "rater": early["rater"]}
    for files in ([early, late], [late, early]):
        result = score_survey(key, files)
        assert result.n_raters == 1 and result.models["b"].wins == 2 and result.models["a"].wins == 0
    only = score_survey(key, [early])
    assert only.models["a"].low is None and "no interval" in only.summary()


def test_a_pair_that_was_never_decided_has_no_rate(tmp_path: Path) -> None:
    key = make_key(tmp_path, "abc", 2)
    result = score_survey(key, ballots(key, [{"q1": "c", "q2": "c"}]))
    assert result.pairs["a", "b"].rate is None and result.models["c"].rate == 1.0
    json.dumps(result.record(), allow_nan=False)


# -- input -------------------------------------------------------------------------------------------------------------
def test_answers_come_from_one_file_or_several(tmp_path: Path) -> None:
    one, two, all_ = tmp_path / "one.jsonl", tmp_path / "two.jsonl", tmp_path / "all.jsonl"
    one.write_text(
        '{"prompt": "p", "model": "a", "text": "x", "score": 1}\n\n{"prompt": "q", "model": "a", "text": "y"}\n'
    )
    two.write_text('{"prompt": "q", "model": "b", "text": "z"}\n{"prompt": "p", "model": "b", "text": "w"}\n')
    all_.write_text(
        '{"prompt": "p", "answers": {"a": "x", "b": "w"}}\n{"prompt": "q", "answers": {"a": "y", "b": "z"}}\n'
    )
    assert read_answers(one, two) == read_answers(all_)
    with pytest.raises(ValueError, match=r"one\.jsonl, line 1: a second answer of a"):
        read_answers(one, one)
    two.write_text('{"prompt": "p"\n')
    with pytest.raises(ValueError, match=r"two\.jsonl, line 1: not JSON"):
        read_answers(two)
    two.write_text('{"prompt": "p", "text": "x"}\n')
    with pytest.raises(ValueError, match="expected 'answers'"):
        read_answers(two)
    two.write_text("[1]\n")
    with pytest.raises(ValueError, match="expected an object, got list"):
        read_answers(two)


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([], "at least one prompt"),
        ([{"prompt": "p", "answers": {"a": "x"}}], "two to nine models, got 1"),
        ([{"prompt": "", "answers": {"a": "x", "b": 3}}], "item 1: answers must map models to texts"),
        ([{"prompt": [], "answers": {"a": "x", "b": "y"}}], "item 1: prompt must be"),
        ([*ITEMS[:1], {"prompt": "p", "answers": {"guided": "x"}}], "item 2 has answers of"),
    ],
)
def test_bad_items_are_named_and_nothing_is_written(tmp_path: Path, items: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_survey(items, tmp_path / "p.html", tmp_path / "k.json")
    with pytest.raises(ValueError, match="two files"):
        build_survey(ITEMS, tmp_path / "p.html", tmp_path / "p.html")
    assert list(tmp_path.iterdir()) == []


def test_bad_votes_are_named(tmp_path: Path, survey: dict[str, Any]) -> None:
    (good,) = ballots(survey, [{"q1": "guided"}])
    other = make_key(tmp_path, "ab", 1)
    for change, message in (
        ({"survey": "zz"}, "belongs to survey 'zz'"),
        ({"digest": "00"}, "belongs to survey"),
        ({"votes": {"q1": 2}}, "vote 2 on 'q1' is not possible"),
        ({"votes": {"q9": 0}}, "on 'q9' is not possible"),
        ({"votes": {"q1": True}}, "vote True on 'q1' is not possible"),
        ({"votes": [1]}, "not a file exported"),
        ({"votes": {}}, "at least one vote"),
    ):
        with pytest.raises(ValueError, match=message):
            score_survey(survey, [{**good, **change}])
    with pytest.raises(ValueError, match="at least one file"):
        score_survey(survey, [])
    with pytest.raises(ValueError, match="changed after the page was made"):
        score_survey({**survey, "order": {**survey["order"], "q1": survey["order"]["q1"][::-1]}}, [good])
    with pytest.raises(ValueError, match="belongs to survey"):
        score_survey(other, [good])
    with pytest.raises(ValueError, match="not the key of a survey"):
        score_survey(good, [good])
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    with pytest.raises(ValueError, match=r"broken\.json: not JSON"):
        score_survey(survey, [broken])
    with pytest.raises(ValueError, match="level must be a number strictly between 0 and 1"):
        score_survey(survey, [good], level=1.0)


@pytest.mark.parametrize("n", [2, 3, 5])
def test_few_votes_that_agree_prove_little(tmp_path: Path, n: int) -> None:
    """All for one: Clopper and Pearson's lower end of as many votes as prompts, corrected; not 1 to 1."""
    from cvxrelu_llm.survey.votes import _few_votes

    counts = np.zeros((n, 3))
    counts[:, 0] = 4.0  # four votes a prompt: prompts are what is independent
    low, high = _few_votes(counts, 0, [1], 0.5, 0.95)
    corrected = n * (scipy.stats.t.ppf(0.975, 4 * n - 1) / scipy.stats.t.ppf(0.975, n - 1)) ** 2
    assert high == 1.0 and low == pytest.approx(0.025 ** (1 / corrected), rel=1e-6)
    single = np.zeros((60, 3))  # one vote a prompt, many of them: Clopper and Pearson's own
    single[:40, 0], single[40:, 1] = 1, 1
    low, high = _few_votes(single, 0, [1], 0.5, 0.95)
    right = scipy.stats.binomtest(40, 60).proportion_ci(0.95, method="exact")
    assert (low, high) == (pytest.approx(right.low, abs=0.003), pytest.approx(right.high, abs=0.003))


def test_markdown_becomes_nodes_and_never_html(root: Path) -> None:
    """The renderer of the page under node, with the few calls of a document that it makes."""
    if shutil.which("node") is None:
        pytest.skip("node, to run the page's script, is not installed")
    page = (root / "cvxrelu_llm" / "survey.html").read_text(encoding="utf-8")
    code = page[page.index("  const MARKS") : page.index("  function option(")]
    made = """
const make = (tag, name, text) => (
  {tag, parts: text === undefined ? [] : [text], append(...more) { this.parts.push(...more); }});
const flat = node => typeof node === "string" ? node : `[${node.tag} ${node.parts.map(flat).join("")}]`;
"""
    texts = {
        "a **b** and *c* `d*e`": "[div a [strong b] and [em c] [code d*e]]",
        "2*3*4 and 2 * 3 * 4": "[div 2*3*4 and 2 * 3 * 4]",
        "# Head\n- one\n* two": "[div [strong Head]\n\u2022 one\n\u2022 two]",
        "x\n```py\n**no**\n```\ny": "[div x\n[pre **no**\n]y]",
        "<img src=x onerror=alert(1)> **<b>**": "[div <img src=x onerror=alert(1)> [strong <b>]]",
    }
    script = made + code + f"console.log(JSON.stringify({json.dumps(list(texts))}.map(t => flat(rich(t)))));"
    done = subprocess.run(["node", "-e", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == list(texts.values())
    assert "innerHTML" not in page
