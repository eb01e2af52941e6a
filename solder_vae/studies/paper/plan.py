"""Which runs repeat the paper, which table reads which run, and what the paper claims.

Each distinct run is done once: the VAE is beta-VAE at beta = 1, so it serves both tables, and Recon and ELBO are two
scores of one run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from solder_vae.studies.paper import published as paper

FIGURE_BETAS = (0.1, 1.0, 3.0, 10.0)  # of Figs. 5 and 6

NAMES = {"cae": "CAE", "vae": "VAE", "beta_vae": "β-VAE"}
#: Models that the paper has not, for the table of disentanglement when asked for; name and beta of conf/model.
FURTHER = {"beta_tcvae": ("β-TCVAE", 6.0), "annealed_vae": ("annealed VAE", 30.0)}
SCORES = {"recon": "Recon", "elbo": "ELBO", "gradcon": "GradCon"}
OWN_HEAD = "block"  # of the paper's networks: those runs are there anyway


class Training(NamedTuple):
    """One run: ``model`` and ``constraint`` choose conf/model and conf/score, the rest are values.

    ``head`` is that of the table of heads, where it is not the paper's; None leaves it to the command.
    """

    model: str
    beta: float | None
    constraint: bool
    seed: int
    head: str | None = None

    @property
    def folder(self) -> str:
        """The run's folder within the sweep: ``hydra.sweep.subdir`` of conf/experiment/table2.yaml and table3.yaml."""
        beta = None if self.beta is None else f"{self.beta:g}"
        own = f"{self.model}_beta{beta}_{'gradcon' if self.constraint else 'recon'}_seed{self.seed}"
        return own if self.head is None else f"{own}_head_{self.head}"

    @property
    def choices(self) -> list[str]:
        """The overrides that choose this run, but for its seed and beta."""
        chosen = [f"model={self.model}", f"score={'gradcon' if self.constraint else 'recon'}"]
        return chosen if self.head is None else [*chosen, f"model.head={self.head}"]

    @property
    def values(self) -> dict[str, float | None]:
        """The seed, and beta where it is not the model's own."""
        return {"seed": self.seed, **({"beta": self.beta} if self.model == "beta_vae" else {})}

    @property
    def overrides(self) -> list[str]:
        """The overrides that choose this run alone."""
        return [*self.choices, *(f"{key}={value}" for key, value in self.values.items())]

    def __str__(self) -> str:
        constraint = "with" if self.constraint else "without"
        head = "" if self.head is None else f", head {self.head}"
        return f"{model_name(self.model, self.beta)} {constraint} gradient constraint{head}, seed {self.seed}"


class Row(NamedTuple):
    """A model under a score: a row of our tables, a column of the paper's."""

    model: str
    beta: float | None
    score: str

    def training(self, seed: int) -> Training:
        """GradCon is the score of the model trained with the gradient constraint, Recon and ELBO of the one without."""
        return Training(self.model, self.beta, self.score == "gradcon", seed)

    def __str__(self) -> str:
        return f"{model_name(self.model, self.beta)} {SCORES[self.score]}"


class Comparison(NamedTuple):
    """That ``better`` is better than ``worse``."""

    better: Row
    worse: Row

    def __str__(self) -> str:
        return f"{self.better} > {self.worse}"


class Claim(NamedTuple):
    """What the paper says in a sentence, and the comparisons that make it true."""

    sentence: str
    comparisons: tuple[Comparison, ...]


def model_name(model: str, beta: float | None) -> str:
    if model in FURTHER:
        return FURTHER[model][0]
    return f"β-VAE β={beta:g}" if model == "beta_vae" and beta is not None else NAMES[model]


def of_beta(beta: float, score: str) -> Row:
    """beta-VAE; at beta = 1 it is the VAE."""
    return Row("vae" if beta == 1 else "beta_vae", beta, score)


def table_2_row(model: str, score: str) -> Row:
    return Row("cae", None, score) if model == "cae" else of_beta(1.0 if model == "vae" else paper.BETA, score)


TABLE_2 = {table_2_row(*key): cell for key, cell in paper.TABLE_2.items()}
TABLE_3 = {of_beta(beta, "gradcon"): cell for beta, cell in paper.TABLE_3.items()}
ROWS = tuple(dict.fromkeys([*TABLE_2, *TABLE_3]))


