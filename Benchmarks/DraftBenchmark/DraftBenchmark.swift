// Speed of drafts of which a known share is right, and of those that are looked up, over ordinary generation:
//
//     swift run -c release --traits Commands draft-benchmark MODEL [--depth 1000] [--generate 192] [--acceptance 0,50,70,90,100] [--repetitions 5]
//         [--expert-cache BYTES] [--memory BYTES] [--expert-prediction auto|on|off] [--drafts auto|on] [--temperature 0.6] [--threads N]
//         [--prompt FILE or --question FILE]
//
// A prompt's text is continued as it is. A question is a user's turn in the model's chat format, and is answered with thinking where the model thinks;
// Benchmarks/prompts has some whose answers repeat what stands there.
//
// An ordinary answer to the prompt (seeded random tokens, or a text) comes first. Then the same answer is made with guesses of which a share equals it,
// in turn with ordinary ones, so that what changes on the machine changes for all. Every answer is compared: its tokens must be the same. Prints medians.
import SampleFiles
import Sigma
import SystemLibrary

@main struct DraftBenchmark {
    private var depth = 1000
    private var generate = 192
    private var shares: [Double] = [0, 0.5, 0.7, 0.9, 1]
    private var repetitions = 5
    private var temperature = 0.6
    private var text: String?
    private var isQuestion = false
    private var drafts = DraftMode.auto
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
            case "--prompt", "--question":
                let file = try MappedFile(path: value)
                text = withExtendedLifetime(file) { String(decoding: file.bytes, as: UTF8.self) }
                isQuestion = name == "--question"
            case "--threads": configuration.threads = Int(value)
            case "--memory": configuration.memory = Int(value).map { .bytes($0) }
            case "--expert-cache": configuration.expertCache = Int(value).map { .size(.bytes($0)) } ?? .auto
            case "--expert-prediction": configuration.expertPrediction = PredictionMode(rawValue: value) ?? .auto
            case "--drafts": drafts = DraftMode(rawValue: value) ?? .auto
            default: throw SigmaError(.usage, "no such option: \(name)")
            }
        }
    }

    private func run(_ path: String) throws {
        let engine = try SigmaModel.loadEngine(path: path, configuration: configuration)
        var options = GenerationOptions(
            temperature: temperature, seed: 1, thinks: isQuestion, maximumTokens: generate)
        if isQuestion { options.thinkingBudget = generate }
        let (prompt, start) = try prompt(engine, options)
        // Random weights end an answer anywhere; a text's answer has an end.
        if text == nil { for token in engine.stopTokens { options.logitBias[token] = -10_000 } }
        let timeline = try engine.makeTimeline(kvType: configuration.kvType)
        options.drafts = .off
        let ordinary = GenerationRequest(tokens: prompt, start: start, options: options)
        options.drafts = drafts
        var drafted = GenerationRequest(tokens: prompt, start: start, options: options)
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

    private func prompt(
        _ engine: Engine, _ options: GenerationOptions
    ) throws -> (tokens: [Int32], start: ThinkingSplitter.State) {
        if let text {
            if isQuestion {
                let prompt = try engine.prompt(
                    turns: [Turn(.user, text.hasSuffix("\n") ? String(text.dropLast()) : text)], system: "",
                    options: options)
                return (prompt.tokens, prompt.start)
            }
            guard let tokenizer = engine.tokenizer else { throw SigmaError(.damaged, "the model has no tokenizer") }
            return (tokenizer.encode(text, recognizingSpecials: true), .answer)
        }
        var random = SplitMix64(state: 1)
        return ((0..<max(1, depth)).map { _ in Int32(random.next() % UInt64(engine.vocabularySize)) }, .answer)
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
