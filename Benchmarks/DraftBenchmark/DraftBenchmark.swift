// Speed of drafts of which a known share is right, and of those that are looked up, over ordinary generation:
//
//     swift run -c release draft-benchmark MODEL [--depth 1000] [--generate 192] [--acceptance 0,50,70,90,100] [--repetitions 5]
//         [--expert-cache BYTES] [--memory BYTES] [--prompt FILE] [--temperature 0.6] [--threads N]
//
// An ordinary answer to the prompt (seeded random tokens, or a text) comes first. Then the same answer is made with guesses of which a share equals it,
// in turn with ordinary ones, so that what changes on the machine changes for all. Every answer is compared: its tokens must be the same. Prints medians.
import Sigma
import SystemLibrary

@main struct DraftBenchmark {
    private var depth = 1000
    private var generate = 192
    private var shares: [Double] = [0, 0.5, 0.7, 0.9, 1]
    private var repetitions = 5
    private var temperature = 0.6
    private var text: String?
    private var configuration = SigmaModel.Configuration()

    static func main() throws {
        guard CommandLine.arguments.count >= 2, !CommandLine.arguments[1].hasPrefix("--") else {
            print("usage: draft-benchmark MODEL [options]: see the head of DraftBenchmark.swift")
            exit(64)
        }
        var benchmark = DraftBenchmark()
        try benchmark.read(CommandLine.arguments.dropFirst(2))
        try benchmark.run(CommandLine.arguments[1])
    }

    private mutating func read(_ arguments: ArraySlice<String>) throws {
        var rest = arguments
        while let name = rest.popFirst() {
            guard let value = rest.popFirst() else { throw SigmaError(.usage, "\(name) needs a value") }
            switch name {
            case "--depth": depth = Int(value) ?? depth
            case "--generate": generate = Int(value) ?? generate
            case "--acceptance": shares = value.split(separator: ",").compactMap { Double($0).map { $0 / 100 } }
            case "--repetitions": repetitions = max(1, Int(value) ?? repetitions)
            case "--temperature": temperature = Double(value) ?? temperature
            case "--prompt": text = try String(decoding: MappedFile(path: value).bytes, as: UTF8.self)
            case "--threads": configuration.threads = Int(value)
            case "--memory": configuration.memory = Int(value).map { .bytes($0) }
            case "--expert-cache": configuration.expertCache = Int(value).map { .size(.bytes($0)) } ?? .auto
            default: throw SigmaError(.usage, "no such option: \(name)")
            }
        }
    }

    private func run(_ path: String) throws {
        let engine = try SigmaModel.loadEngine(path: path, configuration: configuration)
        let prompt = try prompt(engine)
        var options = GenerationOptions(temperature: temperature, seed: 1, thinks: false, maximumTokens: generate)
        // Random weights end an answer anywhere; a text's answer has an end.
        if text == nil { for token in engine.stopTokens { options.logitBias[token] = -10_000 } }
        let timeline = try engine.makeTimeline(kvType: configuration.kvType)
        options.drafts = .off
        let ordinary = GenerationRequest(tokens: prompt, start: .answer, options: options)
        options.drafts = .auto
        var drafted = GenerationRequest(tokens: prompt, start: .answer, options: options)
        // Memory, caches and the clock's frequency settle.
        _ = try answer(ordinary, engine, timeline)
        let first = try answer(ordinary, engine, timeline)

        var names = ["ordinary", "looked up"]
        var requests = [ordinary, drafted]
        for share in shares {
            names.append("\(Int((share * 100).rounded())) % right")
            drafted.draftSource = PartlyRight(sequence: prompt + first.tokens, share: share)
            requests.append(drafted)
        }
        var speeds = [[Double]](repeating: [], count: requests.count)
        var counts = [(drafted: Int, accepted: Int, steps: Int)](repeating: (0, 0, 0), count: requests.count)
        for _ in 0..<repetitions {
            for (index, request) in requests.enumerated() {
                let found = try answer(request, engine, timeline)
                guard found.tokens == first.tokens else {
                    throw SigmaError(.damaged, "\(names[index]): another answer")
                }
                let statistics = found.statistics
                speeds[index].append(statistics.generationTokensPerSecond)
                counts[index].drafted += statistics.draftedTokens
                counts[index].accepted += statistics.acceptedDraftTokens
                counts[index].steps += statistics.generationSteps
            }
        }
        print(
            "\(prompt.count) tokens deep, \(first.tokens.count) generated, \(repetitions) repetitions, temperature \(temperature), \(engine.backend.report.name)"
        )
        let base = median(speeds[0])
        for (index, name) in names.enumerated() {
            let speed = median(speeds[index])
            let (low, high) = (speeds[index].min()!, speeds[index].max()!)
            print(
                name + String(repeating: " ", count: max(1, 14 - name.count)), fixed(speed),
                "tokens/s (\(fixed(low)) to \(fixed(high))),",
                fixed(speed / base), "times;", "\(counts[index].accepted) of \(counts[index].drafted) drafts held,",
                fixed(Double(counts[index].steps + counts[index].accepted) / Double(max(1, counts[index].steps))),
                "tokens a step")
        }
    }

    private func prompt(_ engine: Engine) throws -> [Int32] {
        if let text {
            guard let tokenizer = engine.tokenizer else { throw SigmaError(.damaged, "the model has no tokenizer") }
            return tokenizer.encode(text, recognizingSpecials: true)
        }
        var random = SplitMix64(state: 1)
        return (0..<max(1, depth)).map { _ in Int32(random.next() % UInt64(engine.vocabularySize)) }
    }

    private func answer(
        _ request: GenerationRequest, _ engine: Engine, _ timeline: Timeline
    ) throws -> (tokens: [Int32], statistics: Statistics) {
        let answer = try engine.answer(request, on: timeline)
        var tokens: [Int32] = []
        var statistics: Statistics?
        while let event = try answer.next() {
            switch event {
            case .token(let token): tokens.append(token.id)
            case .finished(let found, _): statistics = found
            case .prefill, .promptLogProbabilities, .closing: break
            }
        }
        return (tokens, statistics!)
    }

    private func median(_ values: [Double]) -> Double { values.sorted()[values.count / 2] }
    private func fixed(_ value: Double) -> String { JSONWriter.fixed(value, decimals: 2) }
}

/// Guesses that equal the answer with a known chance, each for itself.
struct PartlyRight: DraftSource {
    /// The sequence as it will be.
    let sequence: [Int32]
    let share: Double

    func guess(after tokens: [Int32], newest: Int32, limit: Int) -> [Int32] {
        sequence.indices.dropFirst(tokens.count + 1).prefix(limit).map { place in
            let isRight = Double(SplitMix64.mixed(UInt64(place)) >> 11) * 0x1p-53 < share
            return isRight ? sequence[place] : sequence[place] == 0 ? 1 : sequence[place] - 1
        }
    }
}
