"""Sweeps on every launcher: a failing job leaves its traceback, the others finish, the exit status tells."""

import importlib.util
import json
import os
import shutil

import pytest
import warm
import yaml
from commands import SMALL_CLUSTER, TINY, inspect_wandb, on_a_cluster, run_command, train
from wandb.wandb_agent import Agent

from solder_vae.studies.sweeps.runs import read_runs
from solder_vae.utils.cli import CONF, missing_plugin

# Slurm's commands as far as submitit uses them, with this machine as the cluster.
SLURM = {
    "sbatch": r"""
        cp "$1" "$(dirname "$0")/submitted.sh"
        last=$(sed -nE 's/^#SBATCH --array=0-([0-9]+)%.*/\1/p' "$1")
        for task in $(seq 0 "$last"); do
            SLURM_ARRAY_JOB_ID=7 SLURM_ARRAY_TASK_ID=$task SLURM_JOB_ID=$((7 + task)) SLURM_JOB_NODELIST=here \
            SLURM_JOB_NUM_NODES=1 SLURM_NTASKS=1 SLURM_NODEID=0 SLURM_PROCID=0 SLURM_LOCALID=0 \
                bash "$(dirname "$0")/submitted.sh" &> /dev/null &
        done
        echo "Submitted batch job 7"
    """,
    "srun": r"""
        for word in "$@"; do  # its own options come first: --unbuffered --output FILE --error FILE
            word=${word//%A/$SLURM_ARRAY_JOB_ID} word=${word//%a/$SLURM_ARRAY_TASK_ID}
            words+=("${word//%t/0}")
        done
        mkdir -p "$(dirname "${words[2]}")"
        exec "${words[@]:5}" > "${words[2]}" 2> "${words[4]}"
    """,
    "sacct": "echo 'JobID|State|NodeList'",
}


def fake_slurm(folder):
    """Environment with those commands, kept in a folder, on its PATH."""
    folder.mkdir()
    for name, script in SLURM.items():
        (folder / name).write_text(f"#!/bin/bash\n{script}")
        (folder / name).chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


