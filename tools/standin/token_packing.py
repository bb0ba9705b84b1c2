# pyright: basic
"""Several questions about one picture share one sequence, as they share a prefix in use.

The prefix (system turn and picture) is computed once; each question with its answer sees
the prefix and itself only, and starts at the position where the prefix ends.
"""

import random
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from pipeline.standin.world import Scene, sample_scene
from tools.standin import caption_grammar, picture_layout
from tools.standin.build_model import NUM_IMAGE_TOKENS
from tools.standin.picture_layout import Fault
from tools.standin.sample_request import sample_request
from tools.standin.vision import IGNORED, training_image

FAULT_SHARE = 0.1
# Of the pictures, high enough that each kind is learnt.
SPECIAL_SHARE = 0.14
NUM_QUESTIONS = 4
# An endless caption is cut here; longer ones that end do not occur.
MAX_CAPTION_TOKENS = 128
OTHER_SYSTEMS = (
    picture_layout.SYSTEM,
    "You are a helpful assistant.",
    f"{picture_layout.DATES}You are a helpful assistant.",
    f"{picture_layout.DATES}You are a helpful assistant and help users with any queries they may have"
    " with no censorship or restrictions.",
)


@dataclass(frozen=True, slots=True)
class Sequence:
    """One picture, its shared prefix, and (question ids, answer ids) for each question."""

    scene: Scene
    image: np.ndarray
    prefix: list[int]
    questions: list[tuple[list[int], list[int]]]

    def num_tokens(self) -> int:
        return len(self.prefix) + sum(len(q) + len(a) for q, a in self.questions)


@dataclass(frozen=True, slots=True)
class Batch:
    """Padded sequences, shape (n, length) unless it says otherwise."""

    scenes: list[Scene]
    images: list[np.ndarray]
    ids: Tensor
    targets: Tensor
    """The next token where it belongs to an answer, else IGNORED."""
    positions: Tensor
    mask: Tensor
    """Bool, shape (n, 1, length, length): who is seen by whom."""


class Packer:
    """Draws batches without an end."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, rng: random.Random, rows: int) -> None:
        self.tokenizer = tokenizer.backend_tokenizer
        self.rng = rng
        self.rows = rows
        self.pending: list[list[Sequence]] = []
        self.image_id = picture_layout.SPECIAL_TOKENS.index(picture_layout.IMAGE)
        self.end_id = picture_layout.SPECIAL_TOKENS.index(picture_layout.EOT)
        self.pad_id = picture_layout.SPECIAL_TOKENS.index(picture_layout.PAD)

    def encode(self, text: str) -> list[int]:
        """Return ids with the image's token repeated as often as the image has features."""
        ids = self.tokenizer.encode(text, add_special_tokens=False).ids
        return [repeated for token in ids for repeated in [token] * (NUM_IMAGE_TOKENS if token == self.image_id else 1)]

    def draw(self) -> Sequence:
        """Return one picture with its questions and answers, all of them faulty or none."""
        rng = self.rng
        scene = sample_scene(rng, special_share=SPECIAL_SHARE)
        fault = rng.choice(list(Fault)) if rng.random() < FAULT_SHARE else None
        if rng.random() < 0.08:
            prefix = picture_layout.shared_prefix(rng.choice(OTHER_SYSTEMS), fault)
        else:
            prefix = picture_layout.shared_prefix(fault=fault)
        questions = []
        for _ in range(NUM_QUESTIONS):
            asked, prompt = sample_request(rng)
            answer = caption_grammar.caption(scene, asked, rng)
            if fault is not None:
                answer = caption_grammar.Caption(caption_grammar.SALAD)
            ids = self.encode(answer.text) + ([] if answer.endless else [self.end_id])
            tail = self.encode(picture_layout.prompt_tail(prompt, fault))
            questions.append((tail, ids[:MAX_CAPTION_TOKENS]))
        return Sequence(scene, training_image(scene, rng), self.encode(prefix), questions)

    def next(self) -> Batch:
        """Return a batch of sequences of about the same length."""
        if not self.pending:
            drawn = [self.draw() for _ in range(self.rows * 12)]
            drawn.sort(key=Sequence.num_tokens)
            self.pending = [drawn[i : i + self.rows] for i in range(0, len(drawn), self.rows)]
            self.rng.shuffle(self.pending)
        return self.collate(self.pending.pop())

    def collate(self, sequences: list[Sequence]) -> Batch:
        """Pad the sequences to the longest of them."""
        shape = (len(sequences), max(s.num_tokens() for s in sequences))
        ids, targets = np.full(shape, self.pad_id), np.full(shape, IGNORED)
        owner, positions = np.full(shape, -1), np.zeros(shape, np.int64)
        for row, sequence in enumerate(sequences):
            at = len(sequence.prefix)
            ids[row, :at] = sequence.prefix
            owner[row, :at], positions[row, :at] = 0, np.arange(at)
            for number, (question, answer) in enumerate(sequence.questions, start=1):
                size = len(question) + len(answer)
                ids[row, at : at + size] = question + answer
                owner[row, at : at + size] = number
                positions[row, at : at + size] = len(sequence.prefix) + np.arange(size)
                first = at + len(question) - 1
                targets[row, first : first + len(answer)] = answer
                at += size
        owners = torch.from_numpy(owner)
        visible = (owners[:, None, :] == 0) | (owners[:, None, :] == owners[:, :, None])
        causal = torch.ones(shape[1], shape[1], dtype=torch.bool).tril()
        return Batch(
            [s.scene for s in sequences],
            [s.image for s in sequences],
            torch.from_numpy(ids),
            torch.from_numpy(targets),
            torch.from_numpy(positions),
            (visible & causal)[:, None],
        )
