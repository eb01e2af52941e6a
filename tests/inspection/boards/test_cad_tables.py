"""Placement files as each CAD tool writes them, all of the same three components."""

import re

import numpy as np
import pytest
from cases import CASES, needs_cases

from solder_vae.inspection.boards.cad_tables import TURNS, Component
from solder_vae.inspection.boards.placement_files import read_fiducials, read_footprints, read_pads
from solder_vae.utils.errors import UserError

PARTS = [
    ("U1", "SO8", 7.2, 11.2, 0.0, "top"),
    ("C1", "C0603", 4.2, 3.2, 90.0, "top"),
    ("C2", "C0603", -1.5, 6.1, 270.0, "bottom"),
]


def table(header, row, mark=",", **words):
    """A file of the three components: ``row`` is a format of n, p, x, y, r, s."""
    sides = {"top": words.get("top", "top"), "bottom": words.get("bottom", "bottom")}
    rows = [row.format(n=n, p=p, x=x, y=y, r=r, s=sides[s], X=x / 0.0254, Y=y / 0.0254) for n, p, x, y, r, s in PARTS]
    return "\n".join([header, *rows, ""])


KICAD = "Ref,Val,Package,PosX,PosY,Rot,Side"
ALTIUM = """Altium Designer Pick and Place Locations
C:\\proj\\Pick Place for board.csv

========================================================================
File Design Information:

Date:       22/12/19
Variant:    No variations
Units used: {}

"""
FILES = {
    "kicad.csv": table(KICAD, '"{n}","10k, 1%","{p}",{x:f},{y:f},{r:f},{s}'),
    "kicad-crlf.csv": table(KICAD, "{n},x,{p},{x},{y},{r},{s}").replace("\n", "\r\n"),
    "kicad.pos": table(
        "### Footprint positions - created on 2024-05-01T10:00:00 ###\n### Printed by KiCad version 8.0.2\n"
        "## Unit = mm, Angle = deg.\n## Side : All\n"
        "# Ref     Val       Package         PosX       PosY       Rot  Side",
        "{n:8}  {p:9} {p:12}  {x:9.4f}  {y:9.4f}  {r:8.4f}  {s}",
    )
    + "## End\n",
    "kicad-novalue.pos": table(
        "# Ref Val Package PosX PosY Rot Side", "{n:8}           {p:9} {x:9.4f} {y:9.4f} {r} {s}"
    ),
    "kicad-inches.pos": table(
        "## Unit = inches, Angle = deg.\n# Ref Val Package PosX PosY Rot Side", "{n} x {p} {x} {y} {r} {s}"
    ),
    "excel.csv": "sep=;\n" + table(KICAD.replace(",", ";"), "{n};x;{p};{x};{y};{r};{s}").replace(".", ","),
    "tabs.csv": table(KICAD.replace(",", "\t"), "{n}\tx\t{p}\t{x}\t{y}\t{r}\t{s}"),
    "altium.csv": ALTIUM.format("mm")
    + table(
        '"Designator","Comment","Layer","Footprint","Center-X(mm)","Center-Y(mm)","Rotation","Description"',
        '"{n}","10µF","{s}","{p}","{x:.4f}","{y:.4f}","{r:.0f}","Chip ""x"", 5%"',
        top="TopLayer",
        bottom="BottomLayer",
    ),
    "altium-mil.csv": ALTIUM.format("mil")
    + table(
        '"Designator","Comment","Layer","Footprint","Center-X(mil)","Center-Y(mil)","Rotation","Description"',
        '"{n}","x","{s}","{p}","{X:.3f}","{Y:.3f}","{r:.0f}",""',
        top="TopLayer",
        bottom="BottomLayer",
    ),
    "altium-old.csv": table(
        '"Designator","Footprint","Mid X","Mid Y","Ref X","Ref Y","Pad X","Pad Y","TB","Rotation","Comment"',
        '"{n}","{p}","{x}mm","{y}mm","1mm","2mm","3mm","4mm","{s}","{r}","x"',
        top="T",
        bottom="B",
    ),
    "altium.txt": ALTIUM.format("mm")
    + table(
        "Designator Comment  Layer       Footprint Center-X(mm) Center-Y(mm) Rotation Description",
        "{n:10} 10 µF    {s:11} {p:9} {x:<12} {y:<12} {r:<8.0f} A chip",
        top="TopLayer",
        bottom="BottomLayer",
    ),
    "jlcpcb.csv": table(
        "Designator,Footprint,Mid X,Mid Y,Layer,Rotation", "{n},{p},{x}mm,{y}mm,{s},{r}", top="Top", bottom="Bottom"
    ),
    "easyeda-mil.csv": table(
        "Designator,Package,Mid X,Mid Y,Layer,Rotation", "{n},{p},{X}mil,{Y} mil,{s},{r}", top="T", bottom="B"
    ),
    "librepcb.csv": table(
        "# Pick&Place Position Data File\n#\n# Generation Software: LibrePCB 1.2.0\n# Unit:                mm\n\n"
        "Designator,Value,Device,Package,Position X,Position Y,Rotation,Side,Type",
        "{n},x,y,{p},{x},{y},{r},{s},SMT",
        top="Top",
        bottom="Bottom",
    ),
    "diptrace.csv": table(
        "RefDes,Name,Pattern,X (mm),Y (mm),Side,Rotate,Value", "{n},x,{p},{x},{y},{s},{r},1", top="Top", bottom="Bottom"
    ),
    "units-in-header.csv": table(
        "Reference;Package;Pos X [mm];Pos Y [mm];Rotation [°];Layer",
        "{n};{p};{x};{y};{r}°;{s}",
        top="F.Cu",
        bottom="B.Cu",
    ),
    "geda.xy": table(
        "# X,Y in mil.  rotation in degrees.\n# RefDes, Footprint, Value, X, Y, rotation, top/bottom",
        "{n}, {p}, x, {X}, {Y}, {r}, {s}",
    ),
    "allegro.csv": table(
        "REFDES,SYM_NAME,PACKAGE,SYM_X,SYM_Y,SYM_ROTATE,SYM_MIRROR", "{n},x,{p},{x},{y},{r},{s}", top="NO", bottom="YES"
    ),
    "plain.csv": table("Name;Package;X;Y;Angle;Side", "{n};{p};{x};{y};{r} deg;{s}"),
    "Top_Layer.csv": table(KICAD, "{n},x,{p},{x},{y},{r},{s}", top="Top Layer", bottom="Bottom Layer"),
}
FILES["kicad-inches.pos"] = re.sub(
    r"(?<= )(-?\d+\.\d+) (-?\d+\.\d+)(?= \d)",
    lambda xy: f"{float(xy[1]) / 25.4} {float(xy[2]) / 25.4}",
    FILES["kicad-inches.pos"],
)