def plugin(name):
    return pytest.mark.skipif(
        importlib.util.find_spec(f"hydra_plugins.hydra_{name}") is None, reason=f"needs the plugin {name}"
    )


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The numbers of the sweeps' job that does not fail, run by itself."""
    folder = tmp_path_factory.mktemp("alone")
    result = train("model=vae", "score=elbo", "hydra.run.dir=run", cwd=folder)
    assert result.returncode == 0, result.stderr
    return json.loads((folder / "run/metrics.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher",
    [
        "basic",
        pytest.param("joblib_cores", marks=plugin("joblib_launcher")),
        pytest.param("submitit_processes", marks=plugin("submitit_launcher")),
        pytest.param("slurm", marks=plugin("submitit_launcher")),
        pytest.param("ray_cluster", marks=plugin("ray_launcher")),
    ],
)
def test_one_job_fails_and_the_others_finish(launcher, alone, tmp_path):
    where = (f"hydra/launcher={launcher}", "hydra.sweep.dir=sweep")
    environment = fake_slurm(tmp_path / "bin") if launcher == "slurm" else {}
    if launcher == "ray_cluster":  # one that is started here, and small
        environment = SMALL_CLUSTER
        where += tuple(f"hydra.launcher.ray.init.{text}" for text in ("num_cpus=1", "object_store_memory=100000000"))

    def sweep():
        shutil.rmtree(tmp_path / "sweep", ignore_errors=True)
        fresh = launcher == "ray_cluster"
        return train("-m", *where, "model=cae,vae", "score=elbo", cwd=tmp_path, fresh=fresh, **environment)

    result = on_a_cluster(sweep) if launcher == "ray_cluster" else sweep()
    assert result.returncode == 2, result.stderr
    reason = "score=elbo does not fit model=cae: use one of score=recon, score=gradcon."
    assert f"error: {reason}" in result.stderr
    assert result.stderr.splitlines()[-2:] == [
        "error: 1 of 2 jobs failed (traceback: train.log):",
        f"  sweep/0: solder_vae.utils.errors.UserError: {reason}",
    ]
    runs = read_runs(tmp_path / "sweep")
    assert [run.state for run in runs] == ["failed", "finished"]
    assert runs[0].reason == f"solder_vae.utils.errors.UserError: {reason}"
    assert runs[0].error in (tmp_path / "sweep/0/train.log").read_text()
    assert alone == runs[1].numbers, "where it ran makes no difference"
    if launcher == "basic":  # the others' runs left the same
        assert "Traceback" not in result.stderr
        run_command("report", "sweep", cwd=tmp_path)
        quoted = (tmp_path / "sweep/report.md").read_text()
        assert all(line in quoted for line in ["Traceback (most recent call last):", *runs[0].error.splitlines()])


@pytest.mark.slow
@plugin("optuna_sweeper")
def test_optuna_maximises_a_criterion_of_validation_normals(tmp_path):
    where = ("hydra/sweeper=optuna_search", "hydra.sweeper.n_trials=3", "hydra.sweep.dir=sweep")
    result = train("-m", *where, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    runs = read_runs(tmp_path / "sweep")
    found = [run.numbers["val/pseudo_defect_auroc"] for run in runs]
    best = yaml.safe_load((tmp_path / "sweep/optimization_results.yaml").read_text())
    assert best["best_value"] == max(found)
    assert len({run.settings["beta"] for run in runs}) == 3


@pytest.mark.slow
@plugin("optuna_sweeper")
def test_a_failed_trial_stops_no_search_but_shows_in_the_status(tmp_path):
    where = ("hydra/sweeper=optuna_search", "hydra.sweeper.n_trials=3", "hydra.sweep.dir=sweep")
    result = train("-m", *where, "score.draws=choice(0,1)", cwd=tmp_path)
    states = [run.state for run in read_runs(tmp_path / "sweep")]
    assert set(states) == {"finished", "failed"}, "this seed must draw both"
    assert len(states) == 3
    assert result.returncode == 1
    assert f"error: {states.count('failed')} of 3 jobs failed" in result.stderr


@pytest.mark.slow
@plugin("optuna_sweeper")
def test_a_search_of_failed_trials_alone_says_so(tmp_path):
    where = ("hydra/sweeper=optuna_search", "hydra.sweeper.n_trials=2", "hydra.sweep.dir=sweep")
    result = train("-m", *where, "score.draws=0", cwd=tmp_path)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    reason = "solder_vae.utils.errors.UserError: score.draws=0 does not fit: use a whole number, 1 or more."
    assert result.stderr.splitlines()[-4:] == [
        "error: no trial of the search finished.",
        "error: 2 of 2 jobs failed (traceback: train.log):",
        *(f"  sweep/{number}: {reason}" for number in (0, 1)),
    ]


@pytest.mark.parametrize("kind", ["launcher", "sweeper"])
def test_a_missing_plugin_is_named_with_what_to_install(kind):
    for file in (CONF / "hydra" / kind).glob("*.yaml"):
        target = yaml.safe_load(file.read_text())["hydra"][kind]["_target_"]
        sentence = missing_plugin(RuntimeError(f"Unknown plugin class : '{target}'"))
        assert "pip install -c constraints.txt '.[sweep]'" in sentence
    assert missing_plugin(RuntimeError("anything else")) is None


@pytest.mark.slow
def test_without_the_plugin_the_command_says_so(tmp_path):
    """As if Ray's launcher were not there: an empty package of its name comes first."""
    (tmp_path / "hydra_plugins/hydra_ray_launcher").mkdir(parents=True)
    (tmp_path / "hydra_plugins/hydra_ray_launcher/__init__.py").touch()
    result = train("-m", "hydra/launcher=ray_cluster", cwd=tmp_path, fresh=True)
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1].startswith("error: The launcher ray is not installed: pip install")


@pytest.mark.slow
@plugin("ray_launcher")
def test_ray_reports_nothing_to_its_makers():
    from ray._common.usage.usage_lib import usage_stats_enabled

    assert not usage_stats_enabled()


@pytest.mark.slow
@plugin("submitit_launcher")
def test_what_slurm_is_asked_for(tmp_path):
    """The script's options are those of the config and the command line, and `setup` runs before the job."""
    slurm = fake_slurm(tmp_path / "bin")
    asked = ("partition=line", "cpus_per_task=3", "array_parallelism=1", 'setup=["echo ready > setup"]')
    asked += ("additional_parameters={mail-type: END}", "gpus_per_node=1")
    where = ("hydra/launcher=slurm", *(f"hydra.launcher.{text}" for text in asked), "hydra.sweep.dir=sweep")
    result = train("-m", *where, "trainer.max_epochs=0", "seed=0,1", cwd=tmp_path, **slurm)
    assert "error: 2 of 2 jobs failed" in result.stderr, result.stderr
    assert (tmp_path / "setup").read_text() == "ready\n"
    lines = (tmp_path / "bin/submitted.sh").read_text().splitlines()
    options = dict(line.removeprefix("#SBATCH --").partition("=")[::2] for line in lines if "#SBATCH" in line)
    expected = {
        "array": "0-1%1", "cpus-per-task": "3", "gpus-per-node": "1", "job-name": "train", "mail-type": "END",
        "mem": "8GB", "nodes": "1", "ntasks-per-node": "1", "partition": "line", "time": "600",
    }  # fmt: skip
    assert {key: options.get(key) for key in expected} == expected
    assert (tmp_path / "sweep/.submitit/7_0/7_0_0_log.err").exists()


@pytest.mark.slow
def test_a_sweep_agent_trains(tmp_path, monkeypatch):
    """Weights & Biases' own agent, told to run one choice of the parameters as its server would tell it."""
    sweep = yaml.safe_load((CONF / "wandb/sweep.yaml").read_text())
    chosen = {
        key: space.get("value", space.get("values", [space.get("min")])[0])
        for key, space in sweep["parameters"].items()
    }
    chosen |= {
        "logger.mode": "offline",
        "pictures": "false",
        "hydra.run.dir": "run",
        **dict(text.split("=") for text in TINY),
    }
    environment = {"OMP_NUM_THREADS": "1", "PATH": f"{warm.python().parent}:{os.environ['PATH']}"}
    for name in ("WANDB_DIR", "WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH"):
        environment[name] = ""  # the agent sets them
    for name, value in {**environment, "WANDB_SWEEP_ID": "search"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    agent = Agent(api=None, queue=None)
    agent._sweep_command = sweep["command"]
    arguments = {key: {"value": value} for key, value in chosen.items()}
    agent._command_run({"run_id": "first", "program": sweep["program"], "args": arguments})
    assert agent._run_processes["first"].wait() == 0
    logged = inspect_wandb(tmp_path / "run")
    assert 0 <= logged["summary"][sweep["metric"]["name"]] <= 1
    assert (logged["config"]["score"], logged["config"]["beta"]) == ("recon", chosen["beta"])
