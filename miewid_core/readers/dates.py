"""Dates as cameras, exiftool, spreadsheets and data frames write them; never silently another."""

import re
from datetime import datetime

import pandas as pd
from dateutil import parser

ISO = r"(?:18|19|20)\d\d(?:-\d\d-\d\d|\d{4})(?:[T ].*)?"
ZONE = r"(?<=\d)\s*(?:[zZ]|UTC|GMT|[+-]\d\d(?::?\d\d)?)$"  # of a time, at its end
TIME = r"(?:[T, ]+(?P<time>\d\d?:\d\d(?::\d\d(?:\.\d*)?)?\s*(?:[AaPp][Mm])?))?"
YEAR_FIRST = re.compile(rf"(?P<y>(?:18|19|20)\d\d)([:/.-])(?P<m>\d\d?)\2(?P<d>\d\d?){TIME}")
YEAR_LAST = re.compile(rf"(?P<a>\d\d?)([/.-])(?P<b>\d\d?)\2(?P<y>(?:18|19|20)\d\d){TIME}")
IN_WORDS = re.compile(r"(?=.*[A-Za-z]{3})(?=.*\b(?:18|19|20)\d\d\b).*\d.*")
ZERO = pd.to_datetime(["1899-12-30", "1900-01-01", "1904-01-01", "1970-01-01", "1980-01-01"])
LEFT_OUT = "set to missing: write it as 2024-05-31 or 2024-05-31T12:00:00"


def read_dates(written: pd.Series) -> pd.DataFrame:
    """Per cell (text) its date, what is to be noticed of it, and what was done; "" for nothing.

    Dates and times (datetime64[us]) are those of a clock on the spot, NaT for none: a zone at the
    end is left out. What matters is the day, and cameras' own times have no zone.
    Year first in any form, 03.05.2019 (day first, as whoever writes points does), names of months.
    03/05/2019 can be two days: it is read as other dates of the column show, or else left out. So
    is a year alone, which is no day, a day by which spreadsheets and clocks count from zero, and
    all else.
    """
    texts = pd.Series(written.unique(), dtype=object)
    read = _iso(texts)
    left = texts[read.isna() & (texts.str.strip("\0 ") != "")]
    days = {place: readings(text) for place, text in left.items()}
    order = _order([left[place] for place, found in days.items() if found])
    what, done = pd.Series("", texts.index), pd.Series("", texts.index)
    for place, found in days.items():
        if len(found) == 1:
            read[place] = found[0]
        elif found and order is not None:
            read[place] = found[order[0]]
            what[place], done[place] = f"date {left[place]} can be two days", order[1]
        else:
            wrong = "can be two days" if found else "can't be read as one day"
            what[place], done[place] = f"date {left[place]} {wrong}", LEFT_OUT
    none = read.isin(ZERO)
    read[none], done[none] = pd.NaT, "set to missing"
    what[none] = "date " + texts[none] + " is how programs write none"
    table = pd.DataFrame({"date": read, "what": what, "done": done}).set_axis(texts)
    return table.loc[written].set_axis(written.index)


def _iso(texts: pd.Series) -> pd.Series:
    """What ISO 8601 says of texts that give a whole day; NaT for the others."""
    plain = texts.str.strip("\0 ").str.replace(r"\.0+$", "", regex=True)
    timed = plain.str.contains("[T:]", regex=True).astype(bool)
    plain = plain.mask(timed, texts.str.strip("\0 ").str.replace(ZONE, "", regex=True))
    plain = plain.where(plain.str.fullmatch(ISO).astype(bool))
    read = pd.to_datetime(plain, errors="coerce", format="ISO8601", utc=True)
    return read.dt.tz_localize(None).astype("datetime64[us]")


def readings(text: str) -> list[datetime]:
    """The days, with their times, that a text can mean; two where day and month may be swapped."""
    text = text.strip("\0 ")
    text = re.sub(ZONE, "", text) if re.search(r"\d:\d", text) else text
    if found := YEAR_FIRST.fullmatch(text):
        return _days(found["y"], found["time"], [(found["m"], found["d"])])
    if found := YEAR_LAST.fullmatch(text):
        day_first, month_first = (found["b"], found["a"]), (found["a"], found["b"])
        days = _days(found["y"], found["time"], [day_first, month_first])
        return days[:1] if found[2] == "." else days
    if IN_WORDS.fullmatch(text):
        return _in_words(text)
    return []


def _days(year: str, time: str | None, months_and_days: list[tuple[str, str]]) -> list[datetime]:
    days = []
    for month, day in months_and_days:
        parsed = pd.to_datetime(f"{year}-{month:0>2}-{day:0>2}", errors="coerce")
        clock = pd.to_datetime(f"2000-01-01 {time}", errors="coerce") if time else parsed
        if not pd.isna(parsed) and not pd.isna(clock):
            days.append(datetime.combine(parsed.date(), clock.time()))
    return list(dict.fromkeys(days))


def _in_words(text: str) -> list[datetime]:
    """A date with the name of its month, if it says year, month and day."""
    text = re.sub(r"\s*\(.*\)$", "", text)
    text = re.sub(r"(?:\s+|GMT|UTC)[+-]\d{4}$", "", text)
    try:  # what the text doesn't say is taken from the default: it must make no difference
        first, second = (
            parser.parse(text, default=default, ignoretz=True)
            for default in (datetime(2000, 1, 1), datetime(2004, 2, 2))
        )
    except (ValueError, OverflowError, TypeError):
        return []
    return [first] if first == second else []


def _order(texts: list[str]) -> tuple[int, str] | None:
    """Which of two readings is meant, as dates show that can be read one way only; None if none."""
    found = [match for match in map(YEAR_LAST.match, texts) if match and match[2] != "."]
    days = [match[0] for match in found if int(match["a"]) > 12]
    months = [match[0] for match in found if int(match["b"]) > 12]
    if bool(days) == bool(months):
        return None
    first, other = ("day", days) if days else ("month", months)
    return int(not days), f"read with the {first} first, as {other[0]}"
