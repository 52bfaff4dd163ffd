import Sigma
import SigmaCommand
import SigmaRequests
import SystemLibrary

/// The file of a batch's results: each is written whole, and an interrupted run continues after the last whole one.
final class BatchResults {
    private let path: String
    private let descriptor: Int32
    /// Lines that have their result.
    private(set) var count = 0
    /// Of these, the `custom_id`s, as bytes; and the result ids of those without one, which are known by their numbers.
    private var customIDs: Set<ByteKey> = []
    private var ids: Set<String> = []

    /// Opens or creates the file, and reads what is there.
    /// - Throws: `SigmaError`: `.unavailable` if another run writes it, `.damaged` for a file with other lines than results, `.inputOutput`.
    init(path: String) throws {
        self.path = path
        var status = stat()
        if stat(path, &status) == 0, status.st_mode & S_IFMT != S_IFREG {
            throw SigmaError(.usage, "expected a file, so that an interrupted run can go on", path: path)
        }
        descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o666)
        guard descriptor >= 0 else {
            let code = errno
            throw SigmaError(
                OutputFile.kind(ofOpening: code), "cannot open the file: \(systemMessage(code))", path: path)
        }
        do {
            guard flock(descriptor, LOCK_EX | LOCK_NB) == 0 else {
                throw SigmaError(
                    .unavailable, "another run writes this file", path: path,
                    remedy: "Wait for it, or name another file.")
            }
            try readLines()
        } catch {
            close(descriptor)
            throw error
        }
    }

    deinit { close(descriptor) }

    private static func failure(_ action: String, _ path: String) -> SigmaError {
        SigmaError(.inputOutput, "cannot \(action) the file: \(systemMessage(errno))", path: path)
    }

    /// Removes what follows the last line end, if it is the beginning of a result: it was not written whole.
    private func readLines() throws {
        var whole = 0
        var lines = LineSplitter(path: path)
        try InputFile.forEachPiece(of: path) { piece in
            try lines.append(piece) { line in
                try note(line, offset: whole)
                whole += line.count + 1
            }
        }
        let (rest, beginning) = (lines.remainder, Array(#"{"id":"line-"#.utf8))
        guard rest.starts(with: beginning) || beginning.starts(with: rest) else { throw foreign(offset: whole) }
        guard ftruncate(descriptor, off_t(whole)) == 0, lseek(descriptor, 0, SEEK_END) >= 0 else {
            throw Self.failure("write", path)
        }
    }

    private func note(_ line: ArraySlice<UInt8>, offset: Int) throws {
        guard let value = try? line.withUnsafeBytes({ try JSONValue.parse($0) }), let id = value["id"]?.string,
            value["response"] != nil
        else { throw foreign(offset: offset) }
        count += 1
        if let customID = value["custom_id"]?.string {
            customIDs.insert(ByteKey(text: customID))
        } else {
            ids.insert(id)
        }
    }

    private func foreign(offset: Int) -> SigmaError {
        SigmaError(
            .damaged, "expected the results of a batch, found something else", path: path, offset: UInt64(offset),
            remedy: "Name another file with --output.")
    }

    /// Whether a line of the input has its result.
    /// - Parameter customID: its own, by which it is known wherever it stands; nil: none.
    func has(customID: String?, number: Int) -> Bool {
        customID.map { customIDs.contains(ByteKey(text: $0)) } ?? ids.contains("line-\(number)")
    }

    /// One line, whole.
    func write(_ text: String) throws {
        let bytes = Array((text + "\n").utf8)
        var written = 0
        while written < bytes.count {
            let count = bytes.withUnsafeBytes {
                SystemLibrary.write(descriptor, $0.baseAddress! + written, bytes.count - written)
            }
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { throw Self.failure("write", path) }
            written += count
        }
    }
}

/// Cuts a file's bytes into lines.
struct LineSplitter {
    /// For errors.
    private let path: String
    private var rest: [UInt8] = []
    /// Of these, the first that are known to have no line end.
    private var searched = 0
    private var count = 0
    /// Bytes that a line may have: more than any model's context needs.
    private static let limit = 64 << 20

    init(path: String) { self.path = InputFile.name(of: path) }

    /// Calls `take` with each line that is complete now, without its end.
    /// - Throws: `SigmaError(.damaged)` for a line that is too long; what `take` throws.
    mutating func append(_ bytes: UnsafeRawBufferPointer, _ take: (ArraySlice<UInt8>) throws -> Void) throws {
        rest.append(contentsOf: bytes)
        var begin = 0
        while let end = rest[max(begin, searched)...].firstIndex(of: UInt8(ascii: "\n")) {
            try take(rest[begin..<end])
            count += 1
            begin = end + 1
        }
        rest.removeFirst(begin)
        searched = rest.count
        guard searched <= Self.limit else {
            throw SigmaError(
                .damaged, "expected lines of at most \(Self.limit) bytes, found a longer one", path: path,
                item: "line \(count + 1)")
        }
    }

    /// What has no line end.
    var remainder: [UInt8] { rest }
}
