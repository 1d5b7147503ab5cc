"""What a command of `cvxrelu-llm` is, and how its options come from the command line, a configuration, or both.

A configuration is a YAML or JSON file of option names, as in Python (`max_length: 512`), either at its top or under the
name of the command, so that one file can serve a whole run. The command line has the last word.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cvxrelu_llm.errors import InputError
from cvxrelu_llm.files import open_text, readable

__all__ = ["Command", "config_arguments", "count", "read_config", "share", "whole"]


class Command(NamedTuple):
    """One command.

    add_arguments : adds them to a parser. The one positional argument, if any, must have nargs="?", and no option may
        be required: a configuration may hold them. `required` names them, by destination.
    run : takes the parsed options, returns the exit code.
    """

    summary: str
    description: str
    examples: str
    required: tuple[str, ...]
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


def read_config(path: str, command: str, names: Sequence[str]) -> dict[str, Any]:
    """The options for `command` in a configuration; `names` are those of all commands, which may have sections."""
    file = Path(path)
    with readable(file), open_text(file) as stream:
        text = stream.read()
    try:
        if file.suffix.lower() == ".json":
            content = json.loads(text)
        elif file.suffix.lower() in (".yaml", ".yml"):
            content = _yaml(text, path)
        else:
            raise InputError(f"{path}: a configuration is a .yaml, .yml or .json file")
    except json.JSONDecodeError as error:
        raise InputError(f"{path}, line {error.lineno}: not JSON ({error.msg})") from None
    if not isinstance(content, Mapping) or not all(isinstance(key, str) for key in content):
        raise InputError(f"{path}: expected option names and values, got {type(content).__name__}")
    if not set(content) & set(names):
        return dict(content)
    if outside := [key for key in content if key not in names]:
        raise InputError(f"{path}: {outside[0]!r} is no command; with sections, every option belongs into one")
    section = content.get(command) or {}
    if not isinstance(section, Mapping):
        raise InputError(f"{path}, section {command!r}: expected option names and values")
    return dict(section)


def _yaml(text: str, path: str) -> Any:
    try:
        import yaml
    except ImportError as error:
        raise InputError(f"{path}: YAML needs: pip install pyyaml (a .json file needs nothing)") from error
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not YAML ({' '.join(str(error).split())})") from None


def config_arguments(parser: argparse.ArgumentParser, values: Mapping[str, Any], path: str) -> list[str]:
    """Values as arguments that `parser` reads, so that both ways in are checked alike."""
    actions = {action.dest: action for action in parser._actions if action.dest not in ("help", "config")}
    options, positional = [], []
    for name, value in values.items():
        if name not in actions:
            raise InputError(f"{path}: unknown option {name!r}; known are {', '.join(sorted(actions))}")
        action = actions[name]
        if value is None:
            continue
        several = isinstance(value, list) and action.nargs in ("+", "*")
        if not action.option_strings:
            positional += [_text(item, name, path) for item in (value if several else [value])]
        elif action.nargs == 0:
            if not isinstance(value, bool):
                raise InputError(f"{path}, option {name!r}: expected true or false, got {value!r}")
            flags = [flag for flag in action.option_strings if flag.startswith("--no-") is not value]
            options += flags[:1]
        elif several:
            options += [action.option_strings[0], *(_text(item, name, path) for item in value)]
        elif isinstance(value, list) and isinstance(action, argparse._AppendAction):
            options += [f"{action.option_strings[0]}={_text(item, name, path)}" for item in value]
        else:
            options.append(f"{action.option_strings[0]}={_text(value, name, path)}")
    return [*options, *(["--", *positional] if positional else [])]


def _text(value: Any, name: str, path: str) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise InputError(f"{path}, option {name!r}: expected text or a number, got {value!r}")
    return str(value)


# -- types of options -------------------------------------------------------------------------------------------------
def _number(text: str, kind: type, accept: Callable[[Any], bool], words: str) -> Any:
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not accept(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not {words}")
    return value


def count(text: str) -> int:
    """A whole number from 1."""
    return _number(text, int, lambda value: value >= 1, "a whole number from 1")


def whole(text: str) -> int:
    """A whole number from 0."""
    return _number(text, int, lambda value: value >= 0, "a whole number from 0")


def share(text: str) -> float:
    """A number from 0, below 1."""
    return _number(text, float, lambda value: 0 <= value < 1, "a share from 0, below 1")
