"""docs/commands.md agrees with the help of the command line."""

from tools.commands import COMMANDS, commands_page


def test_the_commands_page_is_up_to_date() -> None:
    assert COMMANDS.read_text(encoding="utf-8") == commands_page(), "out of date: run python -m tools.commands"
