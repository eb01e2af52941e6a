"""The three models: what they admit, what they refuse, and that training follows the equations."""

import copy

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from solder_vae.data.transforms import to_tensor
from solder_vae.models.autoencoder import CAE, Autoencoder
from solder_vae.models.checkpoint import load_model, read_checkpoint
from solder_vae.models.losses import image_noise, kl_divergence, squared_error
from solder_vae.models.steps import TrainingModule
from solder_vae.models.vae import VAE, BetaVAE
from solder_vae.training.resume import check_resumable
from solder_vae.utils.errors import UserError

SIZE = 16


def loader(n=12, batch_size=4):
    images = torch.rand(n, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1)) * 2 - 1
    items = [{"image": image, "label": torch.tensor(0), "index": torch.tensor(i)} for i, image in enumerate(images)]
    return DataLoader(items, batch_size=batch_size)


def make_trainer(tmp_path, **options):
    defaults = {
        "max_epochs": 1, "accelerator": "cpu", "logger": False, "enable_progress_bar": False,
        "enable_model_summary": False, "inference_mode": False, "default_root_dir": tmp_path,
    }  # fmt: skip
    return pl.Trainer(**(defaults | options))


@pytest.mark.slow
@pytest.mark.measured
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [name for name, kind in Autoencoder.registry.items() if issubclass(kind, Autoencoder)])
@pytest.mark.parametrize("alpha", [0.0, 0.03])
def test_every_model_trains_saves_loads_and_scores_the_same(name, alpha, tmp_path):
    model = Autoencoder.registry[name](alpha=alpha, score="gradcon", lr=1e-3)
    trainer = make_trainer(tmp_path)
    trainer.fit(TrainingModule(model), loader(), loader())
    assert model.reference.steps == 3
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    loaded = load_model(tmp_path / "a.ckpt")
    assert type(loaded) is Autoencoder.registry[name]
    assert dict(loaded.hparams) == dict(model.hparams)
    x = next(iter(loader()))["image"]
    before, after = model.eval().score(x), loaded.score(x)
    assert set(before.scores) == set(model.admitted_scores)
    assert torch.equal(before.recon, after.recon)
    assert all(torch.equal(before.scores[key], after.scores[key]) for key in before.scores)
    predicted = trainer.predict(TrainingModule(loaded), loader())
    torch.testing.assert_close(predicted[0]["gradcon"], after.scores["gradcon"])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("every", "alphas"), [(1, (0, 0.5, 0.5)), (2, (0, 1, 0))])
def test_three_steps_of_training_by_hand(every, alphas, tmp_path):
    """Objective J, Adam and the running mean of dJ/dtheta, written out without any of the package's machinery."""
    model = BetaVAE(beta=3, alpha=0.5, constraint_every=every, lr=1e-3, weight_decay=0.0).double()
    twin = copy.deepcopy(model).train()
    batches = [batch["image"].double() for batch in loader(n=12)]
    items = [{"image": b, "label": torch.zeros(4), "index": torch.arange(4)} for b in batches]
    data = DataLoader(items, batch_size=None)
    make_trainer(tmp_path, precision="64-true").fit(TrainingModule(model), data, data)

    weights = [conv.weight for conv in twin.decoder.convolutions]
    optimizer = torch.optim.Adam(twin.parameters(), lr=1e-3)
    history: list[list[torch.Tensor]] = []
    for step, x in enumerate(batches):
        mu, logvar = twin.encoder(x)
        noise = twin.noise(x, 0, step)
        recon = twin.decoder(mu + (0.5 * logvar).exp() * noise)
        error = ((recon - x) ** 2).sum() / 4 / x[0].numel()
        kl = 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum() / 4 / x[0].numel()
        objective = error + 3 * kl
        if alphas[step]:
            gradients = torch.autograd.grad(error, weights, create_graph=True)
            for layer, gradient in enumerate(gradients):
                mean = sum(past[layer] for past in history) / len(history)
                objective = objective - alphas[step] / 6 * (gradient * mean).sum() / (gradient.norm() * mean.norm())
        optimizer.zero_grad()
        objective.backward()
        history.append([weight.grad.clone() for weight in weights])
        optimizer.step()

    for ours, by_hand in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours, by_hand, rtol=1e-6, atol=1e-9)
    for layer, mean in enumerate(model.reference.means):
        torch.testing.assert_close(mean, sum(past[layer] for past in history) / 3, rtol=1e-6, atol=1e-12)


