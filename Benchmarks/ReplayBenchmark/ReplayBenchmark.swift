// What a constraint makes of generation's speed: instances of JSON schemas replayed token by token, without a constraint, with masks alone, and with
// what is forced as drafts.
//
//     swift run -c release --traits Commands replay-benchmark MODEL CASES.jsonl [--schemas 20] [--depth 500] [--tokens 192] [--repetitions 3] [--threads N]
//
// A line of CASES: `schema`, and `tests` with `valid` and `text`, as in JSON-Schema benchmarks. Of the first schemas that have one, the longest valid
// instance is replayed that the constraint accepts as the tokenizer cuts it, up to `--tokens` of it, after a prompt of random tokens. The model computes
// everything as it would; only its choice is replaced by the instance's next token. Runs take turns. Prints tokens/s of all instances together, the
// ratios' medians over repetitions, and the steps whose head was cut to the allowed tokens' groups.
import Sigma
import SigmaGrammar
import SystemLibrary

@main struct ReplayBenchmark {
    private var schemas = 20
    private var depth = 500
    private var tokens = 192
    private var repetitions = 3
    private var threads: Int?

    static func main() throws {
        guard CommandLine.arguments.count >= 3, !CommandLine.arguments[1].hasPrefix("--") else {
            print("usage: replay-benchmark MODEL CASES.jsonl [options]: see the head of ReplayBenchmark.swift")
            exit(64)
        }
        var benchmark = ReplayBenchmark()
        try benchmark.read(CommandLine.arguments.dropFirst(3))
        try benchmark.run(CommandLine.arguments[1], CommandLine.arguments[2])
    }

    private mutating func read(_ arguments: ArraySlice<String>) throws {
        var rest = arguments
        while let name = rest.popFirst() {
            guard let value = rest.popFirst().flatMap({ Int($0) }), value > 0 else {
                throw SigmaError(.usage, "\(name) needs a number")
            }
            switch name {
            case "--schemas": schemas = value
            case "--depth": depth = value
            case "--tokens": tokens = value
            case "--repetitions": repetitions = value
            case "--threads": threads = value
            default: throw SigmaError(.usage, "no such option: \(name)")
            }
        }
    }

    /// An instance, and the constraint that it is of.
    private struct Instance {
        var constraint: TokenConstraint
        var tokens: [Int32]
    }

    private enum Mode: String, CaseIterable {
        case free = "no constraint"
        case masks = "masks"
        case drafts = "masks and drafts"
    }

    private func run(_ path: String, _ cases: String) throws {
        let model = try ModelFile(path: path)
        let backend = ReplayingBackend(try CPUBackend(model: model, threadCount: threads))
        let engine = try Engine(model: model, backend: backend)
        let instances = try instances(cases, engine)
        guard !instances.isEmpty else { throw SigmaError(.damaged, "no schema with a valid instance", path: cases) }
        let count = instances.reduce(0) { $0 + $1.tokens.count }
        print("\(instances.count) schemas, \(count) tokens, \(depth) tokens before each")
        let timeline = try engine.makeTimeline(kvType: .f16)
        var random = SplitMix64(state: 1)
        let prompt = (0..<depth).map { _ in Int32(random.next() % UInt64(model.configuration.vocabularySize)) }
        var speeds = [[Double]](repeating: [], count: Mode.allCases.count)
        var last = [(statistics: Statistics, head: HeadStatistics)](
            repeating: (Statistics(), HeadStatistics()), count: Mode.allCases.count)
        for repetition in 0...repetitions {
            for (place, mode) in Mode.allCases.enumerated() {
                var (seconds, generated) = (0.0, 0)
                var sum = Statistics()
                let before = backend.headStatistics
                for instance in instances {
                    let found = try replay(instance, mode, prompt, engine, backend, timeline)
                    seconds += found.generationTime
                    generated += found.generatedTokens - 1
                    sum.acceptedDraftTokens += found.acceptedDraftTokens
                    sum.draftedTokens += found.draftedTokens
                    sum.generationSteps += found.generationSteps
                }
                last[place] = (sum, backend.headStatistics - before)
                // The first round brings everything into memory.
                if repetition > 0 { speeds[place].append(Double(generated) / seconds) }
            }
        }
        for (place, mode) in Mode.allCases.enumerated() {
            let ratios = zip(speeds[place], speeds[0]).map { $0 / $1 }
            let (sum, head) = last[place]
            let rows = head.allowedRows + head.screenedRows + head.fallbackRows + head.fullRows
            print(
                mode.rawValue + String(repeating: " ", count: 18 - mode.rawValue.count), fixed(median(speeds[place])),
                "tokens/s,", fixed(median(ratios)), "times (\(fixed(ratios.min()!)) to \(fixed(ratios.max()!)));",
                "\(sum.generationSteps) steps, \(sum.acceptedDraftTokens) of \(sum.draftedTokens) drafts held,",
                "head cut in \(100 * head.allowedRows / max(1, rows)) % of the rows")
        }
    }

    private func replay(
        _ instance: Instance, _ mode: Mode, _ prompt: [Int32], _ engine: Engine, _ backend: ReplayingBackend,
        _ timeline: Timeline
    ) throws -> Statistics {
        var options = GenerationOptions(temperature: 0, maximumTokens: instance.tokens.count)
        options.drafts = mode == .drafts ? .auto : .off
        backend.text = prompt + instance.tokens
        let request = GenerationRequest(
            tokens: prompt, start: .answer, options: options, constraint: mode == .free ? nil : instance.constraint)
        let answer = try engine.answer(request, on: timeline)
        var found: [Int32] = []
        var statistics: Statistics?
        while let event = try answer.next() {
            switch event {
            case .token(let token): found.append(token.id)
            case .finished(let end, _): statistics = end
            case .prefill, .promptLogProbabilities, .closing: break
            }
        }
        guard found == instance.tokens else {
            throw SigmaError(.damaged, "\(mode.rawValue): another answer, refused: \(backend.refused ?? -1)")
        }
        return statistics!
    }

    private func instances(_ path: String, _ engine: Engine) throws -> [Instance] {
        guard let tokenizer = engine.tokenizer else { throw SigmaError(.damaged, "the model has no tokenizer") }
        let file = try MappedFile(path: path)
        defer { withExtendedLifetime(file) {} }
        var instances: [Instance] = []
        for line in file.bytes.split(separator: 0x0A) where instances.count < schemas {
            let value = try JSONValue.parse(UnsafeRawBufferPointer(rebasing: line))
            guard let schema = value["schema"]?.text,
                let constraint = try? engine.constraints.compiled(.jsonSchema(schema))
            else { continue }
            let texts = (value["tests"]?.array ?? []).filter { $0["valid"]?.bool == true }.compactMap {
                $0["text"]?.string
            }
            let accepted = texts.map { tokenizer.encode($0, recognizingSpecials: false) }.filter {
                $0.count >= 24 && Self.accepts($0, constraint)
            }
            guard let longest = accepted.max(by: { $0.count < $1.count }) else { continue }
            instances.append(Instance(constraint: constraint, tokens: Array(longest.prefix(tokens))))
        }
        return instances
    }

    private static func accepts(_ tokens: [Int32], _ constraint: TokenConstraint) -> Bool {
        var guide = AnswerGuide(constraint, start: .answer)
        return tokens.allSatisfy { token in
            defer { guide.append(token) }
            return guide.mask().allows(Int(token))
        }
    }

    private func median(_ values: [Double]) -> Double { values.sorted()[values.count / 2] }
    private func fixed(_ value: Double) -> String { JSONWriter.fixed(value, decimals: 2) }
}
