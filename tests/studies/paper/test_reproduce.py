"""The reproduce command: that interruptions lose and repeat nothing, failures, and its report."""

import csv
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import warm
from commands import TINY, inspect_wandb, run_command, train
from documented import compose_command
from hydra import initialize_config_dir
from omegaconf import OmegaConf

from solder_vae.data.transforms import to_tensor
from solder_vae.metrics.paired import PairedTest
from solder_vae.models.checkpoint import load_model
from solder_vae.studies.paper import runs as reproduction_runs
from solder_vae.studies.paper.plan import of_head, sweeps
from solder_vae.studies.paper.point_tables import readings
from solder_vae.studies.paper.report import lengths, p_value
from solder_vae.studies.paper.reproduce import check_values, training_overrides
from solder_vae.studies.paper.results import Trend, difference
from solder_vae.studies.paper.sampled import sampled_tests
from solder_vae.training.schema import register
from solder_vae.utils.cli import CONF
from solder_vae.utils.config import build
from solder_vae.utils.document import Bullets, Code, Heading, Table, Text, to_html, to_markdown
from solder_vae.utils.errors import UserError

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

SMALL = (*TINY, "trainer.max_epochs=1", "embeddings=2", "sampled_tests=2", "jobs=2")


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        (["further=[cae]"], "further=cae is no model that reproduce adds"),
        (["heads=[linear]"], "heads=linear is no head of the encoder: use block or conv."),
        (["heads=[block,conv]", "model.head=conv"], "model.head=conv does not fit heads=[...]"),
    ],
)
def test_what_cannot_be_added_is_refused(option, sentence, tmp_path):
    wrong = run_command("reproduce", *SMALL, *option, cwd=tmp_path)
    assert wrong.returncode == 2
    assert sentence in wrong.stderr


def test_overrides_go_to_the_trainings_or_not_at_all():
    given = ["scale=paper", "seeds=3", "data=folder", "data.root=x", "out=y", "++model.lr=1", "score.latent=mean"]
    assert training_overrides(given) == ["data=folder", "data.root=x", "++model.lr=1", "score.latent=mean"]
    for text in ("model=cae", "seed=1", "beta=3", "experiment=paper", "score=recon"):
        with pytest.raises(UserError, match="drop it"):
            training_overrides([text])


def test_a_multirun_that_lost_a_process_is_begun_again(monkeypatch, tmp_path):
    """As long as something gets finished; not for runs that say why they failed."""
    (sweep,) = (sweep for sweep in sweeps(1) if sweep.experiment == "table2")
    done, failed, finished_a_call, calls = set(), set(), iter([2, 1, 0, 9]), []

    def run(sweep, *_):
        calls.append(sweep)
        waiting = [training for training in sweep.trainings if training not in done]
        done.update(waiting[: next(finished_a_call)])
        return ()

    monkeypatch.setattr(reproduction_runs.SweepFolder, "has_result", lambda site, training: training in done)
    monkeypatch.setattr(reproduction_runs, "last_error", lambda folder: "why" if folder.name in failed else "")
    monkeypatch.setattr(reproduction_runs, "run_sweep", run)
    site = reproduction_runs.SweepFolder(tmp_path, "quick", (), tmp_path / "log")
    reproduction_runs.run_sweeps([sweep], site, 1)
    assert (len(calls), len(done)) == (3, 3)  # the third got nothing done
    reproduction_runs.run_sweeps([sweep], site, 1)
    assert (len(calls), len(done)) == (4, 6)
    reproduction_runs.run_sweeps([sweep], site, 1)
    assert len(calls) == 4

    last = sweep.trainings[-1]
    done.remove(last)
    failed.add(last.folder)
    finished_a_call = iter([0, 9])
    reproduction_runs.run_sweeps([sweep], site, 1)
    assert (len(calls), last in done) == (5, False)


def test_words_for_numbers():
    assert difference(PairedTest(3, 0.01234, -0.1, 0.12, 0.5)) == "+0.012 [-0.100, +0.120]"
    assert difference(PairedTest(0, float("nan"), float("nan"), float("nan"), float("nan"))) == "-"
    assert (p_value(0.0001), p_value(0.25), p_value(float("nan"))) == ("< 0.001", "0.250", "-")


