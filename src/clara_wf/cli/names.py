"""Commands with more than one name, as the guide has them: ``list_stages | list | ls``."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup

#: Between the names of one command, in the help and where it is registered.
SEPARATOR = " | "


class Commands(TyperGroup):
    """A group whose commands answer to each of their names."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ANN401 - Typer keeps Click's types to itself
        """Find a command by any of its names."""
        for names in self.commands:
            if cmd_name == names or cmd_name in names.split(SEPARATOR):
                return super().get_command(ctx, names)
        return None

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401
        """Name each command once, by its first name: what completion offers."""
        return [names.split(SEPARATOR)[0] for names in super().list_commands(ctx)]
