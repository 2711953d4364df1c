"""Settings every test shares: hypothesis profiles, one thread a library, no colour."""

import gc
import os

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")
os.environ["NO_COLOR"] = "1"

import pytest  # noqa: E402 - the limits above must stand before any library loads
from hypothesis import HealthCheck, settings  # noqa: E402

settings.register_profile(
    "default",
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=True,
)
settings.register_profile(
    "nightly", max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture(autouse=True, scope="module")
def _settled_heap():
    """Every task collects garbage before it begins; what earlier modules imported need not be
    walked each time."""
    gc.collect()
    gc.freeze()
