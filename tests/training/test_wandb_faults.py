"""Weights & Biases is away, slow, or lost in the middle of a run: the run ends as if it were there, and says so once.

The server is one of this process's own, which knows just enough to let a run start.
"""

import http.server
import json
import subprocess
import threading
from pathlib import Path

import pytest
import warm
from commands import TINY, inspect_wandb, train
from stand_in import StandIn

pytestmark = pytest.mark.slow

COMMON = ("model=cae", "score=recon", "pictures=true", "hydra.run.dir=run")
#: Seconds, instead of the minutes that a user waits at most.
IMPATIENT = {"WANDB_INIT_TIMEOUT": "10", "WANDB_FINISH_TIMEOUT": "3", "WANDB_HTTP_TIMEOUT": "3"}


class Server(http.server.ThreadingHTTPServer):
    """Lets ``starts`` runs start; then it answers nothing (``silent``) or closes each connection."""

    def __init__(self, starts, silent):
        super().__init__(("127.0.0.1", 0), Handler)
        self.starts, self.silent, self.over, self.refused = starts, silent, threading.Event(), 0
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.over.set()
        self.shutdown()
        self.server_close()


class Handler(StandIn):
    def do_POST(self):
        request = self.request_body()
        if self.server.starts == 0 or b"UpsertBucket" not in request:
            self.server.refused += 1
            if self.server.silent:
                self.server.over.wait()
            return
        self.server.starts -= 1
        project = {"name": "solder_vae", "entity": {"name": "me"}}
        bucket = {"id": "1", "name": json.loads(request)["variables"]["name"], "project": project}
        self.answer({"upsertBucket": {"bucket": bucket, "inserted": True}})


def online(server, folder):
    environment = {"WANDB_BASE_URL": f"http://127.0.0.1:{server.server_port}", "WANDB_API_KEY": "a" * 40}
    return train(*COMMON, "logger.mode=online", cwd=folder, **environment, **IMPATIENT)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    assert train(*COMMON, "logger.mode=disabled", cwd=folder).returncode == 0
    return folder / "run"


def assert_whole(result, run, undisturbed):
    """The run ended well, its own files are all there, and what was lost is told in one line, which is returned."""
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
    for name in ("metrics.json", "metrics.csv", "predictions.csv"):
        assert (run / name).read_bytes() == (undisturbed / name).read_bytes(), name
    assert {path.name for path in undisturbed.iterdir()} <= {path.name for path in run.iterdir()}
    (line,) = [line for line in result.stderr.splitlines() if "Weights & Biases" in line]
    return line


def test_no_key_and_no_network_do_not_stop_a_run(undisturbed, tmp_path):
    result = train(*COMMON, "logger.mode=online", cwd=tmp_path, WANDB_API_KEY="")
    line = assert_whole(result, tmp_path / "run", undisturbed)
    assert line.startswith("Weights & Biases (online) did not start: ")
    assert line.endswith(". The run goes on offline.")
    assert inspect_wandb(tmp_path / "run")["state"] == "finished"


def test_server_that_never_answers(undisturbed, tmp_path):
    with Server(starts=0, silent=True) as server:
        line = assert_whole(online(server, tmp_path), tmp_path / "run", undisturbed)
        assert server.refused > 0
    assert line.startswith("Weights & Biases (online) did not start: ")
    assert line.endswith(". The run goes on offline.")
    assert inspect_wandb(tmp_path / "run")["state"] == "finished"


@pytest.mark.parametrize("silent", [True, False], ids=["answers nothing more", "closes connections"])
def test_server_lost_after_the_start(silent, undisturbed, tmp_path):
    with Server(starts=1, silent=silent) as server:
        line = assert_whole(online(server, tmp_path), tmp_path / "run", undisturbed)
        assert (server.starts, server.refused > 0) == (0, True)
    assert "did not get all of this run" in line
    (kept,) = (tmp_path / "run/wandb").glob("run-*")
    assert f"wandb sync {kept} sends what was logged until then" in line
    logged = inspect_wandb(tmp_path / "run")["summary"]
    assert logged["val/loss"]["last"] > 0
    assert "pictures/reconstructions" in logged


def test_process_of_wandb_is_killed(undisturbed, tmp_path):
    """It runs beside the run, also offline."""
    command = [warm.python(), Path(__file__).parents[1] / "support" / "faulty.py", "wandb-kill", "5", *TINY, *COMMON]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False)
    line = assert_whole(result, tmp_path / "run", undisturbed)
    assert "did not get all of this run" in line
