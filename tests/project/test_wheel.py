"""The wheel, installed away from the checkout, runs with the configs that travel inside it."""

import subprocess
import sys
import venv
from pathlib import Path

import pytest
from commands import TINY

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]


def test_wheel_trains_outside_the_checkout(tmp_path):
    wheels = tmp_path / "wheels"
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(wheels), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True, timeout=300)
    (wheel,) = wheels.glob("*.whl")
    # An environment of its own for the package; what the package needs comes from the running one.
    environment = tmp_path / "environment"
    venv.create(environment, system_site_packages=False)
    python = environment / "bin/python"
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-deps", str(wheel)]
    subprocess.run(install, check=True, timeout=300)
    own = subprocess.check_output([python, "-c", "import site; print(site.getsitepackages()[0])"], text=True).strip()
    needed = next(path for path in sys.path if path.endswith("site-packages"))
    (Path(own) / "needed.pth").write_text(needed + "\n")

    folder = tmp_path / "elsewhere"
    folder.mkdir()
    where = [python, "-c", "import solder_vae.utils.cli as cli; print(cli.CONF)"]
    conf = subprocess.check_output(where, cwd=folder, text=True).strip()
    assert Path(conf) == Path(own) / "solder_vae" / "conf"
    # A fresh interpreter draws in tests/data/test_large.py; one that logs is here alone.
    options = ["pictures=false", "model=cae", "score=recon", "hydra.run.dir=run"]
    command = [environment / "bin/solder-vae-train", *TINY, *options]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600, check=False)
    assert result.returncode == 0, result.stderr
    assert (folder / "run/metrics.json").exists()
    assert "AUROC" in result.stdout
