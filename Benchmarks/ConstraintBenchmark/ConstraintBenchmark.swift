import SigmaBase
import SigmaGrammar
import SystemLibrary

/// Compiles every schema of a file, replays its instances token by token with a mask before each token, and prints what
/// was accepted and how long it took.
///
///     constraint-benchmark VOCABULARY.tiktoken CASES.jsonl [REPORT.jsonl]
///     constraint-benchmark --sample COUNT SEED VOCABULARY.tiktoken CASES.jsonl ANSWERS.jsonl
///
/// The second form writes COUNT answers of random tokens for each schema, for `constraints/validate.py`.
///
/// A line of CASES: `name`, `schema`, and `tests`: `valid`, `text`, and `tokens`
/// (ids; without them the text is cut greedily into the longest tokens). A line of REPORT: `name`, `compiled`, `error`,
/// `accepted`, `right`, `compile_us`, `read_bytes` (of each instance, before a token was refused), `mask_us`.
@main
struct ConstraintBenchmark {
    static func main() throws {
        let arguments = CommandLine.arguments
        if arguments.count == 7, arguments[1] == "--sample", let count = Int(arguments[2]),
            let seed = UInt64(arguments[3])
        {
            return try sample(count, seed, vocabulary: arguments[4], cases: arguments[5], answers: arguments[6])
        }
        guard arguments.count == 3 || arguments.count == 4 else {
            print("usage: constraint-benchmark VOCABULARY.tiktoken CASES.jsonl [REPORT.jsonl]")
            exit(64)
        }
        let tokens = try readTokens(file: arguments[1])
        let began = threadTime()
        let vocabulary = Vocabulary(tokens: tokens)
        print("vocabulary: \(vocabulary.count) tokens, prepared in \(milliseconds(threadTime() - began)) ms")
        let cutter = TokenCutter(tokens: tokens)
        var tally = Tally()
        var report = ""
        for line in try lines(file: arguments[2]) {
            let json = try JSONValue.parse(line, exactNumbers: true)
            report += run(json, vocabulary: vocabulary, tokens: tokens, cutter: cutter, tally: &tally) + "\n"
        }
        if arguments.count == 4 { try write(report, to: arguments[3]) }
        tally.printSummary()
    }

    static func sample(_ count: Int, _ seed: UInt64, vocabulary: String, cases: String, answers: String) throws {
        let tokens = try readTokens(file: vocabulary)
        let vocabulary = Vocabulary(tokens: tokens)
        var sampling = Sampling(random: SplitMix64(state: seed), tokens: tokens)
        var text = ""
        for line in try lines(file: cases) {
            let json = try JSONValue.parse(line, exactNumbers: true)
            let schema = json["schema"].map { jsonText($0) } ?? ""
            guard let compiled = try? CompiledConstraint(.jsonSchema(schema), vocabulary: vocabulary) else { continue }
            text += sampling.run(name: json["name"]?.string ?? "", compiled, answers: count)
        }
        try write(text, to: answers)
    }

    static func run(
        _ json: JSONValue, vocabulary: Vocabulary, tokens: [[UInt8]?], cutter: TokenCutter, tally: inout Tally
    ) -> String {
        let name = json["name"]?.string ?? ""
        let schema = json["schema"].map { jsonText($0) } ?? ""
        var out = JSONWriter()
        let began = threadTime()
        var compiled: CompiledConstraint?
        var failure: ConstraintError?
        do { compiled = try CompiledConstraint(.jsonSchema(schema), vocabulary: vocabulary) } catch { failure = error }
        let compileTime = threadTime() - began
        var accepted: [Bool] = []
        var lengths: [Int] = []
        var times: [Double] = []
        var isRight = compiled != nil
        var wronglyAccepted = false
        if let compiled {
            for test in json["tests"]?.array ?? [] {
                let isValid = test["valid"]?.bool ?? false
                let ids =
                    test["tokens"]?.array?.compactMap { $0.integer.map(Int.init) }
                    ?? cutter.cut(Array((test["text"]?.string ?? "").utf8))
                let (result, length) = replay(ids, compiled, tokens, &times)
                accepted.append(result)
                lengths.append(length)
                if result != isValid { isRight = false }
                if result && !isValid { wronglyAccepted = true }
            }
        }
        tally.add(
            name: name, failure: failure, isRight: isRight, wronglyAccepted: wronglyAccepted, compile: compileTime,
            masks: times)
        out.object { object in
            object.field("name", name)
            object.field("compiled", compiled != nil)
            if let failure { object.field("error", "\(failure)") }
            object.field("right", isRight)
            object.field("compile_us", compileTime * 1e6, decimals: 1)
            object.array("accepted") { list in for value in accepted { list.value(value) } }
            object.array("read_bytes") { list in for value in lengths { list.value(value) } }
            object.array("mask_us") { list in for time in times { list.value(time * 1e6, decimals: 1) } }
        }
        return out.text
    }

    static func replay(
        _ ids: [Int], _ compiled: CompiledConstraint, _ tokens: [[UInt8]?], _ times: inout [Double]
    ) -> (accepted: Bool, length: Int) {
        var state = compiled.begin()
        var words = [UInt64](repeating: 0, count: compiled.vocabulary.wordCount)
        for id in ids {
            let began = threadTime()
            words.withUnsafeMutableBufferPointer { state.mask(into: $0) }
            times.append(threadTime() - began)
            let isAllowed = words[id >> 6] >> UInt64(id & 63) & 1 == 1
            let follows = state.advance(tokens[id] ?? [])
            precondition(isAllowed == follows, "mask and automaton differ")
            if !isAllowed { return (false, state.text.count) }
        }
        return (state.allowsEnd, state.text.count)
    }

    static func threadTime() -> Double {
        var time = timespec()
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
        return Double(time.tv_sec) + Double(time.tv_nsec) * 1e-9
    }

    static func milliseconds(_ seconds: Double) -> String { JSONWriter.fixed(seconds * 1e3, decimals: 1) }
}
