"""What holds for every test."""

from hypothesis import settings

# Never a time in a test: a shared machine may be ten times slower for a moment.
settings.register_profile("joyfleet", deadline=None, print_blob=True)
settings.load_profile("joyfleet")
