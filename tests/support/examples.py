"""Sets how many examples Hypothesis tries."""

from typing import Any

from hypothesis import settings

WHOLE = "whole"
"""The profile of `--whole`, by which `make conformance` runs."""

SAMPLE = "sample"
"""The profile of all other runs: a fixed sample, so that a change is not judged by what another seed finds."""

_OF_WHOLE = 4


def load_profile(*, is_whole: bool) -> None:
    """Choose the profile, before tests are imported."""
    settings.register_profile(WHOLE, deadline=None)
    settings.register_profile(SAMPLE, max_examples=100 // _OF_WHOLE, derandomize=True, database=None, deadline=None)
    settings.load_profile(WHOLE if is_whole else SAMPLE)


def examples(whole: int, *, least: int = 10, **more: Any) -> settings:
    """The Hypothesis settings of a test: `whole` examples in `make conformance`, and a fixed fourth of them otherwise.

    `least` is the smallest number of examples, for tests whose examples are expensive.
    """
    is_whole = settings.get_current_profile_name() == WHOLE
    return settings(max_examples=whole if is_whole else max(least, whole // _OF_WHOLE), **more)
