"""A data set of captions is sent to the hub: the files that `datasets` reads, and none of the export's own."""

import huggingface_hub.constants
import pytest
from click.testing import CliRunner

from jobs.export import export as export_command
from pipeline.errors import ConfigError
from tests.export.world import caption_all, files_of, write_parquets
from tests.hub_server import TOKEN, serve_hub

# The hub's client sends files to a server without Xet in a way that httpx will drop.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


def test_a_pushed_export_is_the_folder_without_its_records(tmp_path, monkeypatch):
    write_parquets(tmp_path / "in", 2, 3)
    caption_all(tmp_path / "in", tmp_path / "out")
    words = [str(tmp_path / "out"), str(tmp_path / "x"), "--to", "hf", "--slot", "long", "--workers", "1"]
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    with serve_hub() as hub:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.endpoint)
        done = CliRunner().invoke(export_command, [*words, "--push", "me/x", "--private"], catch_exceptions=False)
    assert done.stdout.endswith(f"{hub.endpoint}/datasets/me/x\n")
    assert hub.repositories["me/x"].files == files_of(tmp_path / "x")
    assert hub.repositories["me/x"].private
    assert hub.repositories["me/x"].commits == ["Captions by JoyFleet"]


def test_a_push_that_cannot_be_done_is_refused_before_the_first_shard(tmp_path):
    write_parquets(tmp_path / "in", 1, 3)
    caption_all(tmp_path / "in", tmp_path / "out")
    words = [str(tmp_path / "out"), str(tmp_path / "x"), "--to", "hf", "--slot", "long"]
    with pytest.raises(ConfigError, match=r"export: --push x: found no owner; allowed: OWNER/NAME"):
        CliRunner().invoke(export_command, [*words, "--push", "x"], catch_exceptions=False)
    with pytest.raises(ConfigError, match=r"export: --private needs --push; add --push, or leave --private out"):
        CliRunner().invoke(export_command, [*words, "--private"], catch_exceptions=False)
    assert not (tmp_path / "x").exists()
