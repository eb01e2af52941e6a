"""Paths and regular expressions mean themselves on Hydra's command lines, whatever characters they have."""

import dataclasses
import importlib
import re

import cv2
import numpy as np
import pytest
from commands import run_command
from documented import compose_command
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from solder_vae.utils.cli import parse
from solder_vae.utils.paths import PATHS, TEXTS, as_typed, mean_themselves

NAMES = [
    *(
        "Lötstelle",
        "焊点",
        "board (1)",
        "lot#7",
        "beta=1",
        "it's",
        "x,y",
        "a[1]",
        "2024&25",
        "20240101",
        "10_20",
        "1e3",
    ),
    *("{a,b}", "a: b", "C:\\boards\\", "true", "0x10", "choice(a,b)", "-dash", "50%", "@home", "a'b\\'c", '"q', " a "),
]


def as_hydra_reads(arguments):
    """Each override's value; a list of a sweep's."""
    return [
        [getattr(value, "text", value) for value in override.sweep_iterator()]
        if override.is_sweep_override()
        else override.value()
        for override in OverridesParser.create().parse_overrides(arguments)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("key", sorted((PATHS | TEXTS) - {"data.known"}))
def test_names_are_read_as_they_are_typed(key):
    arguments = mean_themselves([f"{key}={name}" for name in NAMES])
    assert as_hydra_reads(arguments) == NAMES
    assert mean_themselves(arguments) == arguments  # what is quoted stays, so that a repeated command is the same


@given(st.sampled_from(NAMES) | st.text())
def test_what_was_quoted_is_shown_as_it_was_typed(text):
    (override,) = mean_themselves([f"data.root={text}"])
    assert mean_themselves([as_typed(override)]) == [override]
    if text in NAMES:
        assert as_typed(override) in (f"data.root={text}", override)


def test_quotes_are_shown_where_they_mean_something():
    for override, typed in (
        ("data.root='sub'", "data.root=sub"),
        (r"data.root='it\'s'", "data.root=it's"),
        ("data.root='~'", "data.root='~'"),  # a folder of that name, not the home folder
        ("data.root='null'", "data.root='null'"),
        ("+note='a b'", "+note='a b'"),
        ("seed=1", "seed=1"),
        ("~logger", "~logger"),
    ):
        assert as_typed(override) == typed


@pytest.mark.slow
@given(st.text(min_size=1))
def test_any_text_is_read_as_it_is_typed(text):
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "'\""
    if quoted or text.lower() == "null" or text.startswith("~"):
        return
    assert as_hydra_reads(mean_themselves([f"data.root={text}", f"+resume={text}"])) == [text, text]


def test_flags_and_overrides_may_come_in_any_order():
    typed = [
        "model=cae",
        "--config-dir",
        "a=b",
        "seed=1",
        "-m",
        "-c",
        "job",
        "~model.scheduler",
        "--info",
        "all",
        "+x=1",
    ]
    read = [
        "model=cae",
        "seed=1",
        "~model.scheduler",
        "+x=1",
        "--config-dir",
        "a=b",
        "-m",
        "-c",
        "job",
        "--info",
        "all",
    ]
    assert mean_themselves(typed) == read
    for flags in (["seed=1", "--config-dir"], ["seed=1", "-c", "job"], ["-m", "seed=1"], ["--info", "seed=1"]):
        assert sorted(mean_themselves(flags)) == sorted(flags)
    assert mean_themselves(["seed=1", "--config-dir"])[-1] == "--config-dir"  # whose value was forgotten


def test_what_is_no_path_or_quoted_or_nothing_stays():
    arguments = [
        *(
            "seed=1,2",
            "model.lr=1e-3",
            "data.severity=[0.3,1.0]",
            "~data.root",
            "data=folder",
        ),
        *("data.root='a b'", 'resume="x,y"', "data.root=", "data.cache_dir=null", "data.root=choice(a,b)"),
        *("-m", "--config-dir=a b"),
    ]
    assert mean_themselves(arguments) == arguments


@pytest.mark.parametrize(
    ("typed", "values"),
    [
        ("data.root=a,b", ["a", "b"]),
        ("data.root=beta=1, lot#7,board (1)", ["beta=1", "lot#7", "board (1)"]),
        ("data.root='x,y',z", ["x,y", "z"]),
        ("data.root=it's,z", ["it's", "z"]),
        ("data.root=~/a,~/b", ["/home/me/a", "/home/me/b"]),
        ("data.known=25,all", [25, "all"]),
        ("data.known=~/my verdicts (1).csv", "/home/me/my verdicts (1).csv"),
        ("data.root=x", "x"),
        (r"data.group_regex=^(b\d{1,2})_", r"^(b\d{1,2})_"),
        ("hydra.sweep.dir=a,b", "a,b"),
    ],
)
@pytest.mark.parametrize("flag", ["-m", "--multirun", "hydra.mode=MULTIRUN"])
def test_commas_separate_the_paths_of_a_sweep(typed, values, flag, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    arguments = [argument for argument in mean_themselves([flag, typed]) if argument != flag]
    assert as_hydra_reads(arguments) == [values]


def test_home_is_found_where_hydra_reads_and_where_not(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert mean_themselves(["data.root=~/x", "out=~", "data.root=./~/x", "data.root=~nobody-of-this-name/x"]) == [
        *("data.root='/home/me/x'", "out='/home/me'", "data.root='./~/x'", "data.root='~nobody-of-this-name/x'"),
    ]
    fields = [("checkpoint", str), ("out", str), ("project", str)]
    options = parse(
        dataclasses.make_dataclass("Options", fields), ["checkpoint=~/a.ckpt", "out=x/~/y", "project=~"], ""
    )
    assert dataclasses.astuple(options) == ("/home/me/a.ckpt", "x/~/y", "~")


def test_interpolations_still_work(monkeypatch):
    monkeypatch.setenv("LOTS", "/data/lots (1)")
    (config,) = compose_command(
        "solder_vae.train", ["data=folder", "data.root=${oc.env:LOTS}/a=b", "resume=x=1/y.ckpt"]
    )
    assert (config.data.root, config.resume) == ("/data/lots (1)/a=b", "x=1/y.ckpt")


def test_every_option_that_sounds_like_a_path_is_one():
    commands = [importlib.import_module(f"solder_vae.{name}") for name in ("crop", "predict", "threshold", "export")]
    texts = {
        field.name
        for command in commands
        for field in dataclasses.fields(command.Options)
        if re.match(r"str\b", str(field.type))
    }
    words = "fit side rule device format plugins normal memory label score serial"
    assert texts - PATHS == {*words.split()}


@pytest.mark.slow
def test_a_folder_of_any_name_is_audited(tmp_path):
    root = tmp_path / "Löt (1), [a]=b#c"
    for number in range(12):
        path = root / "normal" / f"b{number % 3}_{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(".png", np.full((12, 12), 20 * number, np.uint8))[1].tobytes())
    options = [f"data.root=~/{root.name}", r"data.group_regex=^(b\d+)_", "out=20240101", "data.fractions=[1,1,1]"]
    done = run_command("audit", *options, cwd=tmp_path, HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "20240101" / "audit.html").is_file()
