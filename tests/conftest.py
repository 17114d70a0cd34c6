"""Settings of all tests."""

from hypothesis import settings

settings.register_profile("mechint", deadline=None, derandomize=True)
settings.load_profile("mechint")
