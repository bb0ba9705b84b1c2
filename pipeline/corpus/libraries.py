"""Which optional libraries a corpus uses, and in which versions: their results change with the version.

The versions are part of the recipe, and a worker with another version is refused.
"""

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

from pipeline.config import CorpusConfig
from pipeline.errors import ConfigError, PipelineError


def library_versions(config: CorpusConfig) -> dict[str, str]:
    """Return the installed version of each optional library that the config names.

    Raises:
        ConfigError: a library is not installed.
    """
    uses = {
        "languages.detector": config.languages and config.languages.detector.value,
        "render.sentences.by": config.render.sentences.package,
    }
    return {name: _installed(key, name) for key, name in uses.items() if name}


def _installed(key: str, name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError as err:
        raise ConfigError(f"{key}: {name} is not installed; run: pip install 'joyfleet[languages]'") from err


def check_libraries(expected: Mapping[str, str]) -> None:
    """Refuse a worker that lacks a library, or has another version than the driver.

    Raises:
        PipelineError: names the library and both versions.
    """
    for name, wanted in expected.items():
        try:
            found = version(name)
        except PackageNotFoundError:
            found = "none"
        if found != wanted:
            raise PipelineError(
                f"{name}: a worker has version {found}, the driver {wanted}; install the same one on every machine"
            )
