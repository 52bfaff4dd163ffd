import Foundation
import Sigma
import Testing

/// `sigma-eval constraints` on the demo model's tokens.
@Suite struct ConstraintsCommandTests {
    private static let lines = [
        #"{"name":"sum","schema":{"type":"object","properties":{"a":{"type":"integer","maximum":9}},"required":["a"]},"tests":[{"valid":true,"text":"{\"a\": 7}"},{"valid":false,"text":"{\"a\": 10}"},{"valid":false,"text":"{\"a\": 7"}]}"#,
        #"{"name":"wrong","schema":{"enum":["x"]},"tests":[{"valid":false,"text":"\"x\""},{"valid":true,"text":"\"y\""}]}"#,
        #"{"name":"refused","schema":{"properties":{"a":{"type":"array","uniqueItems":true}}},"tests":[]}"#,
    ]

    private func run(_ arguments: [String], _ input: [UInt8]) throws -> Subprocess.Result {
        try Subprocess.run("sigma-eval", ["constraints", "-", "--model", TestModels.demo] + arguments, input: input)
    }

    @Test func lineByLine() throws {
        let result = try run(["--json"], Array(Self.lines.joined(separator: "\n\n").utf8))
        #expect(result.code == 0, "\(result.errors)")
        let found = try result.lines.map { try JSONValue.parse(String($0)) }
        #expect(found.map { $0["name"]?.string } == ["sum", "wrong", "refused"])
        #expect(found.map { $0["compiled"]?.bool } == [true, true, false])
        #expect(found[0]["accepted"] == .array([.bool(true), .bool(false), .bool(false)]))
        #expect(found[1]["accepted"] == .array([.bool(true), .bool(false)]))
        #expect(found[2]["error"]?.string?.hasPrefix("#/properties/a/uniqueItems: ") == true)
        for line in found {
            #expect(line["compile_us"]?.double ?? -1 >= 0)
            #expect(line["mask_us"]?.array?.allSatisfy { $0.double ?? -1 >= 0 } == true)
        }
        #expect(found[0]["mask_us"]?.array?.isEmpty == false)
    }

    @Test func allTogether() throws {
        let result = try run([], Array(Self.lines.joined(separator: "\n").utf8))
        #expect(result.code == 0, "\(result.errors)")
        func row(_ name: String) throws -> [Substring] {
            let line = try #require(result.lines.first { $0.hasPrefix(name) }, "\(result.text)")
            return line.dropFirst(name.count).split(separator: " ")
        }
        #expect(try row("schemas").first == "3" && row("compiled").first == "2")
        #expect(try row("all texts judged rightly").first == "1" && row("an invalid text accepted").first == "1")
    }

    /// A case that gzip has packed; and the same, cut.
    @Test func packed() throws {
        let base64 =
            "H4sIAAAAAAAC/0XKQQqAIBBG4X3H+Nfug7lKtBh0okhFcoxCvHu4ye37XkXkICAktqc4GGS7S2BQhb6pSyzeoxmoZM2gpeJmfziQ"
            + "XkV6fnRcP27s89AZbW3TB62snOltAAAA"
        let bytes = [UInt8](try #require(Data(base64Encoded: base64)))
        let result = try run(["--json"], bytes)
        #expect(result.code == 0, "\(result.errors)")
        let found = try JSONValue.parse(String(try #require(result.lines.first)))
        #expect(found["name"]?.string == "packed" && found["accepted"] == .array([.bool(true), .bool(false)]))
        let cut = try run(["--json"], Array(bytes.dropLast(3)))
        #expect(cut.code == 65 && cut.output.isEmpty && cut.errors.contains("gzip"), "\(cut.errors)")
    }

    @Test func whatIsNoCase() throws {
        for (line, word) in [
            ("{", "standard input"), ("[]", "an object"),
            (#"{"schema":{},"tests":[{"text":7,"valid":true}]}"#, "tests"),
        ] {
            let result = try run([], Array((Self.lines[0] + "\n" + line).utf8))
            #expect(result.code == 65, "\(result.errors)")
            #expect(result.errors.contains(word) && result.errors.contains("standard input"))
        }
        let bare = try Subprocess.run(
            "sigma-eval", ["constraints", "-", "--model", TestModels.bare], input: Array(Self.lines[0].utf8))
        #expect(bare.code == 65 && bare.errors.contains("no tokenizer"))
        let missing = try Subprocess.run(
            "sigma-eval", ["constraints", Scratch.path("missing"), "--model", TestModels.demo])
        #expect(missing.code == 66)
    }
}
