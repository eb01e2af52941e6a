"""A threshold rule with two parameters that lives outside the package: configs, training, inspection, the command."""

import importlib
import json
import sys
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from checkpoints import pictures, write_checkpoint, write_images
from commands import run_command, train
from documented import compose_command

from solder_vae.inspection.inspector import Inspector
from solder_vae.metrics.threshold import Fixed, Rule, fit_threshold, refit_rule
from solder_vae.threshold import run, usage
from solder_vae.utils.config import build
from solder_vae.utils.errors import UserError

MODULE = '''
from dataclasses import dataclass

import numpy as np

from solder_vae.metrics.threshold import Rule


@dataclass(frozen=True)
class Stretched(Rule, name="stretched"):
    """The median plus so many distances between the quantiles q and 1 - q.

    More than the help shows.
    """

    q: float = 0.75
    times: int = 3

    def __post_init__(self):
        self.check("q", "a number above 0.5", lambda q: q > 0.5)
        self.check("times")

    def cut(self, normals, labelled=None):
        low, middle, high = np.quantile(normals, [1 - self.q, 0.5, self.q])
        return middle + sum([high - low] * self.times)


def no_rule(q):
    return q
'''
CONFIG = "_target_: own_rules.Stretched\nq: 0.75\ntimes: 3\n"
NORMALS = np.random.default_rng(0).normal(size=101)


def stretched(scores, q, times):
    low, middle, high = np.sort(scores)[[round(100 * (1 - q)), 50, round(100 * q)]]  # of 101 scores: no interpolation
    return middle + times * (high - low)


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """A folder with the rule's module, importable, and ``conf/threshold/mine.yaml``."""
    (tmp_path / "own_rules.py").write_text(MODULE)
    (tmp_path / "conf" / "threshold").mkdir(parents=True)
    (tmp_path / "conf" / "threshold" / "mine.yaml").write_text(CONFIG)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(Rule, "registry", dict(Rule.registry))
    yield tmp_path
    sys.modules.pop("own_rules", None)


def composed(folder, *overrides):
    arguments = [f"hydra.searchpath=[file://{folder / 'conf'}]", "threshold=mine", *overrides]
    (config,) = compose_command("solder_vae.train", arguments)
    return config.threshold


def test_a_config_outside_the_package_names_it(outside):
    rule = build(composed(outside, "threshold.q=0.9", "threshold.times=2"))
    assert type(rule).__module__ == "own_rules"
    threshold = fit_threshold(NORMALS, rule)
    assert threshold.value == pytest.approx(stretched(NORMALS, 0.9, 2))
    assert (threshold.rule, threshold.params, threshold.n) == ("stretched", {"q": 0.9, "times": 2}, 101)
    assert refit_rule(rule, threshold, NORMALS * 5).value == pytest.approx(5 * threshold.value)


@pytest.mark.slow
@pytest.mark.measured
@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["threshold.q=0.3"], "The threshold rule stretched needs q=NUMBER, a number above 0.5, got 0.3."),
        (["threshold.times=null"], "The threshold rule stretched needs times=NUMBER, a number, got nothing."),
        (["+threshold.more=1"], "threshold.more.* is no option of own_rules.Stretched"),
    ],
)
def test_its_mistakes_are_sentences(overrides, message, outside):
    with pytest.raises(UserError, match=message):
        build(composed(outside, *overrides))


def test_a_rule_keeps_its_name_and_its_numbers(outside):
    own = importlib.import_module("own_rules")
    importlib.reload(own)  # the same rule once more
    assert Rule.registry["stretched"] is own.Stretched
    with pytest.raises(FrozenInstanceError):
        own.Stretched().q = 0.9
    with pytest.raises(UserError, match=r"own_rules both have a threshold rule stretched: rename one"):
        type("Other", (Rule,), {"cut": Fixed.cut}, name="stretched")


def test_a_rule_that_gives_no_number_is_named(outside):
    class Lost(Rule, name="lost"):
        def cut(self, normals, labelled=None):
            return float("nan")

    with pytest.raises(UserError, match="rule lost gave nan, which is no threshold"):
        fit_threshold(NORMALS, Lost())


@pytest.mark.slow
def test_the_command_reads_its_parameters_and_a_checkpoint_does_without_it(outside, tmp_path, monkeypatch, capsys):
    path, model = write_checkpoint(tmp_path / "best.ckpt")
    arguments = [f"checkpoint={path}", "rule=stretched", "q=0.8"]
    with pytest.raises(UserError, match="rule 'stretched' is unknown: use quantile, sigma"):
        run(arguments)
    with pytest.raises(SystemExit) as ended:
        run(["plugins=own_rules", "--help"])
    assert (ended.value.code, "rule=stretched q=0.75 times=3" in capsys.readouterr().out) == (0, True)
    arguments.append("plugins=own_rules")
    assert "rule=stretched q=0.75 times=3\n      The median plus so many distances" in usage()
    assert "More than the help shows" not in usage()
    with pytest.raises(UserError, match=r"times=2\.5 is no whole number"):
        run([*arguments, "times=2.5"])
    with pytest.raises(UserError, match="stretched has no k: it takes q and times"):
        run([*arguments, "k=2"])
    assert run([*arguments, "times=2"]) == 0
    sys.modules.pop("own_rules")
    monkeypatch.setattr(Rule, "registry", {name: Rule.registry[name] for name in Rule.registry if name != "stretched"})
    for name, threshold in Inspector.load(tmp_path / "best_stretched_0.8_2" / "calibrated.ckpt").thresholds.items():
        low, middle, high = np.quantile(model.decision_state["validation_scores"][name], [0.2, 0.5, 0.8])
        assert threshold.value == pytest.approx(middle + 2 * (high - low))
        assert (threshold.rule, threshold.params) == ("stretched", {"q": 0.8, "times": 2})


@pytest.mark.slow
def test_it_trains_and_the_checkpoint_inspects_elsewhere(outside, tmp_path):
    flags = ("--config-dir=conf", "logger.mode=disabled", "threshold=mine")
    for number, overrides in enumerate(
        [["threshold.q=0.2"], ["threshold._target_=own_rules.no_rule", "~threshold.times"]]
    ):
        refused = train(*flags, *overrides, "hydra.run.dir=refused", cwd=outside)
        assert (refused.returncode, "Traceback" in refused.stderr) == (2, False), refused.stderr
        message = ["stretched needs q=NUMBER, a number above 0.5, got 0.2", "subclass of solder_vae.metrics.threshold"]
        assert message[number] in refused.stderr
    trained = train(*flags, "threshold.q=0.9", "threshold.times=1", "hydra.run.dir=run", cwd=outside)
    assert trained.returncode == 0, trained.stderr
    assert "(stretched, q = 0.9, times = 1)" in trained.stdout
    (tmp_path / "elsewhere").mkdir()
    write_images(tmp_path / "elsewhere" / "joints", pictures(3))
    options = (f"checkpoint={outside / 'run' / 'best.ckpt'}", "images=joints", "out=verdicts")
    assert run_command("predict", *options, cwd=tmp_path / "elsewhere").returncode == 0
    verdicts = json.loads((tmp_path / "elsewhere" / "verdicts" / "predictions.json").read_text())
    assert verdicts["threshold"]["params"] == {"q": 0.9, "times": 1}
