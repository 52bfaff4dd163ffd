import SystemLibrary

/// A day and a time of day, in no particular time zone.
package struct CalendarDate: Sendable, Equatable {
    package var year: Int
    /// 1 to 12.
    package var month: Int
    package var day: Int
    package var hour = 0
    package var minute = 0
    package var second = 0

    package init(year: Int, month: Int, day: Int) {
        self.year = year
        self.month = month
        self.day = day
    }

    /// What the clocks here show.
    package static var now: CalendarDate {
        var seconds = time(nil)
        var parts = tm()
        localtime_r(&seconds, &parts)
        var date = CalendarDate(year: Int(parts.tm_year) + 1900, month: Int(parts.tm_mon) + 1, day: Int(parts.tm_mday))
        date.hour = Int(parts.tm_hour)
        date.minute = Int(parts.tm_min)
        date.second = Int(parts.tm_sec)
        return date
    }

    private static let months = [
        "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
        "December",
    ]
    private static let days = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"]

    /// 0 is Sunday (Sakamoto's rule).
    private var weekday: Int {
        let shifts = [0, 3, 2, 5, 0, 3, 5, 1, 4, 6, 2, 4]
        let year = month < 3 ? self.year - 1 : self.year
        return (year + year / 4 - year / 100 + year / 400 + shifts[month - 1] + day) % 7
    }

    /// As `strftime` writes it in English.
    ///
    /// - Returns: nil for a mark that is not known here.
    package func text(_ format: String) -> String? {
        func padded(_ number: Int, _ width: Int = 2, _ pad: String = "0") -> String {
            let text = String(number)
            return String(repeating: pad, count: max(0, width - text.count)) + text
        }
        var result = ""
        var scalars = format.unicodeScalars.makeIterator()
        while let scalar = scalars.next() {
            guard scalar == "%" else {
                result.unicodeScalars.append(scalar)
                continue
            }
            guard var mark = scalars.next() else { return nil }
            let isBare = mark == "-"
            if isBare {
                guard let next = scalars.next() else { return nil }
                mark = next
            }
            func number(_ value: Int) -> String { isBare ? String(value) : padded(value) }
            switch mark {
            case "Y": result += padded(year, 4)
            case "m": result += number(month)
            case "d": result += number(day)
            case "H": result += number(hour)
            case "I": result += number((hour + 11) % 12 + 1)
            case "M": result += number(minute)
            case "S": result += number(second)
            case "y": result += number(year % 100)
            case _ where isBare: return nil
            case "e": result += padded(day, 2, " ")
            case "B": result += Self.months[month - 1]
            case "b", "h": result += Self.months[month - 1].prefix(3)
            case "A": result += Self.days[weekday]
            case "a": result += Self.days[weekday].prefix(3)
            case "p": result += hour < 12 ? "AM" : "PM"
            case "F": result += "\(padded(year, 4))-\(padded(month))-\(padded(day))"
            case "T": result += "\(padded(hour)):\(padded(minute)):\(padded(second))"
            case "%": result += "%"
            default: return nil
            }
        }
        return result
    }
}
