import re

from hypothesis import given
from hypothesis import strategies as st

from avrecog.tracking.outcome import enough_skipped, format_skipped


@given(n_clips=st.integers(1, 100_000), share=st.floats(0, 1))
def test_the_fraction_that_is_advised_lets_the_clips_pass_and_is_hardly_too_large(n_clips, share):
    n_skipped = round(n_clips * share)
    enough = enough_skipped(n_skipped, n_clips)
    assert n_skipped <= enough * n_clips  # as the stages ask
    assert enough == float(re.search(r"^[\d.]+$", f"{enough:g}")[0]) <= 1
    assert (enough - 0.002) * n_clips < n_skipped


def test_29_of_100_are_let_pass_though_they_are_more_than_a_hundred_times_0_29():
    assert enough_skipped(29, 100) == 0.291


def test_nobody_is_told_to_go_on_without_any_clip():
    assert format_skipped(3, 3, 0.01, "read").endswith("allows; repair or drop them")
