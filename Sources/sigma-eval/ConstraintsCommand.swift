import ArgumentParser
import Sigma
import SigmaCommand
import SystemLibrary

struct ConstraintsCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "constraints",
        abstract:
            "Checks JSON Schemas as constraints on a model's tokens: which compile, what they accept, and what masks cost.",
        discussion: """
            Each line of the file is an object with name, schema and tests (each with valid and text). Every schema is compiled, and every \
            text is read token by token, as the model's tokenizer cuts it, with a mask before each token. A text is accepted if every \
            token is allowed, and the end after the last one. Times are processor time.

            With --json it writes one object a line: name, compiled, error (JSON Pointer and keyword, if it does not compile), accepted, \
            compile_us, mask_us.
            """)

    @Argument(help: "A file of JSON lines, compressed with gzip or not, or - for standard input.")
    var file: String

    @OptionGroup var model: ModelOption

    @Flag(help: "Write one JSON object a line to standard output.")
    var json = false

    func run() throws {
        Interrupt.install(secondEndsProcess: true)
        let name = InputFile.name(of: file)
        let bytes = try Gzip.unpackedIfPacked(InputFile.bytes(of: file), path: name)
        let walk = try ConstraintWalk(model: model.path)
        var tally = ConstraintTally()
        try JSONLinesInput.forEach(of: bytes, path: name) { line in
            if Interrupt.isRequested { throw CancellationError() }
            let schemaCase = try SchemaCase(line)
            let result = walk.run(schemaCase)
            tally.add(result, schemaCase)
            if json { try StandardOutput.writeJSON(result.json(name: schemaCase.name) + "\n") }
        }
        guard !tally.isEmpty else {
            throw SigmaError(.damaged, "expected objects with name, schema and tests, found none", path: name)
        }
        if !json { try StandardOutput.write(tally.table) }
    }
}

/// A line: a schema, and texts that are instances or not.
struct SchemaCase {
    var name: String
    var schema: String
    var tests: [(text: String, isValid: Bool)]

    /// - Throws: `SigmaError` (`.damaged`).
    init(_ line: ArraySlice<UInt8>) throws {
        let value = try line.withUnsafeBytes { try JSONValue.parse($0, exactNumbers: true) }
        func expected(_ what: String) -> SigmaError { SigmaError(.damaged, "expected \(what)") }
        guard let object = value.object, let schema = object["schema"] else {
            throw expected("an object with name, schema and tests")
        }
        name = object["name"]?.string ?? ""
        self.schema = schema.text
        tests = try (object["tests"]?.array ?? []).map { test in
            guard let text = test["text"]?.string, let isValid = test["valid"]?.bool else {
                throw expected("tests with text and valid")
            }
            return (text, isValid)
        }
    }
}

/// Walks texts through constraints on a model's tokens. Only the model's header is read.
struct ConstraintWalk {
    private let tokenizer: Tokenizer
    private let tokens: AnswerVocabulary

    /// - Throws: `SigmaError`: as `ModelFile`; `.damaged` for a model without tokenizer.
    init(model path: String) throws {
        let file = try ModelFile(path: path)
        guard let definition = try file.tokenizerDefinition() else {
            throw SigmaError(
                .damaged, "the model file has no tokenizer", path: path,
                remedy: "Convert a checkpoint folder that has its tokenizer files.")
        }
        let tokenizer = try Tokenizer(definition)
        self.tokenizer = tokenizer
        let choosable = TokenMask(vocabularySize: file.configuration.vocabularySize) { tokenizer.isAllowed($0) }
        tokens = AnswerVocabulary(
            tokenizer, choosable: choosable,
            stopTokens: Set(file.chatFormat?.stopTokens ?? []).union(tokenizer.eos.map { [$0] } ?? []))
    }

    func run(_ schemaCase: SchemaCase) -> ConstraintResult {
        var result = ConstraintResult()
        let begin = Self.threadTime()
        do {
            let compiled = try CompiledConstraint(.jsonSchema(schemaCase.schema), vocabulary: tokens.vocabulary)
            result.compileTime = Self.threadTime() - begin
            let constraint = TokenConstraint(compiled, tokens)
            result.accepted = schemaCase.tests.map { accepts($0.text, constraint, &result.maskTimes) }
        } catch {
            result.compileTime = Self.threadTime() - begin
            result.error = "\(error)"
        }
        return result
    }

    private func accepts(_ text: String, _ constraint: TokenConstraint, _ times: inout [Double]) -> Bool {
        var guide = AnswerGuide(constraint, start: .answer)
        for id in tokenizer.encode(text, recognizingSpecials: false) {
            let begin = Self.threadTime()
            let mask = guide.mask()
            times.append(Self.threadTime() - begin)
            guard mask.allows(Int(id)) else { return false }
            guide.append(id)
        }
        return guide.allowsEnd
    }

    private static func threadTime() -> Double {
        var time = timespec()
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
        return Double(time.tv_sec) + Double(time.tv_nsec) * 1e-9
    }
}

/// What came of a line. Times in seconds.
struct ConstraintResult {
    /// Why it does not compile.
    var error: String?
    var accepted: [Bool] = []
    var compileTime = 0.0
    var maskTimes: [Double] = []

    func json(name: String) -> String {
        var json = JSONWriter()
        json.object { json in
            json.field("name", name)
            json.field("compiled", error == nil)
            if let error { json.field("error", error) }
            json.array("accepted") { json in for value in accepted { json.value(value) } }
            json.field("compile_us", compileTime * 1e6, decimals: 1)
            json.array("mask_us") { json in for time in maskTimes { json.value(time * 1e6, decimals: 2) } }
        }
        return json.text
    }
}

/// All lines together.
struct ConstraintTally {
    private var lines = 0
    private var compiled = 0
    private var right = 0
    private var acceptsInvalid = 0
    private var compileTimes: [Double] = []
    private var maskTimes: [Double] = []

    var isEmpty: Bool { lines == 0 }

    mutating func add(_ result: ConstraintResult, _ schemaCase: SchemaCase) {
        lines += 1
        compileTimes.append(result.compileTime)
        maskTimes += result.maskTimes
        guard result.error == nil else { return }
        compiled += 1
        let verdicts = zip(result.accepted, schemaCase.tests)
        if verdicts.allSatisfy({ $0 == $1.isValid }) { right += 1 }
        if verdicts.contains(where: { $0 && !$1.isValid }) { acceptsInvalid += 1 }
    }

    var table: String {
        func share(_ count: Int) -> String {
            lines == 0 ? "-" : JSONWriter.fixed(100 * Double(count) / Double(lines), decimals: 1) + " %"
        }
        return textTable([
            ("schemas", "\(lines)", ""), ("compiled", "\(compiled)", share(compiled)),
            ("all texts judged rightly", "\(right)", share(right)),
            ("an invalid text accepted", "\(acceptsInvalid)", share(acceptsInvalid)),
            ("compile, us", Self.distribution(compileTimes), "mean, median, 99 %, most"),
            ("mask, us", Self.distribution(maskTimes), "mean, median, 99 %, most, of \(maskTimes.count)"),
        ])
    }

    private static func distribution(_ times: [Double]) -> String {
        guard !times.isEmpty else { return "-" }
        let sorted = times.sorted()
        let figures = [
            times.reduce(0, +) / Double(times.count), sorted[times.count / 2], sorted[times.count * 99 / 100],
            sorted[times.count - 1],
        ]
        return figures.map { JSONWriter.fixed($0 * 1e6, decimals: 1) }.joined(separator: ", ")
    }
}
