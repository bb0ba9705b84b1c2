"""A checkpoint with JoyCaption's true shape, and what vLLM and transformers make of it, each in its own process.

Two things differ from the checkpoint on the hub: the weights are random (seeded), and the language model has 2 of its
32 layers. The rest is as there: SigLIP so400m at 384 px with all 27 layers, the vocabulary of 128,256 with the special
tokens from 128,000 on, the names of the weights in several files with an index, the tower and the projector in
float32 and the language model in bfloat16, and the config files in the form that transformers 4 wrote.

    python -m tests.e2e.true_shape build FOLDER
    python -m tests.e2e.true_shape vllm FOLDER            prints JSON, one entry for each prompt
    python -m tests.e2e.true_shape transformers FOLDER    the same
"""

import asyncio
import itertools
import json
import random
import string
import sys
from pathlib import Path

VOCAB = 128_256
BASE = 128_000
"""Tokens of text; the ids from here on are the special tokens."""
IMAGE_TOKENS = 729
NEW_TOKENS = 16
DTYPE = "float32"

NAMED = {
    128000: "<|begin_of_text|>",
    128001: "<|end_of_text|>",
    128004: "<|finetune_right_pad_id|>",
    128006: "<|start_header_id|>",
    128007: "<|end_header_id|>",
    128008: "<|eom_id|>",
    128009: "<|eot_id|>",
    128010: "<|python_tag|>",
}
"""Of Llama 3.1. The other ids are `<|reserved_special_token_N|>`, counted from 0, so that 69 is 128,077."""

LOUD = 128008
"""`<|eom_id|>`: an end token that no chat template has. Its row of the output layer is scaled by `LOUDNESS`, so that
some answers end with it: the list of end tokens in the config files is then part of the comparison."""
LOUDNESS = 4.0

TEXT = {
    "architectures": ["LlamaForCausalLM"],
    "bos_token_id": 128000,
    "eos_token_id": [128001, 128008, 128009],
    "pad_token_id": 128004,
    "head_dim": 128,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "max_position_embeddings": 131072,
    "model_type": "llama",
    "num_attention_heads": 32,
    "num_hidden_layers": 2,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "factor": 8.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "rope_theta": 500000.0,
    "torch_dtype": "bfloat16",
    "vocab_size": VOCAB,
}
VISION = {
    "hidden_act": "gelu_pytorch_tanh",
    "hidden_size": 1152,
    "image_size": 384,
    "intermediate_size": 4304,
    "layer_norm_eps": 1e-06,
    "model_type": "siglip_vision_model",
    "num_attention_heads": 16,
    "num_channels": 3,
    "num_hidden_layers": 27,
    "patch_size": 14,
}
CONFIG = {
    "architectures": ["LlavaForConditionalGeneration"],
    "image_seq_length": IMAGE_TOKENS,
    "image_token_index": 128077,
    "model_type": "llava",
    "projector_hidden_act": "gelu",
    "text_config": TEXT,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.44.0",
    "vision_config": VISION,
    "vision_feature_layer": -2,
    "vision_feature_select_strategy": "full",
}
GENERATION = {
    "bos_token_id": 128000,
    "do_sample": True,
    "eos_token_id": [128001, 128008, 128009],
    "pad_token_id": 128004,
    "temperature": 0.6,
    "top_p": 0.9,
    "transformers_version": "4.44.0",
}
PREPROCESSOR = {
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_processor_type": "SiglipImageProcessor",
    "image_std": [0.5, 0.5, 0.5],
    "processor_class": "LlavaProcessor",
    "resample": 1,
    "rescale_factor": 1 / 255,
    "size": {"height": 384, "width": 384},
}
PROCESSOR = {
    "image_token": "<|reserved_special_token_69|>",
    "num_additional_image_tokens": 1,
    "patch_size": 14,
    "processor_class": "LlavaProcessor",
    "vision_feature_select_strategy": "default",
}
TOKENIZER = {
    "bos_token": "<|begin_of_text|>",
    "clean_up_tokenization_spaces": True,
    "eos_token": "<|eot_id|>",
    "model_input_names": ["input_ids", "attention_mask"],
    "model_max_length": 131072,
    "pad_token": "<|finetune_right_pad_id|>",
    "processor_class": "LlavaProcessor",
    "tokenizer_class": "PreTrainedTokenizerFast",
}

