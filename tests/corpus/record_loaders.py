"""Runs the public loaders on exported rows, counts their malformed texts, and records a few of their texts.

    python -m tests.corpus.record_loaders FOLDER

FOLDER has checkouts of three repositories of KohakuBlueleaf: UwULLM (the TIPO v1 trainer), KohakUwULLM (v2) and
HakuPhi (DanTagGen). Their code is not part of this repository: `public_loaders.json` holds rows that `export-corpus`
made, the texts that the loaders made of them, and token ids and labels of their tokenising code.
`test_export_corpus.py` compares both with today's export. The folder may hold only the files that `load` imports.
"""

import copy
import importlib
import json
import random
import sys
import types
from collections import Counter
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from pipeline.config import Preset, RenderConfig
from pipeline.corpus.export.forms import dantaggen, tipo_v1, tipo_v2
from pipeline.corpus.text.render_texts import render_table
from pipeline.corpus.text.text_grammar import parse_text, profile_of
from pipeline.errors import BadText
from tests.corpus.records import draw_records
from tests.corpus.tiny_tokenizer import SPECIAL

RECORDED = Path(__file__).with_name("public_loaders.json")
COMMITS = {
    "UwULLM": "bd122d825480891424a3f7fd68b12792cb1ca8e0",
    "KohakUwULLM": "b9391074ac5e7b0fdd9209a0fe8de153f817e1e8",
    "HakuPhi": "e1d1c08acfb818f142bc3ff297c6bc8d01eb43da",
}
NUM_RECORDS, NUM_RECORDED, TEXTS_A_ROW, NUM_TEXTS, CONTEXT = 6000, 6, 6, 24, 256

PRESETS = {"tipo-v1": Preset.TIPO_V1, "tipo-v2": Preset.TIPO_V2, "dantaggen": Preset.DANTAGGEN}


def exported(num: int = NUM_RECORDS) -> dict[str, list[dict]]:
    """Return the rows of each file of the three exports of drawn records."""
    files: dict[str, list[dict]] = {}
    for module in (tipo_v1, tipo_v2, dantaggen):
        for name, table in module.convert(draw_records(num), Counter()).items():
            files[f"{module.FORM.name}/{name}"] = table.to_pylist()
    return files


def defect_of(name: str, text: str, fault: str) -> str | None:
    """Return which known defect a fault is: the renderers show them for any record; see docs/corpus.md."""
    if name.startswith("tipo-v1/danbooru") and text.startswith("\n"):
        return "an empty first line"
    if name.startswith("tipo-v1/danbooru") and (": too_many_tags: " in fault or ": length: " in fault):
        return "a first tag that is not counted"
    if name == "tipo-v2/" and "\ntag: , " in f"\n{text}":
        return "an empty first tag"
    if name == "tipo-v2/" and ": gen_meta: " in fault:
        return "gen_meta with nothing to predict"
    return None


def checked(name: str, text: str) -> tuple[str | None, bool]:
    """Return what the strict grammar finds in a text, and whether it is a known defect of the renderer."""
    profile = profile_of(RenderConfig(preset=PRESETS[name.partition("/")[0]]))
    try:
        parse_text(text, profile)
    except BadText as err:
        defect = defect_of(name, text, str(err))
        return defect or str(err), defect is not None
    return None, False


