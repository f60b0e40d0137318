"""Every status that a row can have, in one place, from the annotation to the report.

The index says of each person and picture whether it counts; a view says of each row whether it was
computed. Both hold words from here, and what fails has a reason beside its status, in words.
"""

from typing import Literal

# Of the index. `removed` rows are no longer part of the data set; the others are, and count as
# dropped where they are not ok.
INDEX = (
    "ok",
    "unlabelled",
    "repeated",
    "removed",
    "missing",
    "unreadable",
    "bad_box",
    "no_person",
)

# Of a row of a view.
StatusWord = Literal[
    "absent",
    "ok",
    "no_face",
    "no_object",
    "bad_box",
    "unreadable",
    "missing",
    "no_signal",
    "no_text",
]

# The code that stands for it in the store.
STATUS: dict[StatusWord, int] = {
    "absent": 0,  # no commit record lists the row
    "ok": 1,
    "no_face": 2,
    "no_object": 3,
    "bad_box": 4,
    "unreadable": 5,
    "missing": 6,
    "no_signal": 7,
    "no_text": 8,
}
WORDS: dict[int, StatusWord] = {code: word for word, code in STATUS.items()}

FAILED: tuple[StatusWord, ...] = ("bad_box", "unreadable", "missing")  # what another try may mend
USABLE: tuple[StatusWord, ...] = (
    "ok",
    "no_face",
    "no_object",
    "no_signal",
    "no_text",
)  # a missing face or object, a signal without a measurable beat, or a picture that nothing is said
# of is an answer, not a failure
