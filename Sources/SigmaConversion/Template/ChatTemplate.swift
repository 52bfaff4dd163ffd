import Sigma

/// What a model's chat template does, seen by what it makes of sample conversations: it is evaluated when a model is converted, and never again.
package struct ChatTemplate {
    package typealias SampleTurn = (role: String, text: String)

    /// The markup of turns that the template writes; nil where it is another one, or the template cannot be evaluated.
    package private(set) var style: ChatFormat.Style?
    /// Whether a prompt that asks for thinking ends inside `<think>`; nil where that is not known.
    package private(set) var opensThinking: Bool?
    /// Whether it knows thinking at all.
    package private(set) var thinks = false
    /// What it does that prompts here don't.
    package private(set) var differences: [String] = []
    /// Why it cannot be evaluated.
    package private(set) var obstacle: String?
    /// The markup that it names, whatever it does with it.
    package private(set) var mentionedStyle: ChatFormat.Style?

    private static let sizeLimit = 1 << 18
    private static let question = "Question of the sample"

    /// - Parameter bos: the text that templates know as `bos_token`.
    package init(_ text: String, bos: String) {
        thinks = text.contains("<think>")
        if text.contains("<|im_start|>") {
            mentionedStyle = .chatml
        } else if text.contains("<|user|>") {
            mentionedStyle = .sigma
        }
        guard text.utf8.count <= Self.sizeLimit else {
            obstacle = "it has \(text.utf8.count) bytes"
            return
        }
        do {
            try examine(try TemplateParser.nodes(text), bos)
        } catch {
            obstacle = (error as? TemplateError)?.reason ?? "\(error)"
        }
    }

    private mutating func examine(_ nodes: [TemplateNode], _ bos: String) throws {
        func render(_ turns: [SampleTurn], thinks: Bool) throws -> String {
            try Self.render(nodes, turns, bos: bos, thinks: thinks)
        }
        let thinking = try render([("user", Self.question)], thinks: true)
        guard
            let style = ChatFormat.Style.allCases.first(where: {
                thinking.range(of: $0.turn("user", Self.question)) != nil
            })
        else { return }
        self.style = style
        let opening = Self.opening(of: thinking, style)
        let trimmed = opening.parts(separatedBy: "\n").joined()
        opensThinking = trimmed == "<think>"
        if !trimmed.isEmpty, trimmed != "<think>" {
            differences.append("it begins answers with '\(opening.prefix(80))', which is not written here")
        } else if opensThinking == true, opening != style.thinkingOpening {
            differences.append("it writes other line ends around <think> than prompts here")
        }
        let off = Self.opening(of: try render([("user", Self.question)], thinks: false), style)
        thinks = thinks || opening.contains("<think>") || off.contains("<think>")
        let first = thinking.range(of: style.turn("user", Self.question))!.lowerBound
        var before = String(thinking[..<first])
        if !bos.isEmpty, before.utf8.starts(with: bos.utf8) {
            before = String(before.unicodeScalars.dropFirst(bos.unicodeScalars.count))
        }
        if let system = before.range(of: style.turnStart("system")) {
            let text = before[system.upperBound...].parts(separatedBy: style.turnEnd)[0]
            differences.append(
                "it gives conversations without a system prompt this one: '\(text.prefix(160))' (to do so: --system)")
        } else if !before.allSatisfy(\.isWhitespace) {
            differences.append("it begins conversations with '\(before.prefix(80))', which is not written here")
        }
        let turns: [SampleTurn] = [("system", "S"), ("user", "U"), ("assistant", "A"), ("user", Self.question)]
        let whole: String
        do { whole = try render(turns, thinks: true) } catch {
            differences.append("it does not take a system prompt")
            return
        }
        for (role, text) in turns.dropLast() where role != "assistant" {
            if whole.range(of: style.turn(role, text)) == nil {
                differences.append("it writes a turn of the \(role)'s otherwise")
            }
        }
    }

    /// The prompt that a template makes of a conversation. Its variables are those that Hugging Face's renderer gives it.
    ///
    /// - Throws: an error that says why it cannot be evaluated.
    package static func render(
        _ template: String, _ turns: [SampleTurn], bos: String = "", thinks: Bool? = nil
    ) throws -> String { try render(TemplateParser.nodes(template), turns, bos: bos, thinks: thinks) }

    private static func render(
        _ nodes: [TemplateNode], _ turns: [SampleTurn], bos: String, thinks: Bool?
    ) throws -> String {
        let messages = turns.map { turn -> TemplateValue in
            .map([("role", .string(turn.role)), ("content", .string(turn.text))])
        }
        var variables: [String: TemplateValue] = [
            "messages": .list(messages), "add_generation_prompt": .bool(true), "bos_token": .string(bos),
            "eos_token": .string(""), "tools": .none, "documents": .none,
        ]
        // Families call the switch differently.
        for name in ["enable_thinking", "thinking"] { variables[name] = thinks.map { .bool($0) } }
        return try TemplateRenderer.render(nodes, variables)
    }

    /// What a prompt ends with, behind the assistant's header.
    private static func opening(of prompt: String, _ style: ChatFormat.Style) -> String {
        let parts = prompt.parts(separatedBy: style.turnStart("assistant"))
        return parts.count > 1 ? parts.last! : ""
    }
}

extension ChatFormat.Style: CaseIterable {
    package static var allCases: [ChatFormat.Style] { [.chatml, .sigma] }

    fileprivate func turnStart(_ role: String) -> String {
        switch self {
        case .chatml: "<|im_start|>\(role)\n"
        case .sigma: "<|\(role)|>"
        }
    }
    fileprivate var turnEnd: String {
        switch self {
        case .chatml: "<|im_end|>"
        case .sigma: "<|end|>"
        }
    }
    /// What a prompt that opens thinking ends with.
    fileprivate var thinkingOpening: String { self == .chatml ? "<think>\n" : "<think>" }
    fileprivate func turn(_ role: String, _ text: String) -> String { turnStart(role) + text + turnEnd }

    /// The control tokens of the markup.
    var markup: [String] {
        switch self {
        case .sigma: ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
        case .chatml: ["<|im_start|>", "<|im_end|>"]
        }
    }
}

extension StringProtocol {
    fileprivate func contains(_ part: String) -> Bool { String(self).range(of: part) != nil }
    fileprivate func parts(separatedBy separator: String) -> [String] { String(self).parts(separatedBy: separator) }
}
