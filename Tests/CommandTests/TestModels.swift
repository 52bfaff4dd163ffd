import Foundation
import Sigma
import SigmaConversion
import Testing

/// Small model files, each converted once for a run of the tests.
enum TestModels {
    /// A random model of 96 rows without tokenizer, quantized. Nothing stops its generation.
    static let bare = converted("Tests/Fixtures/reference/sigma-top1", .q8_0)
    /// The same in f32, which computes through OpenBLAS.
    static let bareFloat = converted("Tests/Fixtures/reference/sigma-top1", .f32)
    /// The demo model: tokenizer, chat format, thinking.
    static let demo = converted("Models/demo/checkpoint", .q8_0)
    static let demoFloat = converted("Models/demo/checkpoint", .f32)

    static func tokenizer() throws -> Tokenizer {
        try Tokenizer(#require(try ModelFile(path: demo).tokenizerDefinition()))
    }

    private static func converted(_ source: String, _ type: WeightType) -> String {
        let path = Scratch.path("model.gguf")
        do {
            try Converter.convert(
                .init(
                    input: packageRoot + "/" + source, output: path, type: type, overrides: try Overrides([]),
                    threads: 1))
        } catch {
            Issue.record("\(source) cannot be converted: \(error)")
        }
        return path
    }
}

/// One line of `--json`.
struct Event {
    let fields: [String: Any]

    var name: String { fields["event"] as? String ?? "" }
    var id: Int? { fields["id"] as? Int }
    var ids: [Int] { fields["ids"] as? [Int] ?? [] }
    var text: String { fields["text"] as? String ?? "" }
    var phase: String { fields["phase"] as? String ?? "" }
    var logprob: Double? { fields["logprob"] as? Double }
    var top: [(id: Int, logprob: Double)] {
        (fields["top"] as? [[String: Any]] ?? []).map { ($0["id"] as? Int ?? -1, $0["logprob"] as? Double ?? .nan) }
    }
    subscript(key: String) -> Any? { fields[key] }
    func stat(_ key: String) -> Int? { (fields["stats"] as? [String: Any])?[key] as? Int }
}

/// A `sigma-run --json` that must succeed, with its lines read by another JSON parser than ours.
struct JSONRun {
    let events: [Event]
    let errors: String

    init(_ arguments: [String], input: [UInt8] = [], code: Int32 = 0) throws {
        let result = try Subprocess.run("sigma-run", arguments + ["--json"], input: input)
        #expect(result.code == code, "\(arguments): \(result.errors)")
        errors = result.errors
        events = try Self.events(result.output)
    }

    static func events(_ output: [UInt8]) throws -> [Event] {
        try output.split(separator: UInt8(ascii: "\n")).map { line in
            Event(fields: try #require(try JSONSerialization.jsonObject(with: Data(line)) as? [String: Any]))
        }
    }

    var prompt: [Int] { events.first?.ids ?? [] }
    var tokens: [Event] { events.filter { $0.name == "token" } }
    var ids: [Int] { tokens.compactMap(\.id) }
    var done: Event { events.last ?? Event(fields: [:]) }
    /// The text of a phase, with what was held back to the end.
    func text(_ phase: String) -> String {
        (tokens + [done]).filter { $0.phase == phase }.map(\.text).joined()
    }
}
