"""What a class of somebody's own does wrong is told in one sentence that names it."""

import numpy as np
import pytest
import torch

from solder_vae.models.autoencoder import Autoencoder
from solder_vae.models.checkpoint import read_checkpoint, untrained_checkpoint, write_checkpoint
from solder_vae.models.networks import Network
from solder_vae.models.options import count
from solder_vae.models.scores import Score
from solder_vae.models.vae import BetaVAE
from solder_vae.utils.checks import check_number
from solder_vae.utils.errors import UserError


class Maps(Network):
    """An encoder that gives so many maps, in a tuple or not."""

    def __init__(self, heads, width=1):
        super().__init__()
        self.convolution = torch.nn.Conv2d(3, 10 * width, 8, stride=8)
        self.heads = heads

    def forward(self, x):
        maps = self.convolution(x)
        return (maps,) * self.heads if self.heads else maps


class Mute(Network):
    """A decoder that names no convolutions."""

    def forward(self, z):
        return z


class Powered(Score, name="powered_error"):
    rules = {"power": check_number, "rounds": count}  # noqa: RUF012
    needs = frozenset({"reconstruction"})

    def __init__(self, power=1.0, rounds=1):
        self.power = power

    def __call__(self, output):
        return output.error**self.power


def target(kind, **arguments):
    return {"_target_": f"{kind.__module__}.{kind.__qualname__}", **arguments}


@pytest.mark.parametrize(("heads", "given"), [(0, "no tuple"), (1, "1 in a tuple")])
def test_an_encoder_gives_what_the_posterior_needs(heads, given):
    model = BetaVAE(score="recon", encoder=target(Maps, heads=heads)).eval()
    with pytest.raises(UserError, match=rf"model\.encoder gives {given} where model=beta_vae needs \(mu, logvar\)"):
        model.score(torch.zeros(1, 3, 16, 16))


def test_what_a_network_cannot_be_made_of_is_told():
    with pytest.raises(UserError, match=r"model\.encoder \(.*Maps\) does not take what is given: .*negative dimension"):
        BetaVAE(score="recon", encoder=target(Maps, heads=2, width=-1))


@pytest.mark.parametrize("options", [{"score": "gradcon"}, {"score": "recon", "alpha": 0.03}])
def test_gradcon_names_the_scores_that_go_without_it(options):
    with pytest.raises(UserError, match=r"names none: use score=recon or score=elbo, with score\.alpha=0"):
        BetaVAE(decoder=target(Mute), **options)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"power": "abc"}, r"score\.power=abc does not fit: use a number, 0 or more"),
        ({"rounds": 0}, r"score\.rounds=0 does not fit: use a whole number, 1 or more"),
        ({"powr": 1}, r"'score\.powr' is no option of score=powered_error: did you mean score\.power\?"),
    ],
)
def test_a_scores_own_rules_are_kept(parameters, message):
    with pytest.raises(UserError, match=message):
        BetaVAE(score="powered_error", scores={"powered_error": parameters})


def test_a_score_of_your_own_without_a_config():
    model = BetaVAE(score="powered_error", scores={"powered_error": {"power": 2.0}}).eval()
    output = model.score(torch.zeros(2, 3, 16, 16))
    assert torch.equal(output.scores["powered_error"], output.error.square())


@pytest.mark.parametrize(("base", "name", "what"), [(Score, "recon", "score"), (BetaVAE, "beta_vae", "model")])
def test_a_name_is_not_taken_from_another(base, name, what):
    with pytest.raises(
        UserError, match=rf"test_own_mistakes and solder_vae\.models\.\w+ both have a {what} {name}: rename"
    ):
        type(base)("Mine", (base,), {"__module__": __name__}, name=name)
    assert (Score if what == "score" else BetaVAE).registry[name].__module__.startswith("solder_vae.")


def test_what_others_schedules_and_callbacks_keep_can_be_read_again(tmp_path):
    model = BetaVAE()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones=[1, 1, 2], gamma=0.5)
    kept = {"Mine": {"best": np.float64(0.25), "seen": [np.int64(3)], "names": ("a",)}}
    checkpoint = {**untrained_checkpoint(model), "lr_schedulers": [schedule.state_dict()], "callbacks": kept}
    write_checkpoint(checkpoint, tmp_path / "best.ckpt")
    found = read_checkpoint(tmp_path / "best.ckpt")
    assert found["callbacks"] == {"Mine": {"best": 0.25, "seen": [3], "names": ("a",)}}
    again = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones=[7])
    again.load_state_dict(found["lr_schedulers"][0])
    rates = [group["lr"] for _ in range(2) for group in (optimizer.step() or again.step() or optimizer.param_groups)]
    assert rates == [0.25, 0.125]


def test_a_model_without_a_name_is_told_how_to_get_one():
    with pytest.raises(UserError, match=r"has no name: write class Nameless\(..., name=...\)"):
        type("Nameless", (Autoencoder,), {})()


def test_a_need_that_no_model_has_is_told_when_the_class_is_made():
    with pytest.raises(UserError, match=r"Needy\.needs=.*'reconstructions'.* does not fit: use a set of some of "):

        class Needy(Score):
            needs = frozenset({"reconstructions"})
