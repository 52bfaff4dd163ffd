import SampleFiles
import Sigma
import Testing

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// Saved conversations: restored to the bit, and hostile files refused.
@Suite struct SessionFileTests {
    static func path() -> String {
        FileManager.default.temporaryDirectory.path + "/sigma-session-\(UUID().uuidString)"
    }

    static func bytes(_ path: String) throws -> [UInt8] { Array(try Data(contentsOf: URL(fileURLWithPath: path))) }

    static func write(_ bytes: [UInt8], to path: String) throws {
        try Data(bytes).write(to: URL(fileURLWithPath: path))
    }

    static func session(_ engine: Engine, kvType: KVType, thinks: Bool = true) -> Session {
        SigmaModel(engine: engine, configuration: .init(kvType: kvType)).makeSession(
            instructions: "Sei genau. 🦉\0\u{301}",
            options: GenerationOptions(temperature: 0, thinks: thinks, thinkingBudget: 100, maximumTokens: 40))
    }

    static let long = (0..<40).map { "apples \($0)" }.joined(separator: ", ") + ": what is 12 + 35?"

    @Test(arguments: KVType.allCases) func theConversationGoesOnAsIfItHadNeverBeenAway(kvType: KVType) async throws {
        let path = Self.path()
        let again = Self.path()
        defer { for path in [path, again] { try? FileManager.default.removeItem(atPath: path) } }
        // Beyond a block of 256 positions.
        for (questions, thinks) in [(["What is 347 + 586?"], true), ([Self.long, Self.long], false)] {
            let session = Self.session(try DemoModel.engine(), kvType: kvType, thinks: thinks)
            for question in questions { _ = try await Answer(session, question) }
            try session.save(to: path)
            // Another engine, and a session with other words in it.
            let restored = Self.session(try DemoModel.engine(), kvType: .f16, thinks: thinks)
            _ = try await Answer(restored, "What is 99 - 1?")
            restored.instructions = "gone"
            try restored.restore(from: URL(fileURLWithPath: path))
            #expect(restored.turns == session.turns && restored.instructions == session.instructions)
            #expect(restored.cachedTokens == session.cachedTokens)
            if !thinks { #expect(restored.cachedTokens.count > 256) }
            try restored.save(to: again)
            #expect(try Self.bytes(again) == Self.bytes(path))
            let expected = try await Answer(session, "What is 12 + 9?")
            let answer = try await Answer(restored, "What is 12 + 9?")
            #expect(answer == expected)
            #expect(answer.statistics?.reusedPromptTokens == expected.statistics?.reusedPromptTokens)
            #expect(try #require(answer.statistics).reusedPromptTokens > 0)
        }
    }

    @Test func forgottenTokensAreNotInTheFile() async throws {
        let (path, other) = (Self.path(), Self.path())
        defer { for path in [path, other] { try? FileManager.default.removeItem(atPath: path) } }
        let engine = try DemoModel.engine()
        for kvType in KVType.allCases {
            let session = Self.session(engine, kvType: kvType, thinks: false)
            _ = try await Answer(session, "What is 1 + 1?")
            _ = try await Answer(session, "What is 98 + 99?")
            try session.rewind(to: 2)
            try await session.prewarm()
            try session.save(to: path)
            let fresh = Self.session(engine, kvType: kvType, thinks: false)
            try fresh.setTurns(session.turns)
            try await fresh.prewarm()
            try fresh.save(to: other)
            // The long way or the short one: what was forgotten has left nothing behind.
            #expect(try Self.bytes(path) == Self.bytes(other), "\(kvType)")
        }
    }

    @Test func anEmptySessionIsSavedToo() async throws {
        let path = Self.path()
        defer { try? FileManager.default.removeItem(atPath: path) }
        let engine = try DemoModel.engine()
        try Self.session(engine, kvType: .f16).save(to: path)
        let session = Self.session(engine, kvType: .f16)
        _ = try await Answer(session, "What is 1 + 1?")
        try session.restore(from: path)
        #expect(session.turns.isEmpty && session.cachedTokens.count == 0)
        #expect(try await !Answer(session, "What is 1 + 1?").text.isEmpty)
    }

    @Test func aBusySessionIsNotSaved() async throws {
        let path = Self.path()
        let session = Self.session(try DemoModel.engine(), kvType: .f16)
        let stream = session.stream(to: "What is 347 + 586?")
        for body in [{ try session.save(to: path) }, { try session.restore(from: path) }] {
            let error = #expect(throws: SigmaError.self) { try body() }
            #expect(error?.kind == .usage)
        }
        for try await _ in stream {}
        #expect(!FileManager.default.fileExists(atPath: path))
    }

    @Test func placesThatCannotBeWritten() throws {
        let session = Self.session(try DemoModel.engine(), kvType: .f16)
        for (path, kind) in [("/no/such/folder/x", SigmaError.Kind.noInput), ("/tmp", .usage)] {
            #expect(#expect(throws: SigmaError.self) { try session.save(to: path) }?.kind == kind)
        }
        #expect(#expect(throws: SigmaError.self) { try session.restore(from: "/no/such/file") }?.kind == .noInput)
        #expect(#expect(throws: SigmaError.self) { try session.restore(from: "/tmp") }?.kind == .damaged)
        #expect(
            #expect(throws: SigmaError.self) { try session.save(to: URL(string: "https://example.org/x")!) }?.kind
                == .usage)
    }