def test_constraint_pulls_the_gradient_towards_the_reference():
    """One small step down L_grad alone must lower it: its sign and its second-order gradient are right."""
    model = CAE(alpha=1.0).double()
    x = torch.rand(4, 3, SIZE, SIZE).double() * 2 - 1
    model.reference.update([torch.randn_like(conv.weight) for conv in model.decoder.convolutions])

    def constraint():
        return model.gradient_constraint(squared_error(x, model.decoder(model.encoder(x)[0])).mean())

    before = constraint()
    gradients = torch.autograd.grad(before, list(model.parameters()), allow_unused=True)
    with torch.no_grad():
        for parameter, gradient in zip(model.parameters(), gradients, strict=True):
            if gradient is not None:
                parameter -= 1e-4 * gradient
    assert constraint() < before


@pytest.mark.parametrize("every", [1, 2, 3, 7])
def test_a_constraint_of_few_steps_has_its_weight_on_average(every):
    model = CAE(alpha=0.25, constraint_every=every)
    for first in (0, 1, 100):
        assert sum(model.alpha_of(step) for step in range(first, first + every)) == every * 0.25


def test_first_step_is_unconstrained():
    model = CAE(alpha=1.0)
    x = torch.rand(4, 3, SIZE, SIZE)
    assert model.gradient_constraint(squared_error(x, model(x)).mean()) == 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("algorithm", ["norm", "value"])
def test_gradients_are_clipped_after_the_reference_has_seen_them(precision, algorithm, tmp_path):
    seen = []

    class Looking(pl.Callback):
        def on_before_zero_grad(self, trainer, model, optimizer):
            if gradients := [p.grad.flatten() for p in model.parameters() if p.grad is not None]:
                seen.append(torch.cat(gradients).clone())

    clip = {"gradient_clip_val": 1e-5, "gradient_clip_algorithm": algorithm}
    model = CAE(alpha=0.0, lr=1e-3)
    make_trainer(tmp_path, precision=precision, callbacks=[Looking()], **clip).fit(
        TrainingModule(model), loader(), loader()
    )
    assert seen
    for gradients in seen:
        size = gradients.norm() if algorithm == "norm" else gradients.abs().max()
        assert size == pytest.approx(1e-5, rel=1e-3)
    assert max(mean.abs().max() for mean in model.reference.means) > 1e-5


def test_scores_of_the_mean_latent():
    model = BetaVAE(beta=2.5)
    model.train()(torch.rand(8, 3, SIZE, SIZE))
    model.eval()
    x = torch.rand(3, 3, SIZE, SIZE) * 2 - 1
    mu, logvar = model.encoder(x)
    error = (model.decoder(mu) - x).square().mean((1, 2, 3))
    expected = error + 2.5 * kl_divergence(mu, logvar).sum((1, 2, 3)) / x[0].numel()
    scores = model.score(x).scores
    assert "gradcon" not in scores  # no reference gradients yet
    torch.testing.assert_close(scores["recon"], error)
    torch.testing.assert_close(scores["elbo"], expected)


@pytest.mark.parametrize("noise", ["shared", "per_image"])
def test_sampled_scores_average_draws_and_do_not_depend_on_the_batch(noise):
    model = VAE(latent="sample", draws=3, noise=noise)
    model.train()(torch.rand(8, 3, SIZE, SIZE))
    model.reference.update([torch.randn_like(conv.weight) for conv in model.decoder.convolutions])
    model.eval()
    x = to_tensor(torch.randint(0, 256, (4, SIZE, SIZE, 3), dtype=torch.uint8).numpy())
    together = model.score(x).scores
    alone = [model.score(x[i : i + 1]).scores for i in range(4)]
    for name, scores in together.items():
        torch.testing.assert_close(scores, torch.cat([one[name] for one in alone]), rtol=1e-4, atol=1e-6)
    one_draw = VAE(latent="sample", draws=1)
    one_draw.load_state_dict(model.state_dict())
    assert not torch.allclose(one_draw.eval().score(x).scores["recon"], together["recon"])


def test_noise_is_shared_or_each_image_s_own():
    """Two pictures of one code are decoded from one sample, or from two."""
    x = to_tensor(torch.randint(0, 256, (2, SIZE, SIZE, 3), dtype=torch.uint8).numpy())
    codes = torch.zeros(2, 10, 2, 2), torch.zeros(2, 10, 2, 2)
    for noise, same in (("shared", True), ("per_image", False)):
        drawn = VAE(latent="sample", draws=2, noise=noise).scored_latents(codes, x)
        assert len(drawn) == 2
        assert all(torch.equal(z[0], z[1]) == same for z in drawn)
        assert not torch.equal(*drawn)
    assert len(VAE(noise="per_image").scored_latents(codes, x)) == 1  # of the mean
    many = image_noise(x, (10, 8, 8), 500)
    assert many.shape == (500, 2, 10, 8, 8)
    torch.testing.assert_close(many.var((0, 2, 3, 4)), torch.ones(2), rtol=0, atol=0.02)
    assert torch.equal(many[:1], image_noise(x, (10, 8, 8), 1))


