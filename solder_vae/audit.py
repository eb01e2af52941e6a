"""``python -m solder_vae.audit``: look at a data set before anyone trains on it; writes audit.html and audit.json.

torch is imported by the job, not here, so that ``--help`` answers at once.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from solder_vae.training.schema import register
from solder_vae.utils.cli import hydra_main

if TYPE_CHECKING:
    from omegaconf import DictConfig


def job(config: DictConfig, directory: Path) -> None:
    """Audit as the config says; ``directory`` is not used, since everything goes to ``out``."""
    from hydra.utils import to_absolute_path

    from solder_vae.training.first_checks import check_data
    from solder_vae.utils.config import build
    from solder_vae.utils.files import atomic_directory, check_new
    from solder_vae.utils.text import printable

    out = Path(to_absolute_path(config.out))
    check_new(out)
    check_data(config.data)

    from solder_vae.utils.threads import busy

    # Here, since they bring torch, and the mistakes above should be told at once.
    with busy("Loading"):
        from solder_vae.studies.audit.examine import audit
        from solder_vae.studies.audit.report import facts, page

    source = build(config.data).source
    with atomic_directory(out) as folder:
        found = audit(source)
        with busy("Writing"):
            root = config.data.get("root")
            content = facts(found, source="the embedded data set" if root is None else printable(str(root)))
            (folder / "audit.json").write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
            (folder / "audit.html").write_text(page(found, content), encoding="utf-8")
    print(summary(content))
    print(f"\nEverything is in {config.out}: open audit.html in a browser.")


def summary(content: dict[str, Any]) -> str:
    """The verdict for the terminal: a headline and the findings, the worst first."""
    from solder_vae.studies.audit.verdict import HEADLINES

    lines = [f"{HEADLINES[content['verdict']]}. ({content['source']}, {content['images']} readable images)"]
    lines += [f"  {finding['level']:5} {finding['title']}." for finding in content["findings"]]
    return "\n".join(lines)


def main() -> None:
    register()
    hydra_main("audit", job)


if __name__ == "__main__":
    main()
