"""Options out of a configuration file, checked as those that are typed."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cvxrelu.support.errors import InputError
from cvxrelu.support.stored import parse_json, read_text, short

__all__ = ["config_arguments", "read_config"]


def read_config(path: str, command: str, names: Sequence[str]) -> dict[str, Any]:
    """The options for `command` in a configuration; `names` are those of all commands, which may have sections."""
    suffix = Path(path).suffix.lower()
    if suffix not in (".json", ".yaml", ".yml"):
        raise InputError(f"{path}: a configuration is a .yaml, .yml or .json file")
    try:
        text = read_text(path)
        content = parse_json(text, path, kind=object) if suffix == ".json" else _yaml(text, path)
    except (ValueError, OSError) as error:
        raise InputError(str(error)) from error
    if not isinstance(content, Mapping) or not all(isinstance(key, str) for key in content):
        raise InputError(f"{path}: expected option names and values, got {type(content).__name__}")
    if not set(content) & set(names):
        return dict(content)
    if outside := [key for key in content if key not in names]:
        raise InputError(f"{path}: {short(outside[0])} is no command; with sections, every option belongs into one")
    section = {} if content.get(command) is None else content[command]
    if not isinstance(section, Mapping):
        raise InputError(f"{path}, section {command!r}: expected option names and values")
    return dict(section)


def _yaml(text: str, path: str) -> Any:
    try:
        import yaml
    except ImportError as error:
        raise InputError(f"{path}: YAML needs: pip install pyyaml (a .json file needs nothing)") from error

    class Loader(yaml.SafeLoader):
        """Safe: plain values alone. A name that stands twice is an error, where YAML would take the last."""

        depth = 0

        def compose_node(self, parent: Any, index: Any) -> Any:
            self.depth += 1
            if self.depth > DEEPEST:  # PyYAML's time grows with the square of the depth
                raise RecursionError
            node = super().compose_node(parent, index)
            self.depth -= 1
            return node

        def fetch_flow_collection_start(self, kind: Any) -> None:
            if self.flow_level > DEEPEST:  # the scanner reads ahead of what is composed
                raise RecursionError
            super().fetch_flow_collection_start(kind)

    def mapping(loader: Any, node: Any) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        own: dict[str, Any] = {}
        for key_node, value_node in node.value:
            value = loader.construct_object(value_node, deep=True)
            if key_node.tag == "tag:yaml.org,2002:merge":  # PyYAML's own merging doubles with every level of aliases
                parts = value if isinstance(value, list) else [value]
                if not all(isinstance(part, dict) for part in parts):
                    raise yaml.constructor.ConstructorError(None, None, "expected names to merge", node.start_mark)
                for part in reversed(parts):
                    merged |= part
                continue
            key = loader.construct_object(key_node, deep=True)
            if not isinstance(key, str) or key in own:
                words = "expected texts as names" if not isinstance(key, str) else "a name stands twice"
                raise yaml.constructor.ConstructorError(None, None, words, key_node.start_mark)
            own[key] = value
        return {**merged, **own}

    Loader.add_constructor("tag:yaml.org,2002:map", mapping)
    try:
        return yaml.load(text, Loader)
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not YAML ({' '.join(str(error).split())[:300]})") from None
    except RecursionError:
        raise InputError(f"{path}: not YAML that can be read (nested too deeply)") from None
    except Exception as error:  # of numbers and dates that have the look of one, and are none
        raise InputError(f"{path}: not YAML that can be read ({str(error)[:200]})") from None


def config_arguments(parser: argparse.ArgumentParser, values: Mapping[str, Any], path: str) -> list[str]:
    """Values as arguments that `parser` reads, so that both ways in are checked alike."""
    actions = {action.dest: action for action in parser._actions if action.dest not in ("help", "config")}
    options, positional = [], []
    for name, value in values.items():
        if name not in actions:
            raise InputError(f"{path}: unknown option {short(name)}; known are {', '.join(sorted(actions))}")
        action = actions[name]
        if value is None:
            continue
        several = isinstance(value, list) and action.nargs in ("+", "*")
        if not action.option_strings:
            positional += [_text(item, name, path) for item in (value if several else [value])]
        elif action.nargs == 0:
            if not isinstance(value, bool):
                raise InputError(f"{path}, option {name!r}: expected true or false, got {short(value)}")
            flags = [flag for flag in action.option_strings if flag.startswith("--no-") is not value]
            options += flags[:1]
        elif several:
            options += [action.option_strings[0], *(_text(item, name, path) for item in value)]
        elif isinstance(value, list) and value and name in COMMAS:
            options.append(f"{action.option_strings[0]}={','.join(_text(item, name, path) for item in value)}")
        elif isinstance(value, list) and isinstance(action, argparse._AppendAction):
            options += [f"{action.option_strings[0]}={_text(item, name, path)}" for item in value]
        else:
            options.append(f"{action.option_strings[0]}={_text(value, name, path)}")
    return [*options, *(["--", *positional] if positional else [])]


def _text(value: Any, name: str, path: str) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise InputError(f"{path}, option {name!r}: expected text or a number, got {short(value)}")
    if (isinstance(value, int) and abs(value) >= 10**18) or (isinstance(value, str) and "\0" in value):
        raise InputError(f"{path}, option {name!r}: a number below 1e18, or text without NUL, is expected")
    return str(value)


COMMAS = ("layer", "pooling")  # options that take several values in one argument
DEEPEST = 50  # nested lists and sections of a configuration
