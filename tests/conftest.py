"""Shared by all tests: a small thread pool, no network, no writing outside the test's own folder."""

import gc
import itertools
import logging
import os
from contextlib import nullcontext

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import coverage
import fuzz
import hypothesis
import pytest
import warm
from hypothesis import is_hypothesis_test
from untraced import pause_in_libraries, untraced

# How long an example takes says more of what else the machine does than of the code.
hypothesis.settings.register_profile("new_examples", deadline=None)
# A few, for make check; a test that says itself how many it needs keeps them.
hypothesis.settings.register_profile("few_examples", deadline=None, max_examples=20)
# CI tries the same examples each time, so that a change is not refused for what another one did.
hypothesis.settings.register_profile("same_examples", deadline=None, derandomize=True)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "new_examples"))


def pytest_configure(config):
    """One process with the libraries imported for all workers, from which they fork commands."""
    gc.disable()  # until all is imported that stays
    if config.getoption("numprocesses", None):
        config.option.tx = warm.for_workers(config.option.tx, anew=int(coverage.Coverage.current() is not None))
    else:
        import parsed_once  # not before: the process that shares out the tests does without Hydra

        parsed_once.share()


COUNTED_EXAMPLES = 8
# Whether this is the process in which coverage counts what runs on import, of all the package.
FIRST = os.environ.get("PYTEST_XDIST_WORKER", "gw0") == "gw0"


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Coverage traces how tests are collected, and the package is imported, in one process alone."""
    with nullcontext() if FIRST else untraced():
        return (yield)


def pytest_report_header():
    share = "all cases" if fuzz.ALL else "a share of the cases"
    return f"fuzz: {share}, SOLDER_VAE_FUZZ_SEED={fuzz.SEED}"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Tests are shared out one by one, but those that share what a fixture of their file made stay together.

    Before pytest-xdist's own hook, which reads the groups.
    """
    if hasattr(config, "workerinput"):  # what takes long comes first, so that no worker ends alone with it
        items.sort(key=lambda item: item.get_closest_marker("slow") is None)
    for item in items:
        definitions = item._fixtureinfo.name2fixturedefs
        file = item.nodeid.partition("::")[0]
        if any(found.scope == "module" for (*_, found) in definitions.values()):
            item.add_marker(pytest.mark.xdist_group(file))


def pytest_collection_finish(session):
    """Say so if the groups do not reach those who share out the tests: each fixture would be made by each of them."""
    if coverage.Coverage.current() is not None:
        pause_in_libraries()
        if FIRST:
            warm.import_package()
    for name, logger in logging.root.manager.loggerDict.items():  # pytest visits them six times a test, 50 are torch's
        if name.startswith("torch") and isinstance(logger, logging.Logger):
            logger.propagate = True
    gc.freeze()  # to look through all that is imported takes a third of a second each time
    gc.set_threshold(10_000)  # what tests leave is looked through a fourteenth as often
    gc.enable()
    if session.config.getoption("loadgroup", False):
        assert all("@" in item.nodeid for item in session.items if item.get_closest_marker("xdist_group"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """Coverage counts fast tests, and slow ones marked `measured`; commands where the test that runs them is marked.

    Python takes two to four times as long with it, and most slow tests repeat what these run.
    """
    marked = item.get_closest_marker("measured")
    measured = None if marked else os.environ.pop("COVERAGE_PROCESS_CONFIG", None)
    try:
        with untraced() if item.get_closest_marker("slow") and not marked else nullcontext():
            return (yield)
    finally:
        if measured is not None:
            os.environ["COVERAGE_PROCESS_CONFIG"] = measured


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem):
    """The first examples that Hypothesis tries count for coverage; how it makes them up is not traced.

    That takes three times as long so, and the others run the same lines again.
    """
    if not is_hypothesis_test(pyfuncitem.obj):
        return (yield)
    handle = pyfuncitem.obj.hypothesis
    with untraced() as traced, pytest.MonkeyPatch.context() as patch:
        inner, counted = handle.inner_test, itertools.repeat(traced(handle.inner_test), COUNTED_EXAMPLES)
        patch.setattr(handle, "inner_test", lambda *args, **options: next(counted, inner)(*args, **options))
        return (yield)


@pytest.fixture(autouse=True)
def _seeded():
    import torch  # not before: the process that shares out the tests does without

    torch.default_generator.manual_seed(0)  # torch.manual_seed also notes the call's whole stack, for each kind of GPU
