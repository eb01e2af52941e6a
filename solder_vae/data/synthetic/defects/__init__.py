"""The nine defects of the paper, by the names of the trade (IPC-A-610), each as a change to a good joint.

A defect acts at up to four points on the way from scene to surfaces and leaves the rest of the picture alone: the same
stream without it renders the same joint, soldered well. Severity runs from 0 (barely visible) to 1 (gross).
"""

from solder_vae.data.synthetic.defects.amount import Bridge, ExcessiveSolder, InsufficientSolder, SolderFlag
from solder_vae.data.synthetic.defects.base import Defect
from solder_vae.data.synthetic.defects.component import MissingComponent, ShiftedComponent
from solder_vae.data.synthetic.defects.surface import Dewetting, FluxResidue, PinHoles

DEFECTS: dict[str, type[Defect]] = {
    defect.name: defect
    for defect in (
        Bridge,
        InsufficientSolder,
        ExcessiveSolder,
        SolderFlag,
        Dewetting,
        PinHoles,
        FluxResidue,
        MissingComponent,
        ShiftedComponent,
    )
}

__all__ = ["DEFECTS", "Defect", "ShiftedComponent"]