def facts(components):
    return [(part.name, part.package, part.x, part.y, part.rotation, part.side) for part in components]


def check(components, expected=PARTS):
    assert [(*fact[:2], fact[5]) for fact in facts(components)] == [(*part[:2], part[5]) for part in expected]
    np.testing.assert_allclose([fact[2:5] for fact in facts(components)], [part[2:5] for part in expected], atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("name", FILES)
def test_what_each_tool_writes(name, encoding, tmp_path):
    (tmp_path / name).write_bytes(FILES[name].encode(encoding))
    components = read_pads(tmp_path / name)
    check(components)
    lines = FILES[name].splitlines()
    assert all(part.name in lines[part.line - 1] for part in components)


@pytest.mark.parametrize(("suffix", "side"), [(".mnt", "top"), (".MNB", "bottom")])
def test_eagles_files_tell_their_side_by_their_name(suffix, side, tmp_path):
    path = tmp_path / f"board{suffix}"
    path.write_text("U1  7.20 11.20   0 LM 358 SO8\nC1  4.20  3.20  90  C0603\nC2 -1.50  6.10 270 10k C0603\n\n")
    check(read_pads(path), [(*part[:5], side) for part in PARTS])
    (tmp_path / "x.txt").write_text(path.read_text())
    with pytest.raises(UserError, match=r"call it .mnt \(top\) or .mnb \(bottom\)"):
        read_pads(tmp_path / "x.txt")
    path.write_text("U1  7.20 11.20   0 LM358 SO8\nC1 here\n")
    with pytest.raises(UserError, match="line 2: is no line of Eagle"):
        read_pads(path)


@needs_cases
def test_the_cases_are_all_the_same_board():
    seen = {}
    for path in sorted((CASES / "placement-files").iterdir()):
        components = [part for part in read_pads(path) if not part.name.startswith("REF")]
        seen[path.name] = [(part.name, round(part.x, 6), round(part.y, 6), part.rotation % 360) for part in components]
        assert {part.side for part in components} == {"top"}, path
        assert path.name == "jlc.csv" or {part.package for part in components} == {"SO8", "C0603"}, path
    assert len(seen) == 12
    assert all(parts == seen["kicad_refs.csv"] for parts in seen.values())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (f"{KICAD}\nU1,x,SO8,7.2,abc,0,top", r"line 2: PosY is 'abc'; use a plain number"),
        (f"x\n\n{KICAD}\nU1,x,SO8,7.2,1,0,top\n\nU2,x,SO8,7,1,0,left", r"line 6: Side is 'left'; use top or bottom"),
        (f"{KICAD}\nU1,x,SO8,1.234,5,0,top,8,9", "line 2: 9 values for 7 columns"),
        ('Designator,Mid X(mil),Mid Y(mil),Layer,Rotation\nU1,"1,234","2,000",T,0', "may be thousands"),
        (f'{KICAD}\nU1,x,SO8,"1,234.5",1,0,top', r"'1,234.5'; use a plain number"),
        (f"{KICAD}\nU1,x,SO8,3 furlongs,1,0,top", "use a plain number"),
        ("Ref,X,Y,Rot (rad),Side\nU1,1,2,0.3,top", "Rot .rad. is in radians; give degrees"),
        ("Ref,X,Y,Unit,Rot,Side\nU1,1,2,ell,0,top", "line 2: unit is 'ell'; use mm, mil or inch"),
        (KICAD, "has no rows"),
        ('"Ref",Val,Package,PosX,PosY,Rot,"Side\nU1,x,SO8,7.2,1,0,top\n', "header that can't be read|no rows"),
        ("Ref,Val,Package,PosX,PosY,Rot\nU1,x,SO8,1,2,0", "it needs name, x, y, width, height .* Side"),
        (
            '<?xml version="1.0"?>\n<!DOCTYPE eagle SYSTEM "eagle.dtd">\n<eagle version="9.6.2">',
            "Eagle board; run mountsmd.ulp",
        ),
        ("<?xml version='1.0'?>\n<IPC-2581/>", "is XML; export a placement file"),
        ("%TF.GenerationSoftware,KiCad*%\n%TF.FileFunction,Component,L1,Top*%", "is a Gerber file"),
        ("## Footprint report\n## Unit = mm\n$BeginDESCRIPTION\n", "footprint report; export component placement"),
        ('(footprint "SOT-23" (version 2024))', "a footprint of KiCad's"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1", "a CAD tool's binary file"),
        (b"PK\x03\x04", "an Excel or zip file"),
        ("hello\nworld\n", "it has|has the columns hello"),
        ("", "of no table"),
    ],
)
def test_what_cannot_be_read_is_named(content, message, tmp_path):
    path = tmp_path / "file.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=message):
        read_pads(path)


