"""Every bad input gets, at once, a message of this package with the culprit and the remedy."""

import time
import traceback
from pathlib import Path

import pytest
from cases import CASES
from page import PAGE, page, said
from setting import setting

import lmmjax as lj

ALL = [(code, pieces) for cases in CASES.values() for code, *pieces in cases]
OWN = (ValueError, TypeError, KeyError, OSError)
SECONDS = 10.0


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    return setting(tmp_path_factory.mktemp("files"))


@pytest.fixture(scope="module")
def errors():
    return {}


def test_there_are_enough():
    assert len(ALL) >= 200
    assert len({code for code, _ in ALL}) == len(ALL)


@pytest.mark.parametrize(("code", "pieces"), ALL, ids=[code for code, _ in ALL])
def test_the_message_names_culprit_and_remedy(names, errors, code, pieces):
    begin = time.perf_counter()
    error = errors[code] = said(code, names)
    assert time.perf_counter() - begin < SECONDS
    assert isinstance(error, OWN), f"{code}: {error!r}"
    last = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
    assert Path(lj.__file__).parent in last.parents or last.name == "setting.py", f"{code}: from {last}"
    text = " ".join(str(error).split())
    for piece in pieces:
        assert piece in text


def test_the_page_is_up_to_date(names, errors):
    for code, _ in ALL:
        if code not in errors:
            errors[code] = said(code, names)
    # written by tests/messages/page.py
    assert PAGE.read_text() == page(errors, names["here"])
