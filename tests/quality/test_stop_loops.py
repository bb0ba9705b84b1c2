"""No clean text is cut by `sampling.stop_loops`: vLLM's own check, with our figures, on every prefix of every text."""

import pytest

from pipeline.config import ModelConfig
from pipeline.recipe import find_weights
from schemas.status import Reason
from tests.quality.labelled import labelled

# Importing vLLM takes seconds, and vLLM, torch and transformers warn about each other.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]


@pytest.fixture(scope="module")
def stopped_after():
    """Tokens of a text at which it would be stopped, of all its tokens; (None, all) when it would not."""
    from tokenizers import Tokenizer
    from vllm.sampling_params import RepetitionDetectionParams
    from vllm.v1.core.sched.utils import check_sequence_repetition

    from pipeline.engines.protocol import LOOP_REPEATS, LOOP_TOKENS

    path = find_weights(ModelConfig(id="standin")).path
    tokenizer = Tokenizer.from_file(f"{path}/tokenizer.json")
    params = RepetitionDetectionParams(
        min_pattern_size=LOOP_TOKENS[0], max_pattern_size=LOOP_TOKENS[1], min_count=LOOP_REPEATS
    )

    def check(text):
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        for end in range(1, len(ids) + 1):
            if check_sequence_repetition(ids[:end], params):
                return end, len(ids)
        return None, len(ids)

    return check


def test_no_clean_text_is_cut(stopped_after):
    cut = [(item.kind, item.text) for item in labelled() if not item.reason and stopped_after(item.text)[0]]
    assert cut == []


def test_short_loops_are_cut_early(stopped_after):
    kinds = ("loop: tag", "loop: word", "loop: stand-in")
    result = [stopped_after(item.text) for item in labelled() if item.reason is Reason.LOOP and item.kind in kinds]
    assert sum(end is not None for end, _ in result) >= 0.8 * len(result)
    spared = sum(total - end for end, total in result if end)
    print(f"{spared} of {sum(total for _, total in result)} tokens of {len(result)} loops spared")
    assert spared >= 0.3 * sum(total for _, total in result)
