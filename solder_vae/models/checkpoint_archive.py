"""A checkpoint's file before torch sees it (imports no torch).

It is refused unless it can only be tensors and plain values, of the file's size.

torch's own ``weights_only=True`` keeps code from running, but lets a small file claim any amount of memory
(a compressed entry, ``bytearray(10**11)``). Here another reader of zip archives takes the file apart, compares
it with what ``torch.save`` writes for this package, and puts it together anew. So torch reads only what was checked.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import re
import zipfile
from pathlib import Path

from solder_vae.utils.errors import UserError

_PICKLE = "data.pkl"
_ENTRIES = re.compile(
    rf"[^/]+/({re.escape(_PICKLE)}|version|byteorder|\.format_version|\.storage_alignment|\.data/serialization_id|data/\d+)"
)
_STORAGES = ("Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")
_GLOBALS = {
    "collections OrderedDict",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
    *(f"torch {kind}Storage" for kind in _STORAGES),
}
_OTHER_IMPORTS = {"STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4"}


def damaged(path: Path) -> UserError:
    """What is said of a checkpoint that cannot be read."""
    return UserError(f"{path} is not a readable checkpoint (damaged or cut off?): train again.")


def check_there(path: Path) -> None:
    """Check, before anything slow is imported, that there is a file, and that it is an archive.

    Raises:
        UserError: there is none, or it is none.
    """
    if not path.is_file():
        raise UserError(f"No checkpoint at {path}: give the path of a .ckpt file that a run wrote.")
    if not zipfile.is_zipfile(path):
        raise damaged(path)


def checked_archive(path: Path) -> io.BytesIO:
    """The file's content as an archive that ``torch.load`` can read.

    Raises:
        pickle.UnpicklingError: it holds something other than tensors and plain values.
        Exception: it is damaged, or no archive as ``torch.save`` writes them; of many types.
    """
    whole = io.BytesIO()
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(whole, "w") as copy:
        entries = archive.infolist()
        if sum(entry.file_size for entry in entries) > path.stat().st_size:
            raise pickle.UnpicklingError("entries that are larger than the file")
        for entry in entries:
            if entry.compress_type != zipfile.ZIP_STORED or not _ENTRIES.fullmatch(entry.filename):
                raise pickle.UnpicklingError(f"the entry {entry.filename}")
            content = archive.read(entry)
            if entry.filename.endswith(f"/{_PICKLE}"):
                _check_pickle(content)
            copy.writestr(entry.filename, content)
    whole.seek(0)
    return whole


def _check_pickle(content: bytes) -> None:
    for operation, argument, _ in pickletools.genops(content):
        if operation.name in _OTHER_IMPORTS or (operation.name == "GLOBAL" and argument not in _GLOBALS):
            raise pickle.UnpicklingError(f"{operation.name} {argument}")