TOWER_BYTES, TEXT_BYTES = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


def build(folder: Path) -> None:
    """Write the checkpoint: 5 GB, from a fixed seed."""
    folder.mkdir(parents=True, exist_ok=True)
    _save_tokenizer(folder)
    standin = Path(__file__).parents[2] / "pipeline" / "standin" / "model" / "chat_template.jinja"
    files = {
        "config.json": CONFIG,
        "generation_config.json": GENERATION,
        "preprocessor_config.json": PREPROCESSOR,
        "processor_config.json": PROCESSOR,
        "chat_template.json": {"chat_template": standin.read_text()},
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=2))
    _save_weights(folder)


def _save_tokenizer(folder: Path) -> None:
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors

    pattern = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    vocab, merges = _vocabulary()
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in _special_tokens()])
    bos = NAMED[BASE]
    adds_bos = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos}:1 $B:1", special_tokens=[(bos, BASE)]
    )
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), adds_bos])
    assert tokenizer.get_vocab_size() == VOCAB
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(TOKENIZER, indent=2))


def _special_tokens() -> list[str]:
    reserved = (f"<|reserved_special_token_{number}|>" for number in itertools.count())
    return [NAMED.get(id_) or next(reserved) for id_ in range(BASE, VOCAB)]


def _vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """All bytes, then words of two, three and four letters, with and without a space before them."""
    from tokenizers.pre_tokenizers import ByteLevel

    vocab = {sign: id_ for id_, sign in enumerate(sorted(ByteLevel.alphabet()))}
    merges: list[tuple[str, str]] = []
    shorter = ["Ġ", *string.ascii_letters]
    while len(vocab) < BASE:
        longer: list[str] = []
        for left, right in itertools.product(shorter, string.ascii_lowercase):
            if len(vocab) < BASE:
                merges.append((left, right))
                vocab[left + right] = len(vocab)
                longer.append(left + right)
        shorter = longer
    return vocab, merges


def _save_weights(folder: Path) -> None:
    import torch
    from safetensors.torch import save_file
    from transformers import AutoConfig, LlavaForConditionalGeneration

    from tools.standin.build_model import _hub_key

    torch.manual_seed(20_240_726)
    config = AutoConfig.from_pretrained(folder)
    with torch.device("meta"):
        shapes = {
            _hub_key(key): value.shape for key, value in LlavaForConditionalGeneration(config).state_dict().items()
        }
    index: dict[str, str] = {}
    for file, in_file in ((TOWER_BYTES, False), (TEXT_BYTES, True)):
        names = [name for name in shapes if name.startswith("language_model.") is in_file]
        dtype = torch.bfloat16 if in_file else torch.float32
        save_file({name: _weight(name, shapes[name], dtype) for name in names}, folder / file, {"format": "pt"})
        index |= dict.fromkeys(names, file)
    total = sum((folder / file).stat().st_size for file in (TOWER_BYTES, TEXT_BYTES))
    listing = {"metadata": {"total_size": total}, "weight_map": index}
    (folder / "model.safetensors.index.json").write_text(json.dumps(listing, indent=2))


def _weight(name: str, shape, dtype):
    """Norms start at one, biases at zero; of the rest the variance keeps activations near one."""
    import torch

    if name.endswith("norm.weight") or "layer_norm" in name or "layernorm" in name:
        return torch.ones(shape, dtype=dtype) if name.endswith("weight") else torch.zeros(shape, dtype=dtype)
    if name.endswith("bias"):
        return torch.zeros(shape, dtype=dtype)
    weight = torch.empty(shape, dtype=dtype).normal_(std=0.02)
    if name == "language_model.lm_head.weight":
        weight[LOUD] *= LOUDNESS
    return weight


