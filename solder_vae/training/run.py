"""One run from config to artefacts: fit, calibrate the threshold, test, log, write."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.loggers import Logger
from rich.console import Console
from rich.text import Text

from solder_vae.data.datamodule import SolderDataModule
from solder_vae.data.framing import SQUARE, cut_off
from solder_vae.data.table import describe
from solder_vae.data.transforms import CONTROLLED
from solder_vae.evaluation.baselines import shortcut_warning, trivial_scores
from solder_vae.evaluation.evaluate import Evaluation, evaluate_model
from solder_vae.evaluation.pseudo_defects import pseudo_defect_auroc
from solder_vae.evaluation.rule_sentence import threshold_entry
from solder_vae.evaluation.tables import localisation_table, result_table
from solder_vae.metrics.by_type import types_sentence
from solder_vae.models.autoencoder import Autoencoder
from solder_vae.models.backbone import source_of
from solder_vae.models.checkpoint import Checkpoint, model_of, read_checkpoint, untrained_checkpoint, write_checkpoint
from solder_vae.models.detector import Detector
from solder_vae.models.precision import FULL
from solder_vae.models.steps import TrainingModule, check_optimization
from solder_vae.training.checks import check_examples, check_tables, rank_count, training_precision
from solder_vae.training.data_parallel import fit_on_ranks
from solder_vae.training.first_checks import SHARED_SCORE_KEYS, check_first, check_size, check_untrained, threshold_rule
from solder_vae.training.log import trained_entry
from solder_vae.training.loggers import CHOICES, run_loggers
from solder_vae.training.next_steps import RunCommands, shortest
from solder_vae.training.resume import carry_over, check_epochs_left, check_resumable, ends_with_run
from solder_vae.training.run_files import log_artefacts, read_history, run_metrics, write_artefacts
from solder_vae.training.schema import PSEUDO_DEFECT_AUROC
from solder_vae.training.shared_training import take_over
from solder_vae.training.trainer import device_of, fit, make_trainer, quiet_lightning, with_epochs
from solder_vae.training.verdict import Verdict, verdict_of
from solder_vae.utils.config import build, import_target
from solder_vae.utils.errors import UserError
from solder_vae.utils.files import atomic_file
from solder_vae.utils.plugins import import_plugins
from solder_vae.utils.threads import busy

log = logging.getLogger(__name__)


def run(config: DictConfig, directory: Path, trained: Path | None = None) -> float:
    """Train and test as ``config`` says and leave everything in ``directory``.

    Args:
        config: the run's.
        directory: the run's.
        trained: the folder of a finished run of the same training: it is not done again.

    Returns:
        The best validation loss, or the ``criterion`` that the sweeper asks for.

    Raises:
        UserError: the config, the data or a checkpoint cannot be used, or the loss became NaN or infinite.
    """
    quiet_lightning()
    model, data = build_parts(config)
    if not isinstance(model, Autoencoder):
        check_untrained(config, model.name)
    make_trainer(config, directory, precision=FULL, logger=False, callbacks=[])
    resumed = check_resumable(config.resume, model, config.trainer.max_epochs) if config.resume is not None else None
    if isinstance(model, Autoencoder):
        model.precision = training_precision(config, resumed)
    else:
        model.prepare()

    data.setup()
    image_size = data.tables["train"].images.shape[1]
    crop = config.data.get("crop", SQUARE)
    model.preprocessing = {"image_size": image_size, "view": config.data.view}
    if crop != SQUARE:  # what was always so is not said, so that checkpoints stay as they were
        model.preprocessing["crop"] = crop
    if config.data.get("type_regex") is not None:
        model.preprocessing["type_regex"] = config.data.type_regex
    if resumed is not None and (then := resumed["preprocessing"]) != model.preprocessing:
        raise UserError(
            f"{config.resume} was trained on other images ({then}): "
            "resume it with the same data.image_size, data.view, data.crop and data.type_regex."
        )
    log.info("%s", describe(data.tables))
    check_tables(data, config)
    check_examples(model, data)
    with_number = with_epochs(config, len(data.tables["train"])) if isinstance(model, Autoencoder) else config
    if resumed is not None:
        check_epochs_left(config.resume, resumed, with_number.trainer.max_epochs)
    if crop == SQUARE and (sentence := cut_off(np.concatenate([t.native_size for t in data.tables.values()]))):
        log.warning("%s", sentence)
    if warning := shortcut_warning(data.tables, config.data.view, config.data.get("root")):
        log.warning("%s", warning)
    # From here on the folder belongs to this run. A command refused before left an earlier run's result alone.
    (directory / "metrics.json").unlink(missing_ok=True)  # otherwise this run's config would stand beside that result
    OmegaConf.save(config, directory / "config.yaml", resolve=True)
    with run_loggers(directory, **logging_options(config)) as loggers:
        if resumed is not None:
            carry_over(Path(config.resume).parent / "metrics.csv", resumed, loggers)
        if trained is not None:
            return finish(take_over(trained, model, directory, loggers), data, config, directory, loggers)
        if not isinstance(model, Autoencoder):
            return finish(untrained_checkpoint(model), data, config, directory, loggers)
        fit_model = fit_on_ranks if config.trainer.devices > 1 else fit
        best = read_checkpoint(fit_model(TrainingModule(model), data, with_number, directory, loggers))
        return finish(best, data, config, directory, loggers)


def build_parts(config: DictConfig) -> tuple[Detector, SolderDataModule]:
    """The model and the data of a config, all of whose values are checked here, before any data are read.

    Raises:
        UserError: one does not fit.
    """
    check_first(config)
    pl.seed_everything(config.seed, workers=True, verbose=False)
    model = build_model(config)
    if isinstance(model, Autoencoder):
        check_optimization(model)
    data: SolderDataModule = build(config.data)
    check_size(config, model.stride)
    rank_count(config)
    return model, data


def build_model(config: DictConfig) -> Detector:
    """The model that a config names, not trained yet.

    Classes that the config names are imported here; the model looks them up among those that are known.

    Raises:
        UserError: a class cannot be imported, or a value does not fit.
    """
    import_plugins(config.plugins)
    for node in (config.model.get("encoder"), config.model.get("decoder"), config.score):
        if OmegaConf.is_dict(node) and "_target_" in node:
            import_target(node._target_)
    import_plugins(source_of(config.model.get("network")))
    own = {key: value for key, value in config.score.items() if key not in SHARED_SCORE_KEYS}
    scores = {config.score.name: own} if "_target_" in config.score else None
    model: Detector = build(config.model, scores=scores)
    return model


def finish(
    checkpoint: Checkpoint, data: SolderDataModule, config: DictConfig, directory: Path, loggers: list[Logger]
) -> float:
    """Calibrate, test and report a trained model, write it as ``best.ckpt``; what :func:`run` returns."""
    model = model_of(checkpoint)
    model.step = checkpoint.get("global_step", 0)
    # Scores are computed in single precision, whatever precision the training had.
    evaluation = evaluate_model(model.to(device_of(config)), data, threshold_rule(config))
    validation = evaluation.validation
    model.decision_state = evaluation.decision_state()
    model.log = [
        trained_entry(model, checkpoint, data, config.data.get("root")),
        threshold_entry(evaluation.threshold, evaluation.primary, evaluation.of_normals),
    ]
    model.on_save_checkpoint(checkpoint)
    write_checkpoint(checkpoint, directory / "best.ckpt")
    if config.criterion == PSEUDO_DEFECT_AUROC:
        normals = evaluation.val[evaluation.primary]
        table = data.tables["val"]
        found = pseudo_defect_auroc(model, table.images, normals, table.types)
        validation = {**validation, PSEUDO_DEFECT_AUROC: found}
    known = data.tables["known"].defects if "known" in data.tables else ()
    verdict = judge(checkpoint, data, evaluation, directory, config)
    numbers = {**run_metrics(model, evaluation, validation, known), **verdict.numbers}
    with busy("Writing pictures and the report"):
        write_artefacts(directory, model, evaluation, numbers, config.pictures)
    with atomic_file(directory / "result.md") as path:
        path.write_text(verdict.markdown, encoding="utf-8")
    log_artefacts(directory, evaluation, numbers, data.tables, loggers)
    console = Console()
    decided = evaluation.primary, evaluation.threshold, evaluation.of_normals
    console.print(result_table(evaluation.metrics, evaluation.baselines, *decided))
    if sentence := types_sentence(evaluation.of_types, evaluation.primary):
        console.print(Text(sentence))
    if evaluation.localisation is not None and evaluation.trivial_localisation is not None:
        console.print(localisation_table(evaluation.localisation, evaluation.trivial_localisation))
    log.info("\n%s", verdict.text(files_sentence(shortest(directory), config.pictures)))
    return float(validation[config.criterion])


def judge(
    checkpoint: Checkpoint, data: SolderDataModule, evaluation: Evaluation, directory: Path, config: DictConfig
) -> Verdict:
    """The verdict on a run, with its curve out of metrics.csv if it was trained by steps."""
    steps = checkpoint.get("global_step")
    losses = read_history(directory / "metrics.csv").get("val/loss", [])
    commands = RunCommands(
        HydraConfig.get().overrides.task,
        shortest(directory),
        config.data.get("root"),
        known="known" in data.tables,
        plain=config.data.view != CONTROLLED,
        rate_ends=ends_with_run(checkpoint["hyper_parameters"].get("scheduler")),
        stopping=bool(config.callbacks),
        flags=config_flags(),
        plugins=config.plugins,
    )
    return verdict_of(
        evaluation,
        trivial_scores(data.tables["train"], evaluation.table),
        [loss for loss in losses if loss is not None],
        steps / (checkpoint["epoch"] + 1) if steps else None,
        config.data.view,
        commands,
        len(data.tables.get("known", ())),
        config.trainer.min_steps,
    )


def config_flags() -> list[str]:
    """The flag that names the user's own folder of configs, as Hydra was given it."""
    sources = HydraConfig.get().runtime.config_sources
    return [word for each in sources if each.provider == "command-line" for word in ("--config-dir", each.path)]


def files_sentence(directory: str, pictures: bool) -> str:
    """Where a run's result lies."""
    if not pictures:
        return f"Everything of this run is in {directory}."
    return (
        f"Open {directory}/report.html in a browser: it shows the worst test joints. Everything of this run is in "
        "its folder."
    )


def logging_options(config: DictConfig) -> dict[str, Any]:
    """The arguments of :func:`~solder_vae.training.loggers.run_loggers` for a run.

    The config is nested, since dashboards read a dot in a key as a step down. The names that were chosen for its groups
    stand apart as ``choices``, since the agents of Weights & Biases lock the keys that they sweep.
    """
    hydra = HydraConfig.get()
    container: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    choices = {group: hydra.runtime.choices[group] for group in CHOICES}
    beta = f" beta={config.beta:g}" if config.beta is not None else ""
    return {
        "config": {**container, "choices": choices},
        **config.logger,
        "name": f"{choices['model']}{beta} {config.score.name} seed={config.seed}",
        "group": Path(hydra.sweep.dir).name if hydra.mode == RunMode.MULTIRUN else None,  # the sweep
    }
