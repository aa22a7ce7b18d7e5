"""Hypothesis tries the same examples in every run, so that a red build is a change and not a throw of dice."""

from hypothesis import settings

settings.register_profile("same", derandomize=True)
settings.load_profile("same")
