import SystemLibrary

/// Reads a session file. Everything is compared with what it must be before memory is taken for it: the file may be anyone's.
final class SessionFileReader {
    private let path: String
    private let descriptor: Int32
    private(set) var contents = SessionFile.Contents(instructions: "", turns: [], tokens: [])
    private var kvType = KVType.f16
    private var layout = ""
    /// Where the key-value blocks begin.
    private var offset = 0
    private var size = 0

    /// Reads everything but the keys and values.
    /// - Throws: `SigmaError` as `Session.restore(from:)`.
    init(path: String, engine: Engine) throws {
        self.path = path
        // Not blocking: a pipe without a writer would otherwise hold us forever.
        descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard descriptor >= 0 else {
            throw SigmaError(.noInput, "cannot open the file: \(systemMessage(errno))", path: path)
        }
        var status = stat()
        guard fstat(descriptor, &status) == 0, status.st_mode & S_IFMT == S_IFREG else {
            throw damaged("expected a saved session, found something that is not a file")
        }
        size = Int(status.st_size)
        let json = try readFrame()
        do {
            try parse(json, engine)
        } catch var error as SigmaError where error.path == nil {
            // Of the JSON text.
            error.offset = error.offset.map { $0 + UInt64(SessionFile.fixedBytes) }
            throw error.inFile(path)
        }
    }

    deinit { close(descriptor) }

    /// The checksummed beginning: returns the JSON text.
    private func readFrame() throws -> [UInt8] {
        guard size >= SessionFile.fixedBytes else {
            throw damaged("expected a saved session, found \(size) bytes")
        }
        let fixed = try read(SessionFile.fixedBytes)
        guard fixed.starts(with: SessionFile.magic) else {
            throw damaged("expected a saved session, found another kind of file", at: 0)
        }
        func integer<T: FixedWidthInteger & BitwiseCopyable>(at offset: Int, _: T.Type) -> T {
            fixed.withUnsafeBytes { T(littleEndian: $0.loadUnaligned(fromByteOffset: offset, as: T.self)) }
        }
        let version = integer(at: 8, UInt32.self)
        guard version == SessionFile.version else {
            throw damaged(
                "expected version \(SessionFile.version) of the session file, found \(version)", at: 8,
                remedy: "Open it with the version of Sigma that wrote it.")
        }
        let jsonBytes = Int(integer(at: 12, UInt32.self))
        let stated = integer(at: 16, UInt64.self)
        guard stated == UInt64(size) else {
            throw damaged("expected \(stated) bytes, found \(size)", at: 16, remedy: Self.copyRemedy)
        }
        guard jsonBytes <= min(SessionFile.jsonLimit, size - SessionFile.fixedBytes) else {
            throw damaged("the header's text of \(jsonBytes) bytes does not fit the file", at: 12)
        }
        let json = try read(jsonBytes)
        guard SessionFile.isModest(json) else {
            throw damaged("the header has more values than a conversation", at: SessionFile.fixedBytes)
        }
        var crc = fixed[..<24].withUnsafeBytes { CRC32C.checksum($0) }
        crc = json.withUnsafeBytes { CRC32C.checksum($0, continuing: crc) }
        try compare(crc, integer(at: 24, UInt32.self), "the header", at: 24)
        return json
    }

    private func parse(_ bytes: [UInt8], _ engine: Engine) throws {
        let json = try bytes.withUnsafeBytes { try JSONValue.parse($0) }
        let model = try member(json, "model")
        let name = try string(model, "name")
        guard try integer(model, "checksum") == Int(engine.model.headerChecksum),
            try integer(model, "bytes") == engine.model.byteCount
        else {
            throw damaged(
                "the session was saved with another model file: expected '\(engine.model.name)', found '\(name)'",
                item: "model",
                remedy: "Load the model file that it was saved with. A conversion in another type is another file.")
        }
        guard let type = KVType(rawValue: try string(json, "kv_type")) else {
            throw damaged("no known type of key-value cache", item: "kv_type")
        }
        kvType = type
        layout = try string(json, "kv_layout")
        contents.instructions = try string(json, "instructions")
        contents.turns = try array(json, "turns").map { try turn($0, engine) }
        for (index, turn) in contents.turns.enumerated() where turn.role != (index % 2 == 0 ? .user : .assistant) {
            throw damaged("questions and answers do not alternate", item: "turns")
        }
        guard contents.turns.count % 2 == 0 else { throw damaged("the last question has no answer", item: "turns") }
        contents.tokens = try ids(json, "tokens", engine)
        guard contents.tokens.count <= engine.contextLength else {
            throw SigmaError(
                .usage,
                "the saved conversation has \(contents.tokens.count) tokens and the context is \(engine.contextLength)",
                path: path, remedy: "Load the model with a larger context.")
        }
    }

