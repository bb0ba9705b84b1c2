"""What a config may say, and what it is told when it may not."""

import pickle

import pytest

from pipeline.config import load_job, parse_job
from pipeline.errors import ConfigError

SMALL = {
    "source": "photos/*.tar",
    "output": "out",
    "model": "standin",
    "captions": [{"slot": "long", "mode": "descriptive", "length": "long"}],
}


def with_captions(*captions):
    return {**SMALL, "captions": list(captions)}


def test_short_forms_mean_the_long_ones():
    job = parse_job({**SMALL, "engine": {"replicas": 3}, "captions": SMALL["captions"][0]})
    assert job.source.urls == ("photos/*.tar",)
    assert job.model.id == "standin"
    assert (job.engine.replicas.min, job.engine.replicas.max) == (3, 3)
    assert [slot.slot for slot in job.captions] == ["long"]


def test_a_job_pickles():
    job = parse_job(SMALL)
    assert pickle.loads(pickle.dumps(job)) == job


def test_the_command_line_beats_the_environment_which_beats_the_file(tmp_path, monkeypatch):
    file = tmp_path / "job.yaml"
    file.write_text(
        "source: a\noutput: o\nmodel: standin\ncaptions: [{slot: s, mode: descriptive}]\n"
        "sampling: {temperature: 0.1, top_p: 0.2, top_k: 3}\n"
    )
    monkeypatch.setenv("JOYFLEET_SAMPLING__TEMPERATURE", "0.4")
    monkeypatch.setenv("JOYFLEET_SAMPLING__TOP_P", "0.5")
    sampling = load_job(str(file), ["sampling.temperature=0.7"]).sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k) == (0.7, 0.5, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"foo": 1}, r"foo: unknown key; allowed here: captions, cluster"),
        ({"sampling": {"temp": 1}}, r"sampling\.temp: unknown key; allowed here: max_tokens, repetition_penalty"),
        ({"sampling": {"temperature": 3}}, r"sampling\.temperature: found 3; .*less than or equal to 2"),
        ({"engine": {"kind": "magic"}}, r"engine\.kind: found 'magic'; .*'vllm', 'endpoint' or 'echo'"),
        ({"engine": {"replicas": {"min": 3, "max": 2}}}, r"engine\.replicas: .*min=3 is above max=2"),
        ({"engine": {"echo_latency_s": 1}}, r"engine: found echo_latency_s with kind=vllm; allowed: with kind: echo"),
        ({"images": {"formats": ["EPS"]}}, r"images\.formats: found EPS; allowed: JPEG, PNG"),
        ({"seed": -1}, r"seed: found -1"),
        ({"captions": []}, r"captions: .*at least 1"),
    ],
)
def test_a_wrong_key_is_named_with_what_is_allowed(change, message):
    with pytest.raises(ConfigError, match=message):
        parse_job({**SMALL, **change})


@pytest.mark.parametrize(
    ("slot", "message"),
    [
        ({"slot": "a"}, r"captions\.0: found neither of mode and prompt"),
        ({"slot": "a", "mode": "x", "prompt": "y"}, r"captions\.0: found both of mode and prompt"),
        ({"slot": "a", "prompt": "y", "tone": "formal"}, r"captions\.0: found tone beside prompt"),
        ({"slot": "a", "prompt": "  "}, r"captions\.0: prompt is blank"),
        ({"slot": "a", "mode": "x", "length": 0}, r"captions\.0\.length: found 0; .*greater than or equal to 1"),
        (
            {"slot": "a", "mode": "x", "length": {"words": {"mean": 9, "std": 1, "min": 9, "max": 2}}},
            r"captions\.0\.length\.words: .*min=9 is above max=2",
        ),
        ({"slot": "a", "mode": "x", "options": ["rating", "rating"]}, r"captions\.0\.options: .*rating more than once"),
        ({"slot": "a", "mode": "x", "mix": [{"weight": 1, "mode": "x"}]}, r"captions\.0: found mode beside mix"),
        ({"slot": "a", "mix": [{"weight": 0, "mode": "x"}]}, r"captions\.0\.mix\.0\.weight: found 0"),
        ({"slot": "a", "mix": [{"weight": 1, "modee": "x"}]}, r"captions\.0\.mix\.0\.modee: unknown key; .*mode, name"),
        ({"slot": "a/b", "mode": "x"}, r"captions\.0\.slot: found 'a/b'"),
    ],
)
def test_a_wrong_slot_is_named_with_what_is_allowed(slot, message):
    with pytest.raises(ConfigError, match=message):
        parse_job(with_captions(slot))


