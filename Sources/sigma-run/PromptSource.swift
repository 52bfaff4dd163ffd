import Sigma
import SigmaCommand
import SigmaTerminal

/// The prompt as the user gave it, checked and read, before there is a model.
enum PromptSource {
    case turn(String, system: String)
    case raw(String)
    case tokens([Int32])

    /// - Throws: `SigmaError`: `.usage` for none or several prompts, `.noInput` and `.damaged` as `InputFile.text`.
    /// - Parameter limit: of a prompt or system prompt that is read from a file.
    init(_ arguments: PromptArguments, limit: InputFile.Limit = Self.anyContext) throws {
        let given = arguments.given
        guard given.count <= 1 else {
            throw usageError(
                "expected one prompt, found \(given.joined(separator: " and "))", remedy: "Give one of them.")
        }
        guard !given.isEmpty else {
            throw usageError(
                "there is no prompt",
                remedy:
                    "Give one: sigma-run --prompt TEXT, sigma-run FILE, or sigma-run - for standard input. \(Self.whereChatOpens)"
            )
        }
        let hasTemplate = !arguments.raw && arguments.tokens == nil
        guard hasTemplate || (arguments.system == nil && arguments.systemFile == nil) else {
            throw usageError(
                "a system prompt needs the chat template, which \(arguments.raw ? "--raw" : "--tokens") leaves out",
                remedy: "Write it into the prompt with the model's own markup.")
        }
        guard arguments.promptFile != "-" || arguments.systemFile != "-" else {
            throw usageError("the prompt and the system prompt cannot both come from standard input")
        }
        if let list = arguments.tokens {
            self = .tokens(try Self.ids(list))
            return
        }
        var text = try arguments.prompt ?? InputFile.text(of: arguments.promptFile!, limit: limit)
        if arguments.raw {
            self = .raw(text)
            return
        }
        if arguments.prompt == nil { Self.removeFileMarks(&text) }
        guard !text.isEmpty else { throw usageError("the prompt is empty") }
        self = .turn(text, system: try Self.system(arguments, limit: limit))
    }

    /// The system prompt; empty if there is none.
    /// - Throws: as `init`.
    static func system(_ arguments: PromptArguments, limit: InputFile.Limit = Self.anyContext) throws -> String {
        guard arguments.system == nil || arguments.systemFile == nil else {
            throw usageError(
                "expected one system prompt, found --system and --system-file", remedy: "Give one of them.")
        }
        guard let file = arguments.systemFile else { return arguments.system ?? "" }
        var system = try InputFile.text(of: file, limit: limit)
        removeFileMarks(&system)
        return system
    }

    /// A chat needs no prompt.
    private static var whereChatOpens: String {
        TerminalDevice.obstacle.map { "There is no chat here: \($0)." }
            ?? "On a terminal, sigma-run alone opens a chat."
    }

    // MARK: - Limits

    /// More than any context takes.
    static var anyContext: InputFile.Limit { InputFile.Limit("any context has room for") { 1 << 26 } }

    /// What fits the model's context: every token its longest.
    static func limit(_ compute: ComputeOptions) -> InputFile.Limit {
        let context = compute.context
        let model = compute.model
        return InputFile.Limit("the model's context has room for") {
            let file = try ModelFile(path: model.path)
            let tokens = context ?? file.configuration.contextLength
            let table = try file.tokenizerDefinition()?.tokens
            let longest = table.map { table in (0..<table.count).reduce(1) { max($0, table[$1].count) } } ?? 16
            // Normalization can make one byte of three.
            let (bytes, overflows) = tokens.multipliedReportingOverflow(by: 3 * longest)
            return overflows ? 1 << 31 : min(bytes, 1 << 31)
        }
    }

    /// The ids, and where the text after them begins.
    /// - Throws: `SigmaError` (`.damaged`) for a model file without what the text needs.
    func prompt(for engine: Engine, thinks: Bool) throws -> Prompt {
        switch self {
        case .turn(let text, let system):
            try engine.prompt(turns: [Turn(.user, text)], system: system, thinks: thinks)
        case .raw(let text): try engine.rawPrompt(text)
        case .tokens(let ids): Prompt(tokens: ids, start: .answer)
        }
    }

    var hasTemplate: Bool {
        if case .turn = self { return true }
        return false
    }

    /// What editors and `echo` add to a file, and is not meant as part of a message: a byte-order mark, and one line end.
    private static func removeFileMarks(_ text: inout String) {
        if text.unicodeScalars.first == "\u{feff}" { text.unicodeScalars.removeFirst() }
        if text.unicodeScalars.last == "\n" {
            text.unicodeScalars.removeLast()
            if text.unicodeScalars.last == "\r" { text.unicodeScalars.removeLast() }
        }
    }

    /// `1,2,3`, spaces allowed, also between square brackets as `sigma-eval tokenize` writes it.
    private static func ids(_ list: String) throws -> [Int32] {
        func trimmed(_ text: Substring) -> Substring {
            var text = text
            while let first = text.first, first.isWhitespace { text.removeFirst() }
            while let last = text.last, last.isWhitespace { text.removeLast() }
            return text
        }
        var rest = trimmed(list[...])
        if rest.hasPrefix("["), rest.hasSuffix("]") { rest = trimmed(rest.dropFirst().dropLast()) }
        guard !rest.isEmpty else { throw usageError("--tokens: there are no ids") }
        return try rest.split(separator: ",", omittingEmptySubsequences: false).map { item in
            guard let id = Int32(trimmed(item)), id >= 0 else {
                throw usageError(
                    "--tokens: expected a token id, found '\(trimmed(item))'", remedy: "Write ids as 1,2,3.")
            }
            return id
        }
    }
}
