"""Has hypothesis stop at the first failure, as it is: a fault need not be explained."""

from hypothesis import HealthCheck, Phase, settings

settings.register_profile(
    "first",
    max_examples=60,
    deadline=None,
    derandomize=True,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)
