"""docs/use/serve.md: its curl commands, run as they stand."""

import json
import re
import shutil
import subprocess

import pytest
from checkpoints import pictures, png, write_checkpoint
from documented import ROOT
from service import running

COMMANDS = re.findall(r"^curl .*$", (ROOT / "docs/use/serve.md").read_text(encoding="utf-8"), re.MULTILINE)

pytestmark = pytest.mark.skipif(not shutil.which("curl"), reason="there is no curl")


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    folder = tmp_path_factory.mktemp("documented")
    write_checkpoint(folder / "best.ckpt")
    for name, seed in (("a.png", 1), ("b.png", 2), ("board.png", 3)):
        (folder / name).write_bytes(png(pictures(1, size=80, seed=seed)[0]))
    (folder / "pads.csv").write_text("name,x,y,width,height\nR1.1,10,10,20,16\nR1.2,50,50,18,20\n")
    with running("best.ckpt", cwd=folder) as service:
        service.folder = folder
        yield service


def test_there_are_commands():
    assert len(COMMANDS) == 7


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_work_as_they_stand(service, command):
    command = command.replace("http://127.0.0.1:8000/", f"http://127.0.0.1:{service.port}/")
    result = subprocess.run(
        ["bash", "-c", f"{command} --fail-with-body"], cwd=service.folder, capture_output=True, text=True, timeout=300
    )
    assert (result.returncode, result.stderr) == (0, ""), result.stdout
    if "/metrics" in command:
        assert "solder_vae_joints_total" in result.stdout
        return
    answer = json.loads(result.stdout)
    if "/health" in command:
        assert answer["status"] == "ready"
        return
    expected = 1 if "b.png" not in command and "board" not in command else 2
    assert len(answer["predictions"]) == expected
    assert ("map" in answer["predictions"][0]) == ("maps=true" in command)
    assert ("drawn" in answer) == ("drawn=true" in command)
