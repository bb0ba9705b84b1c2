# pyright: basic
"""The stand-in has JoyCaption's parts in JoyCaption's places, only smaller.

Same architecture (SigLIP, its layer -2, a GELU projector, Llama), same special tokens,
same chat template and same key names on disk, so that whatever loads, prompts or breaks
the real model loads, prompts or breaks this one.
"""

import json
import random
from collections.abc import Iterator
from pathlib import Path

from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    SiglipImageProcessor,
    SiglipVisionConfig,
)

from pipeline.standin.world import sample_scene
from tools.standin import caption_grammar, picture_layout, sample_request

SIDE_PX = 90
# 90 is no multiple of 14, as 384 is none: the last pixels of a row belong to no patch.
PATCH_PX = 14
NUM_IMAGE_TOKENS = (SIDE_PX // PATCH_PX) ** 2
VOCAB = 1280
VISION_WIDTH = 96

# Llama 3's own pattern but for digits, which stay single so that a number of words is
# read digit by digit and numbers never seen in training still mean something.
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _corpus(num_texts: int) -> Iterator[str]:
    rng = random.Random(7)
    for i in range(num_texts):
        asked, prompt = sample_request.sample_request(rng)
        scene = sample_scene(rng, special_share=0.1)
        yield prompt
        yield caption_grammar.caption(scene, asked, rng).text
        yield " " + rng.choice(sample_request.NAMES)
        if i % 8 == 0:
            yield from ("system", "user", "assistant", f"\n\n{picture_layout.DATES}{picture_layout.SYSTEM}")


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Train the tokenizer on the grammar; it puts BOS first, the chat template does not."""
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(PATTERN), "isolated"), byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB,
        special_tokens=list(picture_layout.SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        min_frequency=8,
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(12_000), trainer)
    bos = (picture_layout.BOS, tokenizer.token_to_id(picture_layout.BOS))
    adds_bos = processors.TemplateProcessing(
        single=f"{picture_layout.BOS} $A",
        pair=f"{picture_layout.BOS} $A {picture_layout.BOS} $B",
        special_tokens=[bos],
    )
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), adds_bos])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=picture_layout.BOS,
        eos_token=picture_layout.EOT,
        pad_token=picture_layout.PAD,
        extra_special_tokens={"image_token": picture_layout.IMAGE},
        model_max_length=4096,
        clean_up_tokenization_spaces=False,
    )


def make_processor(tokenizer: PreTrainedTokenizerFast) -> LlavaProcessor:
    """Resample 1 is LANCZOS, JoyCaption's own filter."""
    return LlavaProcessor(
        image_processor=SiglipImageProcessor(
            size={"height": SIDE_PX, "width": SIDE_PX}, resample=1, do_convert_rgb=True
        ),
        tokenizer=tokenizer,
        patch_size=PATCH_PX,
        # Not the model's own "full": JoyCaption's processor adds one token and takes it off again.
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token=picture_layout.IMAGE,
        chat_template=picture_layout.CHAT_TEMPLATE,
    )


def _config(ids: dict[str, int]) -> LlavaConfig:
    vision = SiglipVisionConfig(
        hidden_size=VISION_WIDTH,
        intermediate_size=2 * VISION_WIDTH,
        # The features are taken one layer before the last, so four of the five work.
        num_hidden_layers=5,
        num_attention_heads=3,
        image_size=SIDE_PX,
        patch_size=PATCH_PX,
        vision_use_head=False,  # pyright: ignore[reportCallIssue] taken as a keyword, not declared
    )
    text = LlamaConfig(
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=VOCAB,
        max_position_embeddings=4096,
        rope_theta=10000.0,  # pyright: ignore[reportCallIssue] taken as a keyword, not declared
        rms_norm_eps=1e-5,
        bos_token_id=ids[picture_layout.BOS],
        eos_token_id=ids[picture_layout.EOT],
        pad_token_id=ids[picture_layout.PAD],
        tie_word_embeddings=False,
    )
    return LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=ids[picture_layout.IMAGE],
        vision_feature_select_strategy="full",
        vision_feature_layer=-2,
        image_seq_length=NUM_IMAGE_TOKENS,
        projector_hidden_act="gelu",
        tie_word_embeddings=False,
    )


def make_model() -> LlavaForConditionalGeneration:
    """Return an untrained model; the special tokens' ids are their places in the list."""
    ids = {token: index for index, token in enumerate(picture_layout.SPECIAL_TOKENS)}
    model = LlavaForConditionalGeneration(_config(ids))
    model.generation_config = GenerationConfig(
        bos_token_id=ids[picture_layout.BOS],
        eos_token_id=[ids[picture_layout.EOT], ids[picture_layout.END]],
        pad_token_id=ids[picture_layout.PAD],
        do_sample=True,
        temperature=0.6,
        top_p=0.9,
    )
    return model


def _hub_key(key: str) -> str:
    """Return the name that the hub's checkpoint of JoyCaption gives to a weight."""
    key = key.removeprefix("model.")
    if key.startswith("vision_tower.") and not key.startswith("vision_tower.vision_model."):
        return key.replace("vision_tower.", "vision_tower.vision_model.", 1)
    if key.startswith("language_model."):
        return key.replace("language_model.", "language_model.model.", 1)
    return "language_model.lm_head.weight" if key == "lm_head.weight" else key


def _save_processor(processor: LlavaProcessor, folder: Path) -> None:
    """Write the processor as JoyCaption's hub files do: the image's part in its own file."""
    processor.save_pretrained(folder)
    both = json.loads((folder / "processor_config.json").read_text())
    image = both.pop("image_processor")
    for name, config in (("preprocessor_config.json", image), ("processor_config.json", both)):
        (folder / name).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def save(model: LlavaForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write bf16 weights, tokenizer and configs; `model` itself is cast to bf16."""
    model.bfloat16()
    # Not `save_pretrained`: which names it gives the weights changes between its versions.
    model.config.dtype = "bfloat16"
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
    _save_processor(make_processor(tokenizer), folder)
    weights = {_hub_key(key): value.contiguous() for key, value in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
