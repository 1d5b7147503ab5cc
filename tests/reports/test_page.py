"""The report stands alone, says what it should, escapes what it is given, and survives odd solutions."""

from __future__ import annotations

import dataclasses
import html
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from html_reading import Page

import cvxrelu
from cvxrelu.reports.page import Section, write_report
from cvxrelu.runs.progress import History
from cvxrelu.runs.solution import Certificate, Solution
from cvxrelu.support.files import atomic_write

pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def regression() -> tuple[Solution, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, 3))
    y = np.maximum(X[:, 0], 0) - np.maximum(X[:, 1], 0)
    solution = cvxrelu.solve(X, y, beta=0.5, patterns=cvxrelu.sample_patterns(X, 12), backend="numpy")
    return solution, y, solution.network.predict(X)


@pytest.fixture(scope="module", params=["refined", "sampled", "both"])
def each_kind(request: pytest.FixtureRequest) -> Solution:
    """Refinement alone, the sampled program alone, and one after the other."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, 3))
    y = np.maximum(X[:, 0], 0) - np.maximum(X[:, 1], 0)
    patterns = cvxrelu.sample_patterns(X, 12) if request.param == "both" else 12
    return cvxrelu.solve(X, y, beta=0.5, patterns=patterns, refine=request.param != "sampled", backend="numpy")


@pytest.fixture(scope="module")
def classification() -> tuple[Solution, list[str], np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, 3))
    codes = X.argmax(axis=1)
    classes = ["low", "<i>mid</i>", "high & up"]
    solution = cvxrelu.solve(X, np.eye(3)[codes], beta=0.5, backend="numpy")
    guess = solution.network.predict(X).argmax(axis=1)
    return solution, classes, np.array(classes)[codes], np.array(classes)[guess]


def write(folder: Path, *sections: Section, **settings: object) -> Page:
    path = write_report(folder / "report.html", sections, **{"title": "A report", **settings})
    assert sorted(file.name for file in folder.iterdir()) == ["report.html"], "temporary files are left"
    return Page(path.read_text(encoding="utf-8"))


def of(regression: tuple[Solution, np.ndarray, np.ndarray], **settings: object) -> Section:
    solution, truth, guess = regression
    return Section(**{"name": "planted", "solution": solution, "truth": truth, "predictions": guess, **settings})


def test_headline_facts(regression, tmp_path: Path) -> None:
    solution = regression[0]
    page = write(tmp_path, of(regression), command="cvxrelu fit x.csv", seed=3)
    assert f"{solution.status.value}: {solution.message}" in page.text
    for program in (solution, solution.sampled):
        assert f"{program.objective:.6g}" in page.text
        assert f"{program.lower_bound:.6g}" in page.text
    assert "(N) network" in page.text and "(S) sampled" in page.text
    assert f"priced: an estimate from {solution.certificate.starts} ascents, not a proof" in page.text
    assert f"{solution.n_iter} iterations of ADMM and {solution.n_rounds} round" in page.text
    assert "cvxrelu fit x.csv" in page.text and "Seed 3" in page.text and np.__version__ in page.text


def test_an_estimate_and_a_proof_are_called_so(regression, tmp_path: Path) -> None:
    solution = regression[0]
    proof = Certificate("relaxed", True, 0.5 * solution.objective, 0.5, np.zeros(60))
    page = write(tmp_path, of(regression, proof=proof))
    assert "relaxed: proven" in page.text and "50 % proven" in page.text
    assert f"an estimate from {solution.certificate.starts} ascents" in page.text
    assert f"and above {proof.lower_bound:.5g} for sure" in page.text
    page = write(tmp_path, of(regression, solution=dataclasses.replace(solution, certificate=proof)))
    assert "priced" not in page.text.replace(solution.message, "") and "which is proven" in page.text
    assert "if the estimate is right" not in page.text


def test_only_what_was_solved_is_spoken_of(each_kind: Solution, tmp_path: Path) -> None:
    page = write(tmp_path, Section(name="one", solution=each_kind))
    sampled, refined = each_kind.sampled is not None, bool(each_kind.settings["refine"])
    assert ("(S)" in page.text) == ("sampled program" in page.text.lower()) == sampled
    assert ("of refinement" in page.text) == refined
    assert (f"Status of ({'N' if refined else 'S'})") in page.text
    headings = ["Objective and bound", "Gap against time"]
    headings += ["Residuals and penalties of (S)", "Chosen patterns of (S)"] if sampled else ["Neurons"]
    assert sum(tag == "figure" for tag, _ in page.tags) == len(headings)
    assert all(heading in page.text for heading in headings)
    assert ("where the sampled program (S) ends" in page.text) == (sampled and refined)
    assert f"{each_kind.objective:.5g} with {each_kind.network.n_neurons} neurons" in page.text
    assert ("estimated bound" in page.text) == refined
    assert ("proven bound" in page.text) == sampled


def test_nothing_is_loaded_from_elsewhere(regression, classification, tmp_path: Path) -> None:
    solution, classes, truth, guess = classification
    digits = Section(name="digits", solution=solution, truth=truth, predictions=guess, classes=classes)
    page = write(tmp_path, of(regression), digits)
    assert not {"script", "link", "img", "image", "iframe", "object", "embed"} & {tag for tag, _ in page.tags}
    for name in ("src", "href", "xlink:href"):
        assert all(target.startswith("#") for target in page.attributes(name))
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"https?://|url\((?!#)|@import", text)


def test_plots_are_labelled_and_their_ids_distinct(regression, classification, tmp_path: Path) -> None:
    solution, classes, truth, guess = classification
    digits = Section(name="digits", solution=solution, truth=truth, predictions=guess, classes=classes)
    page = write(tmp_path, of(regression), digits)
    plots = [attributes for tag, attributes in page.tags if tag == "svg"]
    assert len(plots) == 9
    assert all(attributes["role"] == "img" and len(attributes["aria-label"] or "") > 40 for attributes in plots)
    assert sum(tag == "figcaption" for tag, _ in page.tags) == 9
    ids = page.attributes("id")
    assert len(ids) == len(set(ids))
    targets = {target.removeprefix("#") for target in page.attributes("xlink:href")}
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert targets | set(re.findall(r"url\(#([^)]+)\)", text)) <= set(ids)
    assert "#0102" not in text and "var(--blue)" in text, "a stand-in colour was not replaced"


def test_everything_is_escaped(regression, classification, tmp_path: Path) -> None:
    evil = "<script>alert('&amp;')</script>\""
    solution, classes, truth, guess = classification
    sections = [
        of(regression, name=evil, description=evil, scores=[{evil: evil, "R2": 0.5}], score_note=evil, rows=evil),
        Section(name="classes", solution=solution, truth=truth, predictions=guess, classes=classes),
    ]
    page = write(tmp_path, *sections, title=evil, intro=evil, command=evil)
    assert not {"script", "i"} & {tag for tag, _ in page.tags}
    assert page.text.count("alert('&amp;')") >= 7
    assert "<i>mid</i>" in page.text and "high & up" in page.text


def test_captions_tell_what_was_found(regression, classification, tmp_path: Path) -> None:
    solution, truth, guess = regression
    codes, classes, labels, found = classification
    page = write(
        tmp_path,
        of(regression),
        Section(name="classes", solution=codes, truth=labels, predictions=found, classes=classes),
    )
    assert f"root mean square error is {np.sqrt(np.mean((truth - guess) ** 2)):.3g}" in page.text
    right = int(np.sum(labels == found))
    assert f"Of 60 test rows, {right} are classified correctly" in page.text
    blocks = np.linalg.norm(solution.sampled.blocks, axis=1).sum(axis=0)
    used = int(np.sum(blocks > 1e-3 * blocks.max()))
    assert f"Of {blocks.size} sampled patterns of (S), {used} carry more than" in page.text


@pytest.mark.parametrize(
    "change",
    [
        {"sampled": None},
        {"history": History()},
        {"history": History([{"iteration": 0, "time": 0.0, "gap": 0.0}])},
        {"history": History([{"iteration": 5, "time": 0.1, "gap": np.nan, "sampled_gap": np.nan, "rho_copy": 1.0}])},
        {"settings": {}},
        {"timings": {}},
        {"objective": float("nan")},
    ],
    ids=lambda change: "-".join(change),
)
def test_odd_solutions_are_shown(regression, tmp_path: Path, change: dict[str, object]) -> None:
    page = write(tmp_path, of(regression, solution=dataclasses.replace(regression[0], **change), truth=None))
    assert "planted" in page.text


@pytest.mark.parametrize("refine", [True, False])
def test_the_zero_solution_is_shown(tmp_path: Path, refine: bool) -> None:
    X = np.random.default_rng(0).standard_normal((30, 2))
    y = X[:, 0]
    solution = cvxrelu.solve(X, y, beta=1e4, patterns=5, refine=refine, backend="numpy")
    page = write(tmp_path, Section(name="zero", solution=solution, truth=y, predictions=np.zeros(30)))
    assert "0 neurons" in page.text and ("the solution is zero" in page.text) == (not refine)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = atomic_write(tmp_path / "page.html", "old")

    def full(*_arguments: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("cvxrelu.support.files.os.replace", full)
    with pytest.raises(OSError, match="no space"):
        atomic_write(path, "new")
    assert [file.name for file in tmp_path.iterdir()] == ["page.html"]
    assert path.read_text() == "old"


def test_without_matplotlib_the_extra_is_named(regression, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"cvxrelu\[report\]"):
        write_report(tmp_path / "report.html", [of(regression)], title="A report")
    assert not list(tmp_path.iterdir())


def test_points_and_bars_say_what_they_are(regression, classification, tmp_path: Path) -> None:
    _, truth, guess = regression
    codes, classes, labels, found = classification
    sections = [
        of(regression),
        Section(name="classes", solution=codes, truth=labels, predictions=found, classes=classes),
    ]
    path = write_report(tmp_path / "report.html", sections, title="A report")
    text = path.read_text(encoding="utf-8")
    titles = [html.unescape(words) for words in re.findall(r"<title>([^<]*)</title>", text)]
    for i in (0, 59):
        assert f"true {truth[i]:.4g}, predicted {guess[i]:.4g}" in titles
    assert any(re.fullmatch(r"\d+ rows of <i>mid</i>, taken for <i>mid</i>", words) for words in titles)
    assert any(words.startswith("objective: ") and words.endswith(" s") for words in titles)
    assert any(re.fullmatch(r"neuron 1: .* % of the penalty", words) for words in titles)
    assert 'id="named' not in text


def test_a_disc_lies_on_its_point() -> None:
    from cvxrelu.support.pages.svg import hover, svg

    def draw(figure) -> None:
        axes = figure.subplots()
        axes.plot([0.0, 1.0, 2.0], [0.0, 1.0, 50.0], "o")
        axes.set(xlim=(0, 2), ylim=(0, 2))
        hover(axes, [0.0, 1.0, 2.0, np.nan], [0.0, 1.0, 50.0, 0.0], ["a", "b", "out of sight", "nowhere"])

    text = svg(draw, "p")
    discs = re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)" r="5"><title>(\w+)</title>', text)
    points = re.findall(r'<use xlink:href="#\S+" x="([\d.]+)" y="([\d.]+)"', text)
    assert [words for *_, words in discs] == ["a", "b"]
    for across, down, _ in discs:
        assert any(abs(float(x) - float(across)) < 0.2 and abs(float(y) - float(down)) < 0.2 for x, y in points)


@pytest.mark.parametrize(
    ("value", "digits", "shown"),
    [(29793.71, 3, "29,800"), (0.97081, 4, "0.9708"), (1.23e-7, 3, "1.23e-07"), (-5.3e4, 2, "-53,000"),
     (1e20, 3, "1e+20"), (999.9, 3, "1,000"), (float("nan"), 3, "n/a"), (12, 3, "12"), ("a", 3, "a")],
)  # fmt: skip
def test_numbers_are_written_as_people_write_them(value: object, digits: int, shown: str) -> None:
    from cvxrelu.support.pages.svg import number

    assert number(value, digits) == shown


def test_every_page_is_closed_to_the_network_and_fits_any_screen(regression, tmp_path: Path) -> None:
    page = write(tmp_path, of(regression))
    policy = next(attributes for _, attributes in page.tags if "http-equiv" in attributes)
    assert policy["content"] == "default-src 'none'; style-src 'unsafe-inline'"
    boxes = [attributes for _, attributes in page.tags if attributes.get("class") == "scroll"]
    assert len(boxes) == sum(tag == "table" for tag, _ in page.tags) > 0
    assert all(attributes["tabindex"] == "0" for attributes in boxes)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "prefers-color-scheme: dark" in text and "width=device-width" in text


def test_a_gap_of_zero_has_no_log_plot(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((40, 2)), rng.standard_normal(40)
    page = write(tmp_path, Section(name="zero", solution=cvxrelu.solve(X, y, beta=1e4, backend="numpy")))
    assert "was not measured" not in page.text and "Gap against time" not in page.text
