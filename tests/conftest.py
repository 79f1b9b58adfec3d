"""What holds for every test."""

from __future__ import annotations

import gc
import os
import sys
import warnings
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from collections.abc import Generator

# Torch reads it when it is imported, and so do the processes that tests start. On networks this small more
# threads bring nothing, and where tests run beside each other they wait for each other, many times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Hypothesis would allow an example a fifth of a second, which a busy machine takes for less.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


@pytest.fixture(scope="module", autouse=True)
def _only_new_garbage_is_looked_for() -> None:
    """Let collections of garbage pass over what is there when a module begins, such as imports and caches.

    Every load of a network asks for several: without this they take longer than all else that a small network
    needs.
    """
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol() -> Generator[None, object, object]:
    """Close what a failed test left open before the next one begins, which would be blamed for it.

    pytest keeps the failed test's frames, and so its sockets, until then; their warning is an error.
    """
    result = yield
    if hasattr(sys, "last_value"):
        del sys.last_type, sys.last_value, sys.last_traceback
        vars(sys).pop("last_exc", None)  # Python has it from 3.12 on
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()
    return result
