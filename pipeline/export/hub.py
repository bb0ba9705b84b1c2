"""Uploads an exported folder to the Hugging Face hub, with the hub's own client."""

from pathlib import Path

from pipeline.errors import ConfigError, PipelineError
from pipeline.export.export_shard import FOLDER
from pipeline.storage.local import TEMPORARY


def push_folder(folder: str, repository: str, *, private: bool) -> str:
    """Upload a data set folder in one commit; files that the hub has already are not sent again. Returns its URL.

    The token is the one of `hf auth login` or of HF_TOKEN.

    Raises:
        ConfigError: the client is not installed, or the folder is not on this machine.
        PipelineError: the hub refused; nothing is visible there, and the same command may be run again.
    """
    try:
        from huggingface_hub import HfApi  # noqa: PLC0415 - an extra
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError  # noqa: PLC0415 - as above
    except ImportError as err:
        raise ConfigError("export: --push needs the hub's client; run: pip install 'joyfleet[hf]'") from err
    if not Path(folder).is_dir():
        raise ConfigError(f"export: --push sends a local folder, not {folder}; export into one")
    api = HfApi()
    try:
        url = api.create_repo(repository, repo_type="dataset", private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            repo_type="dataset",
            commit_message="Captions by JoyFleet",
            ignore_patterns=[f"{FOLDER}/**", f"{TEMPORARY}/**"],
        )
    except (HfHubHTTPError, HFValidationError, OSError) as err:
        raise PipelineError(
            f"export: {repository} cannot be pushed ({type(err).__name__}: {' '.join(str(err).split())}); the folder "
            f"{folder} is complete, so run the same command again"
        ) from err
    return str(url)
