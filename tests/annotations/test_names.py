import pytest
from hypothesis import given
from hypothesis import strategies as st

from avrecog.annotations.names import cleaned, joined_spellings, look_alikes, name_problem, shown


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("cafe\u0301", "caf\xe9"),  # as macOS stores it
        ("dog\u200b", "dog"),  # zero-width space
        ("\ufeffdog", "dog"),  # byte order mark
        ("play\xadground", "playground"),  # soft hyphen
        ("air\xa0drumming", "air drumming"),
        ("air\u3000drumming ", "air drumming"),
        ("low\r", "low"),
        ("a\nb\tc", "a b c"),
        ("a\u2028b\x85c", "a b c"),
        ("caf\udce9", r"caf\xe9"),  # a byte of Latin-1 in a file's name
        ("e\u200b\u0301t\xe9", "\xe9t\xe9"),
        ("\u0645\u06cc\u200c\u0631\u0648\u0645", "\u0645\u06cc\u200c\u0631\u0648\u0645"),  # Persian needs the joiner
        ("\u200b \xa0", ""),
        ("Ba$$ guitar_x^2 {y}\\z", "Ba$$ guitar_x^2 {y}\\z"),
    ],
)
def test_a_label_is_cleaned_of_what_cannot_be_seen(name, label):
    assert cleaned(name) == label


@given(st.text())
def test_cleaning_twice_changes_nothing_more_and_leaves_one_line(name):
    try:
        label = cleaned(name)
    except UnicodeEncodeError:  # half a pair, which no file's name and no UTF-8 text can give
        return
    assert cleaned(label) == label
    assert len(label.splitlines()) <= 1
    assert label == label.strip()
    label.encode()


def test_what_cannot_be_printed_is_shown_escaped():
    assert shown("caf\udce9/low\r\x1b[2J \u200b.wav") == r"caf\xe9/low\r\x1b[2J \u200b.wav"
    assert shown("d\xe9j\xe0 vu \u97f3.wav") == "d\xe9j\xe0 vu \u97f3.wav"


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ('it\'s "a" sound, \xfc \u97f3.wav', None),
        ("caf\udce9.wav", "is no UTF-8"),
        ("low\r/0.wav", "holds a control character"),
        ("a\nb.wav", "holds a control character"),
        ("a\0b.wav", "holds a control character"),
    ],
)
def test_a_path_that_tables_and_logs_cannot_hold_is_told(name, problem):
    assert name_problem(name) == problem


def test_spellings_that_come_to_one_label_are_joined():
    assert joined_spellings(["caf\xe9", "cafe\u0301", "dog", "low\r"]) == {
        "caf\xe9": ["cafe\u0301", "caf\xe9"],
        "low": ["low\r"],
    }


def test_labels_that_look_alike_are_found():
    labels = ["dog", "Dog", "stra\xdfe", "STRASSE", "\uff21", "a", "cat", "x\u3164", "x", "a  b", "a b", "\u0131"]
    assert look_alikes(labels) == [
        ["Dog", "dog"],
        ["STRASSE", "stra\xdfe"],
        ["a", "\uff21"],
        ["a  b", "a b"],
        ["x", "x\u3164"],
    ]
