"""A hook of mkdocs.yml that adds pages made from files outside docs/ and from the notebook, and adapts links.

Documents in the repository link to any file they mention. On the site, a link to a file with a page leads to that page,
and a link to any other file becomes plain text.
"""

from __future__ import annotations

import json
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "benchmarks/RESULTS.md": "measured.md",
    "docs/notebook.ipynb": "notebook.md",
}
"""The page of the site for each file of the repository."""

CODE_BLOCK = re.compile(r"(^```.*?^```$)", flags=re.DOTALL | re.MULTILINE)
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?!\w+:)([^)#\s]+)(#[^)]*|)\)")  # no image, no URL


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages made from files outside docs/."""
    for source, page in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        content = notebook_page(json.loads(text)) if source.endswith(".ipynb") else text
        files.append(File.generated(config, page, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Turn links between files of the repository into links between pages."""
    here = page.file.src_uri
    parts = CODE_BLOCK.split(markdown)
    parts[::2] = [LINK.sub(lambda match: relink(*match.groups(), here), part) for part in parts[::2]]
    return "".join(parts)


def relink(text: str, target: str, anchor: str, here: str) -> str:
    """Return the link that the page `here` needs for a link in its source file."""
    source = next((file for file, page in PAGES.items() if page == here), f"docs/{here}")
    file = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
    page = PAGES.get(file, file.removeprefix("docs/"))
    if file not in PAGES and page == file:
        return text
    return f"[{text}]({posixpath.relpath(page, posixpath.dirname(here) or '.')}{anchor})"


def notebook_page(notebook: dict[str, Any]) -> str:
    """Return a notebook with its outputs as Markdown."""
    return "\n\n".join(part for cell in notebook["cells"] for part in cell_parts(cell)) + "\n"


def cell_parts(cell: dict[str, Any]) -> list[str]:
    """Return the source of a cell and, for code, its printed text and images."""
    source = "".join(cell["source"])
    if cell["cell_type"] != "code":
        return [source]
    parts = [f"```python\n{source}\n```"]
    for output in cell["outputs"]:
        data = output.get("data", {})
        if "image/png" in data:
            parts.append(f"![](data:image/png;base64,{''.join(data['image/png']).strip()})")
        elif text := "".join(output.get("text", data.get("text/plain", ""))):
            parts.append(f"```text\n{text.rstrip()}\n```")
    return parts
