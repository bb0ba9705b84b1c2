"""A small language model whose answer to a prompt is known: the text behind the first colon, up to its first full stop.

Its weights are computed, not learned, so that every answer can be checked and no file of it is in the repository. It is
a Llama of two layers with 2.8 million numbers, and vLLM and transformers load it like any other:

- Each token has a code of 40 signs; the codes differ in at least a quarter of their signs.
- In layer 1, head d attends to the token d places before, by RoPE alone: queries and keys are biases. It writes the
  code of that token into a place of its own, so that a token knows the four before it.
- In layer 2, one head looks for the place behind an earlier token like the current one, best with the same tokens
  before it, and copies the code of the token there to the output.
- The mark of the assistant's turn has the code of a colon, so that the answer begins with the token behind the colon.
- A full stop is followed by the end token. The end of the user's turn is the end token too: a text without a full stop
  is copied whole.

What is copied must not have the same five tokens twice with different tokens after them.
"""

import json
import shutil
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

import pipeline

STANDIN = Path(pipeline.__file__).parent / "standin/model"
"""Its tokenizer is used: English captions in one token for most words."""

CODE = 40
BEFORE = 4
HIDDEN, HEAD, HEADS, MLP = 256, 256, 4, 32
HALF = HEAD // 2
COPIED = CODE * (BEFORE + 1)
STOPS = COPIED + CODE
"""Places in the hidden state: the token's code, those of the tokens before it, the copied code, and a flag for `.`."""

ROPE_THETA = 1e12
NEAR = range(21)
"""Pairs of dimensions that turn fast enough to tell neighbouring places apart."""
FAR = [*range(44, HALF), *range(HALF + 44, HEAD)]
"""Dimensions that turn by less than 0.08 rad within 1,000 tokens."""

ASSISTANT, END = "<|end_header_id|>", "<|eot_id|>"
TEMPLATE = """{{- bos_token -}}
{%- for message in messages -%}
<|start_header_id|>{{ message['role'] }}
{{ message['content'] | trim }}<|eot_id|>
{%- endfor -%}
{%- if add_generation_prompt -%}<|start_header_id|>assistant<|end_header_id|>{%- endif -%}
"""


def answer_to(prompt: str) -> str:
    """Return what the model answers to a prompt with one colon."""
    text, stop, _ = prompt.partition(":")[2].partition(".")
    return (text + stop).strip()


