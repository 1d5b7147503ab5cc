"""The command line: `cvxrelu demo`, `fit`, `predict` and `doctor`.

What can go wrong with a user's input or disk ends as one line on stderr and exit code 2. Only `demo` needs
scikit-learn, only reports need matplotlib.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import dataclasses
import gzip
import io
import json
import os
import shlex
import shutil
import sys
import tempfile
import traceback
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cvxrelu.backends import BACKENDS, BackendError

__all__ = ["build_parser", "main"]

OK, NOT_TO_TOL, BAD_INPUT, BROKEN_BACKEND, INTERNAL, INTERRUPTED = 0, 1, 2, 3, 4, 130

_EXIT_CODES = """\
exit codes:
  0    success
  1    solved, but not to --tol; the status says why, and the best network is kept
  2    bad usage, bad input, or a file that cannot be written; one line on stderr says what
  3    a backend is broken or missing
  4    an error inside cvxrelu: the traceback belongs in a bug report
  130  interrupted; `fit` keeps the best network found so far, if there is one
"""
_FORMAT = "cvxrelu-model"
_MODEL_FILES = ("network.safetensors", "solution.json", "report.html")
_MISSING = {"", "na", "n/a", "nan", "null", "none", "?"}


class UserError(Exception):
    """Something the user can mend: shown as one line, exit code 2."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (default: that of the process) and return its exit code.

    >>> main(["predict", "no-such-folder", "data.csv"])
    2
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        options = build_parser().parse_args(arguments)
    except SystemExit as exit_:  # argparse has printed its message, or the help
        return int(exit_.code or 0)
    options.command_line = shlex.join(["cvxrelu", *arguments])
    try:
        return options.run(options)
    except UserError as error:
        return _complain(error, BAD_INPUT)
    except BackendError as error:
        return _complain(error, BROKEN_BACKEND)
    except KeyboardInterrupt:
        return _complain("interrupted", INTERRUPTED)
    except BrokenPipeError:  # `cvxrelu predict ... | head`: the reader has enough
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - keeps Python from flushing into the closed pipe at exit
        return OK
    except OSError as error:  # a full disk, a folder without permission
        return _complain(error, BAD_INPUT)
    except MemoryError as error:
        return _complain(f"not enough memory ({error}); use fewer --patterns, or fewer rows", BAD_INPUT)
    except Exception:
        traceback.print_exc()
        return INTERNAL


def _complain(message: object, code: int) -> int:
    print("cvxrelu: " + " ".join(str(message).split()), file=sys.stderr)
    return code


# --- reading tables --------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Table:
    """Columns of one file: `cells` (n, k) of numbers or text, `names` None where the file has no header."""

    path: Path
    names: list[str] | None
    cells: list[list[str]] | np.ndarray
    lines: list[int] | None = None

    @property
    def n_columns(self) -> int:
        return len(self.cells[0])

    def index(self, target: str) -> int:
        """Position of the column called `target`, or counted from 0 (negative: from the end)."""
        if self.names and target in self.names:
            return self.names.index(target)
        with contextlib.suppress(ValueError):
            position = int(target)
            if -self.n_columns <= position < self.n_columns:
                return position % self.n_columns
            raise UserError(f"--target {target}: {self.path} has {self.n_columns} columns, counted from 0")
        known = ", ".join(self.names[:20]) if self.names else "it has no header row; give the column's position"
        raise UserError(f"--target {target!r}: no such column in {self.path} ({known})")

    def text(self, column: int) -> list[str]:
        """A column as it stands, without missing cells."""
        for row, line in enumerate(self.cells):
            if str(line[column]).strip().lower() in _MISSING:
                raise UserError(f"{self._place(row, column)}: missing value")
        return [str(line[column]).strip() for line in self.cells]

    def numbers(self, columns: Sequence[int]) -> np.ndarray:
        """Columns as float64 (n, len(columns)); an error names file, line and column of the first bad cell."""
        try:
            if isinstance(self.cells, np.ndarray):
                values = self.cells[:, list(columns)].astype(np.float64)
            else:
                values = np.array([[float(line[column]) for column in columns] for line in self.cells], np.float64)
        except ValueError:
            values = None
        if values is None or not np.isfinite(values).all():
            for row, line in enumerate(self.cells):
                for column in columns:
                    self._check_number(str(line[column]).strip(), row, column)
        assert values is not None
        return values

    def _check_number(self, cell: str, row: int, column: int) -> None:
        if cell.lower() in _MISSING:
            raise UserError(f"{self._place(row, column)}: missing value; fill it in or leave the row out")
        try:
            finite = np.isfinite(float(cell))
        except ValueError:
            raise UserError(f"{self._place(row, column)}: {cell[:40]!r} is not a number") from None
        if not finite:
            raise UserError(f"{self._place(row, column)}: {cell} is not a finite number")

    def _place(self, row: int, column: int) -> str:
        if self.lines is None:
            return f"{self.path}, row {row}, column {column} (counted from 0)"
        name = f" ({self.names[column]})" if self.names else ""
        return f"{self.path}, line {self.lines[row]}, column {column + 1}{name}"


