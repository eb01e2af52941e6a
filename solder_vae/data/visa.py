"""VisA as published (Zou et al., ECCV 2022): a table in ``split_csv`` says which images train and which test.

ROOT/split_csv/1cls.csv                    object,split,label,image,mask
ROOT/pcb1/Data/Images/Normal/0000.JPG
ROOT/pcb1/Data/Images/Anomaly/000.JPG
ROOT/pcb1/Data/Masks/Anomaly/000.png       found by :func:`solder_vae.data.masks.mask_path`
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from solder_vae.data.configured import data_of
from solder_vae.data.folder import FolderSource
from solder_vae.data.layouts import Record
from solder_vae.data.splits import KNOWN, TEST, TRAIN
from solder_vae.utils.errors import UserError
from solder_vae.utils.labels import NORMAL
from solder_vae.utils.tables import path_to_read, read_table


@dataclass(frozen=True)
class VisaSource(FolderSource):
    """An object of VisA; the other attributes are those of :class:`~solder_vae.data.folder.FolderSource`.

    Attributes:
        category: the object, such as pcb1.
        protocol: name of the table in ``split_csv``. Defects that it lets train are known ones.
    """

    category: str | None = None
    protocol: str = "1cls"

    def listed(self) -> list[Record]:
        """The object's lines of the table.

        Raises:
            UserError: the table or the object is not there, or a line is wrong.
        """
        root = Path(str(self.root))
        table = root / "split_csv" / f"{self.protocol}.csv"
        if not table.is_file():
            raise UserError(
                f"{table}: is not there; give data.root=PATH of VisA as published, or read its folders with "
                "data=folder data.root=PATH/pcb1, which splits them anew."
            )
        rows = read_table(table, ("object", "split", "label", "image"))
        objects = sorted({row["object"] for _, row in rows})
        if self.category not in objects:
            raise UserError(f"data.category={self.category} is no object of {table}: use one of {', '.join(objects)}.")
        records = []
        for line, row in rows:
            if row["object"] == self.category:
                try:
                    records.append(_record(root, row))
                except UserError as error:
                    raise UserError(f"{table}: line {line}: {error}") from error
        return sorted(records, key=lambda record: record.path)


#: What ``conf/data/visa.yaml`` names.
visa_data = data_of(VisaSource)


def _record(root: Path, row: dict[str, str]) -> Record:
    split, label = row["split"], row["label"]
    if split not in (TRAIN, TEST) or not label:
        raise UserError(
            f"needs train or test as its split, and a label; it has {split or 'none'} and {label or 'none'}"
        )
    learnt = split == TRAIN and label != NORMAL
    return Record(path_to_read(root, row["image"]), label, KNOWN if learnt else split, None)
