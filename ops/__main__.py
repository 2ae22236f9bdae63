"""The `python -m ops <command>` dispatcher: every module in `ops/commands` is a command."""

import ast
import importlib
import pkgutil
import sys
from pathlib import Path

from ops import commands

UNKNOWN_COMMAND = 2
INTERRUPTED = 130


def available() -> dict[str, str]:
    """Each command's name and its one line of help, read without importing the command."""
    folder = Path(next(iter(commands.__path__)))
    names = sorted(module.name for module in pkgutil.iter_modules([str(folder)]))
    return {name.replace("_", "-"): _first_line(folder, name) for name in names if not name.startswith("_")}


def _first_line(folder: Path, name: str) -> str:
    path = folder / f"{name}.py"
    if not path.exists():
        path = folder / name / "__init__.py"
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return docstring.partition("\n")[0]


def usage(known: dict[str, str]) -> str:
    width = max(map(len, known), default=0)
    lines = [f"  {name:<{width}}  {help_line}" for name, help_line in known.items()]
    return "\n".join(["usage: python -m ops <command> [arguments]", "", *lines])


def main(argv: list[str]) -> int:
    """Run the command named first in `argv` with the rest; 2 for a command that does not exist."""
    known = available()
    name = argv[0] if argv else ""
    if name in ("-h", "--help", "help"):
        print(usage(known))
        return 0
    if name not in known:
        problem = f"python -m ops: no command {name!r}\n" if name else ""
        print(problem + usage(known), file=sys.stderr)
        return UNKNOWN_COMMAND
    command = importlib.import_module(f"ops.commands.{name.replace('-', '_')}")
    code: int = command.main(argv[1:])
    return code


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
