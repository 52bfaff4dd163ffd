"""Whether an answer is right: mathematical equality, the last boxed answer, a choice by its letter, a number.

Answers are texts of a model, references come from the data. Nothing here asks a model.
"""

import contextlib
import logging
import re
import signal

from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

# It writes what it cannot parse, and that it has no limit of its own.
logging.getLogger("math_verify").setLevel(logging.CRITICAL)

# ---- boxed answers

BOX = re.compile(r"\\(?:boxed|fbox)\s*")


def last_boxed(text):
    """What the last complete box of a text holds; None if it has none. Braces nest; escaped ones are no braces."""
    for match in reversed(list(BOX.finditer(text))[-50:]):
        content = braced(text, match.end())
        if content is not None:
            return content.strip()
    return None


def braced(text, start):
    if start >= len(text):
        return None
    if text[start] != "{":
        # \boxed 7: TeX takes one token. A word is none that anybody means.
        token = re.match(r"\\[A-Za-z]+|[A-Za-z](?![A-Za-z])|[^\sA-Za-z\\$]", text[start:])
        return token[0] if token else None
    depth, index = 0, start
    while index < len(text):
        if text[index] == "\\":
            index += 2
            continue
        depth += {"{": 1, "}": -1}.get(text[index], 0)
        if depth == 0:
            return text[start + 1:index]
        index += 1
    return None


# ---- choices

ANSWER = r"(?:final\s+answer|correct\s+(?:answer|option|choice)|(?:answer|option|choice)(?:\s+left)?)"
# Not the beginning of a word: "D-day", "a.m."
ALONE = r"(?![A-Za-z0-9'’]|-\w|\.[a-z])"


def letter(text, letters="ABCD"):
    """The letter that a text chooses; None if it chooses none, or says nothing that can be told from a word.

    In this order: the last box, the last "answer is C" or "Answer: (C)", a "C." that the text begins with, the last (C) or **C**, the last line that
    begins with a letter and a stop, or is one.
    """
    one = f"[{letters}{letters.lower()}]"
    wrapped = rf"[\s*_`'\"$({{\[]*(?:\\[(\[]\s*)?(?:\\(?:text|textbf|mathrm|mathbf)\s*\{{)?[\s(]*({one}){ALONE}"
    boxed = last_boxed(text)
    if boxed is not None:
        found = re.match(wrapped, boxed)
        if found:
            return found[1].upper()
    stated = list(re.finditer(rf"(?i:\b{ANSWER})[*_\"'`]*(?:\s+(?i:is|would\s+be|should\s+be|must\s+be))?\s*[:=]?{wrapped}", text))
    # "The answer a student gives" states nothing: a small letter needs a mark or an end behind it.
    stated = [match for match in stated if match[1].isupper() and not is_article(match[1], text, match.end(1)) or marked(text, match)]
    if stated:
        return stated[-1][1].upper()
    line = rf"(?m)^\s*([{letters}])(?:[.):](?!\w)|\s*$)"
    first = re.match(line, text)
    if first:
        return first[1]
    marks = re.findall(rf"\(({one})\)|\*\*\(?({one})\)?(?:[.:][^*]*)?\*\*", text)
    if marks:
        return next(group for group in marks[-1] if group).upper()
    lines = re.findall(line, text)
    return lines[-1] if lines else None


def is_article(found, text, end):
    """Whether a capital A is a word of a sentence: "The answer is A common mistake"."""
    return found == "A" and re.match(r"\s+[a-z]", text[end:]) is not None


def marked(text, match):
    """Whether a letter has brackets, quotation marks or stars around it, or the end of a sentence behind it."""
    return text[match.start(1) - 1] in "([*\"'`{$" or re.match(r"[)\].,;:*\"'`}$]|\s*$|\s*\n", text[match.end(1):]) is not None


# ---- numbers

NUMBER = r"-?\$?\s?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?"


def number(text):
    """The number that a worked answer ends with: behind ####, behind "the answer is", else the last one; None if there is none."""
    for pattern in [r"####\s*(.*)", r"(?i)answer\s+is\s*:?((?:(?!answer\s+is).)*)"]:
        found = re.findall(pattern, text)
        if found:
            values = numbers(found[-1])
            if values:
                return values[0]
    boxed = last_boxed(text)
    values = numbers(boxed) if boxed is not None else numbers(text)
    return values[-1] if values else None


def numbers(text):
    found = (re.sub(r"[\s$,]", "", match) for match in re.findall(NUMBER, text.replace("\\$", "$").replace("\\!", "")))
    return [float(value) for value in found if re.search(r"\d", value)]


# ---- mathematical equality

# Characters of an answer that is parsed, and seconds of processor time for a comparison.
LONGEST, SECONDS = 1000, 5


class TooLong(BaseException):
    """Nothing that math-verify does with its own errors may catch it."""


@contextlib.contextmanager
def limited(seconds):
    """math-verify's own limits go by the clock: on a busy machine right answers would become wrong ones. Main thread only."""
    def end(*_):
        raise TooLong

    before = signal.signal(signal.SIGPROF, end)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def equal(reference, answer):
    """Whether two expressions, LaTeX or plain, are the same mathematical object.

    Texts that are the same but for layout are. Otherwise math-verify parses both and compares; what it cannot parse is equal to nothing, and so is
    what takes too long.
    """
    if answer is None:
        return False
    a, b = layout(reference), layout(answer)
    if a == b:
        return a != ""
    if len(answer) > LONGEST:
        return False
    try:
        with limited(SECONDS):
            gold, found = parsed(reference), parsed(answer)
            return bool(gold and found and verify(gold, found, timeout_seconds=None))
    except (TooLong, RecursionError, MemoryError):
        return False


DEGREES = re.compile(r"\\(sin|cos|tan|cot|sec|csc)\s*(?:\\left)?\(?\s*(\d+)\s*\^\s*\{?\s*\\circ\s*\}?\s*(?:\\right)?\)?")


def parsed(text):
    text = DEGREES.sub(r"\\\1{\\frac{\2\\pi}{180}}", text)
    configuration = [LatexExtractionConfig(boxed_match_priority=0), ExprExtractionConfig()]
    return parse(f"${text.strip().strip('$')}$", extraction_config=configuration, parsing_timeout=None)


def layout(text):
    """The text without what changes only how it looks."""
    text = text.strip().strip("$").rstrip(".")
    text = re.sub(r"\\(?:left|right|displaystyle|,|!|;|:|quad|qquad)(?![a-zA-Z])", "", text)
    text = re.sub(r"\\[dt]frac", r"\\frac", text)
    text = re.sub(r"\\(?:text|mathrm|textbf|mbox)\s*\{([^{}]*)\}", r"\1", text)
    text = re.sub(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ)", "", text)
    return re.sub(r"\s+", "", text)


def solved(reference, text):
    """Whether the last box of a solution holds the reference, mathematically."""
    return equal(reference, last_boxed(text))
