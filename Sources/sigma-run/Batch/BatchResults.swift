import Sigma
import SigmaCommand
import SigmaRequests
import SystemLibrary

/// The file of a batch's results: each is written whole, and an interrupted run continues after the last whole one.
final class BatchResults {
    private let path: String
    private let descriptor: Int32
    /// Of lines that have their result: `custom_id`s, and result ids, which lines without a `custom_id` are known by.
    private(set) var customIDs: Set<String> = []
    private(set) var ids: Set<String> = []

    /// Opens or creates the file, and reads what is there.
    /// - Throws: `SigmaError`: `.unavailable` if another run writes it, `.damaged` for a file with other lines than results, `.inputOutput`.
    init(path: String) throws {
        self.path = path
        var status = stat()
        if stat(path, &status) == 0, status.st_mode & S_IFMT != S_IFREG {
            throw SigmaError(.damaged, "expected a file, so that an interrupted run can go on", path: path)
        }
        descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o666)
        guard descriptor >= 0 else { throw Self.failure("open", path) }
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

    /// Removes what follows the last line end: it was not written whole.
    private func readLines() throws {
        var whole = 0
        var lines = LineSplitter()
        try InputFile.forEachPiece(of: path) { piece in
            try lines.append(piece) { line in
                try note(line, offset: whole)
                whole += line.count + 1
            }
        }
        guard ftruncate(descriptor, off_t(whole)) == 0, lseek(descriptor, 0, SEEK_END) >= 0 else {
            throw Self.failure("write", path)
        }
    }

    private func note(_ line: ArraySlice<UInt8>, offset: Int) throws {
        guard let value = try? line.withUnsafeBytes({ try JSONValue.parse($0) }), let id = value["id"]?.string,
            value["response"] != nil
        else {
            throw SigmaError(
                .damaged, "expected the results of a batch, found another line", path: path, offset: UInt64(offset),
                remedy: "Name another file with --output.")
        }
        ids.insert(id)
        if let customID = value["custom_id"]?.string { customIDs.insert(customID) }
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

/// Cuts bytes into lines.
struct LineSplitter {
    private var rest: [UInt8] = []

    /// Calls `take` with each line that is complete now, without its end.
    mutating func append(_ bytes: UnsafeRawBufferPointer, _ take: (ArraySlice<UInt8>) throws -> Void) rethrows {
        rest.append(contentsOf: bytes)
        var begin = 0
        while let end = rest[begin...].firstIndex(of: UInt8(ascii: "\n")) {
            try take(rest[begin..<end])
            begin = end + 1
        }
        rest.removeFirst(begin)
    }

    /// What has no line end.
    var remainder: [UInt8] { rest }
}