@pytest.mark.parametrize(
    "text",
    [
        "Ref,X [um],Y [um],Rot,Side\nU1,2540,1270,0,top",
        "Ref,X (cm),Y (cm),Rot,Side\nU1,0.254,0.127,0,top",
        "Ref,X,Y,Rot,Side\nU1,2540µm,50thou,0,top",
        "Ref,Xmil,Ymil,Rot,Side\nU1,100,50,0,top",
        "Units: um\nRef,X,Y,Rot,Side\nU1,2540,1270,0,top",
        "Ref,X,Y,Unit,Rot,Side\nU1,100,50,mil,0,top",
    ],
)
def test_a_unit_counts_wherever_it_stands(text, tmp_path):
    path = tmp_path / "file.csv"
    path.write_text(text, encoding="utf-8")
    (part,) = read_pads(path)
    np.testing.assert_allclose([part.x, part.y], [2.54, 1.27])


def test_units_and_commas_in_ones_own_tables(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("Package;Pad;X;Y;Width;Height\nSO8;1;-2,98;75mil;1mm;0.04in\n")
    (pad,) = read_footprints(path)["SO8"]
    np.testing.assert_allclose([pad.x, pad.y, pad.width, pad.height], [-2.98, 1.905, 1, 1.016])
    path.write_text("name;board_x;board_y;pixel_x;pixel_y\nF1;1,2;100 mil;54,72;653.8\n")
    (mark,) = read_fiducials(path)
    np.testing.assert_allclose([*mark.board, *mark.pixel], [1.2, 2.54, 54.72, 653.8])


def test_which_convention_each_tools_bottom_follows(tmp_path):
    tools = {}
    for name, text in {**FILES, "old.csv": FILES["librepcb.csv"].replace("1.2.0", "0.1.4")}.items():
        (tmp_path / name).write_text(text)
        tools[name] = {part.tool for part in read_pads(tmp_path / name)}
    assert {name for name, found in tools.items() if found == {"LibrePCB"}} == {"librepcb.csv"}
    assert tools["old.csv"] == {"Eagle"}  # as LibrePCB did up to 0.1
    assert {name for name, found in tools.items() if found == {""}} == {
        *("altium.csv", "altium-mil.csv", "altium-old.csv", "altium.txt", "jlcpcb.csv", "easyeda-mil.csv"),
        *("diptrace.csv", "geda.xy", "units-in-header.csv", "allegro.csv", "plain.csv"),
    }
    assert Component("", "", 0, 0, 0, "top").tool in TURNS
