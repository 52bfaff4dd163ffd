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


def lengths(a: int, b: int) -> str:
    """How many digits each number has: what comparing them starts from, and how many zeros go before the shorter one."""
    return f"{a} has {len(str(a))}, {b} has {len(str(b))}"


def add(a: int, b: int) -> tuple[list[str], str]:
    lines, result = add_columns(*aligned(a, b))
    return [lengths(a, b), *lines], result


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
    """a - b; where b is larger, the difference the other way round with a minus sign. A column that is too small borrows 10, and
    the next one gives 1 back: `4-6+10=8`, then `7-2-1=4`."""
    lines, sign = ordered(a, b)
    x, y = aligned(a, b)
    if sign == "<":
        x, y = y, x
        lines.append(f"swap: {x}-{y}")
    else:
        lines.append(f"{x}-{y}")
    running, borrow = "", 0
    for i in reversed(range(len(x))):
        left, rest = f"{x[i]}-{y[i]}" + ("-1" if borrow else ""), int(x[i]) - int(y[i]) - borrow
        borrow = int(rest < 0)
        running = f"{rest + 10 * borrow}{running}"
        lines.append(left + ("+10" if borrow else "") + f"={running[0]}: {running}")
    return lines, ("-" if sign == "<" else "") + plain(running)


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
    """Long division by one digit: quotient and remainder. A line begins with what was left and the next digit; behind the running
    quotient stand the digits still to come."""
    lines, running, rest, digits = [f"{a}/{b}"], "", 0, str(a)
    for i, digit in enumerate(digits):
        part = int(f"{rest}{digit}")
        quotient, rest = divmod(part, b)
        running += str(quotient)
        coming = f", {digits[i + 1 :]}" if i + 1 < len(digits) else ""
        lines.append(f"{part:02}: {b}*{quotient}={b * quotient:02} left {rest}: {running}{coming}")
    return lines, plain(running), str(rest)


def ordered(a: int, b: int) -> tuple[list[str], str]:
    """The lines that show which number is larger, and "<", ">" or "=". First their lengths, then their first digits, then the
    first digits of what follows those, which the line before has written down."""
    lines, x, y = [lengths(a, b)], str(a), str(b)
    sign = sign_of(len(x), len(y))
    lines.append(f"{len(x)}{sign}{len(y)}")
    while sign == "=" and x:
        sign = sign_of(int(x[0]), int(y[0]))
        line, x, y = f"{x[0]}{sign}{y[0]}", x[1:], y[1:]
        lines.append(line + (f": {x}, {y}" if sign == "=" and x else ""))
    return lines, sign


def sign_of(a: int, b: int) -> str:
    return "<" if a < b else ">" if a > b else "="


def compare(a: int, b: int) -> tuple[list[str], str]:
    """"<", ">" or "="."""
    lines, sign = ordered(a, b)
    return [*lines, f"{a}{sign}{b}"], sign


def sort(numbers: list[int]) -> tuple[list[str], list[int]]:
    """Takes the smallest of what is left, again and again. A line lists what is left, the fewest digits that a number there has,
    and the smallest of those that have so many."""
    lines, left, result = [], [str(n) for n in numbers], []
    while left:
        fewest = min(map(len, left))
        least = min(n for n in left if len(n) == fewest)  # equally long, so the order of texts is the order of numbers
        lines.append(f"{', '.join(left)} - {fewest}: {least}")
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
