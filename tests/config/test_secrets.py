"""No secret that this process knows stands in a message, whatever form a server gave it."""

import json
from urllib.parse import quote

import pytest

from pipeline.config import without_secrets

KEY = 'sk-"odd/key\\ é'


@pytest.mark.parametrize("form", [KEY, json.dumps(KEY), repr(KEY), quote(KEY, safe=""), f"Bearer {KEY}, {KEY}"])
def test_a_known_secret_is_blotted_out_in_every_form(form):
    cleaned = without_secrets(f"before {form} after", KEY)
    assert "odd" not in cleaned
    assert cleaned.startswith("before ")
    assert cleaned.endswith(" after")


@pytest.mark.parametrize("name", ["OPENAI_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "DB_PASSWORD", "my_token"])
def test_secrets_of_the_environment_are_blotted_out(monkeypatch, name):
    monkeypatch.setenv(name, "marker-5e0f3c")
    assert without_secrets("it said marker-5e0f3c!") == "it said ***!"


def test_short_values_and_other_variables_stay(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "marker-5e0f3c")
    assert without_secrets("a test of marker-5e0f3c") == "a test of marker-5e0f3c"
    assert without_secrets("s3://me:secret@bucket/x") == "s3://***@bucket/x"
