import Synchronization

/// A model's matrices other than experts, in memory that the process owns: they are read past the page cache, and the system cannot take them
/// away.
final class OwnedWeights {
    /// The model's weights, with every matrix here. The experts still point into the mapped file: they are another's concern.
    private(set) var weights: ModelWeights
    private let memory: AnonymousMemory
    private static let pieceBytes = 4 << 20
    private static let readerCount = 4

    /// Bytes that the matrices of a model take.
    static func byteCount(_ weights: ModelWeights) -> Int {
        var places = Places()
        _ = weights.mapMemory { places.add($0, $1) }
        return places.byteCount
    }

    /// Where each tensor's bytes go; one that is used twice is there once.
    private struct Places {
        var offsets: [UnsafeRawPointer: Int] = [:]
        var tensors: [(data: UnsafeRawPointer, byteCount: Int)] = []
        var byteCount = 0

        @discardableResult
        mutating func add(_ data: UnsafeRawPointer, _ count: Int) -> UnsafeRawPointer {
            if offsets[data] == nil {
                offsets[data] = byteCount
                tensors.append((data, count))
                byteCount += (count + 4095) / 4096 * 4096
            }
            return data
        }
    }

    /// - Parameter used: those of the file's weights that are wanted.
    /// - Throws: `SigmaError`: `.inputOutput` if something cannot be read, `.damaged` if it is not what was converted, `.unavailable` if memory
    ///   ends.
    init(_ model: ModelFile, _ used: ModelWeights, reader: any RecordReader) throws {
        var places = Places()
        _ = used.mapMemory { places.add($0, $1) }
        let memory = try AnonymousMemory(byteCount: places.byteCount, hugePages: true)
        self.memory = memory
        let base = model.gguf.file.bytes.baseAddress!
        let offsets = places.offsets
        weights = used.mapMemory { data, _ in UnsafeRawPointer(memory.base + offsets[data]!) }
        var pieces: [(file: Int, memory: Int, count: Int)] = []
        for tensor in places.tensors {
            for start in stride(from: 0, to: tensor.byteCount, by: Self.pieceBytes) {
                pieces.append(
                    (
                        tensor.data - base + start, offsets[tensor.data]! + start,
                        min(Self.pieceBytes, tensor.byteCount - start)
                    ))
            }
        }
        let job = Job(pieces: pieces.sorted { $0.file < $1.file }, reader: reader, memory: memory)
        let helpers = (1..<Self.readerCount).compactMap { _ in try? NativeThread { job.work() } }
        job.work()
        for helper in helpers { helper.join() }
        if let failure = job.failure.withLock({ $0 }) { throw failure }
        let checksums = model.checksumsByOffset
        for tensor in places.tensors {
            let found = CRC32C.checksum(
                UnsafeRawBufferPointer(start: memory.base + offsets[tensor.data]!, count: tensor.byteCount))
            let offset = tensor.data - base
            guard found == checksums[offset] else {
                throw SigmaError(
                    .damaged, "the weights are damaged: their checksum is another", path: model.path,
                    item: model.gguf.tensors.first { $0.offset == offset }?.name, offset: UInt64(offset),
                    remedy: "Copy the file again from its source, or convert the checkpoint again.")
            }
        }
    }

    deinit { memory.free() }

    private final class Job: Sendable {
        let pieces: [(file: Int, memory: Int, count: Int)]
        let reader: any RecordReader
        let memory: AnonymousMemory
        let next = Atomic<Int>(0)
        let failure = Mutex<(any Error)?>(nil)

        init(pieces: [(file: Int, memory: Int, count: Int)], reader: any RecordReader, memory: AnonymousMemory) {
            self.pieces = pieces
            self.reader = reader
            self.memory = memory
        }

        func work() {
            while failure.withLock({ $0 == nil }) {
                let index = next.add(1, ordering: .relaxed).oldValue
                guard index < pieces.count else { return }
                let piece = pieces[index]
                do {
                    try reader.read(piece.count, at: piece.file, into: memory.base + piece.memory)
                } catch {
                    failure.withLock { $0 = $0 ?? error }
                }
            }
        }
    }
}

extension ModelWeights {
    /// The same weights with the bytes of everything but experts and small vectors where `body` says.
    ///
    /// - Parameter body: gets where a tensor's bytes are, and their number.
    func mapMemory(_ body: (UnsafeRawPointer, Int) throws -> UnsafeRawPointer) rethrows -> ModelWeights {
        func map(_ matrix: WeightMatrix) throws -> WeightMatrix {
            var moved = matrix
            moved.data = try body(matrix.data, matrix.byteCount)
            return moved
        }
        func map(_ mlp: MLPWeights) throws -> MLPWeights {
            MLPWeights(gate: try map(mlp.gate), up: try map(mlp.up), down: try map(mlp.down))
        }
        var result = self
        result.embedding = try map(embedding)
        for (index, layer) in layers.enumerated() {
            var new = layer
            new.query = try map(layer.query)
            new.key = try map(layer.key)
            new.value = try map(layer.value)
            new.output = try map(layer.output)
            switch layer.feedForward {
            case .dense(let mlp): new.feedForward = .dense(try map(mlp))
            case .mixture(let router, let bias, let experts, let shared):
                new.feedForward = .mixture(
                    router: try map(router), selectionBias: bias, experts: experts, shared: try shared.map(map))
            }
            result.layers[index] = new
        }
        result.head = try map(head)
        if let screen {
            result.screen?.coarse = try body(screen.coarse, screen.coarseBytes)
            result.screen?.fine = try body(screen.fine, screen.fineBytes)
        }
        return result
    }
}
