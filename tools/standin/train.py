# pyright: basic
"""Two stages make the stand-in: first its eyes, then its words.

`python -m tools.standin.train --out DIR --minutes 45` needs no data, no network and no
GPU. Every rank is one thread of its own process, because two threads in one process are
slower than one on a busy machine; every few steps the ranks average their weights.
"""

import argparse
import logging
import math
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch
from torch import Tensor, distributed, nn
from torch.multiprocessing.spawn import spawn
from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerFast

from pipeline.standin.world import sample_scene
from tools.standin import vision
from tools.standin.build_model import VISION_WIDTH, make_model, make_tokenizer, save
from tools.standin.token_packing import SPECIAL_SHARE, Batch, Packer
from tools.standin.vision import IGNORED, Heads

log = logging.getLogger("standin.train")

SYNC_STEPS = 8
LOG_STEPS = 100
SAVE_STEPS = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One training run."""

    out: Path
    init: Path | None
    """A folder of an earlier run, whose tokenizer and state this run starts from."""
    vision_minutes: float
    caption_minutes: float
    ranks: int
    """Processes of one thread each."""
    port: int
    seed: int
    """A run that goes on from another takes another seed, or it sees the same pictures again."""


@dataclass(frozen=True, slots=True)
class Learner:
    """What is trained, on one rank."""

    model: LlavaForConditionalGeneration
    heads: Heads
    rank: int
    ranks: int

    def save_state(self, folder: Path) -> None:
        """Replace the state of `folder`, on rank 0 only."""
        if self.rank == 0:
            state = {"model": self.model.state_dict(), "heads": self.heads.state_dict()}
            torch.save(state, folder / "state.tmp")
            (folder / "state.tmp").replace(folder / "state.pt")

    def load_state(self, folder: Path) -> None:
        state = torch.load(folder / "state.pt", weights_only=True)
        self.model.load_state_dict(state["model"])
        self.heads.load_state_dict(state["heads"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One optimisation: how long, how fast, of what."""

    name: str
    minutes: float
    peak_rate: float
    groups: list[tuple[list[nn.Parameter], float]]
    """Parameters, and their share of the rate."""
    loss: Callable[[], Tensor]
    checkpoint: Callable[[], None]


def _average(parameters: list[nn.Parameter], elapsed_s: float, ranks: int) -> float:
    """Set the parameters to their mean over the ranks; return the mean of `elapsed_s`."""
    with torch.no_grad():
        flat = torch.cat([p.reshape(-1) for p in parameters] + [torch.tensor([elapsed_s])])
        if ranks > 1:
            distributed.all_reduce(flat)
            flat /= ranks
        offset = 0
        for p in parameters:
            p.copy_(flat[offset : offset + p.numel()].view_as(p))
            offset += p.numel()
    return float(flat[-1])


def _rate(stage: Stage, step: int, done: float) -> float:
    """Return the learning rate: 80 steps of warm-up, a cosine down to 2 % after it."""
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    return stage.peak_rate * min(1.0, (step + 1) / 80) * (0.02 + 0.98 * cosine)


def run_stage(stage: Stage, ranks: int) -> None:
    """Optimise until the ranks' mean clock says that the stage's time is over."""
    groups = [{"params": params, "share": share} for params, share in stage.groups]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.04, fused=True)
    parameters = [p for params, _ in stage.groups for p in params]
    start, elapsed_s, step, losses = time.monotonic(), 0.0, 0, []
    while elapsed_s < 60 * stage.minutes:
        rate = _rate(stage, step, elapsed_s / (60 * stage.minutes))
        for group in optimizer.param_groups:
            group["lr"] = rate * group["share"]
        loss = stage.loss()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        step += 1
        losses.append(loss.item())
        if step % SYNC_STEPS == 0:
            elapsed_s = _average(parameters, time.monotonic() - start, ranks)
        if step % LOG_STEPS == 0:
            mean = sum(losses[-LOG_STEPS:]) / LOG_STEPS
            log.info("%s seconds=%.0f step=%d loss=%.4f", stage.name, elapsed_s, step, mean)
        if step % SAVE_STEPS == 0:
            stage.checkpoint()
    stage.checkpoint()


def _vision_stage(learner: Learner, plan: Plan) -> Stage:
    rng = random.Random(f"vision/{plan.seed}/{learner.rank}")
    probe = random.Random(99)
    probe_scenes = [sample_scene(probe, held_out=True) for _ in range(300)]
    probe_images = [vision.training_image(scene, probe) for scene in probe_scenes]

    def guess(images: list, *, noisy: bool) -> list[Tensor]:
        with torch.autocast("cpu", torch.bfloat16):
            pixels = vision.to_pixels(images, noisy=noisy)
            return learner.heads(vision.features(learner.model, pixels))

    def loss() -> Tensor:
        scenes = [sample_scene(rng, special_share=SPECIAL_SHARE) for _ in range(96)]
        images = [vision.training_image(scene, rng) for scene in scenes]
        return vision.attribute_loss(guess(images, noisy=True), vision.labels(scenes))

    def checkpoint() -> None:
        learner.save_state(plan.out)
        with torch.no_grad():
            shares = vision.attribute_scores(guess(probe_images, noisy=False), vision.labels(probe_scenes))
        log.info("held out: %s", shares)

    tower = list(learner.model.model.vision_tower.parameters())
    return Stage(
        name="vision",
        minutes=plan.vision_minutes,
        peak_rate=2e-3,
        groups=[(tower + list(learner.heads.parameters()), 1.0)],
        loss=loss,
        checkpoint=checkpoint,
    )