    private func turn(_ json: JSONValue, _ engine: Engine) throws -> Turn {
        guard let role = Turn.Role(rawValue: try string(json, "role")) else {
            throw damaged("a turn is neither the user's nor the assistant's", item: "role")
        }
        var turn = Turn(role, try string(json, "text"))
        guard role == .assistant else { return turn }
        turn.reasoning = try string(json, "reasoning")
        if json["opening"] != nil {
            turn.written = Turn.Written(
                opening: try ids(json, "opening", engine), generated: try ids(json, "generated", engine))
        }
        return turn
    }

    // MARK: - Keys and values

    /// A new timeline with the stored keys and values; without them, to be computed again, where another back end or version has stored them.
    func timeline(_ engine: Engine) throws -> Timeline {
        let timeline = try engine.makeTimeline(kvType: kvType)
        // Nobody may make room of it while it is filled.
        timeline.beginUse()
        defer { timeline.endUse() }
        let sequence = timeline.sequence
        let count = contents.tokens.count
        guard layout == sequence.layout.tile.name else { return timeline }
        let needed = sequence.storedBlockSizes(length: count).reduce(0) { $0 + $1 + 4 }
        guard needed == size - offset else {
            throw damaged(
                "expected \(needed) bytes of keys and values for \(count) tokens, found \(size - offset)", at: offset)
        }
        // Where memory has no room beside what others use now, they are computed again, too: a prompt makes room in its own way.
        guard try engine.reserve(count, of: sequence) else { return timeline }
        try timeline.restore(contents.tokens) { block in
            let start = offset
            try read(into: block)
            let stored = try read(4).withUnsafeBytes { UInt32(littleEndian: $0.loadUnaligned(as: UInt32.self)) }
            try compare(CRC32C.checksum(UnsafeRawBufferPointer(block)), stored, "a key-value block", at: start)
        }
        return timeline
    }

    // MARK: - Bytes

    private func read(_ count: Int) throws -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        try bytes.withUnsafeMutableBytes { try read(into: $0) }
        return bytes
    }

    private func read(into buffer: UnsafeMutableRawBufferPointer) throws {
        var done = 0
        while done < buffer.count {
            let count = pread(descriptor, buffer.baseAddress! + done, buffer.count - done, off_t(offset))
            if count < 0, errno == EINTR { continue }
            guard count >= 0 else {
                throw SigmaError(
                    .inputOutput, "cannot read: \(systemMessage(errno))", path: path, offset: UInt64(offset))
            }
            guard count > 0 else { throw damaged("the file ends early", at: offset, remedy: Self.copyRemedy) }
            done += count
            offset += count
        }
    }

    private func compare(_ found: UInt32, _ expected: UInt32, _ what: String, at offset: Int) throws {
        guard found != expected else { return }
        throw damaged(
            "\(what) is damaged: expected checksum \(String(expected, radix: 16)), found \(String(found, radix: 16))",
            at: offset, remedy: Self.copyRemedy)
    }

    private static let copyRemedy: Remedy = "Copy it again from its source; lost data cannot be restored."

    private func damaged(
        _ message: String, at offset: Int? = nil, item: String? = nil, remedy: Remedy? = nil
    ) -> SigmaError {
        SigmaError(.damaged, message, path: path, item: item, offset: offset.map { UInt64($0) }, remedy: remedy)
    }

    // MARK: - JSON

    private func member(_ json: JSONValue, _ key: String) throws -> JSONValue {
        guard let value = json[key] else { throw damaged("there is no such key", item: key) }
        return value
    }

    private func string(_ json: JSONValue, _ key: String) throws -> String {
        guard let text = try member(json, key).string else { throw damaged("expected a text", item: key) }
        return text
    }

    private func integer(_ json: JSONValue, _ key: String) throws -> Int {
        guard let number = try member(json, key).integer else { throw damaged("expected a number", item: key) }
        return Int(number)
    }

    private func array(_ json: JSONValue, _ key: String) throws -> [JSONValue] {
        guard let values = try member(json, key).array else { throw damaged("expected a list", item: key) }
        return values
    }

    private func ids(_ json: JSONValue, _ key: String, _ engine: Engine) throws -> [Int32] {
        try array(json, key).map { value in
            guard let id = value.integer, (0..<Int64(engine.vocabularySize)).contains(id) else {
                throw damaged("expected ids of the model's vocabulary", item: key)
            }
            return Int32(id)
        }
    }
}
