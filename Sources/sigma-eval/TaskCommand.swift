import ArgumentParser
import Sigma
import SigmaCommand

struct TaskCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "task",
        abstract: "Counts how many held-out questions a model answers right, per kind, with and without thinking.",
        discussion: """
            The questions come with the demo model; none of them was in its training data. Answers are generated greedily and must be exactly \
            right. A file of your own has one object a line: {"kind": "...", "question": "...", "answer": "..."}.
            """)

    @OptionGroup var compute: ComputeOptions

    @Option(help: ArgumentHelp("Questions (default: those that come with the demo model).", valueName: "file"))
    var questions: String?

    @Option(parsing: .unconditional, help: ArgumentHelp("Limit on the questions of each kind.", valueName: "n"))
    var count = 500

    @Option(
        parsing: .unconditional,
        help: ArgumentHelp("Seed that chooses questions if there are more than --count.", valueName: "n"))
    var seed: UInt64 = 1

    @Option(help: ArgumentHelp("Only this kind. May be repeated.", valueName: "name"))
    var kind: [String] = []

    @Flag(inversion: .prefixedNo, help: "Ask without thinking, too.")
    var direct = true

    @Option(
        parsing: .unconditional, help: ArgumentHelp("Number of wrong answers of each kind to show.", valueName: "n"))
    var show = 0

    @Flag(help: "Write one JSON object to standard output.")
    var json = false

    func run() throws {
        try compute.check()
        guard count > 0 else { throw usageError("--count must be at least 1, and is \(count)") }
        guard let path = questions ?? demoFile(installed: "questions.jsonl", inPackage: "Models/demo/questions.jsonl")
        else {
            throw SigmaError(
                .noInput, "no questions were named, and there are none beside the demo model",
                remedy: "Name a file with --questions.")
        }
        let chosen = try Question.read(path, kinds: kind).sampled(count, seed: seed)
        let engine = try SigmaModel.loadEngine(path: compute.model.path, configuration: compute.configuration)
        Interrupt.install(secondEndsProcess: true)

        let total = chosen.count * (direct ? 2 : 1)
        let bar = SharedProgressBar("answering")
        func answers(thinks: Bool, after done: Int) throws -> [String] {
            let examiner = Examiner(engine: engine, kvType: compute.kvType, thinks: thinks)
            return try waitForTask {
                try await examiner.answers(to: chosen) { bar.update(Double(done + $0) / Double(total)) }
            }
        }
        let thought = try answers(thinks: true, after: 0)
        let straight = direct ? try answers(thinks: false, after: chosen.count) : nil
        bar.finish()

        let report = TaskReport(questions: chosen, thought: thought, straight: straight)
        if show > 0 { report.showWrong(show) }
        try json ? StandardOutput.writeJSON(report.json) : StandardOutput.write(report.table)
    }
}

/// A question with the one answer that counts as right.
struct Question: Sendable {
    let kind: String
    let text: String
    let answer: String

    /// - Throws: `SigmaError`: as `InputFile.text`; `.damaged` with the line for what is no question; `.usage` for a kind that no question has.
    static func read(_ path: String, kinds: [String]) throws -> [Question] {
        let bytes = Array(try InputFile.text(of: path).utf8)
        var all: [Question] = []
        try JSONLinesInput.forEach(of: bytes, path: InputFile.name(of: path)) { line in
            let object = try line.withUnsafeBytes { try JSONValue.parse($0) }
            guard let kind = object["kind"]?.string, let text = object["question"]?.string,
                let answer = object["answer"]?.string
            else { throw SigmaError(.damaged, "expected an object with the strings kind, question and answer") }
            all.append(Question(kind: kind, text: text, answer: answer))
        }
        guard !all.isEmpty else {
            throw SigmaError(.damaged, "there are no questions", path: InputFile.name(of: path))
        }
        let known = Set(all.map(\.kind))
        if let unknown = kinds.first(where: { !known.contains($0) }) {
            throw usageError(
                "there are no questions of kind '\(unknown)'",
                remedy: "Kinds: \(known.sorted().joined(separator: ", ")).")
        }
        return kinds.isEmpty ? all : all.filter { kinds.contains($0.kind) }
    }
}

extension [Question] {
    /// Kinds in order of their first question.
    var kinds: [String] { reduce(into: []) { if !$0.contains($1.kind) { $0.append($1.kind) } } }

