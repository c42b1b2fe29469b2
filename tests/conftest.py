"""Shared by all tests: real data where there is some, and a cache that is not the user's."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("repeatable", derandomize=True, deadline=None)  # the same command, the same examples
settings.register_profile("search", deadline=None)  # HYPOTHESIS_PROFILE=search looks for new ones
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    """The built-in data set is drawn once a session, into a folder of its own; subprocesses find it too."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def test_data():
    """Folder of real images and weights that cannot be part of the project."""
    folder = os.environ.get("MASKMATCH_TEST_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("MASKMATCH_TEST_DATA names no folder with real data")
    return Path(folder)


@pytest.fixture(scope="session")
def camvid(test_data):
    return test_data / "data" / "camvid"
