"""Uploads a folder of a data set to the Hugging Face hub, with the hub's own client."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError, PipelineError


@dataclass(frozen=True, slots=True, kw_only=True)
class Push:
    """An upload that was asked for. `check_push` refuses one that cannot be done before other work begins."""

    repository: str
    """OWNER/NAME."""
    private: bool
    verb: str
    """For messages."""
    message: str
    """Of the commit."""


def check_push(push: Push, folder: str) -> None:
    """Refuse an upload that cannot be done.

    Raises:
        ConfigError: the client is not installed, the repository has no valid name, or the folder is not on this
            machine.
    """
    client = _client(push.verb)
    if "://" in folder:
        raise ConfigError(
            f"{push.verb}: --push sends a local folder, not {folder}; write into a local folder, or copy this one"
        )
    try:
        client.utils.validate_repo_id(push.repository)
    except client.errors.HFValidationError as err:
        raise ConfigError(f"{push.verb}: --push {push.repository}: {' '.join(str(err).split())}") from err
    if "/" not in push.repository:
        raise ConfigError(f"{push.verb}: --push {push.repository}: found no owner; allowed: OWNER/NAME")


def push_folder(folder: str, push: Push, patterns: Sequence[str]) -> str:
    """Upload the files of a data set; those that the hub has already are not sent again. Returns the hub's URL.

    The client makes one commit or, with its package hf_xet, several ones, so an upload that failed may have added a
    part of the files. The token is that of `hf auth login` or of HF_TOKEN.

    Args:
        folder: local.
        push: where to.
        patterns: globs of the files to send; others stay here.

    Raises:
        PipelineError: the hub did not take all files; the same command may be run again.
    """
    client = _client(push.verb)
    import httpx  # noqa: PLC0415 - of the hub's client: it raises its errors where no answer comes

    api = client.HfApi()
    try:
        url = api.create_repo(push.repository, repo_type="dataset", private=push.private, exist_ok=True)
        if push.private and not api.repo_info(push.repository, repo_type="dataset").private:
            raise PipelineError(
                f"{push.verb}: {push.repository} exists and is public, so --private cannot be honoured; nothing was "
                "sent. Make it private in its settings, or give another name"
            )
        api.upload_folder(
            repo_id=push.repository,
            folder_path=Path(folder),
            repo_type="dataset",
            commit_message=push.message,
            allow_patterns=list(patterns),
        )
    # hf_xet raises RuntimeError; the client raises ValueError for errors in the answers about large files.
    except (httpx.HTTPError, OSError, ValueError, RuntimeError) as err:
        cause = f"; {err.__cause__!r}" if err.__cause__ else ""
        raise PipelineError(
            f"{push.verb}: {push.repository} cannot be pushed ({type(err).__name__}: {' '.join(str(err).split())}"
            f"{cause}); {folder} is complete, so run the same command again"
        ) from err
    return str(url)


def _client(verb: str) -> Any:  # noqa: ANN401 - a module
    try:
        for module in ("huggingface_hub.errors", "huggingface_hub.utils"):
            import_module(module)
        return import_module("huggingface_hub")  # an extra
    except ImportError as err:
        raise ConfigError(f"{verb}: --push needs the hub's client; run: pip install 'joyfleet[hf]'") from err
