import ArgumentParser
import Sigma
import SigmaCommand
import SigmaStudies

struct LoglikelihoodCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "loglikelihood",
        abstract: "Measures how likely a model finds each of several continuations of a context.",
        discussion: """
            Each line of the file is an object: {"context": "The sky is", "choices": [" blue", " green"], "answer": 0}. The answer, which is \
            the index of the right choice, is optional, and so is an id of any kind, which is returned. Context and choices are texts, or arrays \
            of token ids. Texts are cut as in lm-eval: white space at a context's end belongs to the choices, and a choice's tokens are those \
            of the whole text after the context's. Special tokens are recognised, and bos comes first if the tokenizer asks for it. An \
            empty context is bos, or eos if there is none.

            Common prefixes of lines and choices are computed once. Without --json a table says how many answers are the likeliest choice, \
            and how many are the likeliest per character. With --json it writes one object a line, in the file's order: id, best, best_normed \
            and choices, each with logprob (their sum, in nats), greedy (whether each token is the likeliest), tokens and token_logprobs.

            EXAMPLES:
              sigma-eval loglikelihood --model sigma.gguf questions.jsonl
              sigma-eval loglikelihood --model sigma.gguf --json questions.jsonl.gz > scores.jsonl
            """)

    @Argument(help: "A file of JSON lines, compressed with gzip or not, or - for standard input.")
    var file: String

    @OptionGroup var compute: ComputeOptions

    @Flag(inversion: .prefixedNo, help: "Compute common prefixes of requests once; changes only the speed.")
    var sharing = true

    @Flag(help: "Write one JSON object a line to standard output.")
    var json = false

    /// Lines whose scores are computed together, and then shown.
    private static let linesTogether = 256

    func run() throws {
        try compute.check()
        let name = InputFile.name(of: file)
        let bytes = try Gzip.unpackedIfPacked(InputFile.bytes(of: file), path: name)
        let engine = try SigmaModel.loadEngine(path: compute.model.path, configuration: compute.configuration)
        let questions = try ChoiceQuestion.read(bytes, path: name, engine, kvType: compute.kvType)
        let scorer = ContinuationScorer(engine: engine, kvType: compute.kvType, sharesPrefixes: sharing)
        Interrupt.install(secondEndsProcess: true)
        var bar = ProgressBar("loglikelihood")
        var tally = ChoiceTally()
        let begin = monotonicTime()
        for first in stride(from: 0, to: questions.count, by: Self.linesTogether) {
            let part = questions[first..<min(first + Self.linesTogether, questions.count)]
            var scores = try scorer.scores(
                of: part.flatMap(\.requests), isCancelled: { Interrupt.isRequested },
                progress: { bar.update((Double(first) + $0 * Double(part.count)) / Double(questions.count)) })[...]
            for question in part {
                let result = ChoiceResult(question, Array(scores.prefix(question.requests.count)))
                scores = scores.dropFirst(question.requests.count)
                tally.add(result)
                if json { try StandardOutput.writeJSON(result.json + "\n") }
            }
            if json { try StandardOutput.flush() }
        }
        bar.finish()
        let seconds = monotonicTime() - begin
        if !json { try StandardOutput.write(tally.table(scorer, seconds: seconds)) }
    }
}

/// A context with its choices, as a line of the file has them.
struct ChoiceQuestion {
    /// As JSON.
    var id: String?
    var requests: [ContinuationScorer.Request]
    /// [choices]: characters of each text, tokens of what was given as tokens.
    var lengths: [Int]
    var answer: Int?

    /// The file's questions.
    ///
    /// - Throws: `SigmaError(.damaged)` with the byte offset of a line that is no question, or has none; `.usage` for one that the context has no
    ///   room for.
    static func read(_ bytes: [UInt8], path: String, _ engine: Engine, kvType: KVType) throws -> [ChoiceQuestion] {
        var questions: [ChoiceQuestion] = []
        try JSONLinesInput.forEach(of: bytes, path: path) { line in
            questions.append(try ChoiceQuestion(line, engine, kvType: kvType))
        }
        guard !questions.isEmpty else {
            throw SigmaError(.damaged, "expected objects with context and choices, found none", path: path)
        }
        return questions
    }

    private init(_ line: ArraySlice<UInt8>, _ engine: Engine, kvType: KVType) throws {
        let object = try line.withUnsafeBytes { try JSONValue.parse($0) }
        guard let context = object["context"], let choices = object["choices"]?.array, !choices.isEmpty else {
            throw SigmaError(.damaged, "expected an object with context and choices")
        }
        id = object["id"]?.text
        if let given = object["answer"], !given.isNull {
            guard let index = given.integer, choices.indices.contains(Int(clamping: index)) else {
                throw SigmaError(
                    .damaged, "expected the index of a choice, from 0 to \(choices.count - 1), found \(given.text)",
                    item: "answer")
            }
            answer = Int(index)
        }
        requests = []
        lengths = []
        for (index, choice) in choices.enumerated() {
            let item = "choices[\(index)]"
            let pair = try ContextAndChoice(context, choice, item: item, engine)
            let limit = engine.positionLimit(kvType: kvType)
            guard pair.request.tokens.count <= limit else {
                throw SigmaError(
                    .usage,
                    "context and choice have \(pair.request.tokens.count) tokens, and a sequence can have \(limit)",
                    item: item, remedy: .anyOf([.raise(.contextLength, least: nil), "Shorten the context."]))
            }
            requests.append(pair.request)
            lengths.append(pair.length)
        }
    }
}

