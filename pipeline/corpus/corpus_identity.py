"""What tells a finished corpus from all others: its recipe, and its plan, which lists the inputs."""

import hashlib

from pipeline.corpus.extensions import is_finished
from pipeline.errors import ConfigError
from pipeline.ledger.layout import PLAN
from pipeline.ledger.run_record import read_run
from pipeline.storage import Store


def corpus_identity(store: Store) -> dict[str, str]:
    """Return the fingerprint of the recipe, and 16 hex digits of the SHA-256 of `plan.parquet`.

    Raises:
        ConfigError: the folder holds captions, or a corpus that is not finished.
    """
    run = read_run(store)
    if "corpus" not in run.about:
        raise ConfigError(f"{store.url}: holds captions, not a corpus; `joyfleet export` takes captions")
    if not is_finished(store):
        raise ConfigError(f"{store.url}: the corpus is not finished; `joyfleet corpus` resumes it")
    return recipe_and_plan(store)


def recipe_and_plan(store: Store) -> dict[str, str]:
    """Return the same of a corpus that may be unfinished. Added epochs do not change it."""
    return {"recipe": read_run(store).fingerprint, "plan": hashlib.sha256(store.get(PLAN)).hexdigest()[:16]}
