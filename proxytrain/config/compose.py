"""Hydra's part: `conf/` and overrides to one plain tree, composed once per verb, never once per run."""

from __future__ import annotations

import copy
import functools
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from proxytrain.config.overrides import FREE, given, leaves, parsed, quoted, read
from proxytrain.config.scale import enlarged
from proxytrain.errors import RequestError, did_you_mean

Tree = dict[str, Any]


def conf_dir() -> Path:
    """`conf/`: inside the package where it was installed from a wheel, beside it in a checkout."""
    here = Path(__file__).resolve().parents[1]
    for folder in (here / "conf", here.parent / "conf"):
        if (folder / "config.yaml").is_file():
            return folder
    raise RequestError(f"{here / 'conf'}: the configuration files are missing; install proxytrain again")


def compose(overrides: list[str], config_dir: str | None = None) -> Tree:
    """The composed config tree, interpolations resolved, the files' sizes times the factors of `scale`.

    Raises
    ------
    RequestError
        One line for a misspelt key, an unknown option of a group, a broken file or override, an impossible scale.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    extra = []
    if config_dir is not None:
        if not Path(config_dir).is_dir():
            raise RequestError(f"--config-dir {config_dir}: no such folder")
        for mine in Path(config_dir).glob("*/*.yaml"):
            name = mine.relative_to(config_dir)
            if (conf_dir() / name).is_file() and not mine.samefile(conf_dir() / name):
                raise RequestError(f"--config-dir {config_dir}: {name} is the name of one of ours, rename it")
        extra = [f"hydra.searchpath=[{quoted(f'file://{Path(config_dir).resolve()}')}]"]
    overrides = read(overrides)
    for chosen in _groups_chosen(overrides):
        group, _, option = chosen.partition("=")
        value = parsed(chosen).value()  # a mapping sets keys of the group that stands
        if not isinstance(value, str | dict) or not option.strip():  # of which Hydra makes a traceback
            known = ", ".join(sorted(path.stem for path in (conf_dir() / group).glob("*.yaml")))
            raise RequestError(f"{group}={option}: a group is chosen by name; allowed are {known}")
    outer = GlobalHydra.instance().hydra  # `train -m` composes within a job of Hydra's
    GlobalHydra.instance().clear()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The version_base parameter is deprecated")  # in 1.4; 1.3 asks for it
            search = initialize_config_dir(str(conf_dir()), version_base="1.3")
        with search:
            config = hydra_compose("config", overrides=[*extra, *(o for o in overrides if not _is_free(o))])
            tree: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
        tree = enlarged(tree, given(overrides))
        _set_free(tree, filter(_is_free, overrides))
    except (HydraException, OmegaConfBaseException, YAMLError, UnicodeDecodeError) as error:
        raise RequestError(_one_line(error, overrides)) from error
    finally:
        GlobalHydra.instance().hydra = outer
    return dict(tree)


def experiments() -> list[str]:
    """Return the names that `experiment=` takes."""
    return sorted(path.stem for path in (conf_dir() / "experiment").glob("*.yaml"))


def group_loader(overrides: list[str], config_dir: str | None = None) -> Callable[[str, str], Tree]:
    """(group, option) -> that group's tree when the option is chosen; each is composed once.

    What the overrides set in the group holds for every option that has the key.
    """

    @functools.cache
    def load(group: str, option: str) -> Tree:
        plain: Tree = compose([f"{group}={option}"], config_dir)[group]

        def fits(override: str) -> bool:
            key = override.partition("=")[0]
            return key != group and (not key.startswith(f"{group}.") or key.split(".")[1] in plain)

        mine: Tree = compose([*filter(fits, overrides), f"{group}={option}"], config_dir)[group]
        return {key: plain[key] if key == "name" else mine.get(key, value) for key, value in plain.items()}

    return load


def _one_line(error: Exception, overrides: list[str]) -> str:
    """Hydra's message as one line that says what is allowed."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = " ".join(lines)
    if match := re.search(r"Could not override '([^']+)'", text):
        return _unknown_key(match[1], compose(_groups_chosen(overrides)))
    if match := re.search(r"Could not find '([^']+)'", text):
        options = text.partition("Available options in")[2].partition(":")[2].partition("Config search path")[0].split()
        group, _, option = match[1].rpartition("/")
        return f"{group}={option}: unknown; allowed are {', '.join(options)}{did_you_mean(option, options)}"
    if match := re.search(r"item is already at '([^']+)'", text):
        return f"+{match[1]}: the key exists; leave out the +"
    if match := re.search(r"Ambiguous value for argument '([^=]+)=(.+?)' 1\.", text):
        key, values = match.groups()
        return (
            f"{key}={values}: one value is needed, or a list as {key}=[{values}]; an axis of a sweep stands in "
            f"sweep.grids=[{{{key}:[{values}]}}]"
        )
    return re.sub(r"\s*See https?://\S+.*", "", text)


def _is_free(override: str) -> bool:
    key = override.partition("=")[0].lstrip("+")
    return key in FREE or key.startswith(tuple(f"{name}." for name in FREE))


def _set_free(tree: Tree, overrides: Iterator[str]) -> None:
    """Keys of `FREE`: given whole they replace what was there, and below them any key may be set."""
    for override in overrides:
        reading = parsed(override)
        *path, last = reading.key_or_group.split(".")
        node = tree
        for part in path:
            node[part] = node.get(part) or {}
            node = node[part]
        node[last] = copy.deepcopy(reading.value())  # readings are kept


def _groups_chosen(overrides: list[str]) -> list[str]:
    """The overrides that choose a group's option."""
    groups = {p.name for p in conf_dir().iterdir() if p.is_dir()}
    return [o for o in overrides if o.partition("=")[0] in groups]


def _unknown_key(key: str, tree: Tree) -> str:
    keys = [k for k, _ in leaves(tree)]
    group, _, name = key.partition(".")
    files = sorted((conf_dir() / group).glob("*.yaml")) if name else []
    others = [f"{group}={p.stem}" for p in files if re.search(rf"^{re.escape(name)}:", p.read_text(), re.M)]
    if group != "experiment" and others:
        chosen = tree[group].get("name", "")
        return f"{key}: no such key with {group}={chosen}. It is a key of {', '.join(others)}."
    if hint := did_you_mean(key, keys):
        return f"{key}: no such key{hint}"
    parent = key.rpartition(".")[0]
    siblings = [k for k in keys if k.rpartition(".")[0] == parent] or [k for k in keys if "." not in k]
    return f"{key}: no such key; there are {', '.join(siblings)}"
