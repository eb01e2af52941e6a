"""What the reproduction does around its runs: checks, report, pictures, the closing lines."""

from __future__ import annotations

import importlib.metadata
import logging
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from solder_vae.training.schema import ReproduceOptions, TrainOptions
from solder_vae.utils.checks import check_whole_number
from solder_vae.utils.errors import UserError
from solder_vae.utils.text import duration

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from omegaconf import DictConfig

    from solder_vae.data.datamodule import SolderDataModule
    from solder_vae.studies.paper.results import Results
    from solder_vae.studies.paper.runs import Runs
    from solder_vae.utils.document import Block, Picture

log = logging.getLogger("solder_vae")

#: Keys that a training run does not have.
OWN = {"scale"} | {each.name for each in fields(ReproduceOptions)} - {each.name for each in fields(TrainOptions)}
SWEPT = ("model", "score", "beta", "seed", "experiment", "resume", "skip_finished")


def training_overrides(task: Sequence[str]) -> list[str]:
    """The overrides on the command line that are for the training runs.

    Raises:
        UserError: a key that the sweeps set themselves.
    """
    kept = []
    for text in task:
        key = text.lstrip("+~").partition("=")[0]
        if key in SWEPT:
            raise UserError(f"{text} does not fit: reproduce sets {key} itself, from scale=... and seeds=...; drop it.")
        if key not in OWN:
            kept.append(text)
    return kept


def check_values(config: DictConfig) -> None:
    """Check the command's options, and those of its runs.

    Raises:
        UserError: one does not fit.
    """
    for key in ("seeds", "jobs", "embeddings"):
        value = config[key]
        if value is None and key == "jobs":
            continue
        check_whole_number(key, value, 1)
    check_whole_number("sampled_tests", config.sampled_tests, 0)
    from solder_vae.studies.paper.plan import FURTHER, OWN_HEAD
    from solder_vae.training.first_checks import check_data, check_first

    if unknown := [name for name in config.further if name not in FURTHER]:
        raise UserError(f"further={unknown[0]} is no model that reproduce adds: use {', '.join(FURTHER)}.")
    if config.heads:
        from solder_vae.models.options import HEADS

        if unknown := [name for name in config.heads if name not in HEADS]:
            raise UserError(f"heads={unknown[0]} is no head of the encoder: use {' or '.join(HEADS)}.")
        if config.model.head != OWN_HEAD:
            raise UserError(f"model.head={config.model.head} does not fit heads=[...], which compares them: drop one.")
    check_first(config)
    check_data(config.data)


def of_seed(config: DictConfig, seed: int) -> DictConfig:
    """The config of a seed's runs."""
    found = config.copy()
    found.seed, found.few_normals = seed, "accept"  # the report tells of how many normals a result is
    return found


def data_of_seed(config: DictConfig, seed: int) -> SolderDataModule:
    """The images of a seed's runs."""
    from solder_vae.training.checks import check_tables
    from solder_vae.utils.config import build

    config = of_seed(config, seed)
    data: SolderDataModule = build(config.data)
    data.setup()
    check_tables(data, config)
    return data


def processes(config: DictConfig) -> int:
    """How many runs to do side by side: one for each CPU core, since one thread wastes nothing there; one on a GPU."""
    import joblib  # type: ignore[import-untyped]
    import torch

    if config.jobs is not None:
        return int(config.jobs)
    if config.trainer.accelerator != "cpu" and torch.cuda.is_available():
        return 1
    try:
        importlib.metadata.version("hydra-joblib-launcher")
    except importlib.metadata.PackageNotFoundError:
        log.warning("hydra-joblib-launcher is not installed: one run at a time, which takes longer.")
        return 1
    return int(joblib.cpu_count())


def report(
    runs: Runs,
    config: DictConfig,
    data: SolderDataModule,
    jobs: int,
    directory: Path,
    facts: dict[str, Any],
    started: float,
) -> None:
    """Write runs.csv, the pictures, report.md and report.html, and log them as one run."""
    from omegaconf import OmegaConf

    from solder_vae.studies.paper.heads import measured_heads
    from solder_vae.studies.paper.latent import disentanglement
    from solder_vae.studies.paper.report import document
    from solder_vae.studies.paper.results import results
    from solder_vae.studies.paper.runs import run_rows
    from solder_vae.studies.paper.sampled import sampled_tests
    from solder_vae.utils.document import Heading, to_markdown, write_document
    from solder_vae.utils.tables import write_csv

    write_csv(directory / "runs.csv", run_rows(runs))
    log.info("statistics")
    found = results(runs)
    measured = disentanglement(runs, lambda seed: data_of_seed(config, seed).tables, jobs, config.further)
    heads = measured_heads(runs, lambda seed: data_of_seed(config, seed).tables, config.heads)
    drawn = sampled_tests(runs, data.tables["val"].images, data.tables["test"], config.sampled_tests)
    images = dict(pictures(runs, found, data, config, jobs, directory))
    training = OmegaConf.masked_copy(config, [str(key) for key in config if key not in OWN])
    facts["Wall time of this call"] = duration(time.time() - started)
    text = OmegaConf.to_yaml(training, resolve=True)
    blocks: list[Block] = list(document(found, runs.failed, measured, heads, drawn, images, facts, text))
    title = "The paper's experiments, repeated"
    write_document(directory, title, blocks)
    log_summary(found, blocks, images, training, facts, directory)
    second = [place for place, block in enumerate(blocks) if isinstance(block, Heading)][1]
    print(to_markdown(title, blocks[: second + 1]))
    log.info("the report is %s", directory / "report.html")


