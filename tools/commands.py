"""Write docs/commands.md, the help of every command.

python -m tools.commands
"""

from __future__ import annotations

import re
from pathlib import Path

from gopro.cli import app

COMMANDS = Path(__file__).resolve().parents[1] / "docs" / "commands.md"

HEAD = """# Every command

`python -m tools.commands` writes this page from the output of `gopro COMMAND --help`.

"""


def commands_page() -> str:
    """Return the text of the page."""
    text = app.generate_docs(usage_name="gopro")
    text = re.sub(r" -m [\w.]+(?= )", "", text)  # usage lines repeat the `python -m` command
    text = re.sub(r"(?<=\S)\n[ \t]+(?=[^\s*-])", " ", text)  # one line per option
    return HEAD + text[text.index("\n## gopro ") + 1 :].rstrip() + "\n"


if __name__ == "__main__":
    COMMANDS.write_text(commands_page(), encoding="utf-8")
