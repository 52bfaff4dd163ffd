import EmulatedDevice
import Sigma
import SigmaConversion
import SystemLibrary
import Testing

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// An emulated device of the back end's tests alone: their failures and memory are nobody else's. Tests that use it run one after the other.
struct Device: @unchecked Sendable {
    let library: String
    private let handle: UnsafeMutableRawPointer

    private static let shared = Result { try Device(copyOf: EmulatedDevice.library.get()) }
    static func get() throws -> Device { try shared.get() }

    private init(copyOf original: String) throws {
        library = try Scratch.folder() + "/device.so"
        try FileManager.default.copyItem(atPath: original, toPath: library)
        handle = try #require(dlopen(library, RTLD_NOW | RTLD_LOCAL))
    }

    private func call<Function>(_ name: String, _ type: Function.Type) -> Function {
        unsafeBitCast(dlsym(handle, name)!, to: type)
    }

    /// The `after`-th call of that name from now on fails, once.
    func fail(_ name: String, after count: Int) {
        call("emulated_fail", (@convention(c) (UnsafePointer<CChar>?, Int32) -> Void).self)(name, Int32(count))
    }
    /// And so does every call after it.
    func failAlways(_ name: String, after count: Int) {
        call("emulated_fail_always", (@convention(c) (UnsafePointer<CChar>?, Int32) -> Void).self)(name, Int32(count))
    }
    func recover() { call("emulated_recover", (@convention(c) () -> Void).self)() }
    /// Kernels that ran, in graphs too; graphs that were launched; bytes of the device that are allocated.
    var graphLaunches: UInt64 { call("emulated_graph_launches", (@convention(c) () -> UInt64).self)() }
    var allocated: UInt64 { call("emulated_allocated", (@convention(c) () -> UInt64).self)() }

    func environment(cacheFolder: String? = nil) -> CUDAEnvironment {
        CUDAEnvironment(driver: library, compiler: library, cacheFolder: cacheFolder)
    }

    func backend(
        _ model: ModelFile, limits: MemoryLimits = .none, rowLimit: Int = 512,
        makeReader: ((ModelFile) throws -> any RecordReader)? = nil
    ) throws -> CUDABackend {
        try CUDABackend(
            model: model, limits: limits, rowLimit: rowLimit, environment: environment(), makeReader: makeReader)
    }

    func engine(_ model: ModelFile, limits: MemoryLimits = .none, rowLimit: Int = 512) throws -> Engine {
        try Engine(model: model, backend: backend(model, limits: limits, rowLimit: rowLimit))
    }
}

enum Scratch {
    /// A new folder among the files of this test run.
    static func folder() throws -> String {
        let path = Toolchain.folder + "/\(UUID().uuidString)"
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
        return path
    }
}

/// The models of the tests, converted once for all tests of a run.
enum Models {
    static let fixtures = packageRoot + "/Tests/Fixtures/reference"
    static let fixtureNames = {
        let names = (try? FileManager.default.contentsOfDirectory(atPath: fixtures)) ?? []
        precondition(!names.isEmpty, "the reference fixtures are missing: \(fixtures)")
        return names.filter { !$0.hasPrefix(".") }.sorted()
    }()

    private static let demoFile = Result { try convert(packageRoot + "/Models/demo/checkpoint", .q8_0) }
    static func demo() throws -> ModelFile { try demoFile.get() }

    static func fixture(_ name: String, _ type: WeightType) throws -> ModelFile {
        try convert(
            fixtures + "/" + name, type, overrides: name.contains("override") ? ["rope_scaling=on"] : [])
    }

    /// Opens what was converted. The file is gone when this returns: the mapping keeps it.
    static func convert(_ input: String, _ type: WeightType, overrides: [String] = []) throws -> ModelFile {
        let output = try Scratch.folder() + "/model.gguf"
        defer { try? FileManager.default.removeItem(atPath: output) }
        try Converter.convert(
            Converter.Options(input: input, output: output, type: type, overrides: try Overrides(overrides)))
        return try ModelFile(path: output)
    }