    // MARK: - Hostile files

    /// A saved conversation, and the session that each damaged copy is offered to.
    static func sample() async throws -> (bytes: [UInt8], session: Session, engine: Engine) {
        let path = path()
        defer { try? FileManager.default.removeItem(atPath: path) }
        let engine = try DemoModel.engine()
        let saved = session(engine, kvType: .f16, thinks: false)
        _ = try await Answer(saved, "What is 12 + 9?")
        try saved.save(to: path)
        let victim = session(engine, kvType: .f16, thinks: false)
        _ = try await Answer(victim, "What is 2 + 3?")
        return (try bytes(path), victim, engine)
    }

    static func refusal(_ bytes: [UInt8], _ session: Session) throws -> SigmaError? {
        let path = path()
        defer { try? FileManager.default.removeItem(atPath: path) }
        try write(bytes, to: path)
        let (turns, cached) = (session.turns, session.cachedTokens)
        do {
            try session.restore(from: path)
            return nil
        } catch {
            let error = try #require(error as? SigmaError)
            #expect(error.path == path)
            // Nothing has changed.
            #expect(session.turns == turns && session.cachedTokens == cached)
            return error
        }
    }

    /// The bytes with another JSON text, and lengths and checksum as they must be.
    static func repacked(_ bytes: [UInt8], _ change: (String) throws -> String) rethrows -> [UInt8] {
        let count = Int(bytes[12..<16].reversed().reduce(UInt32(0)) { $0 << 8 | UInt32($1) })
        let json = Array(try change(String(decoding: bytes[28..<28 + count], as: UTF8.self)).utf8)
        let rest = bytes[(28 + count)...]
        var result = Array(bytes[..<12])
        func append(_ value: Int, bytes count: Int) {
            for place in 0..<count { result.append(UInt8(truncatingIfNeeded: value >> (8 * place))) }
        }
        append(json.count, bytes: 4)
        append(28 + json.count + rest.count, bytes: 8)
        append(Int(definedCRC32C(result + json)), bytes: 4)
        result += json
        result += rest
        return result
    }

    @Test func truncatedFiles() async throws {
        let (bytes, session, _) = try await Self.sample()
        var random = SystemRandomNumberGenerator()
        let places = [0, 1, 7, 8, 12, 24, 27, 28, 29, bytes.count - 1, bytes.count - 4, bytes.count - 5]
        for count in places + (0..<40).map({ _ in Int.random(in: 0..<bytes.count, using: &random) }) {
            #expect(try Self.refusal(Array(bytes[..<count]), session)?.kind == .damaged, "\(count)")
        }
        #expect(try Self.refusal(bytes + [0], session)?.kind == .damaged)
        #expect(try Self.refusal(bytes, session) == nil)
    }

    @Test func changedBytes() async throws {
        let (bytes, session, _) = try await Self.sample()
        var random = SystemRandomNumberGenerator()
        for place in Array(0..<28) + (0..<120).map({ _ in Int.random(in: 28..<bytes.count, using: &random) }) {
            var changed = bytes
            changed[place] ^= UInt8(1) << UInt8.random(in: 0..<8, using: &random)
            #expect(try Self.refusal(changed, session)?.kind == .damaged, "byte \(place)")
        }
        var other = bytes
        other[8] = 2
        #expect(try #require(try Self.refusal(other, session)).message.contains("version"))
    }

    @Test func otherFiles() async throws {
        let (_, session, _) = try await Self.sample()
        for bytes in [[], Array("GGUF".utf8), Array(repeating: 0, count: 100), Array("SIGMCHAT".utf8)] as [[UInt8]] {
            #expect(try Self.refusal(bytes, session)?.kind == .damaged)
        }
    }

