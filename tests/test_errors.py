"""Errors cross process boundaries whole."""

import pickle

import pytest

from pipeline import errors
from schemas.status import Reason

ALL = [item for item in vars(errors).values() if isinstance(item, type) and issubclass(item, errors.PipelineError)]


@pytest.mark.parametrize("kind", ALL)
def test_every_error_pickles_with_all_it_says(kind):
    whole = {errors.BadImage: (Reason.UNDECODABLE, "what was found"), errors.BadText: ("key", "what", 5, "one\ntwo")}
    error = kind(*whole.get(kind, ("what was found",)))
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert str(again) == str(error)
    assert vars(again) == vars(error)
