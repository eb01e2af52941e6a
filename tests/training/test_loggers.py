"""What goes to Weights & Biases: lineage by content, tags, notes, and a summary that stays readable."""

import csv
import http.server
import json
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from pytorch_lightning.loggers import CSVLogger
from stand_in import StandIn

from solder_vae.dashboard import job
from solder_vae.data.table import ImageTable
from solder_vae.studies.sweeps.workspace import layout, workspace
from solder_vae.training.loggers import WholeCSVLogger, content_digest, repeat_command
from solder_vae.training.run_files import summary_numbers


def table(value=0, path="a.png", defect="normal"):
    return ImageTable(np.full((1, 8, 8, 3), value, np.uint8), [path], [defect], np.array([[8, 8]]))


def test_the_digest_follows_content_and_split_alone():
    digest = content_digest({"train": table()})
    assert digest == content_digest({"train": table(path="elsewhere/b.png")})
    others = [{"train": table(1)}, {"test": table()}, {"train": table(defect="bridge")}]
    assert len({digest, *map(content_digest, others)}) == 4


def test_the_summary_keeps_what_dashboards_show():
    numbers = {
        "seed": 1,
        "val/loss": 0.1,
        "test/f1": 0.5,
        "test/recon/auroc": 0.7,
        "test/recon/auroc_low": 0.6,
        "test/auroc_low": 0.6,
        "test/recon/tp": 3,
        "test/defect/bridge/recall": 1.0,
        "baseline/size/auroc": 0.4,
        "baseline/size/recall": 0.4,
        "test/elbo/auroc": None,
        "thresholds": {},
    }
    kept = ["val/loss", "test/f1", "test/recon/auroc", "test/auroc_low", "baseline/size/auroc"]
    assert list(summary_numbers(numbers)) == kept


def test_the_command_to_repeat_can_be_pasted(monkeypatch):
    monkeypatch.setattr("sys.argv", ["train.py", "data.root=my joints", "beta=3"])
    assert repeat_command() == "python -m solder_vae.train 'data.root=my joints' beta=3"


def test_the_dashboard_is_written_where_weights_and_biases_cannot_be_reached(tmp_path, monkeypatch, capsys):
    def refuse(project, entity):
        raise RuntimeError("no key")

    monkeypatch.setattr("solder_vae.dashboard.save_online", refuse)
    out = tmp_path / "dashboard.json"
    assert job(["project=line", f"out={out}"]) == 0
    assert "no key" in capsys.readouterr().err
    text = out.read_text()
    assert json.loads(text)
    for shown in ("test/gradcon/f1", "test/recon/precision", "pictures/score_histogram", "predictions"):
        assert shown in text
    assert set(layout(workspace("me", "line"))) == set(json.loads(text))


class Workspaces(StandIn):
    """As much of Weights & Biases as saving a workspace takes; ``server.saved`` are those it was given."""

    def do_POST(self):
        request = self.request_body()
        if self.path != "/graphql":
            self.send_error(404)
            return
        content = json.loads(request)
        data = {
            "viewer": {
                "id": "1",
                "entity": "team",
                "username": "me",
                "email": "",
                "flags": "{}",
                "teams": {"edges": []},
            }
        }
        if "upsertView" in content["query"]:
            self.server.saved.append(content["variables"])
            data = {"upsertView": {"view": {"id": "VIEW", "name": content["variables"]["name"]}, "inserted": True}}
        self.answer(data)


@pytest.mark.slow
def test_the_dashboard_is_saved_where_weights_and_biases_can_be_reached(tmp_path):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Workspaces) as server:
        server.saved = []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        environment = {**os.environ, "WANDB_BASE_URL": address, "WANDB_API_KEY": "k" * 40}
        result = subprocess.run(
            [sys.executable, "-m", "solder_vae.dashboard", "project=line"], cwd=tmp_path, capture_output=True,
            text=True, env=environment, timeout=600, check=False,
        )  # fmt: skip
        server.shutdown()
    assert result.returncode == 0, result.stderr
    assert f"Workspace: {address}/team/line?nw=" in result.stdout
    assert not list(tmp_path.glob("*.json"))
    (saved,) = server.saved
    assert (saved["entityName"], saved["projectName"], saved["displayName"]) == ("team", "line", "solder joints")
    panels = json.loads(saved["spec"])["section"]["panelBankConfig"]["sections"]
    assert [section["name"] for section in panels][:2] == ["Against beta", "Settings and results"]


@pytest.mark.parametrize("method", ["writeheader", "writerows"])
@pytest.mark.parametrize("at", ["first", "second"])
def test_a_row_cut_off_by_an_interrupt_is_written_whole_by_the_next_saving(tmp_path, monkeypatch, at, method):
    """In Lightning's own logger an interrupted saving left a file without header, or rows longer than it."""
    rows = [{"epoch": 0, "val/loss": 2.5}, {"epoch": 0, "train/loss": 2.0}, {"epoch": 1, "val/loss": 1.5, "lr": 1e-3}]
    plain, ours = (kind(tmp_path / kind.__name__, name="", version="") for kind in (CSVLogger, WholeCSVLogger))
    for step, row in enumerate(rows):
        plain.log_metrics(row, step)
        plain.save()
        ours.log_metrics(row, step)
        if step == (0 if at == "first" else 2):
            with monkeypatch.context() as patch:
                patch.setattr(csv.DictWriter, method, interrupt)
                with pytest.raises(KeyboardInterrupt):
                    ours.save()
        else:
            ours.save()
    ours.finalize("failed")
    plain.finalize("failed")
    whole, other = (tmp_path / name / "metrics.csv" for name in ("WholeCSVLogger", "CSVLogger"))
    assert whole.read_bytes() == other.read_bytes()
    assert [*whole.parent.iterdir()] == [whole]


def interrupt(*_):
    raise KeyboardInterrupt