def load(folder: Path) -> dict[str, object]:
    """Return the renderer of each file, and the tokenising functions of both trainers."""
    sys.path[:0] = [str(folder / "UwULLM/src"), str(folder / "KohakUwULLM/src"), str(folder / "HakuPhi")]
    # Of the v2 trainer only the renderer and the tokenising are wanted, not the models that its package registers.
    for name in ("kohakuwullm", "kohakuwullm.data", "kohakuwullm.data.renderers", "kohakuwullm.models.components"):
        package = types.ModuleType(name)
        package.__path__ = [str(folder / "KohakUwULLM/src" / name.replace(".", "/"))]
        sys.modules[name] = package
    sys.modules["kohakuwullm.models"] = types.ModuleType("kohakuwullm.models")
    registry = types.ModuleType("kohakuwullm.registry")
    registry.RENDERER = types.SimpleNamespace(register=lambda _name: lambda kind: kind)
    sys.modules["kohakuwullm.registry"] = registry
    v1, base = importlib.import_module("dataset.tipo"), importlib.import_module("uwul.data.base")
    renderer = importlib.import_module("kohakuwullm.data.renderers.tipo").TIPORenderer()
    packing = importlib.import_module("kohakuwullm.data.packing")
    haku = importlib.import_module("data.dan_prompt")
    v1_files = {f"tipo-v1/{name}": v1.TIPODatasetFactory.generate_prompt for name in tipo_v1.ROWS}
    return {
        "render": {**v1_files, "tipo-v2/": renderer, "dantaggen/captions.jsonl": haku.generate_prompt},
        "whole": base.BaseFactory,
        "halves": packing.encode_sample,
    }


def check(render: dict, files: dict[str, list[dict]]) -> dict[str, list[dict]]:
    """Render every row, print what was found, and return a few rows with their texts."""
    kept: dict[str, list[dict]] = {}
    for name, rows in files.items():
        results: Counter[str] = Counter()
        kept[name] = []
        for number, row in enumerate(rows):
            random.seed(number)
            texts = ["".join(render[name](copy.deepcopy(row))) for _ in range(TEXTS_A_ROW)]
            for text in texts:
                fault, known = checked(name, text)
                results[fault or "no fault"] += 1
                if fault and not known:
                    print(name, fault, repr(text[:200]))
            if number < NUM_RECORDED:
                kept[name].append({"row": row, "texts": texts})
        print(f"{name}: {len(rows)} rows, {dict(results)}")
    return kept


def tokenised(loaded: dict) -> dict:
    """Return a tokenizer, and texts with the ids and labels that both trainers make of them."""
    records = draw_records(NUM_TEXTS)
    rows = render_table(records, RenderConfig(), epoch=0, seed=1, splits=["train"] * NUM_TEXTS).rows
    rows = rows.select(["user", "output", "loss"]).to_pylist()
    # As Llama's tokenizer, it puts a blank before a text, so that half a text alone has other tokens.
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    alphabet = sorted({letter for row in rows for letter in row["user"] + row["output"]})
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([row["user"] + row["output"] for row in rows], trainer)
    plain = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    bos, eos = plain.bos_token_id, plain.eos_token_id
    assert plain.convert_ids_to_tokens([bos, eos]) == SPECIAL[:2]

    def with_bos(prompt: str, *, max_length: int, **_: object) -> dict:
        # As Llama's tokenizer, which v1 uses: BOS first, then cut.
        ids = [bos, *plain(prompt, add_special_tokens=False)["input_ids"]][:max_length]
        return {"input_ids": ids, "attention_mask": [1] * len(ids)}

    with_bos.eos_token_id = eos
    results = []
    for row in rows:
        pair = (row["user"], row["output"]) if row["loss"] == "output" else ("", row["user"] + row["output"])
        factory = type("Given", (loaded["whole"],), {"generate_prompt": classmethod(lambda _, data: data)})
        whole = factory.processor(with_bos, cutoff_len=CONTEXT, padding=False)(pair)
        halves = loaded["halves"](plain, pair, CONTEXT)
        results.append({
            **row,
            "whole": {name: torch.as_tensor(whole[name]).tolist() for name in ("input_ids", "labels")},
            "halves": halves,
        })  # fmt: skip
    return {"tokenizer": json.loads(tokenizer.to_str()), "texts": results}


def main() -> None:
    """Check the loaders and write RECORDED."""
    loaded = load(Path(sys.argv[1]))
    kept = check(loaded["render"], exported())
    recorded = {"source": {f"KohakuBlueleaf/{name}": commit for name, commit in COMMITS.items()}, "files": kept}
    RECORDED.write_text(json.dumps({**recorded, "tokens": tokenised(loaded)}, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
