"""For whoever runs pytest: it would blame a test for what another one left in the reactor."""

import pytest


def pytest_configure() -> None:
    pytest.exit("These tests are run by trial: ./dev test [TESTS], or python -m twisted.trial [TESTS]", returncode=2)
