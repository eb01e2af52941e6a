"""What an online run leaves on a server, and on this disk: the checkpoint is sent from where it lies."""

import http.server
import json
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import wandb
from stand_in import StandIn

from solder_vae.data.table import ImageTable
from solder_vae.training.loggers import Dashboard, content_digest, log_lineage, run_loggers


class Artefacts(StandIn):
    """As much of Weights & Biases as a run with artefacts takes; ``server.got`` holds the files that were sent."""

    def address(self, name):
        return f"http://127.0.0.1:{self.server.server_port}/{name}"

    def do_POST(self):
        request = self.request_body()
        if self.path != "/graphql":
            self.answer({})
            return
        content = json.loads(request)
        self.server.asked.append((content["query"], content.get("variables") or {}))
        self.answer(self.data(*self.server.asked[-1]))

    def do_PUT(self):
        self.server.got[self.path.removeprefix("/")] = self.request_body()
        self.answer({})

    def data(self, query, variables):
        place = {"uploadHeaders": [], "uploadMultipartUrls": None}
        manifest = {"id": "F", "name": "", "displayName": "", "uploadUrl": self.address("manifest"), **place}
        if "viewer" in query:
            me = {"id": "1", "entity": "me", "username": "me", "email": "", "flags": "{}", "teams": {"edges": []}}
            return {"viewer": me}
        if "upsertBucket" in query:
            project = {"id": "P", "name": "line", "entity": {"id": "E", "name": "me"}}
            bucket = {"id": "1", "name": variables["name"], "displayName": "", "config": "{}", "project": project}
            return {"upsertBucket": {"bucket": bucket, "inserted": True}}
        if "artifactType {" in query:
            return {"project": {"artifact": None}}
        if "createArtifactManifest(" in query:
            return {"createArtifactManifest": {"artifactManifest": {"id": "M", "file": manifest}}}
        if "updateArtifactManifest(" in query:
            return {"updateArtifactManifest": {"artifactManifest": {"id": "M", "file": manifest}}}
        if "createArtifactFiles(" in query:
            files = [
                {"id": each["name"], "name": each["name"], "displayName": "", "storagePath": each["name"],
                 "uploadUrl": self.address(each["name"]), "artifact": {"id": "A"}, **place}
                for each in variables["input"]["artifactFiles"]
            ]  # fmt: skip
            return {"createArtifactFiles": {"files": {"edges": [{"node": each} for each in files]}}}
        if "createArtifact(" in query:
            sequence = {"id": "S", "latestArtifact": None}
            return {"createArtifact": {"artifact": {"id": "A", "state": "PENDING", "artifactSequence": sequence}}}
        if "commitArtifact(" in query:
            return {"commitArtifact": {"artifact": {"id": "A", "digest": ""}}}
        if "createRunFiles(" in query:
            files = [{"name": name, "uploadUrl": self.address(name)} for name in variables["files"]]
            return {"createRunFiles": {"runID": "1", "uploadHeaders": [], "files": files}}
        return {}


@pytest.fixture
def online(tmp_path, monkeypatch):
    """A folder for all that wandb writes, and the server."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Artefacts) as server:
        server.asked, server.got = [], {}
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
        for name in ("CACHE_DIR", "DATA_DIR", "CONFIG_DIR", "ARTIFACT_DIR"):
            monkeypatch.setenv(f"WANDB_{name}", str(tmp_path / name))
        wandb.teardown()  # what an earlier test has begun knows another server
        yield SimpleNamespace(folder=tmp_path, asked=server.asked, got=server.got)
        wandb.teardown()
        server.shutdown()


@pytest.mark.slow
def test_the_checkpoint_is_sent_from_where_it_lies(online):
    checkpoint = online.folder / "best.ckpt"
    content = np.random.default_rng(0).bytes(100_000)
    checkpoint.write_bytes(content)
    images = np.zeros((1, 8, 8, 3), np.uint8)
    tables = {"train": ImageTable(images, ["a.png"], ["normal"], np.array([[8, 8]]))}
    options = {"mode": "online", "project": "line", "tags": [], "name": "run", "group": None}
    with run_loggers(online.folder, {"seed": 0}, **options) as (_, dashboard):
        assert isinstance(dashboard, Dashboard)
        log_lineage(dashboard, tables, checkpoint, {"model": "vae", "score": "elbo"})
    assert not dashboard.lost
    assert online.got["best.ckpt"] == content
    assert json.loads(online.got["splits.json"]) == {"train": [["a.png", "normal"]]}
    created = [asked["input"] for query, asked in online.asked if "createArtifact(" in query]
    names = {each["artifactTypeName"]: each["artifactCollectionName"] for each in created}
    assert names == {"dataset": f"data-{content_digest(tables)[:16]}", "model": "vae-elbo"}
    assert any("useArtifact(" in query for query, _ in online.asked), "the run uses the data"
    copies = [path for path in online.folder.rglob("*") if path.is_file() and content in path.read_bytes()]
    assert copies == [checkpoint], "no second copy, neither staged nor cached"
