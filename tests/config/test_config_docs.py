"""docs/config.md describes every key as the code has it."""

import pytest

from pipeline.config import JobConfig
from pipeline.config.base import ConfigPart
from tests.config.config_docs import COMMAND, PAGE, field_docs, page


def test_the_page_of_all_keys_is_fresh():
    assert PAGE.read_text(encoding="utf-8") == page(), f"docs/config.md is out of date; run: {COMMAND}"


def test_a_field_without_a_docstring_is_refused():
    class Toy(ConfigPart):
        size: int = 1
        """Size."""
        colour: str = "red"

    with pytest.raises(ValueError, match="Toy: no docstring below the field colour; write one"):
        field_docs(Toy)
    assert set(field_docs(JobConfig)) >= set(JobConfig.model_fields)
