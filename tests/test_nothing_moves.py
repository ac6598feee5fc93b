"""A change of structure moves no number: small runs and evaluations against recorded digests (see recorded.py)."""

import importlib.util
import json
from pathlib import Path

import pytest

_spec = importlib.util.spec_from_file_location("recorded", Path(__file__).with_name("recorded.py"))
recorded = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(recorded)

SAVED = json.loads(recorded.FILE.read_bytes()) if recorded.FILE.exists() else {"processor": "", "digests": {}}
CASES = recorded.cases()


def test_every_case_is_recorded():
    assert not CASES.keys() - SAVED["digests"].keys()


@pytest.mark.slow
@pytest.mark.skipif(SAVED["processor"] != recorded.processor(), reason="recorded on another kind of processor")
@pytest.mark.parametrize("name", CASES)
def test_it_is_what_was_recorded(name):
    assert CASES[name]() == SAVED["digests"][name]
