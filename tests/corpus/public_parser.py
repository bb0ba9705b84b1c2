"""The public parser of TIPO text, `parse_tipo_result` of tipo-kgen 0.3.1, with workarounds for its known defects.

Its package imports torch and a model hub, which parsing does not need: two of its modules are replaced by empty ones.
"""

import importlib
import sys
import types
import warnings
from functools import cache


@cache
def _parse_tipo_result():
    # kgen.models makes a folder in site-packages and imports torch and transformers; kgen.generate runs models.
    models = types.ModuleType("kgen.models")
    models.model_have_quality_info = {}
    models.current_model_name = None
    generate = types.ModuleType("kgen.generate")
    generate.generate = None
    executor = types.ModuleType("kgen.executor")
    package = importlib.import_module("kgen")
    executor.__path__ = [f"{package.__path__[0]}/executor"]
    stubs = {"kgen.models": models, "kgen.generate": generate, "kgen.executor": executor}
    sys.modules.update(stubs)
    package.models = models
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it leaves its tag lists open
        return importlib.import_module("kgen.executor.tipo").parse_tipo_result


def parse_public(text: str, num_predicted: int) -> dict:
    """Return the parts of a text that the public parser reads, without the metadata after the body.

    Args:
        text: a text that passes the strict grammar.
        num_predicted: number of lines after the body. The parser loses lines after a tag section, so they are removed
            first.
    """
    if num_predicted:
        text = "\n".join(text.split("\n")[:-num_predicted])
    # It strips the characters of `<s>` and `</s>` off both ends: a line end guards the last letter.
    return _parse_tipo_result()(f"{text}\n")


def representable(text: str) -> bool:
    """Return whether the parser can read a text: it strips a leading `s`, as in `short:`, `<`, `>` or `/`."""
    return text[:1] not in "<s>/"
