"""List the documents, and the code blocks and commands in them."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, *languages: str) -> list[tuple[str, str]]:
    """Return the code blocks in these languages as pairs of language and content."""
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"```({'|'.join(languages)})\n(.*?)```", text, flags=re.DOTALL)


def commands(text: str) -> list[str]:
    """Return the lines that start with `gopro`, continued lines joined."""
    lines = text.replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip().startswith("gopro ")]
