"""YAML read safely, with the numbers of YAML 1.2: `1e-3` is one, and `010` is an error."""

import re
from pathlib import Path
from typing import Any

import yaml

# Far more than any config needs; thousands take PyYAML seconds and end Python's stack.
DEEPEST = 64


class YamlError(ValueError):
    """The text is not the YAML that configs are written in."""


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with YAML 1.2's core schema and without silently overwritten keys."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):  # a few lines of them can stand for gigabytes
            line = self.peek_event().start_mark.line + 1
            raise YamlError(f"line {line}: aliases (*name) are not read; write the value out")
        self.depth += 1
        if self.depth > DEEPEST:
            line = self.peek_event().start_mark.line + 1
            raise YamlError(f"line {line}: nested more than {DEEPEST} deep")
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise YamlError(f"line {key_node.start_mark.line + 1}: key {key!r} is not a string")
            if key in keys:
                raise YamlError(f"line {key_node.start_mark.line + 1}: key '{key}' is given twice")
            keys.add(key)
        return super().construct_mapping(node, deep=True)

    def refuse_number(self, node: yaml.ScalarNode) -> None:
        raise YamlError(
            f"line {node.start_mark.line + 1}: {node.value} is another number in each version of "
            "YAML; write a number without leading zeros, underscores and colons, and quote a text"
        )


class _Dumper(yaml.SafeDumper):
    """PyYAML's safe dumper, quoting the strings that `_Loader` would take for something else."""

    def ignore_aliases(self, data: Any) -> bool:
        """Write in full what stands in several places: aliases are not read."""
        return True


_Loader.yaml_implicit_resolvers = {}  # YAML 1.1's
_DIGITS = list("-+.0123456789")
# https://yaml.org/spec/1.2.2/#1032-tag-resolution, and what YAML 1.1 took for a number besides.
for _class in (_Loader, _Dumper):
    for _tag, _pattern, _first in (
        ("tag:yaml.org,2002:null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
        ("tag:yaml.org,2002:bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
        ("!another_number", r"[-+]?(0[\d_]+|\d[\d_]*_[\d_]*(\.[\d_]*)?|0b[01_]+)", _DIGITS),
        ("!another_number", r"[-+]?\d[\d_]*(:[0-5]?\d)+(\.[\d_]*)?", _DIGITS),
        ("tag:yaml.org,2002:int", r"[-+]?\d+|0o[0-7]+|0x[\da-fA-F]+", _DIGITS),
        ("tag:yaml.org,2002:float", r"[-+]?(\.\d+|\d+(\.\d*)?)([eE][-+]?\d+)?", _DIGITS),
        ("tag:yaml.org,2002:float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", _DIGITS),
    ):
        _class.add_implicit_resolver(_tag, re.compile(f"^(?:{_pattern})$"), _first)
_Loader.add_constructor("tag:yaml.org,2002:int", lambda _, node: int(node.value, 0))  # 0x1f too
_Loader.add_constructor("!another_number", _Loader.refuse_number)


def load(text: str) -> Any:
    """Parse one YAML document. Raises YamlError with the line."""
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f"line {mark.line + 1}: " if mark else ""
        raise YamlError(f"{line}{error.problem or error.context}") from error
    except YamlError:
        raise
    except (yaml.YAMLError, RecursionError, ValueError, AttributeError, OverflowError) as error:
        raise YamlError(f"not readable as YAML: {str(error)[:200]}") from error


def dump(data: Any) -> str:
    """Write what `load` reads back the same. Raises YamlError."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def read(path: Path) -> Any:
    """Read a YAML file. Raises OSError, or YamlError with the line."""
    try:
        return load(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise YamlError(f"not UTF-8 text (byte {error.start})") from error
