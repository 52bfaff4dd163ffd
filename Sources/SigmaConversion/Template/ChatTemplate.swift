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
    /// The system turn of a conversation without a system prompt; empty: there is none.
    package private(set) var defaultSystem = ""
    /// What it puts before a system prompt.
    package private(set) var systemPrefix = ""
    /// Whether it drops white space around messages.
    package private(set) var trimsMessages = false
    /// The date that it writes, as `strftime` reads it; empty: it writes none.
    package private(set) var date = ""
    /// What a prompt has in the place of thinking where it asks for none; nil: an empty thought, or nothing.
    package private(set) var closedThinking: String?
    /// How it writes functions; as Qwen's do where it knows none, or in a way that is not known.
    package internal(set) var tools = ToolFormat.usual(.taggedJSON)
    /// What it does that prompts here don't.
    package internal(set) var differences: [String] = []
    /// Why it cannot be evaluated.
    package private(set) var obstacle: String?
    /// The markup that it names, whatever it does with it.
    package private(set) var mentionedStyle: ChatFormat.Style?

    /// What it settles of a chat format; nil where its markup is not known.
    package var format: ChatFormat? {
        guard let style else { return nil }
        var format = ChatFormat(
            style: style, thinks: thinks, opensThinking: opensThinking ?? false, thinkingPrompt: "", closingPhrase: "",
            stopTokens: [])
        format.defaultSystem = defaultSystem
        format.systemPrefix = systemPrefix
        format.trimsMessages = trimsMessages
        format.date = date
        format.closedThinking = closedThinking
        format.tools = tools
        return format
    }

    private static let sizeLimit = 1 << 18
    static let question = "Question of the sample"

    /// - Parameter bos: the text that templates know as `bos_token`.
    package init(_ text: String, bos: String) {
        thinks = text.contains("<think>")
        mentionedStyle = [.chatml, .sigma, .llama3, .deepseek].first { text.contains($0.turnStart(.user)[0].written) }
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
        let rendering = Rendering(nodes: nodes, bos: bos)
        func render(_ turns: [SampleTurn], thinks: Bool) throws -> String {
            try rendering.text(turns.map { Rendering.message($0.role, $0.text) }, thinks: thinks, date: .place)
        }
        let thinking = try render([("user", Self.question)], thinks: true)
        guard let style = ChatFormat.Style.allCases.first(where: { thinking.contains($0.turn("user", Self.question)) })
        else { return }
        self.style = style
        let opening = Self.opening(of: thinking, style)
        let trimmed = opening.parts(separatedBy: "\n").joined()
        opensThinking = trimmed == "<think>"
        if !trimmed.isEmpty, trimmed != "<think>" {
            differences.append("it begins answers with '\(opening.prefix(80))', which is not written here")
        } else if opensThinking == true, opening != "<think>" + style.thinkingGap {
            differences.append("it writes other line ends around <think> than prompts here")
        }
        let off = Self.opening(of: try render([("user", Self.question)], thinks: false), style)
        if style != .sigma, off != opening, off != "<think>\n\n</think>\n\n", off.hasPrefix("<think>"),
            off.parts(separatedBy: "</think>").count == 2
        {
            closedThinking = off
        }
        try examineDate(rendering)
        thinks = thinks || opening.contains("<think>") || off.contains("<think>")
        trimsMessages = try render([("user", " \(Self.question) ")], thinks: true).contains(
            style.turn("user", Self.question))

        func beginning(_ prompt: String) -> String {
            String(prompt[..<prompt.range(of: style.turn("user", Self.question))!.lowerBound])
        }
        // What begins every conversation, whatever is in it.
        var preamble = ""
        let before = beginning(thinking)
        if let text = style.systemText(before) {
            defaultSystem = text
        } else {
            preamble = before
            if !before.allSatisfy(\.isWhitespace) {
                differences.append("it begins conversations with '\(before.prefix(80))', which is not written here")
            }
        }
        let instructions = "Instructions of the sample"
        let instructed: String
        do { instructed = try render([("system", instructions), ("user", Self.question)], thinks: true) } catch {
            differences.append("it does not take a system prompt")
            return
        }
        guard instructed.contains(style.turn("user", Self.question)), instructed.hasPrefix(preamble),
            let text = style.systemText(String(beginning(instructed).dropFirst(preamble.count))),
            text.hasSuffix(instructions)
        else {
            differences.append("it writes a turn of the system's otherwise")
            return
        }
        systemPrefix = String(text.dropLast(instructions.count))
        // Sigma's prompts have the paper's words, whatever a template says.
        if style != .sigma, differences.isEmpty {
            try compare(style, switchesThinking: off != opening, rendering)
            if differences.isEmpty { try examineTools(rendering) }
        }
    }

    /// Which date it writes: today's in some form, or always the same, unless it is told another.
    private mutating func examineDate(_ rendering: Rendering) throws {
        let question = [Rendering.message("user", Self.question)]
        let plain = try rendering.text(question, date: .sample)
        let placed = try rendering.text(question, date: .place)
        guard plain != placed else { return }
        let parts = placed.parts(separatedBy: ChatFormat.datePlace)
        // Marks show themselves where they are not replaced.
        let marked = try rendering.text(question, date: .marks)
        guard parts.count == 2, plain.hasPrefix(parts[0]), plain.hasSuffix(parts[1]), marked.hasPrefix(parts[0]),
            marked.hasSuffix(parts[1]), plain.count >= parts[0].count + parts[1].count
        else {
            differences.append("it writes dates in a way that is not known")
            return
        }
        func middle(_ text: String) -> String { String(text.dropFirst(parts[0].count).dropLast(parts[1].count)) }
        date = marked == plain ? middle(plain).replacing("%", with: "%%") : middle(marked)
    }

    /// The format for sample conversations, which are all held on one day.
    func format(on day: CalendarDate) -> ChatFormat? {
        var format = format
        if let marks = format?.date, let text = day.text(marks) { format?.date = text.replacing("%", with: "%%") }
        return format
    }

    /// Writes sample conversations as prompts here do, and notes the first that the template writes otherwise.
    private mutating func compare(
        _ style: ChatFormat.Style, switchesThinking: Bool, _ rendering: Rendering
    ) throws {
        guard let format = format(on: Rendering.sampleDay) else { return }
        let tokenizer = try Self.tokenizer(of: style)
        for turns in Self.samples {
            for isThinking in switchesThinking ? [true, false] : [true] {
                let system = turns.first?.role == "system" ? turns[0].text : ""
                let others = turns.drop { $0.role == "system" }
                let prompt = try Prompt(
                    turns: others.map { Turn(Turn.Role(rawValue: $0.role)!, $0.text) }, system: system,
                    thinks: isThinking, format: format, tokenizer: tokenizer)
                let ours = String(decoding: tokenizer.decode(prompt.tokens, specials: .named), as: UTF8.self)
                let theirs = try rendering.text(
                    turns.map { Rendering.message($0.role, $0.text) }, thinks: isThinking, date: .sample)
                guard let difference = Self.difference(ours, theirs) else { continue }
                differences.append(difference)
                return
            }
        }
    }

    /// The bytes and the markup's own tokens.
    static func tokenizer(of style: ChatFormat.Style) throws -> Tokenizer {
        let bytes = (0..<256).map { [UInt8($0)] }
        let specials = style.controlTokens.map { Array($0.utf8) }
        return try Tokenizer(
            TokenizerDefinition(
                tokens: TokenTable(bytes + specials),
                kinds: Array(repeating: .normal, count: bytes.count) + specials.map { _ in .control },
                mergeRule: .byRank, pattern: .gpt2, normalizer: .none, bos: nil, eos: nil, addsBos: false))
    }

    /// Where two prompts begin to differ; nil: they are the same.
    static func difference(_ ours: String, _ theirs: String) -> String? {
        guard ours != theirs else { return nil }
        let common = zip(ours.unicodeScalars, theirs.unicodeScalars).prefix { $0 == $1 }.count
        func rest(_ text: String) -> String { String(String(text.unicodeScalars.dropFirst(common)).prefix(40)) }
        let place = String(String(theirs.unicodeScalars.prefix(common)).suffix(24))
        return "behind '\(place)' it writes '\(rest(theirs))', and prompts here '\(rest(ours))'"
    }

    /// Conversations whose prompts are compared. Line ends and spaces show what is trimmed.
    private static let samples: [[SampleTurn]] = [
        [("user", "U")], [("system", "S"), ("user", "U")], [("user", " U\n")],
        [("user", "U"), ("assistant", "A"), ("user", "V")],
        [
            ("system", " S"), ("user", "U\n\nU"), ("assistant", "A"), ("user", "V"), ("assistant", "B\nB"),
            ("user", "W"),
        ],
    ]

    /// The prompt that a template makes of a conversation. Its variables are those that Hugging Face's renderer gives it.
    ///
    /// - Throws: an error that says why it cannot be evaluated.
    package static func render(
        _ template: String, _ turns: [SampleTurn], bos: String = "", thinks: Bool? = nil
    ) throws -> String {
        try Rendering(nodes: TemplateParser.nodes(template), bos: bos).whole(
            turns.map { Rendering.message($0.role, $0.text) }, thinks: thinks, date: .sample)
    }

    /// What a prompt ends with, after the assistant's header.
    private static func opening(of prompt: String, _ style: ChatFormat.Style) -> String {
        let parts = prompt.parts(separatedBy: style.turnStart(.assistant).written)
        return parts.count > 1 ? parts.last! : ""
    }
}

