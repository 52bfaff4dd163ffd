import Sigma
import Testing

/// Dates as Python's `strftime` writes them in English.
@Suite struct CalendarDateTests {
    @Test(arguments: [
        ("%d %b %Y", "07 Mar 2024"), ("%A, %B %-d, %Y", "Thursday, March 7, 2024"), ("%a %e/%m/%y", "Thu  7/03/24"),
        ("%F %T", "2024-03-07 15:04:09"), ("%-I:%M %p", "3:04 PM"), ("%I %H %-m %S", "03 15 3 09"), ("100 %%", "100 %"),
        ("26 Jul 2024", "26 Jul 2024"), ("", ""),
    ]) func marks(_ format: String, _ expected: String) {
        var date = CalendarDate(year: 2024, month: 3, day: 7)
        (date.hour, date.minute, date.second) = (15, 4, 9)
        #expect(date.text(format) == expected)
    }

    @Test(arguments: ["%", "%Q", "%-", "%-B", "a %é"]) func unknownMarks(_ format: String) {
        #expect(CalendarDate.now.text(format) == nil)
    }

    @Test func weekdays() {
        for (year, month, day, name) in [
            (2000, 2, 29, "Tuesday"), (1999, 12, 31, "Friday"), (2026, 11, 29, "Sunday"), (2100, 1, 1, "Friday"),
        ] {
            #expect(CalendarDate(year: year, month: month, day: day).text("%A") == name)
        }
        #expect(CalendarDate.now.year >= 2024)
    }
}
