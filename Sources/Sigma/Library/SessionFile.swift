import SystemLibrary

/// A conversation with its key-value state in a file; `docs/library.md` is the specification.
enum SessionFile {
    static let magic: [UInt8] = Array("SIGMCHAT".utf8)
    static let version: UInt32 = 1
    /// Up to the JSON text.
    static let fixedBytes = 28
    static let jsonLimit = 1 << 26
    /// Values of the JSON text, most of them token ids: each takes some 50 bytes of memory while it is read.
    private static let valueLimit = 1 << 22

    /// Whether a text has so few values; commas in texts count, too.
    static func isModest(_ json: [UInt8]) -> Bool { json.count { $0 == UInt8(ascii: ",") } < valueLimit }

    /// What stands beside the keys and values.
    struct Contents {
        var instructions: String
        var turns: [Turn]
        /// Those whose keys and values are stored.
        var tokens: [Int32]
    }

    // MARK: - Writing

    /// - Parameter sequence: nil: nothing was computed yet.
    /// - Throws: `SigmaError`: as `AtomicFile`.
    static func write(
        _ contents: Contents, sequence: (SequenceState)?, kvType: KVType, engine: Engine, to path: String
    ) throws {
        let json = Array(header(contents, layout: sequence?.layout.tile.name ?? "", kvType: kvType, engine).utf8)
        guard json.count <= jsonLimit, isModest(json) else {
            throw SigmaError(
                .unavailable,
                "the conversation's text of \(json.count) bytes is too long to be saved: at most \(jsonLimit) bytes and \(valueLimit) tokens are",
                path: path, remedy: "Take back turns with rewind(to:).")
        }
        let blocks = sequence?.storedBlockSizes(length: contents.tokens.count) ?? []
        let size = blocks.reduce(fixedBytes + json.count) { $0 + $1 + 4 }
        var bytes = magic
        bytes.appendLittleEndian(version)
        bytes.appendLittleEndian(UInt32(json.count))
        bytes.appendLittleEndian(UInt64(size))
        var crc = bytes.withUnsafeBytes { CRC32C.checksum($0) }
        crc = json.withUnsafeBytes { CRC32C.checksum($0, continuing: crc) }
        bytes.appendLittleEndian(crc)
        bytes += json

        let file = try AtomicFile(path: path, size: size, access: .ownerOnly)
        try bytes.withUnsafeBytes { try file.write($0, at: 0) }
        var offset = bytes.count
        try sequence?.forEachStoredBlock { block in
            try file.write(block, at: offset)
            try withUnsafeBytes(of: CRC32C.checksum(block).littleEndian) {
                try file.write($0, at: offset + block.count)
            }
            offset += block.count + 4
        }
        try file.finish(size: size)
    }

    private static func header(_ contents: Contents, layout: String, kvType: KVType, _ engine: Engine) -> String {
        func write(_ key: String, _ ids: [Int32], to json: inout JSONWriter) {
            json.array(key) { json in for id in ids { json.value(id) } }
        }
        var json = JSONWriter()
        json.object { json in
            json.object("model") { json in
                json.field("name", engine.model.name)
                json.field("checksum", engine.model.headerChecksum)
                json.field("bytes", engine.model.byteCount)
            }
            json.field("kv_type", kvType.rawValue)
            json.field("kv_layout", layout)
            json.field("instructions", contents.instructions)
            json.array("turns") { json in
                for turn in contents.turns {
                    json.object { json in
                        json.field("role", turn.role.rawValue)
                        json.field("text", turn.text)
                        if turn.role == .assistant { json.field("reasoning", turn.reasoning) }
                        if let written = turn.written {
                            write("opening", written.opening, to: &json)
                            write("generated", written.generated, to: &json)
                        }
                    }
                }
            }
            write("tokens", contents.tokens, to: &json)
        }
        return json.text
    }
}

// MARK: - Saving and restoring

extension Session {
    /// Writes the conversation and its key-value state into a file, which appears whole or not at all.
    ///
    /// - Throws: `SigmaError`: `.usage` while the session makes an answer, or for a path that is no file's; `.noInput` if the folder is not
    ///   there; `.inputOutput` if writing fails.
    public func save(to path: String) throws {
        try whileChanging {
            let timeline = state.withLock { state in
                forgetWhatIsGone(&state)
                return state.timeline
            }
            timeline?.beginUse()
            defer { timeline?.endUse() }
            let contents = state.withLock { state in
                SessionFile.Contents(
                    instructions: state.instructions, turns: state.turns,
                    tokens: timeline.map { Array($0.tokens[..<$0.sequence.length]) } ?? [])
            }
            try SessionFile.write(
                contents, sequence: timeline?.sequence, kvType: timeline?.sequence.kvType ?? kvType, engine: engine,
                to: path)
        }
    }

    /// Writes the conversation without its key-value state, which is computed again after it was restored; also while an answer is made.
    /// - Throws: `SigmaError`: as `save(to:)`.
    package func saveTurns(to path: String) throws {
        let contents = state.withLock { state in
            SessionFile.Contents(instructions: state.instructions, turns: state.turns, tokens: [])
        }
        try SessionFile.write(contents, sequence: nil, kvType: cachedKVType, engine: engine, to: path)
    }

    /// Whether the file begins as saved sessions do, or is empty.
    package static func isSaved(at path: String) -> Bool {
        // Not blocking, as a pipe may have no writer.
        let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard descriptor >= 0 else { return false }
        defer { close(descriptor) }
        var bytes = [UInt8](repeating: 0, count: SessionFile.magic.count)
        let count = read(descriptor, &bytes, bytes.count)
        return count == 0 || bytes == SessionFile.magic
    }

    /// Brings a saved conversation back, bit for bit, in the place of this one. The options stay; the key-value cache has the file's type.
    ///
    /// - Throws: `SigmaError`: `.usage` while the session makes an answer, or if the conversation is longer than the context; `.noInput` where
    ///   there is no such file; `.damaged` for a file that is no session's, or damaged, or of another version or model; `.unavailable` if
    ///   memory ends. The session is then as it was.
    public func restore(from path: String) throws {
        try whileChanging {
            let reader = try SessionFileReader(path: path, engine: engine)
            let timeline = try reader.timeline(engine)
            let contents = reader.contents
            state.withLock { state in
                state.instructions = contents.instructions
                state.turns = contents.turns
                state.timeline = timeline
            }
        }
    }
}