def _claims() -> tuple[Claim, ...]:
    def better(model: str, score: str, than: tuple[str, str]) -> Comparison:
        return Comparison(table_2_row(model, score), table_2_row(*than))

    best = of_beta(paper.BETA, "gradcon")
    return (
        Claim(
            "β-VAE (β=3) is better than VAE, under each score.",
            tuple(better("beta_vae", score, ("vae", score)) for score in SCORES),
        ),
        Claim(
            "VAE is better than CAE, under each score.",
            tuple(better("vae", score, ("cae", score)) for score in ("recon", "gradcon")),
        ),
        Claim(
            "GradCon is better than the reconstruction error, for each model.",
            tuple(better(model, "gradcon", (model, "recon")) for model in NAMES),
        ),
        Claim(
            "GradCon is better than ELBO, for VAE and β-VAE.",
            tuple(better(model, "gradcon", (model, "elbo")) for model in ("vae", "beta_vae")),
        ),
        Claim(
            "ELBO is worse than the reconstruction error, for VAE and β-VAE.",
            tuple(better(model, "recon", (model, "elbo")) for model in ("vae", "beta_vae")),
        ),
        Claim(
            "β=3 is the best of Table III.",
            tuple(Comparison(best, row) for row in TABLE_3 if row != best),
        ),
    )


CLAIMS = _claims()


#: :attr:`Training.folder` of a run with another head.
_HEAD_FOLDER = (
    "hydra.sweep.subdir=${hydra:runtime.choices.model}_beta${beta}_${score.name}_seed${seed}_head_${model.head}"
)


class Sweep(NamedTuple):
    """One Hydra multirun: the experiment, overrides of its sweep, and the runs that it makes."""

    experiment: str
    overrides: tuple[str, ...]
    trainings: tuple[Training, ...]


def further_rows(models: Sequence[str]) -> list[Row]:
    """The rows of models that the paper has not, trained without the gradient constraint."""
    return [Row(model, FURTHER[model][1], "recon") for model in models]


def of_head(head: str, seed: int) -> Training:
    """The run behind the table of heads: β-VAE without the gradient constraint."""
    return of_beta(paper.BETA, "recon").training(seed)._replace(head=None if head == OWN_HEAD else head)


def sweeps(seeds: int, further: Sequence[str] = (), heads: Sequence[str] = ()) -> list[Sweep]:
    """All runs, each once: those of Table II, the rest of Table III, and for the first seed those that
    Fig. 6 shows and no table has, so that an interruption leaves the tables; then what the paper has not."""
    numbers = range(seeds)
    every = ",".join(map(str, numbers))
    table_2 = dict.fromkeys(row.training(seed) for seed in numbers for row in TABLE_2)
    table_3 = dict.fromkeys(row.training(seed) for seed in numbers for row in TABLE_3 if row not in TABLE_2)
    figure_6 = {of_beta(beta, "elbo").training(0): None for beta in FIGURE_BETAS}.keys() - table_2.keys()
    return [
        Sweep("table2", (f"seed={every}",), tuple(table_2)),
        Sweep("table3", (f"seed={every}", _swept_betas(table_3)), tuple(table_3)),
        Sweep("table3", ("seed=0", "score=recon", _swept_betas(figure_6)), tuple(sorted(figure_6))),
        *(
            Sweep(
                "table3",
                (f"seed={every}", "score=recon", f"model={row.model}", f"beta={row.beta:g}"),
                tuple(row.training(seed) for seed in numbers),
            )
            for row in further_rows(further)
        ),
        *(
            Sweep(
                "table3",
                (f"seed={every}", "score=recon", f"beta={paper.BETA:g}", f"model.head={head}", _HEAD_FOLDER),
                tuple(of_head(head, seed) for seed in numbers),
            )
            for head in heads
            if head != OWN_HEAD
        ),
    ]


def _swept_betas(trainings: dict[Training, None] | set[Training]) -> str:
    betas = sorted({training.beta for training in trainings if training.beta is not None})
    return "beta=" + ",".join(f"{beta:g}" for beta in betas)