def _questions():
    """(pixels, prompt): two prompts for each of three images."""
    from pipeline.config import ImagesConfig
    from pipeline.images import decode
    from pipeline.standin.draw_picture import encode, render
    from pipeline.standin.world import sample_scene

    rng = random.Random(7)
    files = [encode(render(sample_scene(rng), rng.getrandbits(40), (500, 300)), "png") for _ in range(3)]
    pixels = [decode(data, ImagesConfig(), (384, 384)).pixels for data in files]
    return list(itertools.product(pixels, ("Write a long descriptive caption for this image.", "Write a tag list.")))


SYSTEM = "You are a helpful image captioner."


def answers_of_vllm(folder: Path) -> list[dict]:
    """The engine of JoyFleet, with the ids that its text is made from."""
    from pipeline.config import EngineConfig, ModelConfig, SamplingConfig
    from pipeline.engines import EngineRequest, EngineSpec, start_engine
    from pipeline.models import FAMILIES
    from pipeline.recipe import find_weights

    weights = find_weights(ModelConfig(id=str(folder), generation="beta-one"))
    spec = EngineSpec(
        config=EngineConfig(dtype=DTYPE, max_model_len=1024, max_num_seqs=8),
        sampling=SamplingConfig(temperature=0, stop_loops=False),
        max_tokens=NEW_TOKENS,
        model_path=weights.path,
        revision=None,
        family="joycaption",
        geometry=FAMILIES["joycaption"].geometry_of(weights.stated),
    )
    engine = start_engine(spec)

    async def ask() -> list[dict]:
        result = []
        for number, (pixels, prompt) in enumerate(_questions()):
            request = EngineRequest(
                id=str(number), pixels=pixels, image_id=str(number // 2), system=SYSTEM, prompt=prompt, seed=None
            )
            ids = engine._tokens.encode(SYSTEM, prompt)
            completion = (await engine._generate(request, ids)).outputs[0]
            response = await engine.answer(EngineRequest(**{**_fields(request), "id": f"{number}#text"}))
            result.append(
                {
                    "prompt": list(ids),
                    "prompt_tokens": response.prompt_tokens,
                    "ids": list(completion.token_ids),
                    "finish_reason": completion.finish_reason,
                    "text": response.text,
                }
            )
        return result

    try:
        return asyncio.run(ask())
    finally:
        engine.close()


def _fields(request) -> dict:
    return {name: getattr(request, name) for name in type(request).__slots__}


def answers_of_transformers(folder: Path) -> list[dict]:
    import torch
    from PIL import Image
    from transformers import AutoProcessor, LlavaForConditionalGeneration

    processor = AutoProcessor.from_pretrained(folder)
    model = LlavaForConditionalGeneration.from_pretrained(folder, dtype=getattr(torch, DTYPE)).eval()
    result = []
    for pixels, prompt in _questions():
        turns = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": prompt}]
        text = processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        inputs = processor(text=[text], images=[Image.fromarray(pixels)], return_tensors="pt")
        with torch.inference_mode():
            made = model.generate(
                **inputs,
                max_new_tokens=NEW_TOKENS,
                do_sample=False,
                temperature=None,
                top_p=None,
                output_logits=True,
                return_dict_in_generate=True,
            )
        top = torch.stack(made.logits)[:, 0].topk(2).values
        asked = inputs["input_ids"][0].tolist()
        ids = made.sequences[0, len(asked) :].tolist()
        result.append(
            {
                "prompt": asked,
                "ids": ids,
                "margin": float((top[:, 0] - top[:, 1]).min()),
                "text": processor.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False),
                "rope": model.config.text_config.rope_parameters,
            }
        )
    return result


def main() -> None:
    what, folder = sys.argv[1], Path(sys.argv[2])
    if what == "build":
        build(folder)
    else:
        answers = answers_of_vllm if what == "vllm" else answers_of_transformers
        print(json.dumps(answers(folder)))


if __name__ == "__main__":
    main()
