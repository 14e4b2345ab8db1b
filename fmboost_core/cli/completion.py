"""The command `completion`: a script by which a shell completes commands, options, models and files."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

from ..errors import MissingDependencyError

SHELLS = ("bash", "zsh", "fish")

_EXAMPLES = """a line for the shell's start file:
  bash  source <(fmboost completion bash)         in ~/.bashrc
  zsh   eval "$(fmboost completion zsh)"          in ~/.zshrc, behind compinit
  fish  fmboost completion fish | source          in ~/.config/fish/config.fish
"""

_FOLDERS = ("FOLDER", "DIR")
_FILES = ("FILE", "IN", "OUT", "SRC", "DST", "PLACE", "NAME|FILE", "MODEL")


def add_command(commands: Any) -> None:
    parser = commands.add_parser("completion", help="print a script by which a shell completes fmboost's words")
    parser.description = "Print a script by which a shell completes commands, options, names of models and files."
    parser.epilog, parser.formatter_class = _EXAMPLES, argparse.RawDescriptionHelpFormatter
    parser.add_argument("shell", choices=SHELLS, help="the shell that reads the script")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    from .app import make_parser

    try:
        import shtab
    except ImportError:
        raise MissingDependencyError("Completion needs the package shtab; install it (pip install shtab).") from None
    parser = make_parser()
    for action in _actions(parser):
        _say_what_completes(action, shtab)
    print(shtab.complete(parser, args.shell))


def _actions(parser: argparse.ArgumentParser) -> Iterator[Any]:
    """The arguments of a parser and of its commands."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in dict.fromkeys(action.choices.values()):
                yield from _actions(command)
        else:
            yield action


def _say_what_completes(action: Any, shtab: Any) -> None:
    """Set what shtab reads: names of models and codecs, files or folders, by the argument's own description."""
    from ..files.locate import bundled_models, upscale_model_names

    if action.dest in ("model", "models", "boosted"):
        action.complete = _name_or_file("model", bundled_models())
    elif action.dest in ("codec", "guide_codec"):
        action.complete = _name_or_file("codec", ["builtin"])
    elif action.metavar == "FILE|builtin|none":
        action.complete = _name_or_file("upscale_model_or_none", ["builtin", *upscale_model_names(), "none"])
    elif action.metavar == "builtin|FILE":
        action.complete = _name_or_file("upscale_model", ["builtin", *upscale_model_names()])
    elif action.metavar in _FOLDERS:
        action.complete = shtab.DIRECTORY
    elif action.metavar in _FILES or action.type is Path:
        action.complete = shtab.FILE


def _name_or_file(what: str, names: list[str]) -> dict[str, Any]:
    """What completes a name or a file in each shell, as shtab takes it: a function, and the function's text."""
    function, words = f"_fmboost_{what}_or_file", " ".join(names)
    bash = f"""
        {function}() {{
          compgen -W "{words}" -- "$1"
          compgen -f -- "$1"
        }}"""
    zsh = f"""
        {function}() {{
          compadd -- {words}
          _files
        }}"""
    fish = f"""
        function {function}
          printf '%s\\n' {words}
          __fish_complete_path (commandline -ct)
        end"""
    preamble = {"bash": dedent(bash), "zsh": dedent(zsh), "fish": dedent(fish)}
    return {"bash": function, "zsh": function, "fish": f"({function})", "preamble": preamble}
