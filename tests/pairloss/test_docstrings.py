"""The examples in the docstrings print what they say."""

import doctest
import inspect

import pytest

import pairloss

pytestmark = pytest.mark.heavy

# Settings need no example: they have attributes, and no behaviour.
SETTINGS = ("DecodePolicy", "Descent", "Plan")
PUBLIC = [name for name in pairloss.__all__ if name not in SETTINGS and callable(getattr(pairloss, name))]


@pytest.mark.parametrize("name", ["pairloss", *PUBLIC])
def test_examples(name):
    public = getattr(pairloss, name, pairloss)
    module = inspect.getmodule(public)
    examples = doctest.DocTestParser().get_doctest(public.__doc__, dict(vars(module)), name, None, None)
    result = doctest.DocTestRunner().run(examples)
    assert result.attempted
    assert not result.failed
