"""``python -m solder_vae.serve``: inspect over HTTP, pictures or boards in, verdicts in JSON out."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from solder_vae.utils.checks import no_device
from solder_vae.utils.cli import command, parse
from solder_vae.utils.errors import UserError
from solder_vae.utils.plugins import import_plugins

USAGE = """\
Inspect new joints over HTTP, as a checkpoint says.

  python -m solder_vae.serve checkpoint=PATH

  checkpoint=PATH   best.ckpt of a run, or calibrated.ckpt of solder_vae.threshold
  host=127.0.0.1    the address to listen on; 0.0.0.0 lets other machines in, and there are no passwords
  port=8000         0 takes a free one, which is printed
  body_mb=64        the largest request, in MiB
  pictures=256      the most pictures in one request
  waiting=64        the most requests that wait; more are told to come again (503)
  timeout=30        seconds that a request may take to arrive
  batch=32          how many joints of several requests are scored together; 1: those of each request by themselves
  device=cpu        or cuda
  plugins=MODULE    of yours, where the checkpoint's model, score or rule is defined; several with commas

  curl -F picture=@a.png -F picture=@b.png http://127.0.0.1:8000/pictures
  curl -F board=@board.png -F pads=@pads.csv http://127.0.0.1:8000/board

docs/use/serve.md describes requests and answers. The extra [serve] must be installed. SIGTERM or Ctrl-C ends the
service: what has arrived is answered, and the exit status is 0.
"""


@dataclass(frozen=True)
class Options:
    checkpoint: str
    host: str = "127.0.0.1"
    port: int = 8000
    body_mb: float = 64.0
    pictures: int = 256
    waiting: int = 64
    timeout: int = 30
    batch: int = 32
    device: str = "cpu"
    plugins: str = ""


def run(arguments: list[str]) -> int:
    """Serve as the command line says; returns the exit status."""
    options = parse(Options, arguments, USAGE)
    # Imported where they are needed, so that --help and mistakes are answered at once: first those without torch.
    from solder_vae.models.checkpoint_archive import check_there

    for name in ("body_mb", "pictures", "waiting", "timeout", "batch"):
        if getattr(options, name) <= 0:
            raise UserError(f"{name}={getattr(options, name):g} does not fit: use more than 0.")
    if not 0 <= options.port < 65536:
        raise UserError(f"port={options.port} does not fit: use 1 to 65535, or 0 for any that is free.")
    if options.device not in ("cpu", "cuda"):
        raise no_device(options.device)
    check_there(Path(options.checkpoint))
    if not all(map(find_spec, ("starlette", "uvicorn", "python_multipart", "prometheus_client"))):
        raise UserError("The service needs Starlette and uvicorn: pip install -c constraints.txt '.[serve]' adds them.")
    from solder_vae.inspection.service.server import listener, serve

    bound = listener(options.host, options.port)
    import_plugins(options.plugins)
    # Otherwise torch's threads keep the cores busy while they wait for each other, and requests find none.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

    from solder_vae.inspection.service.app import Limits, Service
    from solder_vae.inspection.service.origin import load

    inspector, origin = load(options.checkpoint, options.device)
    limits = Limits(int(options.body_mb * 2**20), options.pictures, options.waiting, options.timeout)
    serve(Service(inspector, origin, limits, options.batch), bound)
    return 0


def main() -> None:
    command(run)


if __name__ == "__main__":
    main()