    /// Texts with a right checksum that lie.
    @Test func lyingHeaders() async throws {
        let (bytes, session, engine) = try await Self.sample()
        #expect(try Self.refusal(Self.repacked(bytes) { $0 }, session) == nil)
        func replaced(_ text: String, _ pattern: String, _ by: String) throws -> String {
            var text = text
            text.replaceSubrange(try #require(text.firstRange(of: pattern), "\(pattern)"), with: by)
            return text
        }
        let checksum = String(engine.model.headerChecksum)
        for (pattern, by, word) in [
            ("\"checksum\":\(checksum)", "\"checksum\":1", "another model"),
            ("\"bytes\":", "\"bytes\":1", "another model"),
            ("\"kv_type\":\"f16\"", "\"kv_type\":\"f8\"", "type"),
            // A tile of positions more.
            ("\"tokens\":[", "\"tokens\":[" + String(repeating: "1,", count: 16), "bytes of keys"),
            ("\"tokens\":[", "\"tokens\":[-1,", "vocabulary"),
            ("\"tokens\":[", "\"tokens\":[99999999999,", "vocabulary"),
            ("\"tokens\":[", "\"tokens\":[1.5,", "vocabulary"),
            ("\"tokens\":[", "\"tokens\":[\"1\",", "vocabulary"),
            ("\"generated\":[", "\"generated\":[-7,", "vocabulary"),
            ("\"role\":\"user\"", "\"role\":\"assistant\"", "reasoning"),
            ("\"role\":\"user\"", "\"role\":\"system\"", "turn"),
            ("\"instructions\"", "\"instruction\"", "no such key"),
            ("\"turns\":[", "\"turns\":7,\"x\":[", "list"),
            ("\"turns\":[", "\"turns\":[{\"role\":\"user\",\"text\":\"\"},", "alternate"),
        ] {
            let error = try Self.refusal(try Self.repacked(bytes) { try replaced($0, pattern, by) }, session)
            #expect(error?.kind == .damaged, "\(pattern) -> \(by)")
            #expect(error.map { "\($0)".contains(word) } == true, "\(by): \(error.map { "\($0)" } ?? "accepted")")
        }
        // Keys and values of another layout, of an older version or another back end, are computed again.
        for (pattern, by) in [
            ("\"kv_layout\":\"tiles16-words\"", "\"kv_layout\":\"tiles16\""),
            ("\"kv_type\":\"f16\"", "\"kv_type\":\"f32\""),
        ] {
            #expect(try Self.refusal(try Self.repacked(bytes) { try replaced($0, pattern, by) }, session) == nil)
        }
        for text in ["", "{", "[]", "null", "{}", String(repeating: "[", count: 5000)] {
            #expect(try Self.refusal(Self.repacked(bytes) { _ in text }, session)?.kind == .damaged)
        }
        // More tokens than the context: no damage, but no room.
        let small = Self.session(try DemoModel.engine(context: 8), kvType: .f16)
        #expect(try Self.refusal(bytes, small)?.kind == .usage)
    }

    @Test func tooManyValues() async throws {
        let (bytes, session, _) = try await Self.sample()
        let many = Self.repacked(bytes) { _ in "[" + String(repeating: "0,", count: 1 << 22) + "0]" }
        let error = try Self.refusal(many, session)
        #expect(error?.kind == .damaged && error?.message.contains("values") == true)
    }

    /// Nothing proves what a file says of keys and values: its own conversation uses them, and no other.
    @Test func restoredKeysAndValuesAreNotShared() async throws {
        let (bytes, _, _) = try await Self.sample()
        let path = Self.path()
        defer { try? FileManager.default.removeItem(atPath: path) }
        try Self.write(bytes, to: path)
        func reused(restoring: Bool) async throws -> (own: Int, others: Int) {
            let engine = try DemoModel.engine()
            let sessions = (0..<2).map { _ in Self.session(engine, kvType: .f16, thinks: false) }
            if restoring {
                try sessions[0].restore(from: path)
                try sessions[0].rewind(to: 0)
            }
            var counts: [Int] = []
            for session in sessions {
                counts.append(try #require(try await Answer(session, "What is 12 + 9?").statistics).reusedPromptTokens)
            }
            return (counts[0], counts[1])
        }
        let restored = try await reused(restoring: true)
        #expect(restored.own > 0 && restored.others == 0)
        let computed = try await reused(restoring: false)
        #expect(computed.own == 0 && computed.others > 0)
    }

    @Test func anotherModelsSession() async throws {
        let (bytes, _, _) = try await Self.sample()
        let model = try DemoModel.convert(.f16)
        let backend = try CPUBackend(model: model, threadCount: 1, instructionSet: nil)
        let session = Self.session(try Engine(model: model, backend: backend), kvType: .f16)
        let error = try Self.refusal(bytes, session)
        #expect(error?.kind == .damaged && error?.item == "model")
    }
}
