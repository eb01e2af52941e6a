"""Reading a sweep's folder while it may still be written to: which jobs finished, failed or go on, and with what.

A job is a folder with Hydra's ``.hydra`` in it; A run is finished
once its ``metrics.json`` is there (that file comes whole, at the end), failed if its log ends in a traceback, and
unfinished otherwise: still going, or killed.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml  # type: ignore[import-untyped]
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from solder_vae.data.names import is_system
from solder_vae.utils.config import flatten
from solder_vae.utils.errors import UserError

State = Literal["finished", "failed", "unfinished"]

#: Names of groups whose choice says more than their values do.
CHOICES = ("model", "data", "threshold")

# Keys that do not change a run's result, repeat another key (conf/train.yaml's interpolations), or are the seed.
_LEFT_OUT = re.compile(
    r"seed|model\.(seed|beta|score|alpha|constraint_every|gamma|latent|draws|_target_)|score\.name|logger\..*|resume|"
    r"skip_finished|pictures|few_normals|"
    r"criterion|data\.(_target_|cache_dir|use_cache|render_workers|num_workers)|threshold\.(_target_|rule)|"
    r"trainer\._target_"
)
# Records of train.log: a failure, any other of this package's but the failure's second mention, and that mention.
# Launchers write there, too, and also after a job that failed.
_FAILED = re.compile(r"^\[[^\]]*\] ERROR solder_vae\.traceback: the run failed\n", re.MULTILINE)
_RECORD = re.compile(r"^\[\d{4}-[^\]]*\] (?!ERROR solder_vae: job \d)[A-Z]+ solder_vae\b", re.MULTILINE)
_SAID_AGAIN = re.compile(r"^\[\d{4}-[^\]]*\] ERROR solder_vae: job \d.*", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Run:
    """One run of a sweep.

    Attributes:
        name: its folder, relative to the sweep's.
        state: see the module's text.
        settings: all that its result can depend on but the seed, flat.
        seed: None if its config cannot be read.
        score: the primary score.
        numbers: its ``metrics.json``, empty if it is not finished.
        folder: where its files are.
        overrides: what was typed for it.
        error: the traceback of a failed one.
    """

    name: str
    state: State
    folder: Path
    settings: dict[str, Any] = field(default_factory=dict)
    seed: int | None = None
    score: str | None = None
    numbers: dict[str, Any] = field(default_factory=dict)
    overrides: list[str] = field(default_factory=list)
    error: str = ""

    @property
    def scores(self) -> list[str]:
        """The scores it was tested under, in the order of its numbers."""
        return [match[1] for key in self.numbers if (match := re.fullmatch(r"test/([^/]+)/auroc", key))]

    @property
    def reason(self) -> str:
        """What went wrong in a failed run."""
        return reason(self.error)


def read_runs(folder: Path) -> list[Run]:
    """Every run below ``folder``, in the order of the jobs' numbers.

    Raises:
        UserError: a job's files hold something that no run writes.
    """
    runs: list[Run] = []
    for job in job_folders(folder):
        try:
            runs.append(job_run(folder, job))
        except (AttributeError, TypeError, ValueError, RecursionError) as error:
            raise UserError(f"{job}: its configs or metrics.json are not a run's; move it elsewhere.") from error
    return runs


def job_folders(folder: Path) -> list[Path]:
    """The folders of jobs at or below ``folder``; nothing inside a job is one."""
    found = []
    for parent, children, _ in os.walk(folder):
        if ".hydra" in children:
            found.append(Path(parent))
            children.clear()
        children[:] = [child for child in children if not is_system(child)]
    return sorted(found, key=lambda path: natural(str(path.relative_to(folder))))


def natural(text: str) -> list[tuple[int, str]]:
    """A sort key by which 10 comes after 9."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", text)]


def job_run(sweep: Path, job: Path) -> Run:
    """The run of a job."""
    overrides = read_yaml(job / ".hydra/overrides.yaml") or []
    choices = (((read_yaml(job / ".hydra/hydra.yaml") or {}).get("hydra") or {}).get("runtime") or {}).get("choices")
    config = job_config(job)
    error = last_error(job)
    numbers = read_json(job / "metrics.json")
    own_data = not any(override.lstrip("+").startswith("data.seed=") for override in overrides)
    state: State = "finished" if numbers else "failed" if error else "unfinished"
    return Run(
        name=os.fspath(job.relative_to(sweep)),
        state=state,
        folder=job,
        settings=settings(config, choices or {}, numbers, own_data=own_data),
        seed=config.get("seed"),
        score=(config.get("score") or {}).get("name"),
        numbers=numbers,
        overrides=overrides,
        error=error if state == "failed" else "",
    )


def settings(
    config: Mapping[str, Any], choices: Mapping[str, Any], numbers: Mapping[str, Any], *, own_data: bool
) -> dict[str, Any]:
    """What a run's result can depend on, but for its seed.

    Args:
        config: the run's.
        choices: names that were chosen of the config's groups.
        numbers: its ``metrics.json``: there "auto" has become a precision.
        own_data: whether the data follow the run's seed, as they do unless told otherwise.
    """
    found = {key: value for key, value in flatten(config).items() if not _LEFT_OUT.fullmatch(key)}
    found |= {group: choices[group] for group in CHOICES if group in choices}
    if "data.seed" in found:
        found["data.seed"] = "the run's" if own_data else found["data.seed"]
    if "precision" in numbers:
        found["trainer.precision"] = numbers["precision"]
    return {key: json.dumps(value) if isinstance(value, list) else value for key, value in found.items()}


def job_config(job: Path) -> dict[str, Any]:
    """A job's config as it ran, or as it was composed if it did not come so far."""
    if config := read_yaml(job / "config.yaml"):
        return dict(config)
    try:
        composed = OmegaConf.load(job / ".hydra/config.yaml")
        return OmegaConf.to_container(composed, resolve=True)  # type: ignore[return-value]
    except (OSError, yaml.YAMLError, OmegaConfBaseException):
        return {}


def last_error(job: Path) -> str:
    """The traceback that the job's log ends with, else nothing."""
    try:
        text = (job / "train.log").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    *_, last = [None, *_FAILED.finditer(text)]
    if last is None or _RECORD.search(text, last.end()):  # none, or started again since
        return ""
    return _SAID_AGAIN.sub("", text[last.end() :]).strip()


def reason(error: str) -> str:
    """The last line of a traceback that says what went wrong."""
    lines = [line.strip() for line in error.splitlines() if re.match(r"[\w.]+(:|$)", line)]
    return lines[-1] if lines else "no traceback"


def read_yaml(path: Path) -> Any:
    """What a YAML file holds; None if it is missing, half-written or refers to itself.

    No run writes references, by which a few bytes can stand for gigabytes.
    """
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        content = path.read_bytes()
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(content, loader)):
            return None
        return yaml.load(content, loader)
    except (OSError, yaml.YAMLError):
        return None


def read_json(path: Path) -> dict[str, Any]:
    """What a JSON file holds; nothing if it is missing or half-written."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
