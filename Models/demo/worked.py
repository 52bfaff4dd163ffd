"""Arithmetic worked column by column in text, as a tiny model can follow it: every line needs only digits in plain sight.

Each function returns the lines of the work and the result *as read off the lines*, never computed by other means, so that
`tasks.py --check` can hold it against ordinary arithmetic. A line ends with the running result, its newest digit in front.
"""


def aligned(a: int, b: int) -> tuple[str, str]:
    """Both numbers with as many digits as the longer one, so that columns stand at equal distances."""
    width = max(len(str(a)), len(str(b)))
    return str(a).zfill(width), str(b).zfill(width)


def plain(digits: str) -> str:
    """A number without leading zeros."""
    return digits.lstrip("0") or "0"


def add(a: int, b: int) -> tuple[list[str], str]:
    return add_columns(*aligned(a, b))


def add_columns(x: str, y: str) -> tuple[list[str], str]:
    """Equally long numbers."""
    lines, running, carry = [f"{x}+{y}"], "", 0
    for i in reversed(range(len(x))):
        total = int(x[i]) + int(y[i]) + carry
        left = f"{x[i]}+{y[i]}" + ("+1" if carry else "")
        carry = total // 10
        if i == 0:
            running = f"{total}{running}"
            lines.append(f"{left}={total}: {running}")
        else:
            running = f"{total % 10}{running}"
            lines.append(f"{left}={total}" + (" carry 1" if carry else "") + f": {running}")
    return lines, plain(running)


def subtract(a: int, b: int) -> tuple[list[str], str]:
    """a - b; where b is larger, the difference the other way round with a minus sign."""
    x, y = aligned(a, b)
    lines = [f"{x}-{y}"]
    negative = x < y  # equally long, so this compares the leftmost digits that differ, as the model has to
    if negative:
        x, y = y, x
        lines.append(f"swap: {x}-{y}")
    running, borrow = "", 0
    for i in reversed(range(len(x))):
        top, rest = int(x[i]), int(y[i]) + borrow
        left = f"-{y[i]}" + ("-1" if borrow else "")
        borrow = int(top < rest)
        digit = top + 10 * borrow - rest
        running = f"{digit}{running}"
        lines.append(f"{top + 10 * borrow}{left}={digit}" + (" borrow 1" if borrow else "") + f": {running}")
    return lines, ("-" if negative else "") + plain(running)


def multiply_digit(a: str, digit: str) -> tuple[list[str], str]:
    """A number times one digit, one digit longer than the number. The tens of a line's sum are the next line's carry."""
    lines, running, carry = [f"{a}*{digit}"], "", 0
    for i in reversed(range(len(a))):
        product = int(a[i]) * int(digit)
        total = product + carry
        running = (f"{total:02}" if i == 0 else f"{total % 10}") + running
        lines.append(f"{a[i]}*{digit}={product:02}+{carry}={total:02}: {running}")
        carry = total // 10
    return lines, running


def multiply(a: int, b: int) -> tuple[list[str], str]:
    """a times b of at most two digits: one row per digit of b, then their sum."""
    digits = str(b)[::-1]
    lines, first = multiply_digit(str(a), digits[0])
    if len(digits) == 1:
        return lines, plain(first)
    work, second = multiply_digit(str(a), digits[1])
    total, result = add_columns(f"0{first}", f"{second}0")
    return lines + work + total, result


def divide(a: int, b: int) -> tuple[list[str], str, str]:
    """Long division by one digit: quotient and remainder. A line begins with what was left, the next digit, and those still to come."""
    lines, running, rest, digits = [f"{a}/{b}"], "", 0, str(a)
    for i, digit in enumerate(digits):
        part = int(f"{rest}{digit}")
        quotient, rest = divmod(part, b)
        running += str(quotient)
        lines.append(f"{part:02},{digits[i + 1 :]}: {b}*{quotient}={b * quotient:02} left {rest}: {running}")
    return lines, plain(running), str(rest)


def compare(a: int, b: int) -> tuple[list[str], str]:
    """"<", ">" or "=", by the leftmost column that differs."""
    x, y = aligned(a, b)
    lines = [f"{x}, {y}"]
    for p, q in zip(x, y):
        sign = "<" if p < q else ">" if p > q else "="
        lines.append(f"{p}{sign}{q}")
        if sign != "=":
            break
    lines.append(f"{a}{sign}{b}")
    return lines, sign


def sort(numbers: list[int]) -> tuple[list[str], list[int]]:
    """Takes the smallest of what is left, again and again; all numbers with as many digits as the longest one."""
    width = max(len(str(n)) for n in numbers)
    lines, left, result = [], [str(n).zfill(width) for n in numbers], []
    while left:
        least = min(left)
        lines.append(f"{', '.join(left)}: {least}")
        left.remove(least)
        result.append(int(least))
    return lines, result


def count_items(items: list[str]) -> tuple[list[str], int]:
    """Numbers the items. Each stands behind the one before it, as in the question and as the same tokens: what follows it there,
    follows here."""
    return [(f" {items[i - 1]}," if i else "") + f" {item} {i + 1}" for i, item in enumerate(items)], len(items)


def count_letter(letters: str, wanted: str) -> tuple[list[str], int]:
    """Holds each letter beside the wanted one, and counts those that are equal. The letter before it (or the question's "in")
    leads to it."""
    lines, count = [], 0
    for before, letter in zip(("in", *letters), letters):
        count += letter == wanted
        lines.append(f" {before} {letter} {wanted} {'=' if letter == wanted else '-'} {count}")
    return lines, count
