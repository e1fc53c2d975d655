"""The messages of docs/errors.md, called for."""

import re
import warnings

import pytest
from conftest import REPOSITORY, unused_messages

from diffevo_jax.optimize import ask_tell

PAGE = (REPOSITORY / "docs" / "errors.md").read_text()
ROWS = re.findall(r"^\| `(.+?)` \| (.+) \|$", PAGE, re.M)


@pytest.fixture(scope="module")
def namespace():
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.S):
        exec(compile(block, "errors.md", "exec"), names)
    return names


@pytest.mark.parametrize(("call", "message"), ROWS, ids=[call[:60] for call, _ in ROWS])
def test_a_mistake_says_what_to_do(namespace, call, message, monkeypatch):
    monkeypatch.setattr(ask_tell, "TRIES", 3)  # a search for feasible points ends sooner
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            eval(call, namespace)
        except ValueError as error:
            texts = [str(error)]
        else:
            texts = [str(warning.message) for warning in caught]
    assert any(text.startswith(message) for text in texts), texts


def test_every_stored_message_is_that_of_a_test(request):
    assert unused_messages(request.config) == set()
