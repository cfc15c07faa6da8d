"""docs/commands.md: every command with its help, as the command line itself has it.

python -m tools.commands
"""

from __future__ import annotations

import re
from pathlib import Path

from gopro.cli import app

COMMANDS = Path(__file__).resolve().parents[1] / "docs" / "commands.md"

HEAD = """# Every command

What `gopro COMMAND --help` says; `python -m tools.commands` makes this page of it.

"""


def commands_page() -> str:
    """The page's text."""
    text = app.generate_docs(usage_name="gopro")
    text = re.sub(r" -m [\w.]+(?= )", "", text)  # usage lines have what Python was started with
    text = re.sub(r"(?<=\S)\n[ \t]+(?=[^\s*-])", " ", text)  # an option is one line
    return HEAD + text[text.index("\n## gopro ") + 1 :].rstrip() + "\n"


if __name__ == "__main__":
    COMMANDS.write_text(commands_page(), encoding="utf-8")