    /// At most `count` questions of each kind; which ones the seed decides.
    func sampled(_ count: Int, seed: UInt64) -> [Question] {
        var random = SplitMix64(state: seed)
        return kinds.flatMap { kind in
            let all = filter { $0.kind == kind }
            return all.count <= count ? all : Array(all.shuffled(using: &random).prefix(count))
        }
    }
}

/// Puts questions to a model, several at a time in one batch.
struct Examiner: Sendable {
    let engine: Engine
    let kvType: KVType
    let thinks: Bool
    private static let sideBySide = 32

    /// - Parameter progress: called with the number of answers made.
    /// - Throws: `SigmaError`; `CancellationError` if the user asked to stop.
    func answers(to questions: [Question], progress: (Int) -> Void) async throws -> [String] {
        var texts = [String](repeating: "", count: questions.count)
        try await withThrowingTaskGroup(of: (Int, String).self) { group in
            var waiting = questions.indices.makeIterator()
            var done = 0
            func askNext() {
                guard !Interrupt.isRequested, let index = waiting.next() else { return }
                group.addTask { (index, try await answer(to: questions[index])) }
            }
            for _ in 0..<Self.sideBySide { askNext() }
            while let (index, text) = try await group.next() {
                texts[index] = text
                done += 1
                progress(done)
                askNext()
            }
        }
        if Interrupt.isRequested { throw CancellationError() }
        return texts
    }

    private func answer(to question: Question) async throws -> String {
        let options = GenerationOptions(temperature: 0, thinks: thinks, thinkingBudget: 1024, maximumTokens: 256)
        let prompt = try engine.prompt(turns: [Turn(.user, question.text)], system: "", thinks: thinks)
        let request = GenerationRequest(tokens: prompt.tokens, start: prompt.start, options: options)
        var text = ""
        for try await event in try engine.answer(request, on: engine.makeTimeline(kvType: kvType)) {
            if Interrupt.isRequested { throw CancellationError() }
            switch event {
            case .token(let token) where token.phase == .answer: text += token.text
            case .finished(_, let rest?) where rest.phase == .answer: text += rest.text
            default: break
            }
        }
        return text
    }
}

/// Shares of right answers.
struct TaskReport {
    struct Row {
        let kind: String
        let count: Int
        let thought: Double
        let straight: Double?
    }

    let questions: [Question]
    let thought: [String]
    let straight: [String]?

    /// The kinds, then all together.
    var rows: [Row] { questions.kinds.map { row($0) { [kind = $0] in $0.kind == kind } } + [row("all") { _ in true }] }

    private func row(_ name: String, _ isIncluded: (Question) -> Bool) -> Row {
        let indices = questions.indices.filter { isIncluded(questions[$0]) }
        func share(_ answers: [String]) -> Double {
            Double(indices.count { answers[$0] == questions[$0].answer }) / Double(max(1, indices.count))
        }
        return Row(kind: name, count: indices.count, thought: share(thought), straight: straight.map(share))
    }

    var json: String {
        var json = JSONWriter()
        func write(_ row: Row, _ json: inout JSONWriter) {
            json.field("count", row.count)
            json.field("with_thinking", row.thought, decimals: 6)
            if let straight = row.straight { json.field("without_thinking", straight, decimals: 6) }
        }
        json.object { json in
            write(rows.last!, &json)
            json.array("kinds") { json in
                for row in rows.dropLast() {
                    json.object {
                        $0.field("kind", row.kind)
                        write(row, &$0)
                    }
                }
            }
        }
        return json.text + "\n"
    }

    var table: String {
        func cell(_ text: String, _ width: Int) -> String {
            String(repeating: " ", count: max(0, width - text.count)) + text
        }
        func share(_ value: Double?) -> String { value.map { JSONWriter.fixed($0 * 100, decimals: 1) + " %" } ?? "" }
        let width = max(4, rows.map(\.kind.count).max() ?? 0)
        var text = String(repeating: " ", count: width) + " questions  thinking    direct\n"
        for row in rows {
            text += row.kind + String(repeating: " ", count: width - row.kind.count)
            text += cell("\(row.count)", 10) + cell(share(row.thought), 10) + cell(share(row.straight), 10) + "\n"
        }
        return text
    }

    /// Wrong answers after thinking, on stderr.
    func showWrong(_ count: Int) {
        for kind in questions.kinds {
            let wrong = questions.indices.filter { questions[$0].kind == kind && thought[$0] != questions[$0].answer }
            for index in wrong.prefix(count) {
                note(
                    "\(kind): \(questions[index].text)\n  expected \(questions[index].answer)\n  found    \(thought[index])"
                )
            }
        }
    }
}
