"""Coverage pauses where it would count nothing new: what is long in Python takes up to four times as long with it."""

import functools
import importlib
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import coverage

# What runs long in libraries and calls nothing of the package that other tests would not count.
LONG = (
    ("torch.onnx", "export"),
    ("hydra._internal.config_loader_impl", "ConfigLoaderImpl.load_configuration"),
    ("matplotlib.figure", "Figure.savefig"),
    ("sklearn.manifold", "TSNE.fit_transform"),
    ("sklearn.ensemble._forest", "BaseForest.fit"),
    ("sklearn.model_selection", "GridSearchCV.fit"),
)


@contextmanager
def untraced() -> Iterator[Callable]:
    """Within it, coverage does not trace this thread and those that it starts.

    Yields what makes a function traced again. A debugger, which traces too, is left alone.
    """
    if coverage.Coverage.current() is None:
        yield lambda function: function
        return
    own, of_others = sys.gettrace(), threading.gettrace()

    def trace(own: Callable | None, of_others: Callable | None) -> None:
        threading.settrace(of_others)
        sys.settrace(own)

    def traced(function: Callable) -> Callable:
        @functools.wraps(function)
        def run(*args: object, **options: object) -> object:
            trace(own, of_others)
            try:
                return function(*args, **options)
            finally:
                trace(None, None)

        return run

    trace(None, None)
    try:
        yield traced
    finally:
        trace(own, of_others)


def pause_in_libraries() -> None:
    """From now on, coverage pauses in what is :data:`LONG`."""
    for module, name in LONG:
        *inside, function = name.split(".")
        owner = functools.reduce(getattr, inside, importlib.import_module(module))
        setattr(owner, function, untraced()(getattr(owner, function)))
