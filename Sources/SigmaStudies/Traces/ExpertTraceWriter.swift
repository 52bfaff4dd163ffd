import Sigma
import Synchronization
import SystemLibrary

/// Writes an expert trace as tokens are routed. Whole blocks reach the file, so what an interrupted process leaves can be read.
package final class ExpertTraceWriter: RoutingObserver {
    private struct State {
        var buffer: [UInt8] = []
        var written = 0
        var failure: SigmaError?
        var isOpen = true
    }

    package let path: String
    private let model: ExpertTrace.Model
    private let descriptor: Int32
    private let state = Mutex(State())
    private static let bufferBytes = 1 << 16

    /// Creates the file, or empties one that is there.
    /// - Throws: `SigmaError`: as `OutputFile.open`; `.unavailable` for a model that a trace cannot describe.
    package init(path: String, model: ExpertTrace.Model) throws {
        guard model.choices.count <= ExpertTrace.layerLimit, model.expertCount <= ExpertTrace.expertLimit else {
            throw SigmaError(
                .unavailable,
                "an expert trace holds at most \(ExpertTrace.layerLimit) layers of \(ExpertTrace.expertLimit) experts, and the model has \(model.choices.count) of \(model.expertCount)"
            )
        }
        self.path = path
        self.model = model
        descriptor = try OutputFile.open(path)
        state.withLock { $0.buffer = Self.header(model) }
    }

    deinit { if state.withLock({ $0.isOpen }) { try? close() } }

    private static func header(_ model: ExpertTrace.Model) -> [UInt8] {
        // A name of any length, cut between characters.
        var name = Substring(model.name)
        while name.utf8.count > ExpertTrace.nameLimit { name.removeLast() }
        var bytes = ExpertTrace.magic
        bytes.appendLittleEndian(ExpertTrace.version)
        bytes.appendLittleEndian(
            UInt32(ExpertTrace.fixedHeaderBytes + name.utf8.count + 2 * model.choices.count + 4))
        bytes.appendLittleEndian(model.checksum)
        bytes.appendLittleEndian(UInt32(model.vocabularySize))
        bytes.appendLittleEndian(UInt32(model.expertCount))
        bytes.appendLittleEndian(UInt32(model.choices.count))
        bytes.appendLittleEndian(UInt32(name.utf8.count))
        bytes.append(contentsOf: name.utf8)
        for count in model.choices { bytes.appendLittleEndian(UInt16(count)) }
        bytes.appendLittleEndian(bytes.withUnsafeBytes { CRC32C.checksum($0) })
        return bytes
    }

    package func observe(_ tokens: RoutedTokens) {
        state.withLock { state in
            guard state.failure == nil, state.isOpen else { return }
            let first = tokens.rows.lowerBound
            for start in stride(from: first, to: tokens.rows.upperBound, by: ExpertTrace.rowLimit) {
                let rows = start..<min(start + ExpertTrace.rowLimit, tokens.rows.upperBound)
                append(tokens, rows, position: tokens.position + start - first, to: &state.buffer)
            }
            if state.buffer.count >= Self.bufferBytes { flush(&state) }
        }
    }

    private func append(_ tokens: RoutedTokens, _ rows: Range<Int>, position: Int, to buffer: inout [UInt8]) {
        let start = buffer.count
        buffer.appendLittleEndian(UInt32(rows.count))
        buffer.appendLittleEndian(UInt32(truncatingIfNeeded: tokens.sequence))
        buffer.appendLittleEndian(UInt32(truncatingIfNeeded: position))
        buffer.appendLittleEndian(UInt32(0))
        let isByte = model.indexBytes == 1
        for row in rows {
            buffer.appendLittleEndian(tokens.tokens[tokens.tokens.startIndex + row - tokens.rows.lowerBound])
            for (layer, choices) in model.choices.enumerated() {
                for choice in 0..<choices {
                    let expert = tokens.record.chosen(row: row, layer: layer, choice: choice)
                    if isByte { buffer.append(UInt8(expert)) } else { buffer.appendLittleEndian(UInt16(expert)) }
                }
            }
        }
        // The checksum follows the rows; it covers everything in the block before it.
        let crc = buffer.withUnsafeBytes { CRC32C.checksum(UnsafeRawBufferPointer(rebasing: $0[start...])) }
        buffer.appendLittleEndian(crc)
    }

    /// Writes what is held back.
    private func flush(_ state: inout State) {
        var done = 0
        while done < state.buffer.count {
            let count = state.buffer.withUnsafeBytes { write(descriptor, $0.baseAddress! + done, $0.count - done) }
            if count < 0 {
                if errno == EINTR { continue }
                state.failure = SigmaError(
                    .inputOutput, "cannot write: \(systemMessage(errno))", path: path, offset: UInt64(state.written))
                break
            }
            done += count
            state.written += count
        }
        state.buffer.removeAll(keepingCapacity: true)
    }

    /// Writes what is held back and closes the file.
    /// - Throws: `SigmaError(.inputOutput)` if that, or an earlier write, failed.
    package func close() throws {
        try state.withLock { state in
            guard state.isOpen else { return }
            state.isOpen = false
            if state.failure == nil { flush(&state) }
            let result = SystemLibrary.close(descriptor)
            if let failure = state.failure { throw failure }
            guard result == 0 else {
                throw SigmaError(.inputOutput, "cannot write: \(systemMessage(errno))", path: path)
            }
        }
    }
}