def test_slot_names_do_not_repeat():
    with pytest.raises(ConfigError, match="slot names a repeat"):
        parse_job(with_captions({"slot": "a", "mode": "x"}, {"slot": "a", "mode": "y"}))


def test_every_fault_is_told_at_once():
    with pytest.raises(ConfigError) as caught:
        parse_job({"output": "o", "model": "standin", "captions": [{"slot": "a", "mode": "x"}], "foo": 1})
    assert "source: missing" in str(caught.value)
    assert "foo: unknown key" in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"source": "s3://name:marker@photos/in"},
        {"source": {"urls": ["in", "https://name:marker@host/a.tar"]}},
        {"output": "s3://name:marker@bucket/out"},
        {"output": "s3://name:mar/marker@bucket/out"},
        {"engine": {"kind": "endpoint", "endpoint": {"urls": ["http://name:marker@host/v1"]}}},
    ],
)
def test_credentials_in_a_url_are_refused_and_not_repeated(change):
    with pytest.raises(ConfigError, match="credentials") as caught:
        parse_job({**SMALL, **change})
    assert "***@" in str(caught.value)
    assert "marker" not in str(caught.value)


def test_an_at_sign_in_a_path_is_no_credential():
    urls = ["s3://photos/a@b/in", "hf://datasets/me/photos@main", "here/a@b"]
    assert parse_job({**SMALL, "source": urls}).source.urls == tuple(urls)


def test_an_unknown_environment_variable_is_refused(monkeypatch):
    monkeypatch.setenv("JOYFLEET_SAMPLNG__TOP_P", "1")
    with pytest.raises(ConfigError, match="JOYFLEET_SAMPLNG__TOP_P: no such key 'samplng'"):
        parse_job(SMALL)


@pytest.mark.parametrize(
    ("text", "message"),
    [("a: [", "is not YAML"), ("[1]", "holds list, not a mapping")],
)
def test_a_file_that_is_no_mapping_is_refused(tmp_path, text, message):
    file = tmp_path / "job.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_job(str(file))


def test_a_missing_file_is_named():
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: cannot be read"):
        load_job("nowhere.yaml")


def test_an_override_has_a_key_and_a_value():
    with pytest.raises(ConfigError, match="--set seed: not of the form"):
        parse_job(SMALL, ["seed"])


@pytest.mark.parametrize("source", ["photos", ["photos"], {"urls": ["photos"]}])
def test_a_key_may_be_set_beside_a_short_form(monkeypatch, source):
    data = {**SMALL, "source": source, "engine": {"replicas": 3}}

    job = parse_job(data, ["source.carry=[tags]", "engine.replicas.max=5", "model.revision=abc"])

    assert (job.source.urls, job.source.carry) == (("photos",), ("tags",))
    assert (job.engine.replicas.min, job.engine.replicas.max) == (3, 5)
    assert (job.model.id, job.model.revision) == ("standin", "abc")
    monkeypatch.setenv("JOYFLEET_SOURCE__CARRY", '["txt"]')
    assert parse_job(data).source.carry == ("txt",)
    assert parse_job(data).source.urls == ("photos",)


def test_a_key_of_what_is_set_as_a_whole_is_refused():
    with pytest.raises(ConfigError, match=r"--set source\.carry=\[x\]: source is set as a whole by another --set"):
        parse_job(SMALL, ["source=photos", "source.carry=[x]"])
