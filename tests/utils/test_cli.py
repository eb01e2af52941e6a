"""``key=value`` command lines: values mean themselves, and every mistake gets one sentence."""

from dataclasses import dataclass

import pytest
from commands import run_python
from documented import compose_command
from hypothesis import assume, given
from hypothesis import strategies as st

from solder_vae.utils.cli import command, parse, while_composing
from solder_vae.utils.errors import UserError


@dataclass(frozen=True)
class Options:
    images: str
    count: int = 3
    rate: float | None = None
    draw: bool = False


def test_values_are_converted_and_defaults_kept():
    assert parse(Options, ["images=a.png"], "") == Options("a.png")
    assert parse(Options, ["draw=True", "rate=0.5", "count=7", "images=x"], "") == Options("x", 7, 0.5, True)


@given(st.text(min_size=1))
def test_text_means_itself(text):
    """Patterns, colons, brackets, equals signs, ``${...}``, numbers with leading zeros: nothing but a path's ``~``."""
    assume(not text.startswith("~"))
    assert parse(Options, [f"images={text}"], "").images == text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], r"images=\.\.\. must be given"),
        (["images="], r"images=\.\.\. must be given"),
        (["images=x", "imags=y"], "did you mean images"),
        (["images=x", "zzz=1"], "the keys are images, count, rate, draw"),
        (["x.png"], "is not key=value"),
        (["images=x", "count=1.5"], "count=1.5 is no whole number"),
        (["images=x", "rate=much"], "rate=much is no number"),
        (["images=x", "rate=nan"], "rate=nan is no number"),
        (["images=x", "draw=1"], "neither true nor false"),
        (["images=x", "images=y"], "given twice"),
    ],
)
def test_mistakes(arguments, message):
    with pytest.raises(UserError, match=message):
        parse(Options, arguments, "")


def test_a_checkpoint_given_bare_is_told_its_key():
    @dataclass
    class Needs:
        checkpoint: str

    with pytest.raises(UserError, match=r"'a\.ckpt' is not key=value: write checkpoint=a\.ckpt"):
        parse(Needs, ["a.ckpt"], "")


def test_help_comes_before_mistakes(capsys):
    with pytest.raises(SystemExit) as ended:
        parse(Options, ["nonsense", "--help"], "\nhow to use it\n")
    assert ended.value.code == 0
    assert capsys.readouterr().out == "how to use it\n"


@pytest.mark.parametrize(
    ("outcome", "status", "shown"),
    [
        (0, 0, ""),
        (3, 3, ""),
        (UserError("Wrong."), 2, "error: Wrong.\n"),
        (KeyboardInterrupt(), 130, "error: interrupted.\n"),
    ],
)
def test_a_commands_end_is_its_status(outcome, status, shown, capsys):
    def job(arguments):
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    with pytest.raises(SystemExit) as ended:
        command(job)
    assert ended.value.code == status
    assert capsys.readouterr().err == shown


def test_bugs_are_not_hidden():
    with pytest.raises(ZeroDivisionError):
        command(lambda arguments: 1 // 0)


@pytest.mark.parametrize("override", ["model=null", "score=2", "trainer=[null]", "threshold=[[1]]"])
def test_what_hydra_fails_to_read_is_told_from_bugs(override):
    with pytest.raises((TypeError, ValueError)) as error:
        compose_command("solder_vae.train", [override])
    assert while_composing(error.value)


def test_a_bug_is_no_mistake_of_the_command_line():
    """Also one that Hydra raises again, in its name, where the job ran in another process."""
    from hydra.core.utils import JobReturn, JobStatus

    returned = JobReturn(status=JobStatus.FAILED, _return_value=TypeError("a bug"))
    with pytest.raises(TypeError) as error:
        _ = returned.return_value
    assert not while_composing(error.value)
    with pytest.raises(TypeError) as error:
        len(5)
    assert not while_composing(error.value)


JOBS = """
import gc, weakref
from solder_vae.utils.cli import hydra_main

class Pictures: pass

before = []

def job(config, directory):
    gc.disable()  # Python's own collections come at any time
    pictures = Pictures()
    pictures.held_by = pictures
    print("left of other jobs:", sum(other() is not None for other in before))
    before.append(weakref.ref(pictures))

hydra_main("train", job)
"""


@pytest.mark.slow
def test_a_sweep_keeps_nothing_of_its_jobs(tmp_path):
    result = run_python("-c", JOBS, "-m", "seed=0,1,2", "hydra.sweep.dir=sweep", cwd=tmp_path)
    assert result.stdout.count("left of other jobs: 0") == 3, result.stdout + result.stderr
