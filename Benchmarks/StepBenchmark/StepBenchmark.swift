// Speed of the engine's steps on a model file, beside the machine's read bandwidth measured in the same run:
//
//     swift run -c release --traits Commands step-benchmark MODEL [threads] [repetitions]
//
// Prints medians: prompt tokens/s, generated tokens/s at two depths with the bytes read per token, and the heap allocations of a step.
import CBenchmarkSupport
import Dispatch
import Sigma
import SystemLibrary

func median(_ values: [Double]) -> Double { values.sorted()[values.count / 2] }

func padded(_ text: String, _ width: Int) -> String { text + String(repeating: " ", count: max(0, width - text.count)) }

func number(_ value: Double, _ digits: Int = 1) -> String {
    let scale = pow(10, Double(digits))
    return "\((value * scale).rounded() / scale)"
}

/// Bytes per second that `threads` threads together read from memory: each its own part of a buffer far larger than the caches.
func readBandwidth(threads: Int) -> Double {
    let length = 1 << 29
    let buffer = UnsafeMutableRawPointer.allocate(byteCount: length, alignment: 4096)
    defer { buffer.deallocate() }
    memset(buffer, 1, length)
    nonisolated(unsafe) let base = UnsafeRawPointer(buffer)
    let part = length / threads
    return median(
        (0..<5).map { _ in
            let start = monotonicTime()
            DispatchQueue.concurrentPerform(iterations: threads) { index in
                precondition(benchmark_read(base + index * part, part) != 1)
            }
            return Double(part * threads) / (monotonicTime() - start)
        })
}

@main struct StepBenchmark {
    let model: ModelFile
    let backend: CPUBackend
    let pass: ForwardPass
    private let mask: TokenMask
    private var requests: [LogitRequest] = []
    let repetitions: Int
    var random = SplitMix64(state: 1)
    let batch = Batch()

    static func main() throws {
        let arguments = CommandLine.arguments
        guard arguments.count >= 2, !arguments[1].hasPrefix("--") else {
            print("usage: step-benchmark MODEL [threads] [repetitions]")
            exit(64)
        }
        var benchmark = try StepBenchmark(
            model: ModelFile(path: arguments[1]), threads: arguments.count > 2 ? Int(arguments[2]) : nil,
            repetitions: arguments.count > 3 ? max(1, Int(arguments[3]) ?? 3) : 3)
        try benchmark.run()
    }

    init(model: ModelFile, threads: Int?, repetitions: Int) throws {
        self.model = model
        self.repetitions = repetitions
        backend = try CPUBackend(model: model, threadCount: threads, instructionSet: try .fromEnvironment())
        pass = ForwardPass(layerCount: model.configuration.layerCount, backend: backend)
        mask = TokenMask(all: model.configuration.vocabularySize)
    }

    mutating func run() throws {
        let bandwidth = readBandwidth(threads: backend.threadCount)
        print(
            padded("read bandwidth", 24), number(bandwidth / 1e9), "GB/s,", backend.threadCount, "threads,",
            backend.instructionSet.name)
        // Brings the file into memory.
        try step(tokens(backend.rowLimit)[...], backend.makeSequence(kvType: .f16))
        try measurePrompt(128)
        try measurePrompt(512)
        try measureGeneration(depth: 0, bandwidth: bandwidth)
        try measureGeneration(depth: 2048, bandwidth: bandwidth)
    }

    /// Uniform over the vocabulary, new ones each time: no expert is favoured, no cache is warm by repetition.
    mutating func tokens(_ count: Int) -> [Int32] {
        (0..<count).map { _ in Int32(random.next() % UInt64(model.configuration.vocabularySize)) }
    }

    mutating func step(_ tokens: ArraySlice<Int32>, _ sequence: SequenceState) throws {
        batch.removeAll()
        batch.append(tokens, to: sequence)
        // The largest logits, as sampling takes them: by the screened head where the file has planes.
        requests.removeAll(keepingCapacity: true)
        requests.append(LogitRequest(row: tokens.count - 1, wish: .largest(20), mask: mask))
        let requests = requests
        _ = try pass.run(batch, isCancelled: { false }) { $0.readLogits(requests) { _, _ in } }
    }

    mutating func measurePrompt(_ length: Int) throws {
        var speeds: [Double] = []
        for _ in 0..<repetitions {
            let sequence = try backend.makeSequence(kvType: .f16)
            let prompt = tokens(length)
            let start = monotonicTime()
            for piece in stride(from: 0, to: length, by: backend.rowLimit) {
                try step(prompt[piece..<min(piece + backend.rowLimit, length)], sequence)
            }
            speeds.append(Double(length) / (monotonicTime() - start))
        }
        print(padded("prompt \(length)", 24), number(median(speeds)), "tokens/s")
    }

    mutating func measureGeneration(depth: Int, bandwidth: Double) throws {
        let sequence = try backend.makeSequence(kvType: .f16)
        let prompt = tokens(depth)
        for piece in stride(from: 0, to: depth, by: backend.rowLimit) {
            try step(prompt[piece..<min(piece + backend.rowLimit, depth)], sequence)
        }
        let count = 32
        for token in tokens(4) { try step([token], sequence) }
        var speeds: [Double] = []
        var bytes = 0
        var allocations: Int64 = 0
        for _ in 0..<repetitions {
            let next = tokens(count)
            let before = benchmark_allocations()
            let start = monotonicTime()
            bytes = 0
            for index in next.indices {
                try step(next[index...index], sequence)
                bytes += backend.stepBytes
            }
            speeds.append(Double(count) / (monotonicTime() - start))
            allocations = benchmark_allocations() - before
        }
        let rate = median(speeds) * Double(bytes) / Double(count)
        print(
            padded("generation at \(depth)", 24), number(median(speeds)), "tokens/s,",
            number(Double(bytes) / Double(count) / 1e6),
            "MB/token,", number(rate / 1e9), "GB/s,", number(rate / bandwidth * 100), "% of the read bandwidth,",
            number(Double(allocations) / Double(count), 2), "allocations/token")
    }
}