def test_the_report_says_whether_the_runs_were_long_enough():
    trends = [Trend(800, 0.01, False), Trend(816, 0.094, True), Trend(800, -0.02, False), Trend(800, None, None)]
    sentence = lengths(SimpleNamespace(trends=trends))
    assert (
        "fell by 1.0 % (median over 3 runs of 800 to 816 steps; from -2.0 % to 9.4 %, negative where it rose)"
        in sentence
    )
    assert "In 1 of them it was still falling: by 5 % or more" in sentence
    assert "of 800 steps" in lengths(SimpleNamespace(trends=trends[:1]))
    ended = lengths(SimpleNamespace(trends=[Trend(1264, 0.1, None)] * 2))
    assert "The learning rate ends with a run" in ended
    assert "still falling" not in ended
    assert "cannot be told" in lengths(SimpleNamespace(trends=trends[3:]))


def test_texts_are_no_markup():
    hostile = '<script>alert("1")</script>|'
    blocks = [
        Heading(hostile), Text(hostile), Bullets([("", hostile)]), Table([hostile], [[hostile]]), Code(hostile, hostile)
    ]  # fmt: skip
    page = to_html(hostile, blocks)
    assert "<script" not in page
    assert page.count("&lt;script&gt;") == 9
    assert r"</script>\| |" in to_markdown("title", blocks)


@pytest.mark.slow
def test_help_at_once(tmp_path):
    started = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = run_command("reproduce", "--help", cwd=tmp_path, fresh=True)
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert result.returncode == 0, result.stderr
    assert "medium, paper, quick" in result.stdout
    assert ended.ru_utime - started.ru_utime + ended.ru_stime - started.ru_stime < 10
    code = "import sys, solder_vae.reproduce; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("option", ["seeds=0", "jobs=0", "embeddings=x", "model=cae", "scale=huge"])
def test_mistakes_get_one_sentence(option, tmp_path):
    result = run_command("reproduce", option, f"out={tmp_path / 'out'}", cwd=tmp_path)
    assert result.returncode == 2
    assert len([line for line in result.stderr.splitlines() if line.startswith("error: ")]) == 1
    assert "Traceback" not in result.stderr


# whole commands -------------------------------------------------------------------------------------------------------


def results_below(folder):
    return {path: path.stat().st_mtime_ns for path in folder.glob("out/runs/*/*/metrics.json")}


def trained_times(run_folder):
    return len(re.findall(r"epoch 1/1 ", (run_folder / "train.log").read_text()))


def started(folder, arguments, output):
    """The command, in a process group of its own."""
    command = [warm.python(), "-m", "solder_vae.reproduce", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100"}
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT, process_group=0
    )


def wait_for_results(count, folder, process):
    give_up = time.monotonic() + 900
    while len(results_below(folder)) < count and time.monotonic() < give_up and process.poll() is None:
        time.sleep(0.1)


def kill_a_worker(process, folder):
    """SIGKILL to the process of a run that has just begun, as the system does for want of memory.

    One that is sending a result is left alone: joblib's pool would wait for the rest of it for ever.
    """
    finished = max(results_below(folder).values())
    give_up = time.monotonic() + 100
    while time.monotonic() < give_up and process.poll() is None:
        begun = [path for path in folder.glob("out/runs/*/*/.hydra") if path.stat().st_mtime_ns > finished]
        logs = {str(path.with_name("train.log")) for path in begun}
        for file in Path("/proc").glob("[0-9]*/fd/*"):
            with suppress(OSError):  # it has ended
                if str(file.readlink()) in logs and os.getpgid(pid := int(file.parts[2])) == process.pid:
                    os.kill(pid, signal.SIGKILL)
                    return
    raise LookupError("no run has begun")


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """A reproduction killed in the middle, then run to its end, which one of its workers does not live to see.

    Returns:
        The folder, the results that were there at the kill, the second call's status and output.
    """
    folder = tmp_path_factory.mktemp("reproduction")
    arguments = [*SMALL, "seeds=1", "out=out"]
    first = started(folder, [*arguments, "jobs=1"], subprocess.DEVNULL)
    wait_for_results(6, folder, first)  # all of the first multirun
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    before = results_below(folder)
    with (folder / "output").open("w+", encoding="utf-8") as output:
        second = started(folder, arguments, output)
        wait_for_results(len(before) + 1, folder, second)
        kill_a_worker(second, folder)
        status = second.wait(timeout=900)
        output.seek(0)
        return folder, before, status, output.read()