/// A template, and what it makes of conversations.
struct Rendering {
    /// What it has for a date.
    enum Date {
        /// A certain day.
        case sample
        /// `ChatFormat.datePlace` in its place, whether it looks at the clock or is told.
        case place
        /// What it asks the clock for.
        case marks
    }

    let nodes: [TemplateNode]
    let bos: String

    static let sampleDay = CalendarDate(year: 2031, month: 2, day: 3)

    static func message(_ role: String, _ text: String) -> TemplateValue {
        .map([("role", .string(role)), ("content", .string(text))])
    }

    /// The prompt without its bos, which is the tokenizer's matter here; but some vocabularies call the markup's own token so.
    func text(
        _ messages: [TemplateValue], tools: [ToolDescription] = [], thinks: Bool? = true, date: Date
    ) throws -> String {
        let text = try whole(messages, tools: tools, thinks: thinks, date: date)
        let isMarkup = ChatFormat.Style.allCases.contains { $0.controlTokens.contains(bos) }
        guard !bos.isEmpty, !isMarkup, text.utf8.starts(with: bos.utf8) else { return text }
        return String(Substring(text.utf8.dropFirst(bos.utf8.count)))
    }

    func whole(
        _ messages: [TemplateValue], tools: [ToolDescription] = [], thinks: Bool?, date: Date
    ) throws -> String {
        var variables: [String: TemplateValue] = [
            "messages": .list(messages), "add_generation_prompt": .bool(true), "bos_token": .string(bos),
            "eos_token": .string(""), "tools": tools.isEmpty ? .none : .list(tools.map { TemplateValue($0.json) }),
            "documents": .none,
        ]
        // Families call the switch differently.
        for name in ["enable_thinking", "thinking"] { variables[name] = thinks.map { .bool($0) } }
        if date == .place { variables["date_string"] = .string(ChatFormat.datePlace) }
        return try TemplateRenderer.render(nodes, variables) { marks in
            switch date {
            case .sample: Self.sampleDay.text(marks)
            case .place: ChatFormat.datePlace
            case .marks: Self.sampleDay.text(marks) == nil ? nil : marks
            }
        }
    }
}

extension ChatFormat.Style {
    /// A turn without the white space at its end.
    fileprivate func turn(_ role: String, _ text: String) -> String {
        let role = Role(rawValue: role)!
        var whole = turnStart(role).written + text + turnEnd(role).written
        while whole.last?.isWhitespace == true { whole.removeLast() }
        return whole
    }

    /// The text of the system turn that is all of `beginning`; empty where there is nothing, nil where it is anything else.
    fileprivate func systemText(_ beginning: String) -> String? {
        if beginning.isEmpty { return "" }
        let (start, end) = (turnStart(.system).written, turnEnd(.system).written)
        guard beginning.hasPrefix(start), beginning.hasSuffix(end), beginning.count >= start.count + end.count
        else { return nil }
        let text = String(beginning.dropFirst(start.count).dropLast(end.count))
        return controlTokens.contains { text.contains($0) } ? nil : text
    }
}

extension StringProtocol {
    func contains(_ part: String) -> Bool { String(self).range(of: part) != nil }
    func parts(separatedBy separator: String) -> [String] { String(self).parts(separatedBy: separator) }
}
