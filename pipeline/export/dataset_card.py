"""Writes the card of a Hugging Face data set: the head lists the files of each split, the body is for people."""

import yaml

from pipeline.export.form import Finished

SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
LARGEST = "1M<n<10M"


def write_card(finished: Finished) -> None:
    """Write README.md of a folder that has `data/<split>/...parquet`; an earlier one is replaced."""
    splits = sorted({entry.path.split("/")[1] for entry in finished.store.list("data")})
    head = {
        "configs": [
            {
                "config_name": "default",
                "data_files": [{"split": split, "path": f"data/{split}/**/*.parquet"} for split in splits],
            }
        ],
        "tags": ["joyfleet", "joycaption", "image-captioning"],
        "size_categories": [next((name for most, name in SIZES if finished.num_images < most), LARGEST)],
    }
    options = yaml.safe_dump(finished.config.model_dump(mode="json", exclude_defaults=True), allow_unicode=True).strip()
    listed = "\n".join(f"- `{column}`" for column in finished.columns.split(", "))
    body = f"""
# Captions by JoyCaption

{finished.num_images:,} images with captions, made with [JoyCaption](https://github.com/fpgaminer/joycaption)
by JoyFleet, recipe `{finished.recipe}`. Terms of use are those of the images' source; add them to this card.

```python
from datasets import load_dataset

dataset = load_dataset("this/repository")
```

Columns:

{listed}

Exported with:

```yaml
{options}
```
"""
    text = f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n{body}"
    finished.store.put("README.md", text.encode())