def build(folder: Path) -> Path:
    """Write the model's files into a folder and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(STANDIN / "tokenizer.json", folder)
    tokenizer = json.loads((STANDIN / "tokenizer.json").read_text())
    vocabulary: dict[str, int] = tokenizer["model"]["vocab"]
    names = {"bos_token": "<|begin_of_text|>", "eos_token": END, "pad_token": "<|finetune_right_pad_id|>"}
    save_file(_weights(vocabulary, {token["content"] for token in tokenizer["added_tokens"]}), folder / WEIGHTS)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    _write(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", **names, **TOKENIZER})
    ids = {f"{name}_id": vocabulary[token] for name, token in names.items()}
    _write(folder / "config.json", {**CONFIG, **ids, "vocab_size": len(vocabulary)})
    _write(folder / "generation_config.json", {**ids, "do_sample": False})
    return folder


WEIGHTS = "model.safetensors"
TOKENIZER = {"clean_up_tokenization_spaces": False, "model_max_length": 4096}
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": True,
    "dtype": "float32",
    "head_dim": HEAD,
    "hidden_act": "silu",
    "hidden_size": HIDDEN,
    "intermediate_size": MLP,
    "max_position_embeddings": 4096,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": HEADS,
    "num_hidden_layers": 2,
    "num_key_value_heads": HEADS,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_theta": ROPE_THETA, "rope_type": "default"},
    "tie_word_embeddings": False,
}


def _write(file: Path, content: dict) -> None:
    file.write_text(json.dumps(content, indent=1))


def _codes(number: int) -> np.ndarray:
    """Vectors of signs of which no two agree in more than three quarters."""
    rng = np.random.default_rng(1)
    codes = np.zeros((0, CODE), np.float32)
    while len(codes) < number:
        code = rng.choice(np.array([-1, 1], np.float32), CODE)
        if not len(codes) or (codes @ code).max() <= CODE / 2:
            codes = np.vstack([codes, code])
    return codes


def _weights(vocabulary: dict[str, int], special: set[str]) -> dict[str, np.ndarray]:
    codes = _codes(len(vocabulary))
    codes[vocabulary[ASSISTANT]] = codes[vocabulary[":"]]
    embedding = np.zeros((len(vocabulary), HIDDEN), np.float32)
    embedding[:, :CODE] = codes
    embedding[vocabulary["."], STOPS] = 1
    head = np.zeros_like(embedding)
    head[:, COPIED : COPIED + CODE] = 2.5 * codes
    head[[vocabulary[token] for token in special if token != END]] = 0
    head[vocabulary[END], STOPS] = 200
    known = (1, BEFORE + 1, BEFORE + 2)  # codes in the hidden state before each layer, and before the head
    norms = [np.full(HIDDEN, (number * CODE / HIDDEN) ** 0.5, np.float32) for number in known]
    weights = {"model.embed_tokens.weight": embedding, "lm_head.weight": head, "model.norm.weight": norms[2]}
    for number, attention in enumerate((_before(), _copying())):
        layer = f"model.layers.{number}"
        weights |= {f"{layer}.self_attn.{name}": value for name, value in attention.items()}
        weights[f"{layer}.input_layernorm.weight"] = norms[number]
        weights[f"{layer}.post_attention_layernorm.weight"] = np.ones(HIDDEN, np.float32)
        for name, shape in (("gate_proj", (MLP, HIDDEN)), ("up_proj", (MLP, HIDDEN)), ("down_proj", (HIDDEN, MLP))):
            weights[f"{layer}.mlp.{name}.weight"] = np.zeros(shape, np.float32)
    return weights


def _nothing() -> dict[str, np.ndarray]:
    shapes = dict.fromkeys(("q_proj", "k_proj", "v_proj"), (HEADS * HEAD, HIDDEN)) | {"o_proj": (HIDDEN, HEADS * HEAD)}
    weights = {f"{name}.weight": np.zeros(shape, np.float32) for name, shape in shapes.items()}
    return weights | {f"{name}.bias": np.zeros(shape[0], np.float32) for name, shape in shapes.items()}


def _before() -> dict[str, np.ndarray]:
    """Head d attends to the token d + 1 places before, and writes its code."""
    weights = _nothing()
    for head in range(HEADS):
        start = head * HEAD
        for pair in NEAR:
            angle = (head + 1) * ROPE_THETA ** (-pair / HALF)
            weights["q_proj.bias"][start + pair] = 20 * np.cos(angle)
            weights["q_proj.bias"][start + HALF + pair] = -20 * np.sin(angle)
            weights["k_proj.bias"][start + pair] = 20
        for place in range(CODE):
            weights["v_proj.weight"][start + place, place] = 1
            weights["o_proj.weight"][(head + 1) * CODE + place, start + place] = 1
    return weights


def _copying() -> dict[str, np.ndarray]:
    """Head 0 compares a token and those before it with the tokens before each place, and copies the best one's code."""
    weights = _nothing()
    for index in range(BEFORE * CODE):
        number, place = divmod(index, CODE)
        scale = (24 * (1, 0.6, 0.4, 0.3)[number]) ** 0.5
        weights["q_proj.weight"][FAR[index], number * CODE + place] = scale
        weights["k_proj.weight"][FAR[index], (number + 1) * CODE + place] = scale
    for place in range(CODE):
        weights["v_proj.weight"][place, place] = 1
        weights["o_proj.weight"][COPIED + place, place] = 1
    return weights
