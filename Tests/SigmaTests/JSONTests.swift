import Sigma
import Testing

/// Texts that are JSON, texts that are not, and what is written.
@Suite struct JSONTests {
    private func parse(_ text: String) throws -> JSONValue { try JSONValue.parse(text) }

    private func failure(_ bytes: [UInt8]) -> SigmaError? {
        do {
            _ = try bytes.withUnsafeBytes { try JSONValue.parse($0, path: "x.json") }
            return nil
        } catch { return error as? SigmaError }
    }
    private func failure(_ text: String) -> SigmaError? { failure(Array(text.utf8)) }

    @Test func valuesOfAllKinds() throws {
        let value = try parse(#" {"a":[1,-2.5,true,false,null,"x"],"b":{},"c":[]} "#)
        #expect(value["a"] == .array([.integer(1), .number(-2.5), .bool(true), .bool(false), .null, .string("x")]))
        #expect(value["b"]?.object?.count == 0)
        #expect(value["c"]?.array?.isEmpty == true)
        #expect(value["d"] == nil)
        #expect(value.object?.keys == ["a", "b", "c"])
    }

    @Test func numbers() throws {
        #expect(try parse("0") == .integer(0))
        #expect(try parse("-0") == .integer(0))
        #expect(try parse("9223372036854775807") == .integer(.max))
        #expect(try parse("-9223372036854775808") == .integer(.min))
        #expect(try parse("9223372036854775808") == .number(9_223_372_036_854_775_808))
        #expect(try parse("1e-06") == .number(1e-6))
        #expect(try parse("1E+2") == .number(100))
        #expect(try parse("1e2").integer == 100)
        #expect(try parse("1.5").integer == nil)
        #expect(try parse("1e300").integer == nil)
    }

    /// Some writers write what JSON doesn't have.
    @Test(arguments: ["NaN", "Infinity", "-Infinity", "nan", "inf", "-inf"]) func wordsForNumbers(_ word: String) throws
    {
        for text in ["{\"a\": 1, \"b\": [2, \(word)]}", "{\"a\": 1, \"b\": \(word)}"] {
            let error = try #require(failure(text))
            #expect(error.message.contains("found \(word),") && error.item == "b", "\(error)")
            #expect(error.offset == UInt64(text.utf8.count - word.utf8.count - (text.contains("[") ? 2 : 1)))
            #expect(error.remedy != nil)
        }
        for other in ["N", "Inf", "nul", "-I", "-", "In\u{0}"] { #expect(failure(other)?.remedy == nil, "\(other)") }
    }

    @Test func escapes() throws {
        #expect(try parse(#""\"\\\/\b\f\n\r\t""#) == .string("\"\\/\u{8}\u{c}\n\r\t"))
        #expect(try parse(#""\u0041\u00e9\u5b57\ud83d\ude42""#) == .string("Aé字🙂"))
        #expect(try parse(#""a\u0000b""#).string?.utf8.count == 3)
    }

    @Test func keysAreComparedByTheirBytes() throws {
        // Canonically equivalent, so equal as Swift strings.
        let value = try parse("{\"\u{e9}\":1,\"e\u{301}\":2}")
        #expect(value["\u{e9}"] == .integer(1))
        #expect(value["e\u{301}"] == .integer(2))
    }

    @Test func manyKeysAreFound() throws {
        let text = "{" + (0..<5000).map { "\"k\($0)\":\($0)" }.joined(separator: ",") + "}"
        let value = try parse(text)
        for i in 0..<5000 { #expect(value["k\(i)"] == .integer(Int64(i))) }
        #expect(value["k5000"] == nil)
    }

    @Test(arguments: [
        "", " ", "{", "[", "[1", "[1,", "[1,]", "{\"a\"", "{\"a\":", "{\"a\":1", "{\"a\":1,}", "{,}", "{a:1}",
        "{'a':1}", "[1 2]",
        "\"", "\"a", "\"\\\"", "\"\\x\"", "\"\\u12\"", "\"\\u12g4\"", "\"\u{1}\"", "\"\n\"", "01", "-", "-a", "1.",
        ".5", "1e",
        "1e+", "+1", "0x1", "NaN", "Infinity", "-Infinity", "nul", "nulll", "tru", "True", "1 1", "[]]", "{}{}",
        "// x\n1",
        "[1]/**/", "1e999", "\"\\ud83d\"", "\"\\ude42\"", "\"\\ud83d\\u0041\"", "\u{feff}1", "{\"a\":1,\"a\":2}",
        "\u{a0}1",
    ])
    func isRefused(_ text: String) throws {
        let error = try #require(failure(text))
        #expect(error.kind == .damaged)
        #expect(error.path == "x.json")
        #expect(error.offset != nil)
    }

    @Test func errorsNameTheOffset() throws {
        #expect(failure("[1, x]")?.offset == 4)
        #expect(failure("{\"a\": 1, \"b\": 2, \"a\": 3}")?.offset == 17)
        #expect(failure("[\"abc\u{1}\"]")?.offset == 5)
    }

    @Test(
        arguments: [
            [0x22, 0x80, 0x22], [0x22, 0xc0, 0xaf, 0x22], [0x22, 0xe2, 0x82, 0x22], [0x22, 0xed, 0xa0, 0x80, 0x22],
            [0x22, 0xf4, 0x90, 0x80, 0x80, 0x22], [0x22, 0x5c, 0x6e, 0xff, 0x22], [0xff, 0xfe], [0x31, 0x00],
        ] as [[UInt8]])
    func notUTF8IsRefused(_ bytes: [UInt8]) { #expect(failure(bytes)?.kind == .damaged) }

    @Test func depthIsLimited() throws {
        let depth = 128
        #expect(failure(String(repeating: "[", count: depth) + String(repeating: "]", count: depth)) == nil)
        #expect(failure(String(repeating: "[", count: 1_000_000)) != nil)
        #expect(failure(String(repeating: "{\"a\":", count: 1_000_000)) != nil)
    }

    @Test func longNumbersAreRefused() { #expect(failure("1" + String(repeating: "0", count: 1_000_000)) != nil) }

    @Test func damagedTextsOnlyGiveErrors() throws {
        let text = Array(
            #"{"model":{"vocab":{"a":0,"\u0120b":1},"merges":[["a","b"],"c d"]},"x":[1.5e3,-2,true,null]}"#.utf8)
        var generator = SplitMix64(state: 1)
        for _ in 0..<20_000 {
            var bytes = text
            for _ in 0..<Int.random(in: 1...3, using: &generator) {
                bytes[Int.random(in: 0..<bytes.count, using: &generator)] = UInt8.random(in: 0...255, using: &generator)
            }
            if Bool.random(using: &generator) { bytes.removeLast(Int.random(in: 0...bytes.count, using: &generator)) }
            if let error = failure(bytes) { #expect(error.kind == .damaged) }
        }
    }

    // MARK: writing

    @Test func writing() throws {
        var json = JSONWriter()
        json.object {
            $0.field("event", "token")
            $0.field("id", Int32(-7))
            $0.field("logprob", -0.25, decimals: 6)
            $0.field("bad", Double.nan)
            $0.field("flag", true)
            $0.array("top") { top in
                for id in 0..<2 { top.object { $0.field("id", id) } }
                top.null()
                top.value(1.5)
            }
            $0.object("empty") { _ in }
        }
        #expect(
            json.text
                == #"{"event":"token","id":-7,"logprob":-0.250000,"bad":null,"flag":true,"top":[{"id":0},{"id":1},null,1.5],"empty":{}}"#
        )
        #expect(try JSONValue.parse(json.text)["top"]?.array?.count == 4)
    }

    @Test func whatIsWrittenReadsBack() throws {
        for text in ["", "a\"b\\c/d", "\u{0}\u{1}\u{1f}\u{7f}\u{80}", "\r\n\t", "é字🙂", "\u{2028}\u{2029}\u{feff}"] {
            var json = JSONWriter()
            json.value(text)
            #expect(try JSONValue.parse(json.text).string.map { Array($0.utf8) } == Array(text.utf8))
        }
    }

    @Test func fixedDecimals() {
        #expect(JSONWriter.fixed(0, decimals: 6) == "0.000000")
        #expect(JSONWriter.fixed(-0.0000001, decimals: 6) == "0.000000")
        #expect(JSONWriter.fixed(-12.3456789, decimals: 6) == "-12.345679")
        #expect(JSONWriter.fixed(1e-7, decimals: 9) == "0.000000100")
        #expect(JSONWriter.fixed(2.5, decimals: 0) == "3")
        #expect(JSONWriter.fixed(.infinity, decimals: 6) == "null")
    }
}
