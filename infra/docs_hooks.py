"""MkDocs hooks: files of the repository's root become pages, and links follow them.

The pages are written for a reader of the repository: their links are relative to it. The site has no page for a
source file, so a link to one becomes its text. A link to a file that does not exist ends the build.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
ROOT_PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""File of the root to page of the site."""

_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#\s]+)((?:#[^)\s]*)?)\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages whose files are not below docs/."""
    for name, page in ROOT_PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / name).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Translate links between files of the repository into links between pages of the site."""
    del config, files
    source = page.file.src_uri
    origin = next((name for name, target in ROOT_PAGES.items() if target == source), f"docs/{source}")

    def translate(match: re.Match[str]) -> str:
        image, text, target, anchor = match.groups()
        if "://" in target:
            return match[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(origin), target))
        if path in ROOT_PAGES:
            return f"{image}[{text}]({ROOT_PAGES[path]}{anchor})"
        if path.startswith("docs/"):
            return f"{image}[{text}]({path.removeprefix('docs/')}{anchor})"
        if not (ROOT / path).exists():
            raise PluginError(f"{origin}: links to {target}, which does not exist in the repository; correct the link")
        return text

    return _LINK.sub(translate, markdown)
