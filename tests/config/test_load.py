"""A config is merged from its layers, and a wrong one is refused with all of its mistakes."""

import pickle
import re

import pytest

from jobs.job_file import JOB_CHECKS
from pipeline.config import CorpusConfig, JobConfig, load_job, parse_job
from pipeline.config.load import parse_config
from pipeline.config.renamed_keys import RENAMED_KEYS, with_new_names, with_stored_names
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
        (
            {"engine": {"echo_latency_s": 1}},
            r"engine: found echo_latency_s with kind=vllm; allowed: only with kind: echo",
        ),
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
        ({"slot": "a", "mode": "x", "options": ["rating", "rating"]}, r"captions\.0\.options: .*options rating repeat"),
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


def test_all_mistakes_are_reported_at_once():
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
    with pytest.raises(
        ConfigError, match=r"environment variable JOYFLEET_SAMPLNG__TOP_P: samplng: unknown key; .*mean sampling\?"
    ):
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

    job = parse_job(data, ["source.metadata_fields=[tags]", "engine.replicas.max=5", "model.revision=abc"])

    assert (job.source.urls, job.source.metadata_fields) == (("photos",), ("tags",))
    assert (job.engine.replicas.min, job.engine.replicas.max) == (3, 5)
    assert (job.model.id, job.model.revision) == ("standin", "abc")
    monkeypatch.setenv("JOYFLEET_SOURCE__METADATA_FIELDS", '["txt"]')
    assert parse_job(data).source.metadata_fields == ("txt",)
    assert parse_job(data).source.urls == ("photos",)


def test_a_key_of_what_is_set_as_a_whole_is_refused():
    with pytest.raises(
        ConfigError, match=r"--set source\.metadata_fields=\[x\]: source is set as a whole by another --set"
    ):
        parse_job(SMALL, ["source=photos", "source.metadata_fields=[x]"])


def mistakes_of(data, overrides=(), kind=JobConfig):
    with pytest.raises(ConfigError) as caught:
        parse_config(kind, data, overrides, origin="job.yaml", checks=JOB_CHECKS)
    return str(caught.value).splitlines()


def test_unknown_keys_types_modes_tones_lengths_and_options_are_reported_in_one_message(monkeypatch):
    monkeypatch.setenv("JOYFLEET_IMAGES__MAX_PIXEL", "5")
    data = {
        **SMALL,
        "model": "fancyfeast/llama-joycaption-beta-one-hf-llava",
        "temperature": 1,
        "sampling": {"temprature": 0.4, "top_p": 3},
        "engine": {"kind": "vlm"},
        "captions": [
            {"slot": "a", "mode": "descriptve"},
            {"slot": "b", "mode": "descriptive", "tone": "casul", "options": ["lightning", "no-resolutions"]},
            {"slot": "c", "mode": "descriptive", "length": "longg"},
            {"slot": "d", "modes": "descriptive"},
        ],
    }
    result = mistakes_of(data, ["images.max_bytes=-1"])
    for wanted in (
        r"job.yaml: temperature: unknown key; .*did you mean sampling\.temperature\?",
        r"job.yaml: sampling\.temprature: unknown key; .*did you mean temperature\?",
        r"job.yaml: sampling\.top_p: found 3; ",
        r"job.yaml: engine\.kind: found 'vlm'; .*did you mean vllm\?",
        r"job.yaml: captions\.0\.mode: found 'descriptve'; .*did you mean descriptive\?",
        r"job.yaml: captions\.1\.tone: found 'casul'; .*did you mean casual\?",
        r"job.yaml: captions\.1\.options: found 'lightning'; .*did you mean lighting\?",
        r"job.yaml: captions\.1\.options: found 'no-resolutions'; .*did you mean no-resolution\?",
        r"job.yaml: captions\.2\.length: found 'longg'; .*did you mean long\?",
        r"job.yaml: captions\.3\.modes: unknown key; .*did you mean mode\?",
        r"environment variable JOYFLEET_IMAGES__MAX_PIXEL: images\.max_pixel: unknown key; .*mean max_pixels\?",
        r"--set images.max_bytes: images\.max_bytes: found -1; ",
    ):
        assert [line for line in result if re.match(wanted, line)], (wanted, result)
    assert len(result) == 12


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"preset": "tipo-v21"}, r"preset: found 'tipo-v21'; .*did you mean tipo-v2\.1\?"),
        ({"render": {"preset": "tipo2"}}, r"render: .*preset: found 'tipo2'; .*did you mean tipo-v2\?"),
        ({"render": {"styles": {"default": {"persons": "frist"}}}}, r"persons: found 'frist'; .*did you mean first\?"),
    ],
)
def test_a_wrong_preset_is_refused_with_the_closest_one(change, message):
    corpus = {"output": "out", "tables": [{"name": "t", "urls": "t.csv"}], **change}
    assert re.search(message, "\n".join(mistakes_of(corpus, kind=CorpusConfig)))


@pytest.mark.parametrize(
    ("quality", "message"),
    [
        ({"actions": {"refusals": "flag"}}, r"quality\.actions\.refusals: unknown rule; .*did you mean refusal\?"),
        ({"actions": {"refusal": "rejct"}}, r"quality\.actions\.refusal: found 'rejct'; .*did you mean reject\?"),
    ],
)
def test_a_wrong_rule_name_is_refused_with_the_closest_one(quality, message):
    [line] = mistakes_of({**SMALL, "quality": quality})
    assert re.search(message, line)


OLD_JOB_KEYS = [old for old in RENAMED_KEYS if not old.startswith("render.")]


@pytest.mark.parametrize("old", RENAMED_KEYS)
def test_an_old_key_is_refused_with_its_new_name_wherever_it_is_set(old, monkeypatch):
    new, wanted = RENAMED_KEYS[old], rf"{re.escape(old)}: renamed; use {re.escape(RENAMED_KEYS[old])}$"
    kind, base = (JobConfig, SMALL) if old in OLD_JOB_KEYS else (CorpusConfig, CORPUS)
    nested = 1
    for name in reversed(old.split(".")):
        nested = {name: nested}
    [line] = [line for line in mistakes_of({**base, **nested}, kind=kind) if old in line]
    assert re.match(f"job.yaml: {wanted}", line)
    [line] = [line for line in mistakes_of(base, [f"{old}=1"], kind=kind) if f"{old}: ren" in line]
    assert re.match(f"--set {re.escape(old)}: {wanted}", line)
    variable = f"JOYFLEET_{old.replace('.', '__').upper()}"
    monkeypatch.setenv(variable, "1")
    [line] = [line for line in mistakes_of(base, kind=kind) if f"{old}: ren" in line]
    assert re.match(f"environment variable {variable}: {wanted}", line)
    assert new != old


CORPUS = {"output": "out", "tables": [{"name": "t", "urls": "t.csv"}]}


def test_the_table_of_renamed_keys_leads_to_keys_that_exist_and_back():
    job = parse_job({**SMALL, "engine": {"kind": "endpoint", "endpoint": {"urls": ["http://a/v1"]}}})
    corpus = parse_config(CorpusConfig, CORPUS, (), origin="test")
    for old, new in RENAMED_KEYS.items():
        dump = (job if old in OLD_JOB_KEYS else corpus).model_dump(mode="json")
        assert old.rpartition(".")[0] == new.rpartition(".")[0]
        assert at(dump, new) == at(with_stored_names(dump), old)
        assert with_new_names(with_stored_names(dump)) == dump


def at(config, key):
    for name in key.split("."):
        config = config[name]
    return config
