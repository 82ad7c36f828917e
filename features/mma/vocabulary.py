"""What data sets write: spellings of expressions and action units, and codes for the unknown."""

from __future__ import annotations

import re
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from feie.features.errors import DataError
from feie.features.schema import ACTION_UNITS, EXPRESSIONS

ASSUMED_CODES = (
    "expression codes are taken in the order of Aff-Wild2 (0 neutral, 1 anger, 2 disgust, 3 fear, "
    "4 happiness, 5 sadness, 6 surprise); if they mean others, name them in the attribute "
    "'classes' of the dataset, or in the option 'classes' of a table"
)

Codes = Literal["names", "classes", "aff-wild2"]
"""What says which expression is meant: its name, a code into a list of classes that the data set
defines, or a code that is taken in Aff-Wild2's order."""

UNKNOWN = frozenset(
    {"", "-1", "?", "ambiguous", "n/a", "na", "nan", "nf", "no face", "no-face", "none",
     "not a face", "null", "uncertain", "unknown", "unlabelled", "unlabeled"}
)  # fmt: skip
"""Labels that say that an expression is not known."""

OUTSIDE = frozenset({"contempt", "other", "others", "7"})
"""Labels that are expressions, but none of the seven."""

_SYNONYMS = {
    "angry": "anger",
    "ang": "anger",
    "contemptuous": "contempt",
    "disgusted": "disgust",
    "dis": "disgust",
    "afraid": "fear",
    "fearful": "fear",
    "frightened": "fear",
    "scared": "fear",
    "fea": "fear",
    "happy": "happiness",
    "hap": "happiness",
    "joy": "happiness",
    "joyful": "happiness",
    "neutrality": "neutral",
    "neu": "neutral",
    "sad": "sadness",
    "surprised": "surprise",
    "sur": "surprise",
    "astonished": "surprise",
}
_MISSING = {"va": (-2.0, -5.0), "au": (-1.0, 999.0)}
_LOWEST = {"va": -1.0, "au": 0.0}


def expression_name(label: str) -> str:
    """Give a label in lower case, other spellings as the noun that feie uses."""
    plain = label.strip().lower()
    return _SYNONYMS.get(plain, plain)


def code_meaning(where: str, code: int, classes: tuple[str, ...] | None) -> str:
    """Give the label that an expression code (0 or more) stands for.

    Parameters
    ----------
    where : str
        File and column, for the error.
    code : int
        The code.
    classes : tuple of str or None
        Labels in the order of their codes; None takes Aff-Wild2's order.

    Raises
    ------
    DataError
        A code beyond the classes.
    """
    if classes is None:
        return EXPRESSIONS[code] if code < len(EXPRESSIONS) else str(code)
    if code >= len(classes):
        raise DataError(f"{where} holds code {code}, but its classes are only {len(classes)}")
    return expression_name(classes[code])


def unit_name(name: str) -> str | None:
    """Give the schema's name of an action unit that is written AU1, AU01 or 'AU 1'; else None."""
    match = re.fullmatch(r"AU_?(\d{1,2})", re.sub(r"[\s'\"]", "", name).upper())
    known = f"AU{int(match[1]):02d}" if match else ""
    return known if known in ACTION_UNITS else None


def numbers_in_range(
    where: str, values: NDArray[np.generic], kind: Literal["va", "au"]
) -> NDArray[np.float32]:
    """Check valence and arousal (in [-1, 1]) or action units (in [0, 1]), NaN where unknown.

    Parameters
    ----------
    where : str
        File and column, for the error.
    values : ndarray
        Numbers; -2 and -5 (valence and arousal), -1 and 999 (action units) mean unknown.
    kind : {"va", "au"}
        Which of the two.

    Raises
    ------
    DataError
        Not numbers, or beyond the range.
    """
    if values.dtype.kind not in "biuf":
        raise DataError(f"{where} holds {values.dtype}, not numbers")
    with np.errstate(over="ignore"):
        numbers = values.astype(np.float32)
    numbers[np.isin(numbers, _MISSING[kind])] = np.nan
    lowest = _LOWEST[kind]
    wrong = ~np.isnan(numbers) & ((numbers < lowest) | (numbers > 1.0))
    if wrong.any():
        cure = "write NaN where a value is unknown"
        if kind == "au" and not (numbers < 0).any() and not (numbers > 5).any():
            cure = "if these are intensities from 0 to 5, divide by 5"
        raise DataError(f"{where} holds {numbers[wrong][0]:g}, outside [{lowest:g}, 1]; {cure}")
    return numbers