/// A context and one of its choices, as tokens.
private struct ContextAndChoice {
    var request: ContinuationScorer.Request
    var length: Int

    init(_ context: JSONValue, _ choice: JSONValue, item: String, _ engine: Engine) throws {
        if let context = context.string, let choice = choice.string {
            self = try Self(text: context, choice, engine)
        } else {
            let choice = try Self.ids(choice, item: item, engine)
            let context = try Self.ids(context, item: "context", engine)
            let start = try context.isEmpty ? [Self.prefixToken(engine)] : context
            request = .init(tokens: start + choice, contextCount: start.count)
            length = choice.count
        }
    }

    /// As lm-eval cuts texts (`_encode_pair`).
    private init(text context: String, _ choice: String, _ engine: Engine) throws {
        guard let tokenizer = engine.tokenizer else { throw engine.missingTokenizer }
        let bos = tokenizer.addsBos ? tokenizer.bos.map { [$0] } ?? [] : []
        func encode(_ text: String) -> [Int32] { bos + tokenizer.encode(text, recognizingSpecials: true) }
        var kept = context.unicodeScalars[...]
        while kept.last?.properties.isWhitespace == true { kept.removeLast() }
        let start = encode(String(kept))
        // What follows the context's tokens, even where the whole text has others in their place.
        let more = encode(context + choice).dropFirst(start.count)
        let prefix = try start.isEmpty ? [Self.prefixToken(engine)] : start
        request = .init(tokens: prefix + more, contextCount: prefix.count)
        length = choice.count
    }

    /// The tokens used for an empty context.
    private static func prefixToken(_ engine: Engine) throws -> Int32 {
        guard let tokenizer = engine.tokenizer, let id = tokenizer.bos ?? tokenizer.eos else {
            throw SigmaError(.damaged, "the context is empty, and the tokenizer has no token that begins a text")
        }
        return id
    }

    private static func ids(_ value: JSONValue, item: String, _ engine: Engine) throws -> [Int32] {
        guard let items = value.array else {
            throw SigmaError(
                .damaged,
                "expected context and choices that are all texts or all arrays of token ids, found \(value.kind)",
                item: item)
        }
        return try items.map { id in
            guard let id = id.integer, id >= 0, id < engine.vocabularySize else {
                throw SigmaError(
                    .damaged, "expected token ids from 0 to \(engine.vocabularySize - 1), found \(id.text)", item: item)
            }
            return Int32(id)
        }
    }
}

/// A question's scores.
struct ChoiceResult {
    let question: ChoiceQuestion
    let scores: [ContinuationScorer.Score]

    init(_ question: ChoiceQuestion, _ scores: [ContinuationScorer.Score]) {
        self.question = question
        self.scores = scores
    }

    /// The likeliest choice, ties to the first.
    var best: Int { Self.largest(scores.map(\.sum)) }
    /// The likeliest for its length.
    var bestNormed: Int { Self.largest(zip(scores, question.lengths).map { $0.sum / Double(max(1, $1)) }) }

    private static func largest(_ values: [Double]) -> Int {
        values.indices.dropFirst().reduce(0) { values[$1] > values[$0] ? $1 : $0 }
    }

    var json: String {
        var json = JSONWriter()
        json.object {
            if let id = question.id {
                $0.key("id")
                $0.json(id)
            }
            $0.field("best", best)
            $0.field("best_normed", bestNormed)
            $0.array("choices") { json in
                for score in scores {
                    json.object {
                        $0.field("logprob", score.sum)
                        $0.field("greedy", score.isGreedy)
                        $0.field("tokens", score.logProbabilities.count)
                        $0.array("token_logprobs") { json in score.logProbabilities.forEach { json.value($0) } }
                    }
                }
            }
        }
        return json.text
    }
}

/// How many answers are right.
struct ChoiceTally {
    private var questions = 0
    private var answered = 0
    private var right = 0
    private var rightNormed = 0

    mutating func add(_ result: ChoiceResult) {
        questions += 1
        guard let answer = result.question.answer else { return }
        answered += 1
        if result.best == answer { right += 1 }
        if result.bestNormed == answer { rightNormed += 1 }
    }

    func table(_ scorer: ContinuationScorer, seconds: Double) -> String {
        var rows: [TextTableRow] = [("questions", "\(questions)", "")]
        if answered > 0 {
            rows.append(("right", share(right), "the likeliest choice; standard error \(error(right))"))
            rows.append(
                ("right_normed", share(rightNormed), "for its characters; standard error \(error(rightNormed))"))
        }
        let shared = scorer.requestedRows - scorer.computedRows
        rows.append(("tokens", "\(scorer.requestedRows)", "\(shared) of them computed for another request"))
        rows.append(("seconds", JSONWriter.fixed(seconds, decimals: 2), ""))
        return textTable(rows)
    }

    private func share(_ count: Int) -> String { percent(Double(count) / Double(answered)) }
    private func error(_ count: Int) -> String {
        let share = Double(count) / Double(answered)
        return answered > 1 ? percent((share * (1 - share) / Double(answered - 1)).squareRoot()) : "unknown"
    }
    private func percent(_ value: Double) -> String { JSONWriter.fixed(value * 100, decimals: 1) + " %" }
}
