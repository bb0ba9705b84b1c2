"""The public parser of TIPO text, `parse_tipo_result` of tipo-kgen 0.3.1, with its known traps worked around.

Its package imports torch and a model hub where only text is parsed: two of its modules are replaced by empty ones.
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
    """Return what the public parser reads in a text, metadata behind the body left away.

    Args:
        text: a text that passes the strict grammar.
        num_predicted: lines behind the body: those after a tag section are lost in the parser, since its tags made
            their keys already, so they are taken off before.
    """
    if num_predicted:
        text = "\n".join(text.split("\n")[:-num_predicted])
    # It strips the characters of `<s>` and `</s>` off both ends: a line end guards the last letter.
    return _parse_tipo_result()(f"{text}\n")


def representable(text: str) -> bool:
    """Tell whether the parser can read a text at all: one that opens with `short:` or such a letter loses it."""
    return text[:1] not in "<s>/"