@pytest.mark.slow
def test_an_interruption_loses_and_repeats_nothing(interrupted):
    folder, before, status, output = interrupted
    assert status == 0, output
    assert 6 <= len(before) < 9
    after = results_below(folder)
    assert len(after) == 11
    for path, modified in before.items():
        assert after[path] == modified
        assert trained_times(path.parent) == 1
    # One was killed half-way; the worker took its own run and the other's with it.
    assert sum(trained_times(path.parent) for path in after) <= 11 + 1 + 2
    assert f"11 runs, {len(before)} of them with a result already" in output


@pytest.mark.slow
def test_a_result_of_other_settings_is_none(interrupted):
    runs = interrupted[0] / "out/runs/quick_synthetic"
    trainings = list(sweeps(1)[0].trainings[:2])
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for others, missing in (((), []), (("model.lr=2e-3",), trainings)):
            site = reproduction_runs.SweepFolder(runs, "quick", (*TINY, "trainer.max_epochs=1", *others), runs / "log")
            assert site.without_result(trainings) == missing


@pytest.mark.slow
def test_the_report_has_everything_and_promises_nothing(interrupted):
    folder, *_, output = interrupted
    assert "6 are not shown either way" in output
    out = folder / "out"
    text = (out / "report.md").read_text()
    for words in ("0.809 ± 0.04", "0.641 ", "all abnormal", "mean colour alone", "Holm's", "MIG", "torch 2.", "(2) "):
        assert words in text
    assert "| holds" not in text
    assert "## At the paper's operating point" in text
    assert text.count("| not shown, p ") == 16 * 3  # one comparison is in two claims
    with (out / "runs.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 2 + 9 * 3  # the CAE has two scores, the others three
    assert {row["status"] for row in rows} == {"finished"}
    for name in ("f1.png", "figure_4.png", "figure_5.png", "figure_6.png", "traversal.png"):
        assert f"]({name})" in text
        assert (out / name).read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_weights_and_biases_gets_one_run_of_it_all(interrupted):
    out = interrupted[0] / "out"
    assert not list(out.glob("runs/*/*/wandb"))
    assert not list(out.glob("runs/*/*/*.png"))
    logged = inspect_wandb(out)
    assert logged["state"] == "finished"
    with (out / "runs.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    (cae,) = (row for row in rows if (row["model"], row["constraint"], row["score"]) == ("cae", "1", "gradcon"))
    assert logged["summary"]["CAE GradCon/auroc"] == pytest.approx(float(cae["auroc"]))
    assert logged["summary"]["tables/Table III: beta"]["nrows"] == 6
    for name in ("figure 4", "figure 5", "figure 6", "traversal"):
        assert f"pictures/{name}" in logged["summary"]


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium on the PATH")
def test_the_page_stands_alone_in_a_browser(interrupted, tmp_path):
    folder, *_ = interrupted
    page = tmp_path / "report.html"  # alone: nothing beside it to load
    shutil.copy(folder / "out/report.html", page)
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--virtual-time-budget=2000"]
    flags += ["--disable-background-networking", f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1280,1000"]
    command = [CHROMIUM, *flags, "--dump-dom", page.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    assert re.findall(r"<h2>(.*?)</h2>", dom)[:3] == [
        "In short",
        "The paper's claims",
        "At the paper's operating point",
    ]
    assert dom.count('src="data:image/png;base64,') == 5
    assert not re.findall(r'(?:src|href)="(?!data:)', dom)
    widths = """<script>document.title = [...document.querySelectorAll(".scroll")].slice(0, 1).map(
        box => `${box.scrollWidth <= box.clientWidth}`)</script></body>"""
    measured = page.with_name("measured.html")
    measured.write_text(page.read_text().replace("</body>", widths).replace("Content-Security-Policy", "none"))
    fits = subprocess.run([*command[:-1], measured.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    assert "<title>true</title>" in fits.stdout, "the table of claims needs sideways scrolling"
    shot = tmp_path / "page.png"
    subprocess.run([CHROMIUM, *flags, f"--screenshot={shot}", page.as_uri()], timeout=120, check=True)
    assert shot.stat().st_size > 30_000


@pytest.fixture(scope="module")
def failed(interrupted, tmp_path_factory):
    """A call with that one's results in its folder, but a reduction, further models and heads.

    The CAE knows no reduction; the others have this one without being asked.

    Returns:
        The folder, the results that were there before, the call.
    """
    folder = tmp_path_factory.mktemp("failed")
    shutil.copytree(interrupted[0] / "out/runs", folder / "out/runs")
    earlier = results_below(folder)
    options = ("jobs=1", "seeds=1", "out=out", "++model.reduction=sum")
    further = ("further=[beta_tcvae,annealed_vae]", "heads=[block,conv]")
    return folder, earlier, run_command("reproduce", *SMALL, *options, *further, cwd=folder)


@pytest.mark.slow
@pytest.mark.measured
def test_a_failing_training_is_reported_and_the_others_finish(failed):
    """The result of an earlier call is one, but for those whose settings differ, though they are of the same run."""
    folder, earlier, result = failed
    assert result.returncode == 2, result.stderr
    assert "2 of 14 runs failed" in result.stderr
    assert "14 runs, 9 of them with a result already" in result.stderr
    trained = [path.parent.name for path, when in results_below(folder).items() if earlier.get(path) != when]
    assert len(trained) == 3
    assert not any(name.startswith("cae") for name in trained)
    text = (folder / "out/report.md").read_text()
    assert "## Runs that failed" in text
    assert "'model.reduction' is no option of solder_vae.models.CAE" in text
    with (folder / "out/runs.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["model"] for row in rows if row["status"] == "failed"] == ["cae", "cae"]


@pytest.mark.slow
def test_further_models_and_heads_stand_in_tables_of_their_own(failed):
    out = failed[0] / "out"
    text = (out / "report.md").read_text(encoding="utf-8").partition("Disentanglement")[2]
    names = re.findall(r"^\| (\S.*?) +\|", text, re.MULTILINE)
    assert {"β-TCVAE", "annealed VAE", "VAE"} <= set(names)

    header, _, *lines = re.findall(r"^\|.*\|$", text.partition("## What the heads do")[2], re.MULTILINE)
    keys, *rows = ([cell.strip() for cell in line.split("|")[1:-1]] for line in (header, *lines))
    table = {row[0]: dict(zip(keys[1:], row[1:], strict=True)) for row in rows}
    assert list(table) == ["block", "conv", "conv - block"]
    for head in ("block", "conv"):
        folder = out / "runs/quick_synthetic" / of_head(head, 0).folder
        numbers = json.loads((folder / "metrics.json").read_text())
        config = OmegaConf.load(folder / "config.yaml")
        assert config.model.head == head
        for title, key in (("AUROC ELBO", "test/elbo/auroc"), ("Validation loss", "val/loss")):
            assert table[head][title] == f"{numbers[key]:.3f}"
        data = build(config.data)
        data.setup()
        with torch.no_grad():
            _, logvar = load_model(folder / "best.ckpt").eval().encode(to_tensor(data.tables["val"].images))
        assert table[head]["log σ², lowest"] == f"{logvar.min():.3f}"
        assert table[head]["median"] == f"{logvar.double().quantile(0.5):.3f}"
    assert float(table["conv - block"]["Validation loss"]) == pytest.approx(
        float(table["conv"]["Validation loss"]) - float(table["block"]["Validation loss"]), abs=0.0011
    )
    with (out / "runs.csv").open(encoding="utf-8") as file:
        assert {row["head"] for row in csv.DictReader(file)} == {"", "conv"}


def test_tests_with_drawn_latents_can_be_left_out():
    (config,) = compose_command("solder_vae.reproduce", ["sampled_tests=0"])
    check_values(config)
    drawn = sampled_tests(None, None, None, config.sampled_tests)
    texts = [block.text for block in readings(SimpleNamespace(rows={}), drawn) if isinstance(block, Text)]
    assert any("Tests with drawn latents were not made" in text for text in texts)


@pytest.mark.slow
def test_the_experiment_is_an_ordinary_sweep_that_skips_what_is_finished(tmp_path):
    sweep = ("-m", "experiment=table2", "seed=0", "model=cae", "hydra.sweep.dir=sweep")
    first = train(*sweep, cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    files = sorted(tmp_path.glob("sweep/*/metrics.json"))
    assert [path.parent.name for path in files] == ["cae_betaNone_gradcon_seed0", "cae_betaNone_recon_seed0"]
    before = [path.stat().st_mtime_ns for path in files]
    again = train(*sweep, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("finished already") == 2
    assert [path.stat().st_mtime_ns for path in files] == before
    other = train(*sweep, "score=recon", "model.lr=2e-3", cwd=tmp_path)  # another setting is another run
    assert other.returncode == 0, other.stderr
    assert "finished already" not in other.stderr
    assert files[1].stat().st_mtime_ns != before[1]
