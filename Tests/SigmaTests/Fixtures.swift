import Sigma
import SigmaConversion
import Testing

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// The tiny checkpoints of Tests/Fixtures/reference with what the PyTorch reference computes on them.
struct ReferenceFixture: Sendable, CustomTestStringConvertible {
    static let packageRoot = #filePath.split(separator: "/").dropLast(3).reduce("") { $0 + "/" + $1 }
    static let folder = packageRoot + "/Tests/Fixtures/reference"

    static let all: [ReferenceFixture] = {
        let names = (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []
        let found = names.filter { !$0.hasPrefix(".") }.sorted().map(ReferenceFixture.init)
        precondition(found.count >= 21, "the reference fixtures are missing: \(folder)")
        return found
    }()
    static func named(_ name: String) -> ReferenceFixture { ReferenceFixture(name: name) }

    let name: String
    var testDescription: String { name }

    private var overrides: [String] { name.contains("override") ? ["rope_scaling=on"] : [] }

    /// Converts the checkpoint and opens the result. The file is gone when this returns: the mapping keeps it.
    func model(_ type: WeightType) throws -> ModelFile {
        let output = FileManager.default.temporaryDirectory.path + "/sigma-\(UUID().uuidString).gguf"
        defer { try? FileManager.default.removeItem(atPath: output) }
        try Converter.convert(
            Converter.Options(
                input: Self.folder + "/" + name, output: output, type: type, overrides: try Overrides(overrides)))
        return try ModelFile(path: output)
    }

    func expected() throws -> Expected { try Expected(Self.folder + "/" + name + "/expected.safetensors") }

    /// The reference's results, by name.
    struct Expected {
        private let file: SafetensorsFile

        init(_ path: String) throws { file = try SafetensorsFile(path: path) }

        var names: [String] { file.tensors.map(\.name) }

        func floats(_ name: String) throws -> [Float] { try elements(name, "F32") }
        func ids(_ name: String) throws -> [Int32] { try elements(name, "I32") }

        private func elements<T>(_ name: String, _ type: String) throws -> [T] {
            let tensor = try #require(file.tensors.first { $0.name == name }, "no \(name)")
            try #require(tensor.type == type)
            let bytes = UnsafeRawBufferPointer(
                rebasing: file.file.bytes[tensor.offset..<(tensor.offset + tensor.byteCount)])
            return (0..<(tensor.byteCount / MemoryLayout<T>.stride)).map {
                bytes.loadUnaligned(fromByteOffset: $0 * MemoryLayout<T>.stride, as: T.self)
            }
        }
    }
}

/// Runs a model step by step and collects what it computes.
struct Runner {
    let backend: CPUBackend
    let pass: ForwardPass
    let vocabulary: Int

    init(
        _ model: ModelFile, threads: Int = 2, level: String? = nil, limits: MemoryLimits = .none,
        makeReader: ((ModelFile) throws -> any RecordReader)? = nil
    ) throws {
        backend = try CPUBackend(
            model: model, threadCount: threads, instructionSet: level.flatMap { InstructionSet(named: $0) },
            limits: limits, makeReader: makeReader)
        pass = ForwardPass(layerCount: model.configuration.layerCount, backend: backend)
        vocabulary = model.configuration.vocabularySize
    }

    /// Logits [tokens, vocabulary] of a sequence that is fed in pieces of the given sizes, the last size repeated.
    func logits(_ tokens: [Int32], pieces: [Int] = [512], kvType: KVType = .f32) throws -> [Float] {
        try logits([tokens], pieces: pieces, kvType: kvType)[0]
    }

    /// The same for several sequences, advanced side by side in one batch.
    func logits(_ sequences: [[Int32]], pieces: [Int], kvType: KVType) throws -> [[Float]] {
        let states = try sequences.map { _ in try backend.makeSequence(kvType: kvType) }
        var result = sequences.map { _ in [Float]() }
        let batch = Batch()
        var step = 0
        while zip(states, sequences).contains(where: { $0.length < $1.count }) {
            batch.removeAll()
            var owners: [Int] = []
            for (index, tokens) in sequences.enumerated() {
                let rest = tokens[states[index].length...].prefix(pieces[min(step, pieces.count - 1)])
                if rest.isEmpty { continue }
                batch.append(rest, to: states[index])
                owners += Array(repeating: index, count: rest.count)
            }
            let finished = try pass.run(batch, isCancelled: { false }) { backend in
                for (row, owner) in owners.enumerated() { result[owner] += backend.head(rows: row..<(row + 1)) }
            }
            try #require(finished)
            step += 1
        }
        return result
    }
}

/// fp64 log-softmax of rows of logits.
func logSoftmax(_ logits: [Float], width: Int) -> [Double] {
    stride(from: 0, to: logits.count, by: width).flatMap { start in
        let row = logits[start..<(start + width)].map(Double.init)
        let most = row.max()!
        let sum = row.reduce(0) { $0 + exponential($1 - most) }
        return row.map { $0 - most - logarithm(sum) }
    }
}

extension TokenMask {
    /// A value for each token.
    convenience init(_ allowed: [Bool]) { self.init(vocabularySize: allowed.count, where: { allowed[Int($0)] }) }
}

extension Backend {
    /// Calls `body` with the largest logits of each of the step's first rows.
    func forEachRow(
        _ count: Int, largest: Int, mask: TokenMask, _ body: (_ row: Int, _ list: [TokenLogit]) -> Void
    ) {
        readLogits((0..<count).map { LogitRequest(row: $0, wish: .largest(largest), mask: mask) }) { row, logits in
            guard case .largest(let list) = logits else {
                Issue.record("row \(row) has all its logits")
                return
            }
            body(row, Array(list))
        }
    }
}