    /// What the PyTorch reference computes on a fixture.
    static func expected(_ name: String) throws -> SafetensorsFile {
        try SafetensorsFile(path: fixtures + "/" + name + "/expected.safetensors")
    }
}

extension SafetensorsFile {
    func values<T>(_ name: String, as type: T.Type) throws -> [T] {
        let tensor = try #require(tensors.first { $0.name == name }, "no \(name)")
        try #require(tensor.type == (T.self == Float.self ? "F32" : "I32"))
        return (0..<(tensor.byteCount / 4)).map {
            file.bytes.loadUnaligned(fromByteOffset: tensor.offset + $0 * 4, as: T.self)
        }
    }
}

/// Runs sequences of tokens side by side and collects the logits of all of them.
struct Runner {
    let backend: any Backend
    let configuration: ModelConfiguration

    init(_ backend: any Backend, _ model: ModelFile) {
        self.backend = backend
        configuration = model.configuration
    }

    func logits(
        _ tokens: [Int32], pieces: [Int] = [512], kvType: KVType = .f32, routing: RoutingRecord? = nil
    ) throws -> [Float] {
        try logits([tokens], pieces: pieces, kvTypes: [kvType], routing: routing)[0]
    }

    /// - Parameters:
    ///   - pieces: tokens of a step that each sequence gets, the last repeated.
    ///   - kvTypes: of the sequences, the last repeated.
    func logits(
        _ sequences: [[Int32]], pieces: [Int], kvTypes: [KVType], routing: RoutingRecord? = nil
    ) throws -> [[Float]] {
        let pass = ForwardPass(layerCount: configuration.layerCount, backend: backend)
        let states = try sequences.indices.map {
            try backend.makeSequence(kvType: kvTypes[min($0, kvTypes.count - 1)])
        }
        var result = sequences.map { _ in [Float]() }
        let batch = Batch()
        var step = 0
        while zip(states, sequences).contains(where: { $0.length < $1.count }) {
            batch.removeAll()
            batch.routing = routing
            var owners: [Int] = []
            for (index, tokens) in sequences.enumerated() {
                let rest = tokens[states[index].length...].prefix(pieces[min(step, pieces.count - 1)])
                if rest.isEmpty { continue }
                batch.append(rest, to: states[index])
                owners += Array(repeating: index, count: rest.count)
            }
            let isDone = try pass.run(batch, isCancelled: { false }) { backend in
                backend.forEachRow(of: 0..<owners.count) { row, logits in result[owners[row]] += logits }
            }
            try #require(isDone)
            step += 1
        }
        return result
    }
}

/// Uniform over the vocabulary.
func randomTokens(_ count: Int, _ model: ModelFile, seed: UInt64 = 7) -> [Int32] {
    var random = SplitMix64(state: seed)
    return (0..<count).map { _ in Int32(random.next() % UInt64(model.configuration.vocabularySize)) }
}

/// fp64 log-softmax of rows of logits.
func logSoftmax(_ logits: [Float], width: Int) -> [Double] {
    stride(from: 0, to: logits.count, by: width).flatMap { start in
        let row = logits[start..<(start + width)].map(Double.init)
        let most = row.max()!
        let sum = row.reduce(0) { $0 + exp($1 - most) }
        return row.map { $0 - most - log(sum) }
    }
}

/// What a session answers to a message, thinking and text.
func answer(_ session: Session, _ message: String) async throws -> [String] {
    var result = ["", ""]
    for try await update in session.stream(to: message) {
        switch update {
        case .reasoning(let piece): result[0] += piece
        case .text(let piece): result[1] += piece
        default: break
        }
    }
    return result
}

/// Greedy, and short: the device is slow.
func session(_ engine: Engine, kvType: KVType = .f16, thinks: Bool = false, maximumTokens: Int = 8) -> Session {
    SigmaModel(engine: engine, configuration: .init(kvType: kvType)).makeSession(
        options: GenerationOptions(
            temperature: 0, thinks: thinks, thinkingBudget: 100, maximumTokens: maximumTokens))
}

/// All tests of the back end on the one emulated device of the process.
@Suite(.serialized, .enabled(if: EmulatedDevice.missing == nil, "\(EmulatedDevice.missing ?? "")"))
struct BackendTests {}
