"""YAML read safely: `1e-3` is a number, a key given twice is an error."""

import re
from pathlib import Path
from typing import Any

import yaml

# Far more than any config needs; thousands take PyYAML seconds and end Python's stack.
DEEPEST = 64


class YamlError(ValueError):
    """The text is not the YAML that configs are written in."""


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with YAML 1.2's floats and without silently overwritten keys."""

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
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise YamlError(f"line {key_node.start_mark.line + 1}: key {key!r} is not a string")
            if key in seen:
                raise YamlError(f"line {key_node.start_mark.line + 1}: key '{key}' is given twice")
            seen.add(key)
        return super().construct_mapping(node, deep=True)


class _Dumper(yaml.SafeDumper):
    """PyYAML's safe dumper, quoting the strings that `_Loader` would take for numbers."""

    def ignore_aliases(self, data: Any) -> bool:
        """Write in full what stands in several places: aliases are not read."""
        return True


for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)[eE][-+]?\d+$"),
        list("-+.0123456789"),
    )


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
