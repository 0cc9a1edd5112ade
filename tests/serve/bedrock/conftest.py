"""How many requests are generated: the same few hundred in every run, or `--hypothesis-profile=thorough` for 10,000."""

from hypothesis import HealthCheck, Phase, settings

# The server lives as long as the test function, all of whose requests go to it.
_COMMON = {
    "deadline": None,
    "database": None,
    "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
}

settings.register_profile("default", max_examples=75, derandomize=True, **_COMMON)
# What fails so late is shown as it is: making it smaller would take as long again.
settings.register_profile("thorough", max_examples=2500, phases=[Phase.explicit, Phase.generate], **_COMMON)
settings.load_profile("default")
