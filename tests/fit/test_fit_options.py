"""The options of the fit are the same in conf/, in FitConfig and in fit_losses."""

import inspect
from dataclasses import fields
from pathlib import Path

import yaml

from proxytrain.fit import LAWS, FitConfig, fit_losses

DEFAULT = Path(__file__).parents[2] / "conf" / "fit" / "default.yaml"


def test_conf_fitconfig_and_fit_losses_have_the_same_keys_and_defaults():
    conf = yaml.safe_load(DEFAULT.read_text())
    assert conf == {f.name: getattr(FitConfig(), f.name) for f in fields(FitConfig)}
    signature = inspect.signature(fit_losses).parameters
    for name, value in conf.items():
        assert signature[name].default == (value if name not in ("columns", "where") else None)


def test_every_law_says_what_its_parameters_mean_and_where_it_is_from():
    for law in LAWS.values():
        names = {t.amplitude for t in law.terms} | set(law.exponents)
        assert names == set(law.meaning)
        assert "arXiv" in law.source
