"""Runs a console script, such as CaptionFlow's worker, and counts the texts that vLLM gives it.

`python captionflow_worker.py FILE SCRIPT WORD...`: one byte is appended to FILE for each text. CaptionFlow's own code
is run as it is installed, neither changed nor imported here.
"""

import os
import runpy
import sys
from typing import Any

from vllm import LLM


def count_texts(file: str) -> None:
    descriptor = os.open(file, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    generate = LLM.generate

    def counted(self: LLM, *arguments: Any, **options: Any) -> Any:
        outputs = generate(self, *arguments, **options)
        os.write(descriptor, b"." * len(outputs))
        return outputs

    LLM.generate = counted


if __name__ == "__main__":
    count_texts(sys.argv[1])
    sys.argv = sys.argv[2:]
    runpy.run_path(sys.argv[0], run_name="__main__")
