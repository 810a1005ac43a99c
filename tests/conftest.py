"""For the whole suite: a thread that nobody ends must not keep the run from ending, silently and for ever."""

from __future__ import annotations

import os
import sys
import threading

import pytest

PATIENCE_SECONDS = 20.0


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """The interpreter waits for every thread that is no daemon: name the ones that it would wait for, and fail."""
    main = threading.main_thread()
    threads = [one for one in threading.enumerate() if one is not main and not one.daemon]
    for one in threads:
        one.join(PATIENCE_SECONDS)
    left = [one.name for one in threads if one.is_alive()]
    if left:
        print(f"threads that nobody ends: {', '.join(left)}", file=sys.stderr, flush=True)
        os._exit(1)