def read_table(path: str | os.PathLike[str], wanted: Sequence[str] = ()) -> Table:
    """Read the table in a .csv, .csv.gz, .npy or .npz file; `wanted` are column names that tell a header row."""
    path = Path(path)
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes[-1:] in ([".npy"], [".npz"]):
        arrays = _load_arrays(path)
        if len(arrays) > 1 and "X" not in arrays:
            raise UserError(f"{path}: no array X among {', '.join(arrays)}")
        return _array_table(path, arrays["X"] if "X" in arrays else next(iter(arrays.values())))
    with _reading(path):
        packed = suffixes[-1:] == [".gz"]
        if (suffixes[:-1] if packed else suffixes)[-1:] not in ([".csv"], [".tsv"], [".txt"]):
            raise UserError(f"{path}: unknown kind of file; expected .csv, .csv.gz, .npz or .npy")
        data = path.read_bytes()
        return _csv_table(path, (gzip.decompress(data) if packed else data).decode("utf-8-sig"), wanted)


def _load_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a .npz file by name, or that of a .npy file under the name ""."""
    with _reading(path), open(path, "rb") as file:  # opened here: NumPy leaves damaged archives open
        loaded = np.load(file, allow_pickle=False)
        arrays = {"": loaded} if isinstance(loaded, np.ndarray) else {name: loaded[name] for name in loaded.files}
        if not arrays:
            raise UserError(f"{path}: holds no arrays")
        return arrays


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what can go wrong with a file into one clear line."""
    try:
        if not path.exists():
            raise UserError(f"{path}: no such file")
        if path.is_dir():
            raise UserError(f"{path}: is a folder, not a file")
        if path.stat().st_size == 0:
            raise UserError(f"{path}: the file is empty")
        yield
    except (gzip.BadGzipFile, zipfile.BadZipFile, EOFError, zlib.error) as error:
        raise UserError(f"{path}: the file is truncated or damaged ({error})") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a text file in UTF-8 (byte {error.start})") from error
    except (ValueError, OSError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read ({error})") from error


def _array_table(path: Path, array: np.ndarray) -> Table:
    if array.ndim != 2 or not array.size:
        raise UserError(f"{path}: expected a 2-D array with rows and columns, found shape {array.shape}")
    if array.dtype.kind not in "biuf":
        raise UserError(f"{path}: expected numbers, found an array of type {array.dtype}")
    return Table(path, None, array)


def _csv_table(path: Path, text: str, wanted: Sequence[str]) -> Table:
    first = text.lstrip().split("\n", 1)[0]
    delimiter = max(",;\t", key=first.count)
    lines: list[list[str]] = []
    numbers: list[int] = []
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    for line in reader:
        if any(cell.strip() for cell in line):
            lines.append([cell.strip() for cell in line])
            numbers.append(reader.line_num)
    if not lines:
        raise UserError(f"{path}: the file is empty")
    for line, number in zip(lines, numbers, strict=True):
        if len(line) != len(lines[0]):
            raise UserError(f"{path}, line {number}: {len(line)} columns, but the first line has {len(lines[0])}")
    names = lines[0] if _is_header(lines[0], wanted) else None
    if names is not None:
        if "" in names:
            raise UserError(
                f"{path}: column {names.index('') + 1} has no name; leave row numbers out (pandas: index=False)"
            )
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise UserError(f"{path}: two columns are called {twice[0]!r}")
        lines, numbers = lines[1:], numbers[1:]
    if not lines:
        raise UserError(f"{path}: a header, but no rows")
    return Table(path, names, lines, numbers)


def _is_header(line: Sequence[str], wanted: Sequence[str]) -> bool:
    """A first row without any number is a header; so is one that holds a wanted name (pandas: 0,1,2,target)."""
    return any(name in line for name in wanted) or not any(_is_number(cell) for cell in line if cell)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


# --- fit -------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Data:
    """Features (n, d) float64 and the target column, not yet read as numbers or as classes."""

    X: np.ndarray
    feature_names: list[str] | None
    target: Table
    target_index: int

    @property
    def target_name(self) -> str | None:
        return self.target.names[self.target_index] if self.target.names else None


def load_data(path: str, target: str | None) -> Data:
    """Features and target out of one file; see `cvxrelu fit --help` for what the file may hold."""
    if path.lower().endswith(".npz"):
        arrays = _load_arrays(Path(path))
        label = "y" if target is None else target
        others = [name for name in arrays if name != label]
        if label in arrays and others:
            rows = "X" if "X" in others else others[0]
            if rows != "X" and len(others) > 1:
                raise UserError(f"{path}: no array X among {', '.join(others)}")
            return _pair(Path(path), rows, arrays[rows], label, arrays[label])
        if len(arrays) != 1:
            raise UserError(
                f"{path}: expected arrays X and {label} (or a single table and --target COLUMN), found "
                f"{', '.join(arrays)}"
            )
    if target is None:
        raise UserError("--target is missing: the name of the column to predict, or its position (0 first, -1 last)")
    table = read_table(path, wanted=[target])
    index = table.index(target)
    if table.n_columns < 2:
        raise UserError(f"{path}: a single column; expected features beside the target")
    columns = [column for column in range(table.n_columns) if column != index]
    names = [table.names[column] for column in columns] if table.names else None
    return Data(table.numbers(columns), names, table, index)


def _pair(path: Path, rows: str, X: np.ndarray, label: str, y: np.ndarray) -> Data:
    features = _array_table(path, X)
    y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
    if y.ndim != 1 or len(y) != len(X):
        raise UserError(f"{path}: {label} has shape {y.shape}; expected ({len(X)},), one value per row of {rows}")
    if y.dtype.kind not in "biufU":
        raise UserError(f"{path}: {label} has type {y.dtype}; expected numbers or text")
    y = y.astype(int) if y.dtype.kind == "b" else y
    return Data(features.numbers(range(features.n_columns)), None, Table(path, None, y[:, None]), 0)


def _task(data: Data, task: str) -> tuple[str, np.ndarray, list[Any]]:
    """The task, the target (values, or positions among the classes), and the classes (none for a regression)."""
    cells = data.target.text(data.target_index)
    numeric = [_is_number(cell) for cell in cells]
    if task == "auto":
        # Text alone is a class. Text among numbers is more likely a slip, which reading the numbers then names.
        task = "regression" if any(numeric) else "classification"
        if all(numeric):
            values = np.array(cells, float)
            distinct = np.unique(values)
            if np.array_equal(values, np.round(values)) and distinct.size <= min(20, len(cells) / 5):
                task = "classification"
    if task == "regression":
        return task, data.target.numbers([data.target_index])[:, 0], []
    if all(numeric):
        distinct, codes = np.unique(data.target.numbers([data.target_index])[:, 0], return_inverse=True)
        classes: list[Any] = [int(value) if value == round(value) else float(value) for value in distinct]
    else:
        labels, codes = np.unique(np.array(cells), return_inverse=True)
        classes = [str(label) for label in labels]
    if len(classes) < 2:
        raise UserError(f"{data.target.path}: the target has a single class, {classes[0]}")
    return task, codes.ravel(), classes


def _split(codes: np.ndarray, share: float, stratify: bool, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers for training and testing; with `stratify`, the same share of each class is held out."""
    rng = np.random.default_rng(seed)
    groups = [np.flatnonzero(codes == code) for code in np.unique(codes)] if stratify else [np.arange(len(codes))]
    # Rounded down, so that no class is left without training rows.
    test = np.concatenate([rng.permutation(rows)[: int(share * len(rows))] for rows in groups])
    train = np.setdiff1d(np.arange(len(codes)), test)
    return train, np.sort(test).astype(int)


def _moments(values: np.ndarray) -> tuple[Any, Any]:
    """Mean and standard deviation of each column, 1 where a column is constant but for rounding."""
    mean, deviation = values.mean(axis=0), values.std(axis=0)
    return mean, np.where(deviation <= 1e-12 * np.abs(mean), 1.0, deviation)


def _labels(classes: Sequence[object], output: np.ndarray) -> list[object]:
    """The class of each row: a single output estimates the share of the second, several outputs that of each."""
    codes = (output > 0.5).astype(int) if output.ndim == 1 else output.argmax(axis=1)
    return [classes[code] for code in codes]


def _fit(options: argparse.Namespace) -> int:
    from cvxrelu import report

    out = Path(options.out)
    _check_folder(out, options.overwrite)
    if options.report:
        _need(report.load_matplotlib)  # before the solve, so that a missing extra costs no waiting
    data = load_data(options.data, options.target)
    task, target, classes = _task(data, options.task)
    train, test = _split(target, options.test_size, bool(classes), options.seed)
    if len(train) < 2 or (options.test_size and not len(test)):
        raise UserError(f"{options.data}: {len(target)} rows cannot be split with --test-size {options.test_size}")
    if not options.quiet:
        kind = f"classification, {len(classes)} classes" if classes else "regression"
        names = f"target {data.target_name}" if data.target_name else "no header row: columns go by position"
        print(f"{options.data}: {len(target)} rows, {data.X.shape[1]} features, {names}; {kind} (see --task)")
        print(f"{len(train)} rows to train on, {len(test)} to test on", flush=True)

    solution, network, standardisation = _train(data.X[train], target[train], classes, options)
    facts = {
        "task": task,
        "feature_names": data.feature_names,
        "n_features": data.X.shape[1],
        "target": data.target_name,
        "classes": classes or None,
    }
    network = dataclasses.replace(network, metadata={**network.metadata, **facts})
    rows, where = (test, "test rows") if len(test) else (train, "training rows")
    output = network.predict(data.X[rows])
    if classes:
        truth, guess = np.array(classes)[target[rows]], np.array(_labels(classes, output))
        common = classes[np.bincount(target[train]).argmax()]
        scores, baseline = _scores(truth, guess, True), _scores(truth, np.full(len(truth), common), True)
    else:
        truth, guess = target[rows], output
        scores, baseline = (
            _scores(truth, guess, False),
            _scores(truth, np.full(len(truth), target[train].mean()), False),
        )

    record = {"format": _FORMAT, "format_version": 1, **facts, **_result(solution)}
    record["settings"] = {**solution.settings, "seed": options.seed, "test_size": options.test_size}
    record["standardisation"] = standardisation
    record["scores"] = {"rows": where, "n": len(rows), **scores}
    record["command"], record["versions"] = options.command_line, report.versions()
    failure = None
    with _new_folder(out) as folder:
        network.save(folder / "network.safetensors")
        report.atomic_write(folder / "solution.json", json.dumps(_plain(record), indent=1, allow_nan=False) + "\n")
        if options.report:
            models = (f"cvxrelu, {network.n_neurons} neurons", "most frequent class" if classes else "training mean")
            section = report.Section(
                name=Path(options.data).name,
                solution=solution,
                description=f"{task.capitalize()}: {len(train)} training rows, {len(test)} test rows.",
                scores=[{"Model": model, **row} for model, row in zip(models, (scores, baseline), strict=True)],
                truth=truth,
                predictions=guess,
                classes=classes or None,
                rows=where,
            )
            title, command = f"cvxrelu: {section.name}", options.command_line
            try:
                report.write_report(folder / "report.html", [section], title=title, command=command, seed=options.seed)
            except Exception as error:  # a plot is no reason to lose a network that took hours
                failure = error
    if failure is not None:
        raise failure
    if not options.quiet:
        print(solution.summary())
        words = [f"{name} {value:.4g} (baseline {baseline[name]:.4g})" for name, value in scores.items()]
        print(f"{where:15} {', '.join(words)}")
        print(f"written         {', '.join(sorted(str(out / file.name) for file in out.iterdir()))}")
    return _exit_code([solution])


def _train(
    X: np.ndarray, target: np.ndarray, classes: Sequence[object], options: argparse.Namespace
) -> tuple[Any, Any, dict[str, Any]]:
    """Solve on standardised columns, as the estimators do; the solution, the network on raw features, the moments."""
    import cvxrelu

    goal = target
    if classes:  # an indicator per class; of two classes, that of the second is enough
        goal = (target[:, None] == np.arange(len(classes))).astype(np.float64)
        goal = goal[:, 1] if len(classes) == 2 else goal
    mean, scale = _moments(X)
    goal_mean, goal_scale = _moments(goal)
    X, goal = (X - mean) / scale, (goal - goal_mean) / goal_scale
    if not np.any(goal):
        raise UserError(f"{options.data}: the target is constant on the training rows; there is nothing to fit")
    columns = np.column_stack([X, np.ones(len(X))])  # the constant column that `intercept=True` appends
    patterns = cvxrelu.sample_patterns(columns, options.patterns, options.seed)
    beta = options.beta
    if not options.absolute_beta:
        beta *= cvxrelu.beta_max(X, goal, patterns=patterns, intercept=True)
    try:
        solution = cvxrelu.solve(
            X,
            goal,
            beta=beta,
            intercept=True,
            patterns=patterns,
            tol=options.tol,
            max_iter=options.max_iter,
            time_limit=options.time_limit,
            backend=options.backend,
            dtype=options.dtype,
            seed=options.seed,
            verbose=not options.quiet,
        )
    except ValueError as error:  # about an option: the data were checked here
        raise UserError(str(error)) from error
    network = solution.network.unstandardise(mean, scale, goal_mean, goal_scale)
    moments = {"mean": mean, "scale": scale, "target_mean": goal_mean, "target_scale": goal_scale}
    return solution, network, moments


def _scores(truth: np.ndarray, guess: np.ndarray, classes: bool) -> dict[str, float]:
    if classes:
        return {"accuracy": float(np.mean(truth == guess))}
    residual, spread = float(np.sum((truth - guess) ** 2)), float(np.sum((truth - truth.mean()) ** 2))
    return {"R2": 1 - residual / spread if spread else float("nan"), "RMSE": float(np.sqrt(residual / len(truth)))}


def _result(solution: Any) -> dict[str, Any]:
    """What `solution.json` says of the solve; names as in `cvxrelu.Solution`."""
    sampled, certificate = solution.sampled, solution.certificate
    result = {
        name: getattr(solution, name) for name in ("status", "message", "objective", "lower_bound", "gap", "n_iter")
    }
    result["certificate"] = {name: getattr(certificate, name) for name in ("kind", "rigorous", "starts")}
    result["sampled"] = None
    if sampled is not None:
        result["sampled"] = {name: getattr(sampled, name) for name in ("status", "objective", "lower_bound", "gap")}
        result["sampled"]["patterns"] = sampled.patterns.shape[1]
    result["n_neurons"] = solution.network.n_neurons
    result |= {name: getattr(solution, name) for name in ("timings", "backend", "dtype", "device")}
    return result


def _need(load: Callable[[], object]) -> None:
    """Run `load`; that an extra is missing is something the user can mend."""
    try:
        load()
    except ImportError as error:
        raise UserError(str(error)) from error


def _exit_code(solutions: Sequence[Any]) -> int:
    from cvxrelu.solution import Status

    if any(solution.status is Status.INTERRUPTED for solution in solutions):
        return INTERRUPTED
    return OK if all(solution.status is Status.OPTIMAL for solution in solutions) else NOT_TO_TOL


def _plain(value: Any) -> Any:
    """What JSON can hold: arrays as lists, and null for what is not finite."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def _check_folder(out: Path, overwrite: bool) -> None:
    """Refuse to write over anything but, with --overwrite, a folder that holds a model and nothing else."""
    if not out.exists():
        return
    if not out.is_dir():
        raise UserError(f"--out {out}: a file is in the way; expected the name of a new folder")
    inside = sorted(file.name for file in out.iterdir())
    if inside and not overwrite:
        raise UserError(f"--out {out}: the folder is not empty; choose another, or pass --overwrite to replace a model")
    foreign = [name for name in inside if name not in _MODEL_FILES]
    if foreign:
        raise UserError(f"--out {out}: holds {foreign[0]!r}, which is no part of a model; --overwrite would delete it")


@contextlib.contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """A hidden neighbour of `out` to write into: it takes the name `out` when all went well, else it is deleted."""
    out = Path(os.path.abspath(out))
    out.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    folder = work / "new"
    try:
        folder.mkdir()
        yield folder
        if out.exists():
            os.replace(out, work / "old")
        os.replace(folder, out)
    except BaseException:
        if (work / "old").exists() and not out.exists():
            os.replace(work / "old", out)
        raise
    finally:
        shutil.rmtree(work, ignore_errors=True)


# --- predict ---------------------------------------------------------------------------------------------------------


def _predict(options: argparse.Namespace) -> int:
    from cvxrelu.network import ReLUNetwork
    from cvxrelu.report import atomic_write

    folder = Path(options.model)
    try:
        record = json.loads((folder / "solution.json").read_text(encoding="utf-8"))
        if record["format"] != _FORMAT:
            raise KeyError("format")
        network = ReLUNetwork.load(folder / "network.safetensors")
        names, classes, target = record["feature_names"], record["classes"], record["target"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else error
        raise UserError(f"{folder}: not a folder that `cvxrelu fit` wrote ({what})") from error
    if options.out and Path(options.out).exists() and not options.overwrite:
        raise UserError(f"--out {options.out}: the file exists; choose another, or pass --overwrite")
    X = _features(read_table(options.data, wanted=names or ()), names, network.n_features, target)
    output = network.predict(X)
    values = _labels(classes, output) if classes else [repr(float(value)) for value in output]
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([target or "prediction"])
    writer.writerows([value] for value in values)
    if options.out:
        atomic_write(options.out, text.getvalue())
    else:
        sys.stdout.write(text.getvalue())
        sys.stdout.flush()
    return OK


def _features(table: Table, names: list[str] | None, d: int, target: str | None) -> np.ndarray:
    """The model's features out of a table: by name where both have names, else by position."""
    if names is None or table.names is None:
        if table.n_columns != d:
            raise UserError(
                f"{table.path}: {table.n_columns} columns; the model takes {d} features, without the target"
            )
        return table.numbers(range(d))
    absent = [name for name in names if name not in table.names]
    if absent:
        more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
        raise UserError(f"{table.path}: the model's feature {absent[0]!r}{more} is not among the columns")
    unknown = [name for name in table.names if name not in names and name != target]
    if unknown:
        raise UserError(f"{table.path}: column {unknown[0]!r} is no feature of the model; take it out")
    return table.numbers([table.names.index(name) for name in names])


# --- doctor, demo, and the parser ------------------------------------------------------------------------------------


def _doctor(options: argparse.Namespace) -> int:
    from cvxrelu import report
    from cvxrelu.selection import check_backend

    print("cvxrelu doctor: what is installed, and does each backend compute what it should?\n")
    print(f"machine   {report.machine()}")
    print("versions  " + ", ".join(f"{name} {version}" for name, version in report.versions().items()))
    broken = []
    for name in BACKENDS:
        found = check_backend(name)
        wrong = found.known_answer not in ("ok", "not run")
        if wrong or (not found.available and name != "cupy"):  # NumPy and JAX come with the package
            broken.append(name)
        state = "WRONG ANSWERS" if wrong else "works" if found.available else "not available"
        print(f"\n{name:9} {state}")
        facts = {
            "versions": ", ".join(f"{package} {version}" for package, version in found.versions.items()),
            "devices": ", ".join(found.devices),
            "detail": "" if found.available else found.detail,
            "test": "known answer reproduced" if found.known_answer == "ok" else found.known_answer,
        }
        for key, value in facts.items():
            if value:
                print(f"  {key:9} {value}")
    if broken:
        return _complain(f"broken: {', '.join(broken)}; use another --backend, or reinstall", BROKEN_BACKEND)
    print("\nall available backends work")
    return OK


def _demo(options: argparse.Namespace) -> int:
    from cvxrelu import demo

    _need(demo.load_extras)
    return _exit_code(
        demo.run_demo(options.out, quick=options.quick, verbose=not options.quiet, command=options.command_line)
    )


class _Parser(argparse.ArgumentParser):
    """argparse with one line per error, and help texts as they were typed."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **settings)

    def error(self, message: str) -> Any:
        self.exit(BAD_INPUT, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _number_type(kind: type, low: float, high: float, words: str) -> Any:
    def convert(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not {words}")
        return value

    return convert


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command line, all commands included."""
    from cvxrelu.report import versions

    count = _number_type(int, 1, float("inf"), "a whole number from 1")
    positive = _number_type(float, float(np.nextafter(0, 1)), float(np.finfo(float).max), "a positive number")
    share = _number_type(float, 0, 0.9, "a share between 0 and 0.9")
    whole = _number_type(int, 0, float("inf"), "a whole number from 0")

    parser = _Parser(
        prog="cvxrelu",
        description="Train two-layer ReLU networks, with a bound on how far each is from the best one.",
        epilog="first steps:\n"
        "  cvxrelu doctor                                  does everything work here?\n"
        "  cvxrelu demo                                    two small data sets, and a report to look at\n"
        "  cvxrelu fit houses.csv --target price --out model --report\n"
        "  cvxrelu predict model new.csv --out predictions.csv\n\n" + _EXIT_CODES,
    )
    parser.add_argument("--version", action="version", version=f"cvxrelu {versions().get('cvxrelu', 'unknown')}")

    def show_help(_options: argparse.Namespace) -> int:
        parser.print_help()
        return BAD_INPUT

    parser.set_defaults(run=show_help)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    def command(name: str, run: Any, summary: str, description: str, examples: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name, help=summary, description=description, epilog=f"examples:\n{examples}\n{_EXIT_CODES}"
        )
        sub.set_defaults(run=run)
        return sub

    demo = command(
        "demo",
        _demo,
        "train on two small data sets and write a report",
        "Train on scikit-learn's diabetes (regression) and digits (ten classes) beside its own models, and write\n"
        "report.html and the two networks. Takes one to two minutes. Needs: pip install 'cvxrelu[demo]'",
        "  cvxrelu demo\n  cvxrelu demo --quick --out /tmp/demo\n",
    )
    demo.add_argument("--out", default="demo-output", metavar="FOLDER", help="where to write (default: %(default)s)")
    demo.add_argument("--quick", action="store_true", help="fewer patterns and rows: some seconds, worse scores")
    demo.add_argument("--quiet", action="store_true", help="print nothing but errors")

    fit = command(
        "fit",
        _fit,
        "train a network on a file",
        "Train a network on DATA and write a model folder: network.safetensors (takes raw features), solution.json\n"
        "(status, objective, bounds, settings) and, with --report, report.html.\n\n"
        "DATA is a .csv file (or .csv.gz; comma, semicolon or tab; header row optional; numbers only, the target of a\n"
        "classification may be text), a .npz file with arrays X and y, or a .npz or .npy file with one 2-D table.",
        "  cvxrelu fit houses.csv --target price --out model\n"
        "  cvxrelu fit iris.csv --target -1 --out model --task classification --report\n"
        "  cvxrelu fit data.npz --out model --beta 0.003 --patterns 512 --tol 1e-4\n",
    )
    fit.add_argument("data", metavar="DATA", help="the file to train on")
    fit.add_argument("--target", metavar="NAME|INDEX", help="column to predict, by name or position (0 first, -1 last)")
    fit.add_argument("--out", required=True, metavar="FOLDER", help="the model folder to make")
    fit.add_argument("--overwrite", action="store_true", help="replace the model that --out holds")
    fit.add_argument("--task", choices=("auto", "regression", "classification"), default="auto",
                     help="auto: classification if the target is text or few whole numbers")  # fmt: skip
    fit.add_argument("--beta", type=positive, default=0.01, metavar="B",
                     help="weight decay, as a share of what gives the zero network (default: %(default)s)")  # fmt: skip
    fit.add_argument("--absolute-beta", action="store_true", help="take --beta as it is")
    fit.add_argument("--patterns", type=count, default=128, metavar="P",
                     help="activation patterns to sample (default: %(default)s)")  # fmt: skip
    fit.add_argument("--tol", type=positive, default=1e-3, help="relative gap to stop at (default: %(default)s)")
    fit.add_argument("--max-iter", type=count, metavar="N", help="iterations at most")
    fit.add_argument("--time-limit", type=positive, metavar="SECONDS", help="time at most")
    fit.add_argument("--backend", choices=("auto", "numpy", "jax", "cupy"), default="auto",
                     help="array library (default: %(default)s)")  # fmt: skip
    fit.add_argument("--dtype", choices=("float32", "float64"), help="precision of the iterations (default: float64)")
    fit.add_argument("--seed", type=whole, default=0, metavar="N", help="for split and patterns (default: %(default)s)")
    fit.add_argument("--test-size", type=share, default=0.2, metavar="SHARE",
                     help="share of rows held out for the scores, 0 for none (default: %(default)s)")  # fmt: skip
    fit.add_argument("--report", action="store_true", help="write report.html too (needs cvxrelu[report])")
    fit.add_argument("--quiet", action="store_true", help="print nothing but errors")

    predict = command(
        "predict",
        _predict,
        "apply a trained network to a file",
        "Apply the network in the folder MODEL to DATA. With a header row, columns are found by name, in any order,\n"
        "and the target may be among them; without one they must stand in the order of training.",
        "  cvxrelu predict model new.csv\n  cvxrelu predict model new.csv --out predictions.csv\n",
    )
    predict.add_argument("model", metavar="MODEL", help="a folder that `cvxrelu fit` wrote")
    predict.add_argument("data", metavar="DATA", help="a .csv, .csv.gz, .npy or .npz file")
    predict.add_argument("--out", metavar="FILE", help="a .csv file to write (default: standard output)")
    predict.add_argument("--overwrite", action="store_true", help="replace the file that --out names")

    command(
        "doctor",
        _doctor,
        "check the installation",
        "Print versions and devices, and solve a problem with a known answer on every backend.",
        "  cvxrelu doctor\n",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
