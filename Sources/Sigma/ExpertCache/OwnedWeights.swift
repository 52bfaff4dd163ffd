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
        _ = weights.mapMatrices { places.add($0) }
        return places.byteCount
    }

    /// Where each matrix goes; one that is used twice is there once.
    private struct Places {
        var offsets: [UnsafeRawPointer: Int] = [:]
        var matrices: [WeightMatrix] = []
        var byteCount = 0

        @discardableResult
        mutating func add(_ matrix: WeightMatrix) -> WeightMatrix {
            if offsets[matrix.data] == nil {
                offsets[matrix.data] = byteCount
                matrices.append(matrix)
                byteCount += (matrix.byteCount + 4095) / 4096 * 4096
            }
            return matrix
        }
    }

    /// - Throws: `SigmaError`: `.inputOutput` if something cannot be read, `.damaged` if it is not what was converted, `.unavailable` if memory
    ///   ends.
    init(_ model: ModelFile, reader: any RecordReader) throws {
        var places = Places()
        _ = model.weights.mapMatrices { places.add($0) }
        let memory = try AnonymousMemory(byteCount: places.byteCount, hugePages: true)
        self.memory = memory
        let base = model.gguf.file.bytes.baseAddress!
        let offsets = places.offsets
        weights = model.weights.mapMatrices { matrix in
            var owned = matrix
            owned.data = UnsafeRawPointer(memory.base + offsets[matrix.data]!)
            return owned
        }
        var pieces: [(file: Int, memory: Int, count: Int)] = []
        for matrix in places.matrices {
            for start in stride(from: 0, to: matrix.byteCount, by: Self.pieceBytes) {
                pieces.append(
                    (
                        matrix.data - base + start, offsets[matrix.data]! + start,
                        min(Self.pieceBytes, matrix.byteCount - start)
                    ))
            }
        }
        let job = Job(pieces: pieces.sorted { $0.file < $1.file }, reader: reader, memory: memory)
        let helpers = (1..<Self.readerCount).compactMap { _ in try? NativeThread { job.work() } }
        job.work()
        for helper in helpers { helper.join() }
        if let failure = job.failure.withLock({ $0 }) { throw failure }
        let checksums = model.checksumsByOffset
        for matrix in places.matrices {
            let found = ModelFileFormat.checksum(
                UnsafeRawBufferPointer(start: memory.base + offsets[matrix.data]!, count: matrix.byteCount))
            let offset = matrix.data - base
            guard found == checksums[offset] else {
                throw SigmaError(
                    .damaged, "the weights are damaged: their checksum is another", path: model.path,
                    item: model.gguf.tensors.first { $0.offset == offset }?.name, offset: UInt64(offset),
                    remedy: "Copy the file again from where it came, or convert the checkpoint again.")
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
    /// The same weights with every matrix that is no expert's replaced by what `body` makes of it.
    func mapMatrices(_ body: (WeightMatrix) throws -> WeightMatrix) rethrows -> ModelWeights {
        func map(_ mlp: MLPWeights) throws -> MLPWeights {
            MLPWeights(gate: try body(mlp.gate), up: try body(mlp.up), down: try body(mlp.down))
        }
        var result = self
        result.embedding = try body(embedding)
        for (index, layer) in layers.enumerated() {
            var new = layer
            new.query = try body(layer.query)
            new.key = try body(layer.key)
            new.value = try body(layer.value)
            new.output = try body(layer.output)
            switch layer.feedForward {
            case .dense(let mlp): new.feedForward = .dense(try map(mlp))
            case .mixture(let router, let bias, let experts, let shared):
                new.feedForward = .mixture(
                    router: try body(router), selectionBias: bias, experts: experts, shared: try shared.map(map))
            }
            result.layers[index] = new
        }
        result.head = try body(head)
        return result
    }
}