def test_noise_depends_on_seed_stream_and_step():
    x = torch.zeros(2, 3, 16, 16)
    noise = {
        (seed, stream, step): VAE(seed=seed).noise(x, stream, step)
        for seed in (0, 1)
        for stream in (0, 1)
        for step in (0, 1)
    }
    assert len({tuple(value.flatten().tolist()) for value in noise.values()}) == 8
    assert torch.equal(noise[0, 0, 1], VAE(seed=0).noise(x, 0, 1))
    assert torch.equal(noise[0, 0, 1][:1], VAE(seed=0).noise(x[:1], 0, 1)), "an image's noise, however many follow"


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: VAE(beta=3), r"model=vae is beta = 1: for another weight type model=beta_vae beta=3"),
        (
            lambda: CAE(score="elbo"),
            r"score=elbo does not fit model=cae: use one of score=recon, score=gradcon",
        ),
        (lambda: BetaVAE(score="f1"), r"score=f1 does not fit"),
        (lambda: BetaVAE(beta=-1), r"^beta=-1 does not fit: use a number, 0 or more"),
        (lambda: BetaVAE(beta=float("nan")), r"^beta=nan does not fit"),
        (lambda: BetaVAE(beta="abc"), r"^beta=abc does not fit"),
        (lambda: BetaVAE(lr="fast"), r"model\.lr=fast does not fit: use a number, 0 or more"),
        (lambda: BetaVAE(reduction="median"), r"use sum .* or mean"),
        (lambda: VAE(latent="mode"), r"use mean or sample"),
        (lambda: VAE(noise="own"), r"score.noise=own is unknown: use shared or per_image"),
        (lambda: VAE(latent="sample", draws=0), r"score.draws=0 does not fit: use a whole number, 1 or more"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_to_type(build, message):
    with pytest.raises(UserError, match=message):
        build()


def test_fractional_beta():
    assert BetaVAE(beta=0.01).beta == 0.01


@pytest.mark.filterwarnings("ignore")
def test_checkpoints_of_other_models_or_settings_are_refused(tmp_path):
    model = BetaVAE(beta=3)
    model.preprocessing = {"image_size": 16}
    trainer = make_trainer(tmp_path, max_epochs=0)
    trainer.fit(TrainingModule(model), loader(), loader())
    path = tmp_path / "beta.ckpt"
    trainer.save_checkpoint(path)
    check_resumable(path, BetaVAE(beta=3), max_epochs=5)
    with pytest.raises(UserError, match="resume it with model=beta_vae"):
        check_resumable(path, CAE(), max_epochs=5)
    with pytest.raises(UserError, match="beta was 3, now 4"):
        check_resumable(path, BetaVAE(beta=4), max_epochs=5)
    check_resumable(path, BetaVAE(beta=3, constraint_every=4), max_epochs=5)  # without a constraint nothing reads it
    content = torch.load(path, weights_only=True)
    content["hyper_parameters"]["alpha"] = 0.03
    torch.save(content, path)
    with pytest.raises(UserError, match="constraint_every was 1, now 4"):
        check_resumable(path, BetaVAE(beta=3, alpha=0.03, constraint_every=4), max_epochs=5)
    del content["hyper_parameters"]["optimizer"]
    torch.save(content, path)
    muon = {"_target_": "solder_vae.models.muon.Muon", "lr": 0.1}
    with pytest.raises(UserError, match="resume it with optimizer=adam"):
        check_resumable(path, BetaVAE(beta=3, alpha=0.03, optimizer=muon), max_epochs=5)
    with pytest.raises(UserError, match="No checkpoint at"):
        read_checkpoint(tmp_path / "absent.ckpt")
    cut = tmp_path / "cut.ckpt"
    cut.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(UserError, match="not a readable checkpoint"):
        read_checkpoint(cut)
    torch.save({"state_dict": {}}, tmp_path / "foreign.ckpt")
    with pytest.raises(UserError, match="not a checkpoint of solder_vae"):
        read_checkpoint(tmp_path / "foreign.ckpt")
    checkpoint = read_checkpoint(path)
    checkpoint["state_dict"].popitem()
    torch.save(checkpoint, tmp_path / "other.ckpt")
    with pytest.raises(UserError, match="another architecture"):
        load_model(tmp_path / "other.ckpt")


class Payload:
    def __reduce__(self):
        return (exec, ("raise SystemExit('ran code')",))


def test_a_checkpoint_cannot_run_code(tmp_path):
    torch.save({"model": "cae", "state_dict": {}, "x": Payload()}, tmp_path / "evil.ckpt")
    with pytest.raises(UserError, match="other than tensors and plain values"):
        read_checkpoint(tmp_path / "evil.ckpt")
