import Testing

@testable import SigmaGrammar

@Suite struct NumberTests {
    /// Against integer arithmetic on thousandths.
    @Test func boundsAgreeWithArithmetic() throws {
        let bounds = ["-2.5", "-1", "-0.125", "0", "0.5", "1", "9.99", "10", "123.456"]
        let texts = [
            "-1000", "-10", "-2.501", "-2.5", "-2.500", "-2.499", "-1.001", "-1", "-0.126", "-0.125", "-0.12", "-0",
            "-0.0",
            "0", "0.0", "0.001", "0.499", "0.5", "0.50", "0.501", "1", "1.0", "1.001", "9.9", "9.99", "9.991", "10",
            "10.0",
            "99", "123.455", "123.456", "123.4560", "123.457", "1000",
        ]
        for bound in bounds {
            let limit = thousandths(bound)
            let rules: [(String, (Int, Int) -> Bool)] = [
                ("minimum", { a, b in a >= b }), ("maximum", { a, b in a <= b }),
                ("exclusiveMinimum", { a, b in a > b }), ("exclusiveMaximum", { a, b in a < b }),
            ]
            for (keyword, holds) in rules {
                let constraint = try compiled(.jsonSchema("{\"type\": \"number\", \"\(keyword)\": \(bound)}"))
                for text in texts {
                    var state = constraint.begin()
                    let isAccepted = state.advance(text.utf8) && state.allowsEnd
                    #expect(isAccepted == holds(thousandths(text), limit), "\(keyword) \(bound): \(text)")
                }
            }
        }
    }

    private func thousandths(_ text: String) -> Int {
        let isNegative = text.hasPrefix("-")
        let parts = text.drop { $0 == "-" }.split(separator: ".")
        let fraction = parts.count > 1 ? String(parts[1]) : ""
        let padded = fraction + String(repeating: "0", count: max(0, 3 - fraction.count))
        let value = Int(parts[0])! * 1_000 + Int(padded.prefix(3))!
        return isNegative ? -value : value
    }

    @Test func integers() throws {
        let schema = "{\"type\": \"integer\", \"minimum\": -12, \"exclusiveMaximum\": 105}"
        for value in -130...130 { #expect(try accepts(schema, "\(value)") == (-12..<105).contains(value), "\(value)") }
        for text in ["01", "+1", "1.0", "1e1", "--1", "", "-"] { #expect(try !accepts(schema, text), "\(text)") }
    }

    @Test func multiples() throws {
        for value in 0...200 {
            #expect(try accepts("{\"type\": \"integer\", \"multipleOf\": 7}", "\(value)") == (value % 7 == 0))
        }
        let cents = "{\"type\": \"number\", \"multipleOf\": 0.25}"
        let quarters: [(String, Bool)] = [
            ("1.25", true), ("1.250", true), ("1.2", false), ("-0.75", true), ("3", true), ("0.255", false),
        ]
        for (text, isValid) in quarters {
            #expect(try accepts(cents, text) == isValid, "\(text)")
        }
        let both =
            "{\"type\": \"integer\", \"multipleOf\": 6, \"not\": {\"multipleOf\": 4}, \"minimum\": 1, \"maximum\": 40}"
        for value in 0...60 {
            let isValid = value % 6 == 0 && value % 4 != 0 && (1...40).contains(value)
            #expect(try accepts(both, "\(value)") == isValid, "\(value)")
        }
        #expect(refusal("{\"type\": \"integer\", \"multipleOf\": 0}")?.keyword == "multipleOf")
        #expect(refusal("{\"multipleOf\": 100003}")?.keyword == "multipleOf")
    }

    @Test func digitsBeyondDoubles() throws {
        let schema = "{\"type\": \"integer\", \"maximum\": 18446744073709551615}"
        #expect(try accepts(schema, "18446744073709551615"))
        #expect(try !accepts(schema, "18446744073709551616"))
        let fraction = "{\"type\": \"number\", \"exclusiveMaximum\": 972783798187987123879878123.18878137}"
        #expect(try accepts(fraction, "972783798187987123879878123"))
        #expect(try !accepts(fraction, "972783798187987123879878123.188781371"))
    }

    @Test func fractionsFitDoubles() throws {
        #expect(try accepts("{\"type\": \"number\"}", "-1234567.12345678"))
        #expect(try !accepts("{\"type\": \"number\"}", "-1234567.123456789"))
        #expect(try accepts("{\"type\": \"number\"}", "12345678901234567890"))
    }

    @Test func exponentsOnlyWhereEveryNumberGoes() throws {
        #expect(try accepts("{\"type\": \"number\"}", "-1.5e+10"))
        #expect(try !accepts("{\"type\": \"number\", \"minimum\": 0}", "1e5"))
        #expect(try !accepts("{\"not\": {\"const\": 100}}", "1e2"))
        #expect(try !accepts("{\"not\": {\"const\": 100}}", "100.0"))
        #expect(try accepts("{\"not\": {\"const\": 100}}", "100.5"))
    }
}
