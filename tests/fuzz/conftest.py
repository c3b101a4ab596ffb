"""One server with the conformance device for all fuzz tests; in the end it must not have failed inside."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.internal.conjecture.providers import HypothesisProvider

from tests.support.served import ServedCard, served

# Bounded and repeatable in CI: what is found by chance belongs into a test of its own. FUZZ=long looks for it.
settings.register_profile(
    "bounded",
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.register_profile("long", parent=settings.get_profile("bounded"), max_examples=3000, derandomize=False)
settings.load_profile(os.environ.get("FUZZ", "bounded"))


@pytest.fixture(scope="package", autouse=True)
def _draws_depend_on_the_test_alone() -> Iterator[None]:
    """Hypothesis mixes in constants of whatever local modules are imported, so of whatever else is collected.

    Repeatable runs do without constants: the strategies here name the values that matter.
    """
    with pytest.MonkeyPatch.context() as patch:
        if settings.default is not None and settings.default.derandomize:
            patch.setattr(HypothesisProvider, "_maybe_draw_constant", lambda *_, **__: None, raising=False)
        yield


@pytest.fixture(scope="package")
def card() -> Iterator[ServedCard]:
    with served() as running:
        yield running
        # Bytes from a client, however strange, are answered: an exception is a mistake of the server's.
        log = running.log.read_text()
        assert "Traceback" not in log, log[-4000:]
