import ArgumentParser
import Sigma
import SigmaCommand
import SigmaStudies

struct HeadCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "head",
        abstract: "Checks whether the screened output head finds the largest logits, on real and on hostile states.",
        discussion: """
            The model reads a text (or random tokens), and at every position the largest logits of the full head are compared with those that \
            the screen finds. The same is done with states derived from the real ones: tiny, with an outlier, random, with logits that nearly \
            tie, leaning towards a row's rounding error in the coarse plane, and aligned with it. A miss is a position where the lists differ \
            in a token, a logit or the order. Standard deviations say how wide margins had to be.

            EXAMPLES:
              sigma-eval head --model sigma.gguf book.txt
              sigma-eval head --model sigma.gguf --random-tokens 4096 --kinds real,outlier --json
            """)

    /// Widths of margins whose misses are told.
    static let widths = [2.0, 2.5, 3, 3.5, 4, 4.5, 5, 5.5, 6]

    @Argument(help: "A file whose bytes are read as text, or - for standard input. (default: random tokens)")
    var file: String?

    @OptionGroup var compute: ComputeOptions

    @Option(help: ArgumentHelp("Number of random tokens to read (default: 4096 if no file is named).", valueName: "n"))
    var randomTokens: Int?
    @Option(help: ArgumentHelp("Read no more positions of the text than this.", valueName: "n"))
    var positions: Int?
    @Option(help: ArgumentHelp("How many of the largest logits are compared.", valueName: "n"))
    var largest = 20
    @Option(
        help: ArgumentHelp("Width of margins in standard deviations (default: as in generation).", valueName: "z"))
    var deviations: Float?
    @Option(
        help: ArgumentHelp(
            "Kinds of states: \(StateKind.allCases.map(\.rawValue).joined(separator: ", ")).", valueName: "name,..."))
    var kinds: KindList = KindList(kinds: StateKind.allCases)
    @Option(help: ArgumentHelp("Seed of the random numbers.", valueName: "n"))
    var seed: UInt64 = 1
    @Flag(help: "Write one JSON object to standard output.")
    var json = false

    struct KindList: ExpressibleByArgument {
        var kinds: [StateKind]
        init(kinds: [StateKind]) { self.kinds = kinds }
        init?(argument: String) {
            let names = argument.split(separator: ",", omittingEmptySubsequences: false)
            kinds = names.compactMap { StateKind(rawValue: String($0)) }
            guard kinds.count == names.count else { return nil }
        }
        var defaultValueDescription: String { "all" }
    }

    func run() throws {
        try compute.check()
        guard (1...256).contains(largest) else {
            throw usageError("--largest must be from 1 to 256, and is \(largest)")
        }
        if let deviations, !(deviations > 0 && deviations < 100) {
            throw usageError("--deviations must be above 0 and below 100, and is \(deviations)")
        }
        for (name, count) in [("--random-tokens", randomTokens), ("--positions", positions)] {
            if let count, count < 1 { throw usageError("\(name) must be at least 1, and is \(count)") }
        }
        let bytes = try file.map { try InputFile.bytes(of: $0) }
        var configuration = compute.configuration
        configuration.backend = .cpu
        let engine = try SigmaModel.loadEngine(path: compute.model.path, configuration: configuration)
        guard engine.backend.report.screensHead, let experiments = engine.backend as? any HeadExperiments else {
            throw SigmaError(
                .damaged, "the model file has no planes that screen its output head", path: engine.modelPath,
                remedy: "Make one that has: sigma-convert \(engine.modelPath) OUTPUT --head-screen on")
        }
        guard largest <= engine.vocabularySize else {
            throw usageError("--largest \(largest) is more than the vocabulary of \(engine.vocabularySize)")
        }
        Interrupt.install(secondEndsProcess: true)
        let tokens = try tokens(bytes, engine)
        let survey = try HeadSurvey(engine, largest: largest, deviations: deviations, seed: seed)
        try read(tokens, engine, experiments, survey)
        try json
            ? StandardOutput.writeJSON(Self.json(survey, kinds.kinds))
            : StandardOutput.write(Self.table(survey, kinds.kinds))
    }

    /// In windows.
    private func tokens(_ bytes: [UInt8]?, _ engine: Engine) throws -> [[Int32]] {
        var all: [Int32] = []
        if let bytes {
            guard let tokenizer = engine.tokenizer else { throw engine.missingTokenizer }
            all = tokenizer.encode(bytes, recognizingSpecials: false)
            if let positions { all = Array(all.prefix(positions)) }
        }
        var random = SplitMix64(state: seed)
        for _ in 0..<(randomTokens ?? (bytes == nil ? 4096 : 0)) {
            all.append(Int32(random.next() % UInt64(engine.vocabularySize)))
        }
        guard !all.isEmpty else {
            throw SigmaError(.damaged, "there are no tokens to read", path: file.map(InputFile.name))
        }
        let length = max(1, compute.context ?? min(engine.configuration.contextLength, 2048))
        return stride(from: 0, to: all.count, by: length).map { Array(all[$0..<min($0 + length, all.count)]) }
    }

    private func read(
        _ windows: [[Int32]], _ engine: Engine, _ experiments: any HeadExperiments, _ survey: HeadSurvey
    ) throws {
        var bar = ProgressBar("comparing")
        defer { bar.finish() }
        let total = windows.reduce(0) { $0 + $1.count }
        var done = 0
        let batch = Batch()
        let sequence = try engine.backend.makeSequence(kvType: compute.kvType)
        for window in windows {
            sequence.truncate(to: 0)
            var position = 0
            while position < window.count {
                let piece = try engine.piece(of: window[position...].prefix(512), for: sequence)
                batch.removeAll()
                batch.append(piece, to: sequence)
                var states: [Float] = []
                let isDone = try engine.forwardPass.run(batch, isCancelled: { Interrupt.isRequested }) { _ in
                    states = experiments.finalStates(rows: 0..<piece.count)
                }
                guard isDone else { throw CancellationError() }
                try survey.add(states, kinds: kinds.kinds, isCancelled: { Interrupt.isRequested })
                position += piece.count
                done += piece.count
                bar.update(Double(done) / Double(total))
            }
        }
    }

    private static func json(_ survey: HeadSurvey, _ kinds: [StateKind]) -> String {
        var json = JSONWriter()
        json.object { json in
            for kind in kinds {
                let tally = survey.tallies[kind] ?? .init()
                json.object(kind.rawValue) { json in
                    json.field("positions", tally.positions)
                    json.field("misses", tally.misses)
                    json.field("misses_of_the_first", tally.missesOfTheFirst)
                    json.field("fallbacks", tally.fallbacks)
                    json.field("fine_rows", Double(tally.fineRows) / Double(max(1, tally.positions)), decimals: 1)
                    json.field("exact_rows", Double(tally.exactRows) / Double(max(1, tally.positions)), decimals: 1)
                    json.field("needed_deviations", Double(tally.neededDeviations.max() ?? 0), decimals: 3)
                    json.array("misses_by_deviations") { json in
                        for width in widths {
                            json.object {
                                $0.field("deviations", width)
                                $0.field("misses", tally.misses(at: width))
                            }
                        }
                    }
                }
            }
        }
        return json.text + "\n"
    }

    private static func table(_ survey: HeadSurvey, _ kinds: [StateKind]) -> String {
        var lines = [
            [
                "states", "positions", "misses", "of the first", "fell back", "fine rows", "exact rows",
                "deviations needed",
            ]
                + widths.map { "missed at \(JSONWriter.fixed($0, decimals: 1))" }
        ]
        for kind in kinds {
            let tally = survey.tallies[kind] ?? .init()
            func mean(_ count: Int) -> String {
                JSONWriter.fixed(Double(count) / Double(max(1, tally.positions)), decimals: 0)
            }
            lines.append(
                [
                    kind.rawValue, "\(tally.positions)", "\(tally.misses)", "\(tally.missesOfTheFirst)",
                    "\(tally.fallbacks)", mean(tally.fineRows), mean(tally.exactRows),
                    JSONWriter.fixed(Double(tally.neededDeviations.max() ?? 0), decimals: 2),
                ] + widths.map { "\(tally.misses(at: $0))" })
        }
        return columnTable(lines)
    }
}
