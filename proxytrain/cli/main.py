"""Verbs to functions, nothing else. `proxytrain VERB [overrides]`, the same as `python -m proxytrain VERB ...`.

Exit codes: 0 done; 1 some runs failed or the answer is a refusal; 2 the request is wrong (one line); 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from typing import NoReturn

from proxytrain.cli.verbs import VERBS
from proxytrain.errors import Refusal, RequestError, did_you_mean

DASHES = "-–—−"


def main(argv: list[str] | None = None) -> int:
    """Run one verb; every way to go wrong ends in a line and an exit code."""
    try:
        return _run(sys.argv[1:] if argv is None else argv)
    except BrokenPipeError:  # `proxytrain plan | head`
        sys.stderr.close()
        return 0


def _run(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0 if argv else 2
    if argv[0] == "--version":
        from importlib.metadata import version

        print(version("proxytrain"))
        return 0
    if argv[0] not in VERBS:
        print(f"{argv[0]}: no such verb; there are {', '.join(VERBS)}{did_you_mean(argv[0], VERBS)}", file=sys.stderr)
        return 2
    try:
        options = _options(argv[0], argv[1:])
    except RequestError as error:
        print(f"proxytrain {argv[0]}: {error}", file=sys.stderr)
        return 2
    try:
        _twice(options)
        if options.cfg:
            return _print_config(options)
        return VERBS[argv[0]].run(options)
    except (RequestError, Refusal, OSError) as error:
        if options.debug or isinstance(error, BrokenPipeError):
            raise
        return _told(argv[0], options, error)
    except KeyboardInterrupt:
        if options.debug:
            raise
        print("interrupted; the same command goes on", file=sys.stderr)
        return 130


def _told(verb: str, options: argparse.Namespace, error: Exception) -> int:
    """Say what is wrong in one line; a refusal is an answer, so it is one in JSON too."""
    if isinstance(error, Refusal):
        if getattr(options, "json", False) and not options.answered:
            print(json.dumps({"refused": str(error)}))
        print(f"no answer: {error}", file=sys.stderr)
        return 1
    if isinstance(error, OSError):
        print(f"proxytrain {verb}: {error.filename or 'output'}: {error.strerror}", file=sys.stderr)
    else:
        print(f"proxytrain {verb}: {error}", file=sys.stderr)
    return 2


def _print_config(options: argparse.Namespace) -> int:
    from omegaconf import OmegaConf

    from proxytrain.config.compose import compose

    print(OmegaConf.to_yaml(compose(options.overrides, options.config_dir)), end="")
    return 0


def _twice(options: argparse.Namespace) -> None:
    """Report keys that are typed twice; what was typed last counts."""
    from proxytrain.config.overrides import twice

    for line in () if options.quiet else twice(options.overrides):
        print(f"note: {line}", file=sys.stderr)


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, as all others here."""

    def error(self, message: str) -> NoReturn:
        text = re.sub("^unrecognized arguments: (.*)", r"\1: no such flag", message)
        raise RequestError(f"{text}. `{self.prog} --help` lists flags and keys.")


def _options(name: str, argv: list[str]) -> argparse.Namespace:
    """Return flags and overrides, in any order.

    Raises
    ------
    RequestError
        For an unknown flag, and for a key that was typed as a flag.
    """
    parser = _Parser(
        prog=f"proxytrain {name}",
        description=VERBS[name].text,
        epilog=(_laws() if name == "fit" else "") + _keys(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="Hydra overrides, such as model.width=64")
    parser.add_argument("--config-dir", metavar="DIR", help="a folder of yours laid out like conf/, searched too")
    parser.add_argument("--cfg", choices=["job"], help="print the composed configuration and leave")
    parser.add_argument("--quiet", action="store_true", help="answers only, no progress")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    for names, how in VERBS[name].flags:
        parser.add_argument(*names, **how)
    parser.set_defaults(answered=False)
    _check_dashes(parser, argv)
    return parser.parse_intermixed_args(argv)


def _check_dashes(parser: argparse.ArgumentParser, argv: list[str]) -> None:
    """Refuse keys with dashes before them (--lr=0.1), and flags with a typographic dash."""
    if not any(a[:1] in DASHES for a in argv if a):
        return
    from proxytrain.config.schema import Config
    from proxytrain.config.shell import dashed

    groups = {"experiment", *Config.__struct_fields__}
    flags = {flag for action in parser._actions for flag in action.option_strings}
    for argument, following in zip(argv, [*argv[1:], ""]):
        if line := dashed(argument, following, groups, flags):
            raise RequestError(line)


def _overview() -> str:
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {name:{width}}  {text}" for name, (text, *_) in VERBS.items())
    return (
        "proxytrain VERB [KEY=VALUE ...]: predict the loss of a large language model from a grid of tiny ones\n\n"
        f"{verbs}\n\nStart with:  proxytrain sweep experiment=quickstart\n"
        "proxytrain VERB --help shows flags, groups and keys with their defaults."
    )


def _laws() -> str:
    from proxytrain.fit.losses.laws import law_lines

    return f"laws (fit.law=NAME):\n{law_lines()}\n\n"


def _keys() -> str:
    """Groups with their options, and the documented keys of `conf/config.yaml`."""
    from proxytrain.config.compose import conf_dir

    groups = []
    for folder in sorted(p for p in conf_dir().iterdir() if p.is_dir()):
        groups.append(f"  {folder.name}=" + "|".join(sorted(p.stem for p in folder.glob("*.yaml"))))
    keys = (conf_dir() / "config.yaml").read_text().partition("scale: cpu\n")[2]
    return "groups (keys of each: conf/GROUP/OPTION.yaml, or --cfg job):\n" + "\n".join(groups) + f"\n\nkeys:\n{keys}"
