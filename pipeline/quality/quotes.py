"""Where a text quotes: writing in a picture, names, titles."""

import re

QUOTED = re.compile(
    r"\"[^\"\n]{0,300}\"|“[^”\n]{0,300}”|‘[^’\n]{0,300}’|「[^」\n]{0,300}」|『[^』\n]{0,300}』|«[^»\n]{0,300}»"
)
"""A quotation with its marks."""