def pictures(
    runs: Runs, found: Results, data: SolderDataModule, config: DictConfig, jobs: int, directory: Path
) -> Iterator[tuple[str, Picture]]:
    """The pictures that the finished runs allow, written into ``directory``."""
    from solder_vae.evaluation.style import save
    from solder_vae.studies.paper.latent import embeddings, figure_4, traversal
    from solder_vae.studies.paper.report import f1_figure
    from solder_vae.utils.document import Picture

    test = data.tables["test"]
    tsne = (
        f"t-SNE of the posterior means of the test images, seed 0, perplexity 5, the best of {config.embeddings} runs. "
        "Clusters and distances in such pictures mean little; the numbers below are of the latent space itself."
    )
    makers: dict[str, tuple[Any, str]] = {
        "f1": (
            partial(f1_figure, found),
            "F1 of every row of Tables II and III at its false-call rate in the paper, beside the paper's figure.",
        ),
        "figure 4": (
            partial(figure_4, runs, test),
            "β-VAE β=3 with GradCon, seed 0: joints with the truth above, reconstructions with prediction and "
            "score below. Of each kind the lowest and the highest scores are shown.",
        ),
        "figure 5": (partial(embeddings, runs, test, True, config.embeddings, jobs), tsne),
        "figure 6": (partial(embeddings, runs, test, False, config.embeddings, jobs), tsne),
        "traversal": (
            partial(traversal, runs, test),
            "β-VAE β=3 with GradCon, seed 0: the strongest latent units and channels, moved one at a time.",
        ),
    }
    for name, (make, caption) in makers.items():
        figure: Figure | None = make()
        if figure is not None:
            path = directory / f"{name.replace(' ', '_')}.png"
            save(figure, path)
            yield name, Picture(path, caption)


def log_summary(
    found: Results,
    blocks: Sequence[Block],
    images: Mapping[str, Picture],
    config: DictConfig,
    facts: Mapping[str, Any],
    directory: Path,
) -> None:
    """The numbers, tables and pictures as one Weights & Biases run."""
    from omegaconf import OmegaConf

    from solder_vae.studies.paper.operating_point import KEYS as POINT_KEYS
    from solder_vae.studies.paper.operating_point import POINTS
    from solder_vae.studies.paper.plan import CLAIMS
    from solder_vae.studies.paper.results import KEYS, MEASURES
    from solder_vae.training.loggers import Dashboard, run_loggers
    from solder_vae.utils.document import Heading, Table

    scalars = {
        f"{row}/{key}": value
        for row, result in found.rows.items()
        for key in (*KEYS, *(f"{point}/{key}" for point in POINTS for key in POINT_KEYS))
        if (value := result.mean(key)) is not None
    }
    container: Any = OmegaConf.to_container(config, resolve=True)
    claims = {
        measure: {claim.sentence.rstrip("."): found.claim(claim, measure) for claim in CLAIMS} for measure in MEASURES
    }
    described = {**container, "facts": dict(facts), "claims": claims}
    with run_loggers(directory, described, **config.logger, name="reproduce", group=None) as loggers:
        for logger in loggers:
            if isinstance(logger, Dashboard):
                logger.log_metrics(scalars)
                title = ""
                for block in blocks:
                    title = block.text if isinstance(block, Heading) else title
                    if isinstance(block, Table):
                        logger.log_table(f"tables/{title}", list(block.header), [list(row) for row in block.rows])
                for name, picture in images.items():
                    logger.log_image(f"pictures/{name}", [str(picture.path)])


def data_sentence(config: DictConfig, choice: str, data: SolderDataModule) -> str:
    from solder_vae.data.table import describe

    same = of_seed(config, 0).data.seed == of_seed(config, 1).data.seed
    apart = "all seeds see the same split" if same else "each seed has its own split (embedded set: its own images)"
    counts = ", ".join(" ".join(line.split()) for line in describe(data.tables).splitlines())
    return f"data={choice}; {apart}. Seed 0: {counts}"


def versions() -> str:
    names = ("solder-vae", "torch", "pytorch-lightning", "hydra-core", "numpy", "scikit-learn")
    found = [f"{name} {importlib.metadata.version(name)}" for name in names]
    return ", ".join([f"Python {platform.python_version()}", *found])


def machine() -> str:
    import joblib
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine()
    return f"{platform.system()}, {joblib.cpu_count()} CPU cores, {device}"
