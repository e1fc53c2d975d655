"""The messages of docs/errors.md, called for."""

import re
import warnings

import pytest
from conftest import REPOSITORY

PAGE = (REPOSITORY / "docs" / "errors.md").read_text()
ROWS = re.findall(r"^\| `(.+?)` \| (.+) \|$", PAGE, re.M)


@pytest.fixture(scope="module")
def namespace():
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.S):
        exec(compile(block, "errors.md", "exec"), names)
    return names


@pytest.mark.parametrize(("call", "message"), ROWS, ids=[call[:60] for call, _ in ROWS])
def test_a_mistake_says_what_to_do(namespace, call, message):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        try:
            eval(call, namespace)
        except ValueError as error:
            said = [str(error)]
        else:
            said = [str(warning.message) for warning in seen]
    assert any(words.startswith(message) for words in said), said