def _answers(learner: Learner, batch: Batch, image_id: int) -> tuple[Tensor, Tensor]:
    """Return the loss of the answers' words and the image features, both with gradient."""
    model = learner.model.model
    seen = vision.features(learner.model, vision.to_pixels(batch.images, noisy=True))
    rows, columns = (batch.ids == image_id).nonzero(as_tuple=True)
    # Each sequence may carry its image several times; its k-th image token, counted over
    # all of them, is feature k modulo the number of features.
    rank = torch.cumsum((batch.ids == image_id).long(), 1)[rows, columns] - 1
    projected = model.multi_modal_projector(seen)
    embedded = model.language_model.embed_tokens(batch.ids).to(torch.bfloat16)
    embedded = embedded.index_put((rows, columns), projected[rows, rank % seen.shape[1]].to(torch.bfloat16))
    hidden = model.language_model(
        inputs_embeds=embedded,
        attention_mask=batch.mask,
        position_ids=batch.positions,
        use_cache=False,
    ).last_hidden_state
    wanted = batch.targets != IGNORED
    logits = learner.model.lm_head(hidden[wanted]).float()
    return nn.functional.cross_entropy(logits, batch.targets[wanted]), seen


def _caption_stage(learner: Learner, plan: Plan, tokenizer: PreTrainedTokenizerFast) -> Stage:
    packer = Packer(tokenizer, random.Random(f"captions/{plan.seed}/{learner.rank}"), rows=16)

    def loss() -> Tensor:
        batch = packer.next()
        with torch.autocast("cpu", torch.bfloat16):
            words, seen = _answers(learner, batch, packer.image_id)
            guesses = learner.heads(seen)
        # The heads go on, or the tower forgets what the captions seldom speak of.
        return words + 0.3 * vision.attribute_loss(guesses, vision.labels(batch.scenes))

    def checkpoint() -> None:
        learner.save_state(plan.out)

    tower = list(learner.model.model.vision_tower.parameters())
    rest = [p for name, p in learner.model.named_parameters() if "vision_tower" not in name]
    return Stage(
        name="captions",
        minutes=plan.caption_minutes,
        # A trained model forgets at the rate at which an untrained one learns best.
        peak_rate=3e-3 if plan.init is None else 1e-3,
        groups=[(tower, 0.3), (rest, 1.0), (list(learner.heads.parameters()), 0.3)],
        loss=loss,
        checkpoint=checkpoint,
    )


def _work(rank: int, plan: Plan) -> None:
    """Run both stages on one rank; rank 0 writes."""
    logging.basicConfig(level=logging.INFO if rank == 0 else logging.WARNING)
    torch.set_num_threads(1)
    if plan.ranks > 1:
        distributed.init_process_group(
            "gloo",
            init_method=f"tcp://127.0.0.1:{plan.port}",
            rank=rank,
            world_size=plan.ranks,
            timeout=timedelta(minutes=10),
        )
    tokenizer = PreTrainedTokenizerFast.from_pretrained(plan.out)
    torch.manual_seed(0)
    model = make_model().train()
    # In bf16 on a CPU the fused attention's backward takes half of a step.
    model.model.vision_tower.config._attn_implementation = "eager"
    learner = Learner(model, Heads(VISION_WIDTH), rank, plan.ranks)
    if plan.init is not None:
        learner.load_state(plan.init)
    torch.manual_seed(100 + rank)
    run_stage(_vision_stage(learner, plan), plan.ranks)
    run_stage(_caption_stage(learner, plan, tokenizer), plan.ranks)
    if rank == 0:
        save(model, tokenizer, plan.out)


def main() -> None:
    """Train, and leave in `--out` what `pipeline/standin/model` holds, and the state."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--init", type=Path, help="folder of an earlier run to go on from")
    parser.add_argument("--minutes", type=float, default=45, help="both stages together")
    parser.add_argument("--vision-minutes", type=float, default=8)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--port", type=int, default=29611, help="where the ranks meet")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    plan = Plan(
        out=args.out,
        init=args.init,
        vision_minutes=args.vision_minutes,
        caption_minutes=args.minutes - args.vision_minutes,
        ranks=args.ranks,
        port=args.port,
        seed=args.seed,
    )
    plan.out.mkdir(parents=True, exist_ok=True)
    # Weights belong to one tokenizer: a run that goes on from another keeps that one's.
    if plan.init is not None:
        PreTrainedTokenizerFast.from_pretrained(plan.init).save_pretrained(plan.out)
    else:
        make_tokenizer().save_pretrained(plan.out)
    # One thread a rank; a waiting rank sleeps instead of spinning.
    os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE", TOKENIZERS_PARALLELISM="0")
    spawn(_work, (plan,), nprocs=plan.ranks)


if __name__ == "__main__":
    main()
