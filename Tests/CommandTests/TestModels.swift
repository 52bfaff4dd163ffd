import Foundation
import SampleFiles
import Sigma
import SigmaConversion
import Testing

/// Small model files, each converted once for a run of the tests.
enum TestModels {
    /// A random model of 96 rows without tokenizer, quantized. Nothing stops its generation.
    static let bare = converted("Tests/Fixtures/reference/sigma-top1", .q8_0)
    /// The same in f32, which computes through OpenBLAS.
    static let bareFloat = converted("Tests/Fixtures/reference/sigma-top1", .f32)
    /// A random model of 5003 rows whose output head is screened; and one whose planes are damaged.
    static let screened: String = {
        let path = Scratch.path("screened.gguf")
        do { try ScreenedModel.write(to: path, headType: .q6_k) } catch { Issue.record("no screened model: \(error)") }
        return path
    }()
    static let damagedScreen: String = {
        let path = Scratch.path("damaged-screen.gguf")
        do {
            let model = try ModelFile(path: screened)
            try Data(ScreenedModel.damagingPlane(Array(model.gguf.file.bytes), of: model)).write(
                to: URL(fileURLWithPath: path))
        } catch { Issue.record("no damaged model: \(error)") }
        return path
    }()
    /// The demo model: tokenizer, chat format, thinking.
    static let demo = converted("Models/demo/checkpoint", .q8_0)
    static let demoFloat = converted("Models/demo/checkpoint", .f32)

    /// The demo model, but what ends its answers is taken for a token like others: it never stops by itself.
    static let endless: String = {
        let path = Scratch.path("endless.gguf")
        do { try copy(demo, to: path) } catch { Issue.record("no endless model: \(error)") }
        return path
    }()

    /// The demo model, but a token that is always in its thinking ends its answers.
    static let stoppingInThought: String = {
        let path = Scratch.path("stopping.gguf")
        do {
            let ids = try JSONRun([
                "--model", demo, "--threads", "1", "--temperature", "0", "--prompt", "What is 12 + 35?",
            ]).tokens.filter { $0.phase == "thinking" }.compactMap(\.id)
            let stop: Int = try #require(ids.dropFirst(4).first)
            try copy(demo, to: path, stoppingAt: stop)
        } catch { Issue.record("no stopping model: \(error)") }
        return path
    }()

    /// A copy of a model file with one stop token; nil: an id that is never chosen.
    private static func copy(_ source: String, to path: String, stoppingAt stop: Int? = nil) throws {
        let model = try ModelFile(path: source)
        let unused = UInt32(model.configuration.vocabularySize - 1)
        var bytes = Array(model.gguf.file.bytes)
        func put(_ value: UInt32, at offset: Int) {
            withUnsafeBytes(of: value.littleEndian) { bytes.replaceSubrange(offset..<offset + 4, with: $0) }
        }
        let stops = try #require(model.gguf.entry("sigma.chat.stop_tokens"))
        // An array: kind, count (8 bytes), elements. Kind 5 of a token: it stands for nothing, and is never chosen.
        let kinds = try #require(model.gguf.entry("tokenizer.ggml.token_type"))
        put(5, at: kinds.offset + 12 + 4 * Int(unused))
        for index in try #require(model.chatFormat).stopTokens.indices {
            put(stop.map { UInt32($0) } ?? unused, at: stops.offset + 12 + 4 * index)
        }
        // The tokenizer's own end: a key that nobody asks for.
        let key = Array("tokenizer.ggml.eos_token_id".utf8)
        let place = try #require(Data(bytes[..<model.gguf.dataOffset]).firstRange(of: Data(key))).lowerBound
        bytes[place + key.count - 1] = UInt8(ascii: "x")
        let hole = try #require(model.gguf.entry(ModelFileFormat.Key.headerChecksum)).offset
        let crc = bytes[..<model.gguf.dataOffset].withUnsafeBytes { ModelFileFormat.headerChecksum($0, hole: hole) }
        put(crc, at: hole)
        try Data(bytes).write(to: URL(fileURLWithPath: path))
        let changed = try #require(try ModelFile(path: path).tokenizerDefinition())
        #expect(try !Tokenizer(changed).isAllowed(Int32(unused)))
    }

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
