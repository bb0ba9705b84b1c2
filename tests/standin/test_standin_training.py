import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoProcessor, LlavaForConditionalGeneration, PreTrainedTokenizerFast

import pipeline.standin
from tools.standin.build_model import NUM_IMAGE_TOKENS, make_model
from tools.standin.token_packing import NUM_QUESTIONS, Packer
from tools.standin.vision import IGNORED, to_pixels

FOLDER = Path(pipeline.standin.__file__).parent / "model"


@pytest.fixture
def packer() -> Packer:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(FOLDER)
    return Packer(tokenizer, random.Random(1), rows=2)


def test_a_packed_question_is_answered_as_if_it_were_alone(packer: Packer):
    torch.manual_seed(0)
    model = make_model().eval()
    sequence = packer.draw()
    batch = packer.collate([sequence])
    pixels = to_pixels(batch.images, noisy=False)
    with torch.inference_mode():
        packed = model(
            input_ids=batch.ids, pixel_values=pixels, attention_mask=batch.mask, position_ids=batch.positions
        ).logits[0]
        at = len(sequence.prefix)
        for question, answer in sequence.questions:
            size = len(question) + len(answer)
            ids = torch.tensor([sequence.prefix + question + answer])
            alone = model(input_ids=ids, pixel_values=pixels).logits[0, len(sequence.prefix) :]
            torch.testing.assert_close(packed[at : at + size], alone, atol=1e-4, rtol=1e-3)
            at += size


def test_only_answers_are_learnt(packer: Packer):
    sequence = packer.draw()
    batch = packer.collate([sequence, sequence])
    wanted = [target for target in batch.targets[1].tolist() if target != IGNORED]
    assert wanted == [token for _, answer in sequence.questions for token in answer]


def test_a_batch_has_the_requested_number_of_pictures(packer: Packer):
    batch = packer.next()
    assert len(batch.images) == len(batch.scenes) == batch.ids.shape[0] == 2
    assert len(packer.draw().questions) == NUM_QUESTIONS
    assert max((batch.ids == packer.image_id).sum(1).tolist()) % NUM_IMAGE_TOKENS == 0


@pytest.mark.long
def test_a_short_training_leaves_a_model_that_loads(tmp_path: Path):
    command = [sys.executable, "-m", "tools.standin.train", "--out", str(tmp_path), "--ranks", "1"]
    environment = os.environ | {"PYTHONWARNINGS": "ignore"}
    subprocess.run([*command, "--minutes", "0.06", "--vision-minutes", "0.02"], check=True, env=environment)
    model = LlavaForConditionalGeneration.from_pretrained(tmp_path)
    assert AutoProcessor.from_pretrained(tmp_path).image_processor.resample == 1
    assert sum(p.numel() for p in model.parameters()) < 2_000_000
